"""Programs to read and to copy from.  Each one runs by itself, from a checkout of the project."""
