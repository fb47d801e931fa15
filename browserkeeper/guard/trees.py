"""Removal of a directory tree that never leaves it: not by a link, not by a mount point.

Every layer may import this module.  Like all of ``guard/``, it imports C modules of the standard
library only.
"""

from __future__ import annotations

import errno
import os

from .files import DIRECTORY, PLACE, ignore_errors
from .procfs import mount_of, mount_points

NAMED = 3  # things left that an error names; of the others it says how many they are
LONGEST_PATH = 200  # characters of a path in an error
MOUNT_POINT = "a mount point; unmount it and sweep"
EXCHANGED = "not the directory that was made for the session; look at it yourself"
MOVED = "was moved, or something is mounted over a directory above it; look for it yourself"
OTHER_FILE_SYSTEM = "on another file system; remove it yourself"


class LeftBehind(OSError):
    """Something of a tree was not removed.  The message names it and says why.

    ``files`` and ``size`` count what was removed all the same.
    """

    def __init__(self, left: list[str], files: int, size: int):
        more = [f"and {len(left) - NAMED} more"] if len(left) > NAMED else []
        super().__init__("; ".join([*left[:NAMED], *more]))
        self.left, self.files, self.size = left, files, size


Identity = tuple[int, int]
"""Device and inode of a directory: no other has both while one of its descriptors is open."""


def identity_of(fd: int) -> Identity:
    facts = os.fstat(fd)
    return facts.st_dev, facts.st_ino


def remove_tree(top: str, made: int | None = None) -> tuple[int, int]:
    """Delete a directory of this user's; (files, bytes on disk).  A link is removed, never followed.

    ``made``: a descriptor of the directory that is to be removed.  Another one that was put in its place
    is left.  Where there is none in its place, but it still exists, LeftBehind says so: it was moved, or
    something was mounted over a directory above it.

    What is mounted below ``top``, or on it, is left as it is, bind mounts of the same file system
    included: it is a directory of somewhere else, which is seen here too.  Nothing is unmounted.
    Another user's ``top`` is left as well.  All that can be removed is removed; then LeftBehind is
    raised if something is left.  FileNotFoundError where there is no ``top``.

    All is done through open directories, so that another process cannot lead the deletion elsewhere
    by putting a link where a directory was.  Only a handful are open at any time, and the walk climbs by
    ``..`` without recursion, so that no depth is too deep for open files, the stack or a path's length.
    """
    parent, name = os.path.split(top.rstrip("/"))
    above = -1
    try:
        above = os.open(parent or ".", PLACE & ~os.O_NOFOLLOW)
        removal = _Removal(above, parent, name, made)
        if _is_link(name, above):
            os.unlink(name, dir_fd=above)
            return 1, 0
        removal.run(name, is_last=False)
        for is_last in (False, True):
            if removal.again:
                removal.run(name, is_last=is_last)
    except FileNotFoundError:
        if made is not None and _exists(made):
            raise LeftBehind([f"{top}: {MOVED}"], 0, 0) from None
        raise
    finally:
        if above >= 0:
            os.close(above)
    if removal.left:
        raise LeftBehind(removal.left, removal.files, removal.size)
    return removal.files, removal.size


def _exists(directory: int) -> bool:
    """Whether an open directory has not been removed."""
    try:
        return os.fstat(directory).st_nlink > 0
    except OSError:  # ESTALE: it was removed from a network file system
        return False


def try_to_remove(top: str, made: int | None = None) -> tuple[int, int, str]:
    """:func:`remove_tree` without exceptions: (files, bytes on disk, what is left and why, or "")."""
    try:
        return (*remove_tree(top, made), "")
    except FileNotFoundError:
        return 0, 0, ""
    except LeftBehind as error:
        return error.files, error.size, str(error)
    except OSError as error:
        return 0, 0, str(error)


