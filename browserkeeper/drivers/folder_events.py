"""The names of files that were removed from a folder, by inotify(7), also of files that existed only
for a moment.

A library such as inotify_simple would be a further requirement for these few lines.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

IN_DELETE = 0x200
HEADER = struct.Struct("iIII")  # wd, mask, cookie, length of the name (inotify(7))


class FolderEvents:
    """A watch on one folder."""

    def __init__(self, fd: int):
        self._fd = fd

    @classmethod
    def open(cls, folder: str) -> FolderEvents | None:
        """Watch a folder.  Returns None if the system has no inotify, or allows no further instance."""
        if sys.platform != "linux":
            return None
        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            return None
        if libc.inotify_add_watch(fd, os.fsencode(folder), IN_DELETE) < 0:
            os.close(fd)
            return None
        return cls(fd)

    def deleted(self, suffix: str) -> list[str]:
        """The names with this suffix that were removed since the last call."""
        names: list[str] = []
        while True:
            try:
                data = os.read(self._fd, 65536)
            except OSError:  # EAGAIN: no more events
                return names
            place = 0
            while place < len(data):
                _, _, _, length = HEADER.unpack_from(data, place)
                place += HEADER.size
                name = os.fsdecode(data[place : place + length].rstrip(b"\0"))
                place += length
                if name.endswith(suffix):
                    names.append(name)

    def close(self) -> None:
        os.close(self._fd)


__all__ = ["FolderEvents"]
