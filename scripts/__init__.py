"""Set-up and test runs: what the Makefile calls.  Not part of the package."""
