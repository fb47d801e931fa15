"""Whether another local user could write to a file or exchange a directory.  Changes nothing."""

from __future__ import annotations

import os
from pathlib import Path


def is_ours_alone(facts: os.stat_result) -> bool:
    """True if the file belongs to this user and its mode lets no other user write it."""
    return facts.st_uid == os.geteuid() and not facts.st_mode & 0o022


def first_untrusted_directory(path: str | os.PathLike[str]) -> str:
    """The first of the path, the directories above it and the links on the way that belongs to
    neither root nor this user; "" if there is none.

    The owner of a directory can exchange each entry in it at any time, whatever mode the entry has.
    The owner of ``/`` counts as root: in a user namespace, root's files appear to belong to uid
    65534 (user_namespaces(7)).  A part that does not exist is trusted, since we will make it.
    """
    place = Path(path).absolute()
    target = Path(os.path.realpath(place))  # Path.resolve() raises at a loop of links
    trusted = {0, os.geteuid(), os.stat("/").st_uid}
    for part in (place, *place.parents, target, *target.parents):
        try:
            if part.lstat().st_uid not in trusted:
                return str(part)
        except OSError:
            continue
    return ""
