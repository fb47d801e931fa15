"""The documentation as a user follows it: the blocks of its pages are written to files and run."""
