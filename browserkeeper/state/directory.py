"""Where the state directory is, and that no other user can write to it."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import LedgerError
from .permissions import first_untrusted_directory, is_ours_alone

VARIABLE = "BROWSERKEEPER_STATE_DIR"
_REMEDY = f"Set {VARIABLE} to a directory that only this user can write."


def find_state_directory(named: str | os.PathLike[str] | None, parts: Sequence[str]) -> Path:
    """Find the state directory, make it and its ``parts`` with mode 0700, and return its path.

    The first of these: ``named``; ``BROWSERKEEPER_STATE_DIR``; the platform's directory for such
    files; where that cannot be used (a container's user without a home), a directory below the
    one for temporary files.  Raises LedgerError with the remedy.

    Of the parts only the first, the records of live sessions, must be writable: sessions work without
    a history and without the states of pools, and report that these cannot be written.
    """
    named = named or os.environ.get(VARIABLE)
    if named:
        return _private_directory(Path(named).expanduser().absolute(), parts)
    try:
        return _private_directory(_platform_directory(), parts)
    except LedgerError:
        return _private_directory(_fallback_directory(), parts)


def _platform_directory() -> Path:
    import platformdirs

    return Path(platformdirs.user_state_dir("browserkeeper", appauthor=False))


def _fallback_directory() -> Path:
    try:
        return Path(tempfile.gettempdir(), f"browserkeeper-{os.getuid()}")
    except FileNotFoundError as error:
        raise LedgerError(
            "There is no writable directory for temporary files, and no other place for the state "
            f"directory. Set {VARIABLE}; in a container with a read-only root, use "
            "docker run --tmpfs /tmp."
        ) from error


def _private_directory(path: Path, parts: Sequence[str]) -> Path:
    """Make the directories that are missing, with mode 0700.  Refuse existing ones that another
    user can write, and do not change their mode: the path may be ``/tmp`` by mistake."""
    if untrusted := first_untrusted_directory(path.parent):
        raise LedgerError(
            f"State directory {path}: {untrusted} belongs to another user, or is written by all and "
            f"has a link on the way: another directory could be put in its place. {_REMEDY}"
        )
    try:
        for part in (path, *(path / name for name in parts)):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = part.lstat()
            if not stat.S_ISDIR(facts.st_mode) or not is_ours_alone(facts):
                raise LedgerError(
                    f"State directory {part} is a link, belongs to another user, or can be written "
                    f"by others. {_REMEDY}"
                )
        if not os.access(path / parts[0], os.W_OK):
            raise PermissionError(13, "Permission denied")
    except LedgerError:
        raise
    except OSError as error:
        raise LedgerError(
            f"State directory {path} cannot be used: {error.strerror}. {_REMEDY}"
        ) from error
    return path
