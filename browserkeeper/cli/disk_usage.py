"""How much room files and directories take on the disk."""

from __future__ import annotations

import os


def disk_usage(path: str) -> int:
    """Bytes on disk of a file or of a directory and all below it, without following links; 0 if it
    is gone."""
    try:
        size = os.lstat(path).st_blocks * 512
    except OSError:
        return 0
    for parent, directories, files in os.walk(path):
        for name in (*directories, *files):
            try:
                size += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except OSError:
                continue
    return size
