"""Downloads that the end of a session cuts off: which partial files are its own, and their removal.

Chromium writes to ``NAME.crdownload`` (in the first milliseconds to a hidden temporary file), and
renames that when all is there.  Firefox writes to ``STEM.SALT.EXTENSION.part`` and keeps an empty file
with the final name meanwhile.  Others may write such files to the same directory: a person's browser,
another session, aria2.  So a file is the session's only if all of this holds:

- A process of the session was seen to have it open for writing (``/proc/PID/fd``).
- It has the name, device and inode that were seen then.
- It was made after the session's start (statx(2), ``stx_btime``).  A kept profile may resume an older
  one.

Every layer may import this module.  Like all of ``guard/``, it imports C modules of the standard library
only, but for ctypes, which it needs only where there is such a file.
"""

from __future__ import annotations

import os
import sys
import time

from .files import SHARED_MEMORY_PREFIXES, ignore_errors
from .procfs import read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

FILE = ".partial-downloads"
"""In the TMPDIR: the suffix and the directory, then DEVICE INODE PATH of each file that was seen, with
NUL between them."""
CLOCK_STEP = 0.05  # seconds by which the times of files may be behind the clock (jiffies)
RECENT = 1.0  # seconds in which the process that has made a file may be unknown, or open it again
SALT = 8  # characters of the random part of the name of Firefox's partial file
NOT_KNOWN = "no process of this session was seen to write it"
OLDER = "it was made before this session"
NO_BIRTH = "its file system does not say when it was made"


class Downloads:
    """The partial files that were seen; with the suffix "" every method does nothing.

    ``directory`` is the one that the user has named, without links in its path, "" if none; files
    elsewhere are found too.
    ``since``: the session's start, in seconds since the epoch.  What was seen is kept in a file in
    ``tmpdir``, for a standby guard or a sweep that finishes the session.
    """

    def __init__(self, directory: str, suffix: str, since: float, tmpdir: str):
        self.directory, self.suffix = directory, suffix
        self.seen: dict[tuple[int, int], str] = {}
        self._since, self._file = since, f"{tmpdir}/{FILE}" if tmpdir and suffix else ""
        self._changed = 0

    def has_changed(self) -> bool:
        """Whether something was made, removed or renamed in the directory since the last call.

        What is RECENT counts at the next call as well.
        """
        if not self.suffix or not self.directory:
            return False
        before, changed = self._changed, changed_at(self.directory)
        self._changed = changed if changed < (time.time() - RECENT) * 1e9 else 0
        return changed != before

    def look(self, pids: Iterable[int]) -> None:
        """Note the partial files that these processes have open for writing now."""
        found = open_partial_files(pids, self.suffix, self.directory) if self.suffix else {}
        if found.items() - self.seen.items():  # new ones, and those that Chromium has renamed
            self.seen.update(found)
            ignore_errors(self.save)  # a full disk

    def may_be_reopened(self) -> bool:
        """Whether a partial file was just made in the directory that no process was seen to write.

        Chromium closes the file when it gives it the name with the suffix, and opens it again.
        """
        if not self.suffix or not self.directory:
            return False
        since = max(self._since, time.time() - RECENT)
        return bool(_unknown_in(self.directory, self.suffix, since, self.seen))

    def bytes_seen(self, elsewhere: str) -> int:
        """The bytes of the seen partial files that exist now, without those in the directory
        ``elsewhere``."""
        total = 0
        for identity, path in self.seen.items():
            if elsewhere and path.startswith(f"{elsewhere}/"):
                continue
            try:
                facts = os.stat(path, follow_symlinks=False)
            except OSError:  # complete, or removed by the browser
                continue
            if (facts.st_dev, facts.st_ino) == identity:
                total += facts.st_size
        return total

    def save(self) -> None:
        """Raises OSError."""
        if self._file and (self.directory or self.seen):
            lines = [f"{device} {inode} {path}" for (device, inode), path in self.seen.items()]
            text = "\0".join([f"{self.suffix} {self.directory}", *lines])
            fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            try:
                os.write(fd, os.fsencode(text))
            finally:
                os.close(fd)

    def load(self) -> None:
        """Take over what another guard of this session has seen."""
        if self._file:
            _, _, seen = read_seen(self._file)
            self.seen.update(seen)

    def finish(self) -> tuple[list[dict[str, Any]], list[str]]:
        """As :func:`finish_partial_files`; call it when no process of the session is left."""
        if not self.suffix:
            return [], []
        return finish_partial_files(self.directory, self.suffix, self.seen, self._since)


def read_seen(file: str) -> tuple[str, str, dict[tuple[int, int], str]]:
    """The directory, the suffix and the partial files that a guard has seen; empty where it saw none."""
    first, *lines = os.fsdecode(read_bytes(file) or b"").split("\0")
    suffix, _, directory = first.partition(" ")
    seen = {}
    for device, inode, path in (line.split(" ", 2) for line in lines if line.count(" ") >= 2):
        if device.isdigit() and inode.isdigit():
            seen[int(device), int(inode)] = path
    return directory, suffix, seen


def open_partial_files(pids: Iterable[int], suffix: str, directory: str) -> dict[tuple[int, int], str]:
    """The partial files that one of these processes has open for writing: paths by (device, inode).

    Those with the suffix anywhere, and Chromium's temporary files in the directory for downloads.  A
    file that is only read is not one: a page may upload it.
    """
    found = {}
    temporary = tuple(f"{directory}/{prefix}" for prefix in SHARED_MEMORY_PREFIXES if directory)
    for pid in pids:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:  # it is gone, or not dumpable: a sandboxed process, which opens no file
            continue
        for name in names:
            link = f"/proc/{pid}/fd/{name}"
            try:
                path = os.readlink(link)
                if not path.endswith(suffix) and not path.startswith(temporary):
                    continue
                facts = os.stat(link)
            except OSError:
                continue
            if facts.st_mode & 0o170000 == 0o100000 and _is_for_writing(pid, name):
                found[facts.st_dev, facts.st_ino] = path
    return found