class _Level:
    """One directory on the way from the top to the current one.

    ``directories``: those in it that were not visited yet.  ``is_kept``: it is known that it cannot be
    removed, because something in it cannot.
    """

    __slots__ = ("directories", "identity", "is_kept", "name")

    def __init__(self, name: str, identity: Identity):
        self.name, self.identity = name, identity
        self.directories: list[str] = []
        self.is_kept = False


class _Removal:
    """``left``: what cannot be removed, and why.  ``again``: a directory was filled meanwhile."""

    def __init__(self, above: int, parent: str, name: str, made: int | None):
        """``above``: the open directory that the tree is in; ``parent``: its path."""
        self._made = None if made is None else identity_of(made)
        self.files = self.size = 0
        self.left: list[str] = []
        self.again = False
        self._above, self._parent = above, parent
        self._mount, self._device = mount_of(above), 0
        self._has_mounts = _has_mounts(os.path.join(os.path.realpath(parent), name))
        self._levels: list[_Level] = []
        self._known: set[str] = set()
        self._is_entered = False

    def run(self, name: str, *, is_last: bool) -> None:
        """One pass: remove what can be removed.  In the last one, a directory that was filled meanwhile
        is counted as left.  Raises FileNotFoundError where the tree does not exist."""
        self.again = False
        self._levels = []
        try:
            current = self._enter(name, self._above)
        except FileNotFoundError:
            if self._is_entered:
                return
            raise
        except OSError as error:
            self._keep(name, error)
            return
        self._is_entered = True
        try:
            while True:
                level = self._levels[-1]
                if level.directories:
                    current = self._down(level, current)
                elif len(self._levels) > 1:
                    current = self._up(current, is_last=is_last)
                else:
                    break
        except OSError as error:  # of a step that the rest of the walk depends on
            self._keep("", error)
            self._levels[0].is_kept = True
        finally:
            os.close(current)
        top, self._levels = self._levels[0], []
        if not top.is_kept:
            self._rmdir(top.name, self._above, is_last=is_last)

    def _down(self, level: _Level, current: int) -> int:
        """Enter the next directory; the directory that is current then.  Closes the other one."""
        name = level.directories.pop()
        try:
            below = self._enter(name, current)
        except FileNotFoundError:
            return current
        except OSError as error:
            self._keep(name, error)
            return current
        os.close(current)
        return below

    def _enter(self, name: str, inside: int) -> int:
        """Make it the last level and remove everything in it but directories; its descriptor.

        Raises OSError as :meth:`_open` does.
        """
        current, identity = self._open(name, inside)
        level = _Level(name, identity)
        self._levels.append(level)
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        level.directories.append(entry.name)
                    else:
                        self._unlink(entry, current)
        except OSError as error:
            self._keep("", error)
        return current

    def _unlink(self, entry: os.DirEntry[str], current: int) -> None:
        try:
            if self._has_mounts:
                self._check_mount(entry.name, current)
            bytes_on_disk = entry.stat(follow_symlinks=False).st_blocks * 512
            os.unlink(entry.name, dir_fd=current)
        except FileNotFoundError:
            return
        except OSError as error:
            self._keep(entry.name, error)
            return
        self.files, self.size = self.files + 1, self.size + bytes_on_disk

    def _check_mount(self, name: str, inside: int) -> None:
        """Raises OSError for a file that is mounted here.  unlink(2) refuses it anyway, but the call of
        stat(2) before it could block."""
        place = os.open(name, PLACE & ~os.O_DIRECTORY, dir_fd=inside)
        try:
            if mount_of(place) != self._mount:
                raise OSError(errno.EBUSY, MOUNT_POINT)
        finally:
            os.close(place)

    def _up(self, current: int, *, is_last: bool) -> int:
        """Leave the current directory and remove it; the directory that is current then.

        Raises OSError where ``..`` is not the directory that the walk came from: the current one was
        moved meanwhile.
        """
        done = self._levels[-1]
        above = os.open("..", DIRECTORY, dir_fd=current)
        if identity_of(above) != self._levels[-2].identity:
            os.close(above)
            raise OSError(errno.EBUSY, "it was moved while it was removed")
        os.close(current)
        self._levels.pop()
        if done.is_kept:
            self._levels[-1].is_kept = True
        else:
            self._rmdir(done.name, above, is_last=is_last)
        return above

    def _rmdir(self, name: str, above: int, *, is_last: bool) -> None:
        try:
            os.rmdir(name, dir_fd=above)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno == errno.ENOTEMPTY and not is_last:
                self.again = True
            else:
                self._keep(name, error)

    def _keep(self, name: str, error: OSError) -> None:
        """Remember what is left, and that the directories above it cannot be removed."""
        if self._levels:
            self._levels[-1].is_kept = True
        path = os.path.join(self._parent, *(level.name for level in self._levels), name).rstrip("/")
        if path in self._known:  # from an earlier pass
            return
        self._known.add(path)
        shown = path if len(path) <= LONGEST_PATH else f"{path[:LONGEST_PATH]}…"
        reason = error.strerror or str(error)
        if reason == os.strerror(errno.EBUSY):  # unlink(2) and rmdir(2) say so of a mount point
            reason = MOUNT_POINT
        elif reason == os.strerror(errno.EPERM):
            reason += " (an immutable file or directory? see lsattr(1))"
        self.left.append(f"{shown if shown.isprintable() else ascii(shown)}: {reason}")

    def _open(self, name: str, inside: int) -> tuple[int, Identity]:
        """Open a directory for reading, and make it accessible for this user; (descriptor, identity).

        Raises OSError where it is a link, a mount point or on another file system, and where the tree's
        top is another user's or not the directory that is meant.
        """
        place = _place(name, inside)
        try:
            # Before all else: asking the file system itself, of a dead NFS server say, could block.
            if mount_of(place) != self._mount:
                raise OSError(errno.EBUSY, MOUNT_POINT)
            facts = os.fstat(place)
            if not self._levels:
                self._device = facts.st_dev
                if facts.st_uid != os.geteuid():
                    raise PermissionError(errno.EPERM, "another user's directory")
                if self._made not in (None, (facts.st_dev, facts.st_ino)):
                    raise OSError(errno.EEXIST, EXCHANGED)
            elif facts.st_dev != self._device:
                raise OSError(errno.EBUSY, OTHER_FILE_SYSTEM)
            if facts.st_mode & 0o700 != 0o700:
                ignore_errors(lambda: _make_accessible(place))
            return os.open(".", DIRECTORY, dir_fd=place), (facts.st_dev, facts.st_ino)
        finally:
            os.close(place)


def _has_mounts(path: str) -> bool:
    """Whether something is mounted on a directory or below it."""
    escaped = os.fsencode(path)
    for character in b"\\ \t\n":
        escaped = escaped.replace(bytes([character]), b"\\%03o" % character)
    return any((point + b"/").startswith(escaped + b"/") for point in mount_points())


def _is_link(name: str, inside: int) -> bool:
    """By readlink(2), which asks no file system that is mounted there, as stat(2) would."""
    try:
        os.readlink(name, dir_fd=inside)
    except OSError:  # EINVAL: it is none
        return False
    return True


def _place(name: str, inside: int) -> int:
    """A descriptor of a directory, never of a link's target."""
    try:
        return os.open(name, PLACE, dir_fd=inside)
    except PermissionError:
        if PLACE != DIRECTORY:
            raise
        os.chmod(name, 0o700, dir_fd=inside)  # where there is no O_PATH: not on Linux
        return os.open(name, PLACE, dir_fd=inside)


def _make_accessible(place: int) -> None:
    """``chmod u+rwx``; fchmod(2) refuses a descriptor by O_PATH."""
    if PLACE == DIRECTORY:
        os.fchmod(place, 0o700)
    else:
        os.chmod(f"/proc/self/fd/{place}", 0o700)
