"""The command's log: how large it may grow, what the report quotes of it, and how it is kept.

The log lies in the session's TMPDIR, mostly in memory (tmpfs), and the guard reads no more than a block
of it at a time.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 64 << 20  # bytes that the log may take; docs/operations.md names it
TAIL = 2000  # bytes of it that the report quotes
BLOCK = 65536  # bytes that are copied at a time
LONGEST_PAUSE = 2.0  # seconds between two looks at the log's size
SHORTEST_PAUSE = 0.05


class CommandLog:
    """The file that the command's output is appended to; "" for none.

    ``keep``: the user's file that it is appended to at the end, or "".
    """

    def __init__(self, path: str, keep: str):
        self._path, self._keep = path, keep
        self._dropped = self._times = 0
        self._last = (0.0, 0)  # time of the last look, bytes at that time

    def limit(self, now: float) -> float:
        """Empty a log that has grown beyond LIMIT; seconds until this should be called again.

        The command writes with O_APPEND, so it goes on at the start of the file.  A line there says how
        much is missing.
        """
        if not self._path:
            return float("inf")
        try:
            fd = _open_log(self._path, os.O_WRONLY | os.O_APPEND)
        except OSError:  # not made yet
            return LONGEST_PAUSE
        try:
            size = os.fstat(fd).st_blocks * 512
            if size > LIMIT:
                missing = os.fstat(fd).st_size
                os.ftruncate(fd, 0)
                self._dropped, self._times, size = self._dropped + missing, self._times + 1, 0
                os.write(fd, f"[browserkeeper: {missing} bytes of log were dropped here]\n".encode())
        except OSError:  # no space for the line
            pass
        finally:
            os.close(fd)
        before, was = self._last
        self._last = (now, size)
        growth = max(1.0, (size - was) / max(0.001, now - before))  # bytes a second
        return max(SHORTEST_PAUSE, min(LONGEST_PAUSE, (LIMIT - size) / growth / 2))

    def tail(self) -> str:
        """The last TAIL bytes as text, "" where there is no log."""
        try:
            fd = _open_log(self._path, os.O_RDONLY)
        except OSError:
            return ""
        try:
            start = max(0, os.fstat(fd).st_size - TAIL)
            return os.pread(fd, TAIL, start).decode("utf-8", "replace")
        except OSError:
            return ""
        finally:
            os.close(fd)

    def finish(self, note: Callable[[str], None]) -> None:
        """Append the log to the user's file.  ``note`` is called with each thing that is missing.

        At the end only: of two sessions that write to one file at a time, each would read the other's
        port.
        """
        if self._dropped:
            note(
                f"the command's log grew beyond {LIMIT >> 20} MiB {self._times} times: "
                f"{self._dropped} bytes of it were dropped"
            )
        if not self._keep:
            return
        kept = 0
        try:
            source = _open_log(self._path, os.O_RDONLY)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK
                target = os.open(self._keep, flags, 0o600)
                try:
                    for block in _blocks(source):
                        rest = memoryview(block)
                        while rest:
                            written = os.write(target, rest)
                            kept, rest = kept + written, rest[written:]
                finally:
                    os.close(target)  # may raise as well: EDQUOT, EIO, ENOSPC on NFS
            finally:
                os.close(source)
        except OSError as error:
            what = f"only the first {kept} bytes of the log were" if kept else "the log was not"
            note(f"{what} kept: {error}")


def _open_log(path: str, flags: int) -> int:
    """Raises OSError for what is no regular file: a program of the session may have replaced it."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if os.fstat(fd).st_mode & 0o170000 == 0o100000:
        return fd
    os.close(fd)
    raise OSError(22, "the log is no regular file any more", path)


def _blocks(fd: int) -> Iterator[bytes]:
    """The file's data, without its holes: a program that does not append may leave huge ones."""
    position = 0
    while True:
        try:
            position = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:  # ENXIO: no data beyond this position
            return
        block = os.pread(fd, BLOCK, position)
        if not block:
            return
        yield block
        position += len(block)
