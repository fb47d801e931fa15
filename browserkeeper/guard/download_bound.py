"""The bound on what the downloads of a session may write: noticed here, since its owner may be stuck.

Counted are all files in the folder for downloads in TMPDIR, and in a directory of the user's the partial
files that processes of the session were seen to write: the rest there may be another program's.
"""

from __future__ import annotations

import os

from .downloads import changed_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .downloads import Downloads
    from .members import Members
    from .options import Options

LOOKS = 2.0  # seconds after a change of the user's directory in which the open files are looked at


class DownloadBound:
    """What the downloads may have, and since when they have had more."""

    def __init__(self, options: Options, downloads: Downloads):
        self._limit, self._grace = options.max_download, options.max_download_grace
        self._folder = f"{options.tmpdir}/downloads" if options.tmpdir else ""
        self._downloads = downloads
        self._over_since: float | None = None
        self._look_until = 0.0
        self._changed = 0

    def is_passed(self, age: float, members: Members) -> bool:
        """True once the downloads have had more bytes than allowed for as long as the grace lasts.

        ``age``: the session's, in seconds.
        """
        if (changed := changed_at(self._downloads.directory)) != self._changed:
            self._changed, self._look_until = changed, age + LOOKS
        if age < self._look_until:  # the file is there before the browser has it open, or is seen to
            self._downloads.look(members.living)
        total = _bytes_in(self._folder) + self._downloads.bytes_seen(self._folder)
        if total <= self._limit:
            self._over_since = None
            return False
        if self._over_since is None:
            self._over_since = age
        return age - self._over_since >= self._grace


def _bytes_in(folder: str) -> int:
    """Of all files in the folder and in the folders in it, of which each lease has one."""
    total = 0
    folders = [folder] if folder else []
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:  # there is none yet, or a lease is over
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
