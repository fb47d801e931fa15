"""Whether a place in the file system is this user's alone: what keeps other local users out of it.

Judgements only; nothing is made, changed or removed here.
"""

from __future__ import annotations

import os
from pathlib import Path


def is_ours_alone(facts: os.stat_result) -> bool:
    """This user's, and nobody else may write it."""
    return facts.st_uid == os.geteuid() and not facts.st_mode & 0o022


def stranger_on_the_way(path: str | os.PathLike[str]) -> str:
    """The first directory or link on the way to a path, itself included, whose owner is neither
    root nor this user, "" where there is none.

    Who owns a directory can put another one in the place of whatever lies in it, at any time after
    we looked.  The owner of ``/`` counts as root: in a user namespace root has the number of nobody
    (user_namespaces(7)).
    """
    place = Path(path).absolute()
    target = Path(os.path.realpath(place))  # Path.resolve() raises at a loop of links
    trusted = {0, os.geteuid(), os.stat("/").st_uid}
    for part in (place, *place.parents, target, *target.parents):
        try:
            if part.lstat().st_uid not in trusted:
                return str(part)
        except OSError:  # not there yet: whoever makes it will own it
            continue
    return ""