def _is_for_writing(pid: int, fd: str) -> bool:
    lines = (read_bytes(f"/proc/{pid}/fdinfo/{fd}") or b"").splitlines()
    flags = [int(line.split()[1], 8) for line in lines if line.startswith(b"flags:")]
    return bool(flags) and flags[0] & os.O_ACCMODE != os.O_RDONLY


def finish_partial_files(
    directory: str, suffix: str, seen: dict[tuple[int, int], str], since: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """Remove the partial files that are a session's, and name those in its directory that may be.

    The arguments are as in :class:`Downloads`.  Returns the downloads that were cut off, as in the
    report, and why files of the session could not be removed.  A download that was completed in the
    meantime has another name, and is in neither.
    """
    downloads, problems = [], []
    for identity, path in seen.items():
        place, name = os.path.split(path)
        try:
            opened = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # the directory is gone
            continue
        try:
            facts = os.stat(name, dir_fd=opened, follow_symlinks=False)
            if (facts.st_dev, facts.st_ino) != identity:
                continue
            born = birth_of(name, opened)
            why = NO_BIRTH if born is None else OLDER if born < since - CLOCK_STEP else ""
            placeholder = ""
            if not why and born is not None:
                placeholder = _remove_placeholder(name, opened, born)
                os.unlink(name, dir_fd=opened)
            where = os.path.join(place, placeholder) if placeholder else ""
            downloads.append(_download(path, facts.st_size, why, where))
        except FileNotFoundError:  # completed, or removed by the browser
            continue
        except OSError as error:
            downloads.append(_download(path, facts.st_size, str(error.strerror), ""))
            problems.append(f"partial download not removed: {path}: {error.strerror}")
        finally:
            os.close(opened)
    downloads += _unknown_in(directory, suffix, since, seen)
    return downloads, problems


def _download(path: str, size: int, why: str, placeholder: str) -> dict[str, Any]:
    facts = {"path": path, "bytes": size, "removed": not why, "why": why}
    return {**facts, "placeholder": placeholder}


def _unknown_in(
    directory: str, suffix: str, since: float, known: dict[tuple[int, int], str]
) -> list[dict[str, Any]]:
    """Partial files in the directory that are younger than the session, and not known to be its own.

    Lists the directory only if it has changed since then: it may have very many files.
    """
    if not directory or changed_at(directory) < (since - CLOCK_STEP) * 1e9:
        return []
    unknown = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if not entry.name.endswith(suffix):
                    continue
                facts = entry.stat(follow_symlinks=False)
                is_young = facts.st_mtime >= since - CLOCK_STEP
                if (facts.st_dev, facts.st_ino) not in known and entry.is_file() and is_young:
                    unknown.append(_download(entry.path, facts.st_size, NOT_KNOWN, ""))
    except OSError:  # the directory is gone, or a file is
        pass
    return unknown


def final_name(name: str, suffix: str) -> str:
    """The name of the complete file, from the name of its partial file."""
    stem = name.removesuffix(suffix)
    words = stem.split(".")
    if suffix == ".part" and len(words) > 1:
        salted = [index for index in range(1, len(words)) if len(words[index]) == SALT]
        if salted:
            words.pop(salted[0])
    return ".".join(words)


def _remove_placeholder(part: str, directory: int, born: float) -> str:
    """Remove the empty file that Firefox has made for the final name; its name, "" if there is none.

    Its name is that of the partial file without the salt, and it was made right after that.  An empty
    file that a download has completed has no partial file.
    """
    words = part.split(".")[:-1]
    for index in range(1, len(words)):
        name = ".".join(words[:index] + words[index + 1 :])
        if len(words[index]) != SALT or not name:
            continue
        try:
            facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            continue
        made = birth_of(name, directory)
        is_regular = facts.st_mode & 0o170000 == 0o100000
        if is_regular and not facts.st_size and made is not None and made >= born - CLOCK_STEP:
            os.unlink(name, dir_fd=directory)
            return name
    return ""


def birth_of(name: str, directory: int) -> float | None:
    """When a file was made, in seconds since the epoch; None where that is not known (statx(2))."""
    import ctypes

    buffer = ctypes.create_string_buffer(256)
    try:
        statx = ctypes.CDLL(None).statx
    except (OSError, AttributeError):  # a C library without it
        return None
    at_symlink_nofollow, stx_btime = 0x100, 0x800
    if statx(directory, os.fsencode(name), at_symlink_nofollow, stx_btime, buffer) != 0:
        return None
    raw = buffer.raw

    def number(start: int, end: int) -> int:
        return int.from_bytes(raw[start:end], sys.byteorder)

    if not number(0, 4) & stx_btime:
        return None
    return number(80, 88) + number(88, 92) / 1e9


def changed_at(directory: str) -> int:
    """The modification time in nanoseconds; 0 where it cannot be asked."""
    try:
        return os.stat(directory).st_mtime_ns
    except OSError:
        return 0


__all__ = [
    "FILE",
    "Downloads",
    "birth_of",
    "changed_at",
    "final_name",
    "finish_partial_files",
    "open_partial_files",
    "read_seen",
]
