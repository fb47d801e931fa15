"""The pages that are checked from time to time, and the results."""
