"""An operator's request to end a session: a file beside the record, which ``browserkeeper end`` writes.

Imported only where there is such a file.  The content is JSON, which the guard does not parse: importing
``json`` would take 10 ms.  It asks for the beginning that the tool writes, with the session's id, and
copies the text into the report.
"""

from __future__ import annotations

import os

MOST = 16384  # bytes; the tool writes a few hundred, and below 8000 in the worst case
REGULAR, FILE_TYPE = 0o100000, 0o170000  # S_IFREG and S_IFMT of stat(2)


def head(session: str) -> str:
    """How the request for this session begins."""
    return f'{{"schema": 1, "session": "{session}", '


def read(path: str) -> str | None:
    """The text of the request; None where it is not for this session, or where another user may have
    written it.  Never blocks."""
    session = os.path.basename(path).removesuffix(".end")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not _is_ours(os.fstat(fd)):
            return None
        text = os.read(fd, MOST).decode("ascii", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)
    return text if text.startswith(head(session)) and text.endswith("}\n") else None


def _is_ours(facts: os.stat_result) -> bool:
    """True for a regular file of this user that no other user may write."""
    is_regular = facts.st_mode & FILE_TYPE == REGULAR
    return is_regular and facts.st_uid == os.geteuid() and not facts.st_mode & 0o022


__all__ = ["head", "read"]
