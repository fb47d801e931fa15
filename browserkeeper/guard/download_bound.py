"""The bound on the size of a session's downloads.  The guard watches it, since the owner may hang.

Counted are all files in the folder for downloads in TMPDIR.  In a directory of the user, only the
partial files are counted that processes of the session were seen to write: other files may be another
program's.
"""

from __future__ import annotations

import os

from .downloads import changed_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .downloads import Downloads
    from .members import Members
    from .options import Options

LOOKS = 2.0  # seconds after a change of the user's directory in which open files are searched for


class DownloadBound:
    """The bound in bytes, and since when the downloads have passed it."""

    def __init__(self, options: Options, downloads: Downloads):
        self._limit, self._grace = options.max_download, options.max_download_grace
        self._folder = f"{options.tmpdir}/downloads" if options.tmpdir else ""
        self._downloads = downloads
        self._over_since: float | None = None
        self._look_until = 0.0
        self._changed = 0

    def is_passed(self, age: float, members: Members) -> bool:
        """True if the downloads have had more bytes than the bound for ``max_download_grace`` seconds.

        ``age``: the age of the session in seconds.
        """
        if (changed := changed_at(self._downloads.directory)) != self._changed:
            self._changed, self._look_until = changed, age + LOOKS
        if age < self._look_until:  # a file exists for a moment before it is seen open for writing
            self._downloads.look(members.living)
        total = _bytes_in(self._folder) + self._downloads.bytes_seen(self._folder)
        if total <= self._limit:
            self._over_since = None
            return False
        if self._over_since is None:
            self._over_since = age
        return age - self._over_since >= self._grace


def _bytes_in(folder: str) -> int:
    """The bytes of all files in the folder and its subfolders, of which each lease has one."""
    total = 0
    folders = [folder] if folder else []
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:  # the folder does not exist yet, or was removed with its lease
            continue
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
            except OSError:  # renamed or removed meanwhile
                continue
    return total
