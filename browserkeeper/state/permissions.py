"""Whether another local user could write to a file or exchange a directory.  Changes nothing."""

from __future__ import annotations

import os
import stat

MOST_LINKS = 40
"""On the way to one file (path_resolution(7))."""


def is_ours_alone(facts: os.stat_result) -> bool:
    """True if the file belongs to this user and its mode lets no other user write it."""
    return facts.st_uid == os.geteuid() and not facts.st_mode & 0o022


def first_untrusted_directory(path: str | os.PathLike[str]) -> str:
    """The first file on the way to ``path`` that another user than root and this one has in hand; ""
    if there is none.

    The way is the kernel's: each directory, each link, and each directory that a link's target leads
    through, links to links included.  The owner of a directory can exchange each entry in it at any
    time, whatever mode the entry has; and in a directory that all can write, without the sticky bit,
    everybody can exchange a link.  The owner of ``/`` counts as root: in a user namespace, root's files
    appear to belong to uid 65534 (user_namespaces(7)).  A part that does not exist is trusted, since we
    will make it.
    """
    trusted = {0, os.geteuid(), os.stat("/").st_uid}
    place, links = "/", 0
    text = os.fspath(path)
    if not os.path.isabs(text):
        text = os.path.join(os.getcwd(), text)
    ahead = [*reversed(text.split("/"))]
    while ahead:
        name = ahead.pop()
        if name == "..":
            place = os.path.dirname(place)
        if name in ("", ".", ".."):
            continue
        here = os.path.join(place, name)
        try:
            facts = os.lstat(here)
            target = os.readlink(here) if stat.S_ISLNK(facts.st_mode) else ""
        except OSError:  # it does not exist; or it cannot be seen, and so not be used either
            place = here
            continue
        if facts.st_uid not in trusted:
            return here
        if not target:
            place = here
            continue
        links += 1
        if links > MOST_LINKS:  # the kernel gives up, too
            return ""
        if os.stat(place).st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            return place
        place = "/" if target.startswith("/") else place
        ahead += reversed(target.split("/"))
    return ""
