"""Small files, private directories and their removal, browsers' stray shared memory.

The guard is built on these functions, and every layer above it may import them too.  Like all of
``guard/``, this module imports C modules of the standard library only.
"""

from __future__ import annotations

import os

from .procfs import read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SHARED_MEMORY = "/dev/shm"
SHARED_MEMORY_PREFIXES = (
    ".org.chromium.",
    ".com.google.Chrome.",
    ".com.microsoft.Edge.",
    "org.mozilla.",
)


def write_atomically(path: str, text: str) -> None:
    """Replace a file: readers see the old content or the new one; mode 0600.

    Without fsync: after a crash of the machine no session is left that the file could describe.
    The draft is always a new file: one that exists already may be a link to a file of the user's,
    a pipe that blocks, or a file that another user keeps open.
    """
    draft = f"{path}.{os.getpid()}.tmp"
    discard(draft)  # left by an earlier process with our pid that was killed while it wrote
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            data = text.encode("ascii", "backslashreplace")
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
        os.rename(draft, path)
    except OSError:
        discard(draft)
        raise


def read_status_file(path: str) -> dict[str, str]:
    """The status file that a command may write: lines of ``name text``; {} where there is none.

    The relay of a Selenium Grid writes how its remote session ended, which no local process shows.
    """
    lines = (read_bytes(path) or b"").decode("utf-8", "replace").splitlines()
    return {name: text for name, _, text in (line.partition(" ") for line in lines)}


def discard(path: str) -> None:
    """Delete a file, if it exists and can be deleted."""
    ignore_errors(lambda: os.unlink(path))


def ignore_errors(action: Callable[[], object]) -> None:
    """Call it and ignore an OSError (importing contextlib for ``suppress`` would take 3 ms)."""
    try:
        action()
    except OSError:
        pass


def is_private_directory(path: str) -> bool:
    """True for a directory (no link) that belongs to this user and that only this user can enter."""
    try:
        facts = os.lstat(path)
    except OSError:
        return False
    is_directory = facts.st_mode & 0o170000 == 0o040000
    return is_directory and facts.st_uid == os.geteuid() and not facts.st_mode & 0o077


def remove_tree(top: str) -> tuple[int, int]:
    """Delete a directory of this user's; (files, bytes on disk).  Links are removed, never followed.

    All is done through open directories, so that another process cannot lead the deletion elsewhere
    by putting a link where a directory was.  Subdirectories are moved up to the top before they are
    emptied, so that no depth of them is too deep for the stack, for open files or for a path's length.
    Raises OSError where something cannot be removed even after ``chmod u+rwx``.
    """
    if os.path.islink(top):
        os.unlink(top)
        return 1, 0
    root = _open_directory(top)
    try:
        if os.fstat(root).st_uid != os.geteuid():
            raise PermissionError(1, "another user's directory", top)
        found = _empty(root)
    finally:
        os.close(root)
    os.rmdir(top)
    return found


def _empty(root: int) -> tuple[int, int]:
    # The random part keeps clear of names that the session's programs have chosen.
    unique, moved = os.urandom(4).hex(), 0
    queue, files, size = _clear(root)
    while queue:
        name = queue.pop()
        current = _open_directory(name, root)
        try:
            below, number, freed = _clear(current)
            for directory in below:
                moved += 1
                queue.append(f".{unique}-{moved}")
                _move(directory, current, queue[-1], root)
        finally:
            os.close(current)
        os.rmdir(name, dir_fd=root)
        files, size = files + number, size + freed
    return files, size


def _clear(current: int) -> tuple[list[str], int, int]:
    """Remove everything but directories: (the directories' names, files removed, bytes on disk)."""
    directories = []
    files = size = 0
    for entry in list(os.scandir(current)):
        if entry.is_dir(follow_symlinks=False):
            directories.append(entry.name)
            continue
        try:
            bytes_on_disk = entry.stat(follow_symlinks=False).st_blocks * 512
            os.unlink(entry.name, dir_fd=current)
            size += bytes_on_disk
        except FileNotFoundError:
            pass
        files += 1
    return directories, files, size


def _open_directory(name: str, inside: int | None = None) -> int:
    """Open a directory, never a link's target, and make it readable and writable for this user."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=inside)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=inside)
        fd = os.open(name, flags, dir_fd=inside)
    if os.fstat(fd).st_mode & 0o700 != 0o700:
        ignore_errors(lambda: os.fchmod(fd, 0o700))
    return fd


def _move(name: str, inside: int, target: str, root: int) -> None:
    try:
        os.rename(name, target, src_dir_fd=inside, dst_dir_fd=root)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=inside)  # a move rewrites the directory's own ``..``
        os.rename(name, target, src_dir_fd=inside, dst_dir_fd=root)


def stray_shared_memory(since: float) -> list[str]:
    """Paths of browsers' files in ``/dev/shm`` that no living process uses, made after ``since``.

    Browsers unlink such a file microseconds after they make it, but not when they are killed in
    between.  A file is named here only when it is a regular file, belongs to this user, was modified
    after ``since`` (epoch seconds), and no process that can be seen has it open or mapped.  A
    directory of such a name is a profile: of a browser of another program, whose TMPDIR is there.
    """
    found = {}
    try:
        entries = list(os.scandir(SHARED_MEMORY))
    except OSError:
        return []
    for entry in entries:
        if not entry.name.startswith(SHARED_MEMORY_PREFIXES):
            continue
        try:
            facts = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        is_regular = facts.st_mode & 0o170000 == 0o100000
        if is_regular and facts.st_uid == os.geteuid() and facts.st_mtime >= since - 1:
            found[(facts.st_dev, facts.st_ino)] = entry.path
    used = _files_in_use(found) if found else set()
    return [path for key, path in found.items() if key not in used]


def _files_in_use(files: dict[tuple[int, int], str]) -> set[tuple[int, int]]:
    used: set[tuple[int, int]] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        maps = read_bytes(f"/proc/{pid}/maps") or b""
        used |= {key for key, path in files.items() if path.encode() in maps}
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                facts = os.stat(f"/proc/{pid}/fd/{descriptor}")
            except OSError:
                continue
            used |= {(facts.st_dev, facts.st_ino)} & files.keys()
    return used
