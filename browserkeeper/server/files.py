"""Files of a session: uploads to the machine of the browser, and downloads from it, as Selenium's Remote
sends and fetches them (``/se/file``, ``/se/files``)."""

from __future__ import annotations

import base64
import binascii
import io
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BrowserkeeperError
from ..pool.lease import Lease
from ..session.download import Download
from .errors import WireError, of_command

COMMANDS = ("uploadFile", "getDownloadableFiles", "downloadFile", "deleteDownloadableFiles")
"""Selenium's names of the commands that this module runs."""

MAX_UNPACKED = 256 * 2**20
"""Bytes of all uploaded files of one session.  A zip file of a few KB may unpack to gigabytes."""
MAX_FETCHED = 256 * 2**20
"""Bytes of the largest download that can be fetched.  For a moment it is in memory three times."""
LONGEST_NAME = 255
"""Bytes of a file name, as in most file systems."""
CHUNK = 2**20


class SessionFiles:
    """The files of one session.  Its methods are called in the session's thread; :meth:`close` may be
    called in any thread."""

    def __init__(self, lease: Lease[Any], *, downloads: bool):
        """``downloads``: True if the client has asked for downloads (``se:downloadsEnabled``)."""
        self._lease, self._downloads_enabled = lease, downloads
        self._uploads: Path | None = None
        self._unpacked = 0

    def run(self, name: str, params: Mapping[str, Any]) -> Any:
        """Run one of :data:`COMMANDS`, and return its value.  Raises WireError."""
        try:
            if name == "uploadFile":
                return self._upload(params.get("file"))
            if not self._downloads_enabled:
                raise WireError(
                    "invalid argument",
                    "Downloads are not enabled for this session: ask for it with the capability "
                    "se:downloadsEnabled = true (options.enable_downloads).",
                )
            if name == "getDownloadableFiles":
                return self._list()
            if name == "downloadFile":
                return self._fetch(params.get("name"))
            return self._delete()
        except BrowserkeeperError as error:
            raise of_command(error) from None

    # -- downloads

    def _complete(self) -> dict[str, Path]:
        """The complete downloads whose files are still there, by name; the latest of each name."""
        found = {}
        for download in self._lease.downloads:
            path = _file_of(download)
            if path is not None:
                found[download.name] = path
        return found

    def _list(self) -> dict[str, Any]:
        files = []
        for name, path in self._complete().items():
            facts = path.stat()
            times = {
                "creationTime": int(facts.st_ctime * 1000),
                "lastModifiedTime": int(facts.st_mtime * 1000),
            }
            files.append({"name": name, "size": facts.st_size, **times})
        return {"names": [one["name"] for one in files], "files": files}

    def _fetch(self, name: object) -> dict[str, str]:
        if not isinstance(name, str):
            raise _invalid("'name' must be the name of a download")
        path = self._complete().get(name)
        if path is None:
            raise _invalid(f"this session has no complete download {name[:LONGEST_NAME]!r}")
        size = path.stat().st_size
        if size > MAX_FETCHED:
            raise WireError(
                "unknown error",
                f"{name!r} has {size:,} bytes, and at most {MAX_FETCHED:,} can be fetched at a time.",
            )
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, name)
        return {"filename": name, "contents": base64.b64encode(packed.getbuffer()).decode()}

    def _delete(self) -> None:
        for path in self._complete().values():
            path.unlink(missing_ok=True)

    # -- uploads

    def _upload(self, given: object) -> str:
        """Unpack a zip file with one file in it; returns the path of that file."""
        if not isinstance(given, str):
            raise _invalid("'file' must be a zip file in base64")
        try:
            packed = base64.b64decode(given)
            archive = zipfile.ZipFile(io.BytesIO(packed))
        except (binascii.Error, ValueError, zipfile.BadZipFile, NotImplementedError, OSError):
            raise _invalid("'file' is no zip file in base64") from None
        with archive:
            entries = [one for one in archive.infolist() if not one.is_dir()]
            if len(entries) != 1:
                raise _invalid(f"the zip file has {len(entries)} files: upload one file at a time")
            name = _checked_name(entries[0])
            folder = Path(tempfile.mkdtemp(dir=self._folder()))
            try:
                self._unpack(archive, entries[0], folder / name)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return str(folder / name)

    def _folder(self) -> Path:
        if self._uploads is None:
            # In the session's TMPDIR, which the guard removes also where this process is killed.
            self._uploads = Path(tempfile.mkdtemp(prefix="uploads-", dir=self._lease.session.tmpdir))
        return self._uploads

    def _unpack(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
        """Unpack one file.  Raises WireError where the uploads get too large.  The unpacked bytes are
        counted, since the size in the zip file's directory may be wrong."""
        written = 0
        try:
            with archive.open(entry) as source, path.open("xb") as target:
                while chunk := source.read(CHUNK):
                    written += len(chunk)
                    if self._unpacked + written > MAX_UNPACKED:
                        raise _invalid(f"the uploads of a session may have {MAX_UNPACKED:,} bytes")
                    target.write(chunk)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
            raise _invalid(f"the zip file cannot be unpacked ({type(error).__name__})") from None
        self._unpacked += written

    def close(self) -> None:
        """Remove the uploads, since the browser may get another lease.  Idempotent."""
        if self._uploads is not None:
            shutil.rmtree(self._uploads, ignore_errors=True)


def _file_of(download: Download) -> Path | None:
    """The file of a complete download; None if it is not complete, or its file was removed."""
    path = download.path
    return path if path is not None and path.is_file() else None


def _checked_name(entry: zipfile.ZipInfo) -> str:
    """The name of the file in the zip file.  Raises WireError for a name with directories, which
    Selenium does not send, and for an entry that is no regular file."""
    name = entry.filename
    if name in ("", ".", "..") or "/" in name or "\\" in name or not name.isprintable():
        raise _invalid("the zip file's entry must be a plain file name, without directories")
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise _invalid(f"the name of the file is longer than {LONGEST_NAME} bytes")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise _invalid("the zip file's entry is not a regular file")
    return name


def _invalid(text: str) -> WireError:
    return WireError("invalid argument", f"invalid argument: {text}")


__all__ = ["COMMANDS", "SessionFiles"]
