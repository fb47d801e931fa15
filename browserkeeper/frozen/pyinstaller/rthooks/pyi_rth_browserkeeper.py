"""Runs in a frozen program before anything of its own.  In a guard the import does not return."""

import browserkeeper.frozen

browserkeeper.frozen.begin()
