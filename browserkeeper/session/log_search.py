"""Searches a growing log for one line, without reading more than a block of it at a time."""

from __future__ import annotations

import os
import re

BLOCK = 65536
"""Bytes that are read at a time.  A match is found if it is shorter than that."""
BLOCKS = 64
"""Blocks that one call reads at the most, since a program may write faster than this one reads."""


class LogSearch:
    """A search for the first match of ``pattern`` in a file that a program appends to."""

    def __init__(self, path: str, pattern: bytes):
        self._path, self._pattern = path, re.compile(pattern)
        self._position = 0
        self._window = b""
        self._match: re.Match[bytes] | None = None

    def search(self) -> re.Match[bytes] | None:
        """The match, if there is one in what has been written so far.  The same one at each call."""
        for _ in range(BLOCKS):
            if self._match is not None:
                break
            try:
                with open(self._path, "rb", buffering=0) as file:
                    if os.fstat(file.fileno()).st_size < self._position:
                        self._position = 0  # the guard has emptied a log that was too large
                    file.seek(self._position)
                    block = file.read(BLOCK)
            except FileNotFoundError:
                return None
            self._position += len(block)
            self._window = self._window[-BLOCK:] + block
            self._match = self._pattern.search(self._window)
            if len(block) < BLOCK:
                break
        return self._match
