"""The class Download, which users get: the values of one download, and the copy of its file."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from ..drivers.transfers import State, Transfer, Transfers
from ..errors import DownloadError, DownloadFailed
from ..errors import hide_frames as __tracebackhide__  # noqa: F401


class Download:
    """One download of a session or lease.  Each property has the value of the moment when it is read."""

    def __init__(self, transfer: Transfer, transfers: Transfers):
        self._transfer, self._transfers = transfer, transfers

    def _now(self) -> Transfer:
        if self._transfer.state == "in_progress":
            self._transfers.refresh()
        return self._transfer

    @property
    def name(self) -> str:
        """The file's name as the browser has chosen it: without directories, and with a number if a file
        of that name existed already."""
        return self._now().name

    @property
    def url(self) -> str:
        """The address, after redirects.  For a Chromium without BiDi: the address that the page has
        requested, before redirects, or "" if it is not known."""
        return self._now().url

    @property
    def size(self) -> int:
        """The bytes that have arrived."""
        return self._now().size

    @property
    def state(self) -> State:
        """``in_progress``, ``complete`` or ``failed``."""
        return self._now().state

    @property
    def path(self) -> Path | None:
        """The path of the complete file; None until the download is complete."""
        path = self._now().path
        return Path(path) if path else None

    @property
    def error(self) -> str:
        """The reason of a failure; "" if the download has not failed."""
        return self._now().why

    def save_as(self, path: str | os.PathLike[str]) -> Path:
        """Copy the file to ``path``, or into ``path`` if it is a directory; returns the copy's path.

        An existing file is replaced atomically.  Missing directories are made.  Raises DownloadError if
        the download is not complete, DownloadFailed if its file is gone, as it is after the end of the
        session or lease, and OSError if ``path`` cannot be written.
        """
        one = self._now()
        if one.state != "complete":
            what = f"has failed: {one.why}" if one.state == "failed" else "is not complete yet"
            raise DownloadError(f"{one.name!r} {what}. It cannot be saved.", **facts_of(one))
        target = Path(path)
        if target.is_dir() or os.fspath(path).endswith(os.sep):
            target = target / one.name
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".browserkeeper-{os.getpid()}-{os.urandom(4).hex()}")
        try:
            shutil.copyfile(one.path, draft)
            os.replace(draft, target)
        except FileNotFoundError:
            if os.path.exists(one.path):
                raise
            raise DownloadFailed(
                f"The file of {one.name!r} is gone: files of a session or lease are removed at its end, "
                "unless it has a download_dir. Call save_as() before that.",
                **facts_of(one),
            ) from None
        finally:
            with contextlib.suppress(OSError):
                os.unlink(draft)
        return target

    def __repr__(self) -> str:
        one = self._now()
        return f"<Download {one.name!r} {one.state} {one.size} bytes>"


class ExpectedDownload(Download):
    """The download of an ``expect_download`` block.  Until it begins, its properties raise
    DownloadError."""

    def __init__(self, transfers: Transfers, since: int):
        self._transfers, self._since = transfers, since

    @property
    def all(self) -> tuple[Download, ...]:
        """All downloads that have begun since the beginning of the block (see ``count=``)."""
        return tuple(Download(one, self._transfers) for one in self._transfers.known[self._since :])

    def _now(self) -> Transfer:
        self._transfers.refresh()
        if len(self._transfers.known) <= self._since:
            raise DownloadError(
                "No download has begun in this block so far. Read its values after the block."
            )
        return self._transfers.known[self._since]

    def __repr__(self) -> str:
        if len(self._transfers.known) <= self._since:
            return "<ExpectedDownload, none has begun>"
        return super().__repr__()


def facts_of(one: Transfer) -> dict[str, Any]:
    """The keyword arguments for a DownloadError about this download."""
    return {"name": one.name, "url": one.url, "size": one.size}


__all__ = ["Download", "ExpectedDownload", "facts_of"]
