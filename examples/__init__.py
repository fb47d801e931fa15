"""Programs to read and to copy from.  Each one runs from a checkout of the project, without a set-up."""
