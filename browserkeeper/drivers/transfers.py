"""The downloads of a running browser: by its BiDi events, or by a look into its folder.

    BidiTransfers    by the events browsingContext.downloadWillBegin and downloadEnd
    FolderTransfers  of a Chromium without BiDi, in a folder that no other program writes to

A browser tells neither how many bytes of a download have arrived nor why it has failed.  So the size of
an unfinished download is the size of its partial file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, Literal, Protocol

from ..guard.downloads import final_name
from ..guard.files import SHARED_MEMORY_PREFIXES
from .bidi import BidiConnection
from .downloads import PARTIAL_SUFFIXES, FileId
from .folder_events import FolderEvents

State = Literal["in_progress", "complete", "failed"]

EVENTS = ("browsingContext.downloadWillBegin", "browsingContext.downloadEnd")
WATCH_PAUSE = 0.05
"""Seconds between two looks at the bytes of the downloads that are under way, where they are bounded."""
RETRY = 3.0
"""Seconds in which Chromium may repeat a download that was cut off.  If it gives that up as well, both
are one download."""
CANCELLED = (
    "the browser gave it up: the server cut it off or answered with an error, its file could not be "
    "written, it was cancelled, or the browser refused it"
)
RENAMES = 2
"""Chromium renames the file of a download twice at most: to its partial name, and to its name."""
NAME_MAX = 255
"""Bytes that a file's name may have on Linux's and macOS's usual file systems."""


@dataclasses.dataclass(eq=False)
class Transfer:
    """One download.  ``path`` is its whole file, "" until it is complete; ``size`` is in bytes; ``why``
    is the reason of a failure.  ``too_large``: it was given up because the bound was passed."""

    name: str
    url: str = ""
    state: State = "in_progress"
    size: int = 0
    path: str = ""
    why: str = ""
    too_large: bool = False
    id: str = ""
    """The browser's id of the download; "" if it gives none."""
    partial: str = ""
    """The name of its partial file without the suffix; "" if it is not known."""
    page: tuple[str, str] = ("", "")
    """BiDi's ids of browsing context and navigation in the events; each "" if the event has none."""

    def fail(self, why: str) -> None:
        if self.state == "in_progress":
            self.state, self.why = "failed", self.why or why


class Transfers(Protocol):
    """The downloads of a session, or of a lease."""

    known: list[Transfer]
    """All downloads so far, in the order in which they began.  No entry is ever removed."""

    @property
    def is_lost(self) -> bool:
        """True once the browser reports no more downloads, because the connection is lost."""

    is_closed: bool
    """True from the beginning of :meth:`close`."""

    def close(self) -> None:
        """Note no more downloads; unfinished ones count as failed."""

    def refresh(self) -> None:
        """Look into the folder, and update the sizes of the unfinished downloads."""


class BidiTransfers:
    """The downloads that the browser reports by BiDi since this object was made, for one user context or
    for the browser's default context.

    ``bound``: bytes.  If the downloads together pass it, a download of a Chromium is cancelled.
    """

    def __init__(
        self,
        connection: BidiConnection,
        engine: Literal["chromium", "firefox"],
        folder: str,
        *,
        context: str = "",
        bound: int | None = None,
        is_named_by_id: bool = False,
        is_shared: bool = False,
        written: Callable[[], Container[FileId]] | None = None,
    ):
        """``is_named_by_id``: the browser saves each download under its id (``allowAndName`` of the
        DevTools protocol), and it gets its name here.  In a context Chromium would replace a file of
        the same name.  ``is_shared``: the folder is the user's,
        and other programs may save to it; ``written`` says which partial files the browser has open for
        writing.  Without it, one of another program may be taken for the browser's, by its name."""
        self._connection, self.engine, self._folder = connection, engine, folder
        self._context, self._bound = context or "default", bound
        self._is_named_by_id, self._is_shared = is_named_by_id, is_shared
        self._written = written
        self.known: list[Transfer] = []
        self.is_closed = False
        self._watching = False
        self._lock = threading.Lock()
        self._removers = [
            connection.on(EVENTS[0], self._began),
            connection.on(EVENTS[1], self._ended),
        ]

    def close(self) -> None:
        """Note no more events; unfinished downloads count as failed."""
        self.is_closed = True
        for remove in self._removers:
            remove()
        for transfer in self.known:
            if self._is_named_by_id and transfer.state == "in_progress":
                self._complete(transfer, os.path.join(self._folder, transfer.id))
        for transfer in self.known:
            transfer.fail("the session or lease was over before it was complete")

    @property
    def is_lost(self) -> bool:
        return self._connection.is_lost

    # -- events, in the connection's thread

    def _began(self, event: Mapping[str, Any]) -> None:
        if event.get("userContext") not in (None, self._context):  # Firefox 153 does not name it
            return
        transfer = Transfer(
            os.path.basename(str(event.get("suggestedFilename") or "")) or "download",
            str(event.get("url") or ""),
            id=str(event.get("download") or ""),
            page=(str(event.get("context") or ""), str(event.get("navigation") or "")),
        )
        self.known.append(transfer)
        if self._bound is not None:
            self._watch()

    def _ended(self, event: Mapping[str, Any]) -> None:
        transfer = self._transfer_of(event)
        if transfer is None:
            return
        if event.get("status") != "complete":
            transfer.fail(self._reason())
            return
        self._complete(transfer, str(event.get("filepath") or ""))

    def _complete(self, transfer: Transfer, path: str) -> None:
        if self._is_named_by_id:
            try:
                path = move_to(path, self._folder, transfer.name, is_shared=self._is_shared)
            except OSError as error:
                transfer.fail(f"its file cannot be given its name: {error.strerror}")
                return
        transfer.size = size_of(path)
        transfer.path, transfer.name = path, os.path.basename(path) or transfer.name
        if self._bound is not None and self._total() > self._bound:
            self._give_up(transfer)
        else:
            transfer.state = "complete"

    def _transfer_of(self, event: Mapping[str, Any]) -> Transfer | None:
        """The unfinished download that an event is about; None if it is not known.  Firefox gives no
        ids, but the event of the beginning has the final name."""
        under_way = [one for one in self.known if one.state == "in_progress"]
        if number := event.get("download"):
            return next((one for one in under_way if one.id == number), None)
        page = (str(event.get("context") or ""), str(event.get("navigation") or ""))
        fitting = [one for one in under_way if one.page == page and one.url == event.get("url")]
        name = os.path.basename(str(event.get("filepath") or ""))
        return next((one for one in fitting if one.name == name), next(iter(fitting), None))

    def _reason(self) -> str:
        free = _free_bytes(self._folder)
        full = free is not None and free < 2**20
        return f"the disk of {self._folder} is full" if full else CANCELLED

    # -- the bound

    def _total(self) -> int:
        self.refresh()
        return sum(one.size for one in self.known if one.state != "failed")

    def _watch(self) -> None:
        with self._lock:
            if self._watching:
                return
            self._watching = True
        try:
            threading.Thread(
                target=self._watch_bound, name="browserkeeper-downloads", daemon=True
            ).start()
        except RuntimeError:  # no more threads: the guard watches, too
            self._watching = False

    def _watch_bound(self) -> None:
        """The watching thread: ends when no download is under way."""
        assert self._bound is not None
        while not self._connection.is_lost:
            with self._lock:
                under_way = [one for one in self.known if one.state == "in_progress"]
                if not under_way:
                    self._watching = False
                    return
            if self._total() > self._bound:
                self._give_up(max(under_way, key=lambda one: one.size))
            time.sleep(WATCH_PAUSE)

    def _give_up(self, transfer: Transfer) -> None:
        """Cancel a download after the bound was passed; if it is complete already, remove its file.

        A driver cannot cancel a download of Firefox: the guard ends the session.
        """
        transfer.too_large = True
        if transfer.path:
            with contextlib.suppress(OSError):
                os.unlink(transfer.path)
            transfer.path = ""
        elif self.engine == "firefox":
            return
        else:
            params = {"guid": transfer.id}
            if self._context != "default":
                params["browserContextId"] = self._context
            call = {"method": "Browser.cancelDownload", "params": params}
            with contextlib.suppress(Exception):
                self._connection.post("goog:cdp.sendCommand", call)
        transfer.fail("it passed the bound")

    # -- sizes

    def refresh(self) -> None:
        under_way = [one for one in self.known if one.state == "in_progress"]
        if not under_way:
            return
        suffix = PARTIAL_SUFFIXES[self.engine]
        if self._is_named_by_id:
            for one in under_way:
                one.partial = one.id
                one.size = size_of(os.path.join(self._folder, one.id + suffix)) or one.size
            return
        partial = partial_files(self._folder, suffix)
        if partial and self._is_shared and self._written is not None:
            written = self._written()
            partial = [found for found in partial if found[2] in written]
        for one in under_way:
            own = next((found for found in partial if _fits(found[0], one.name)), None)
            if own is not None:
                partial.remove(own)
                one.partial, one.size, _ = own


class FolderTransfers:
    """The downloads of a Chromium without BiDi, in a folder that no other program writes to.

    Addresses are not known, and a download that fails before Chromium makes a file is not noticed.
    Files that existed before belong to an earlier lease.
    """

    def __init__(self, folder: str):
        self.folder = folder
        self.known: list[Transfer] = []
        self.is_closed = False
        self._by_file: dict[tuple[int, int], Transfer] = {}
        self._given_up: dict[str, float] = {}
        """For each name, when a download of it was given up (``time.monotonic()``)."""
        self._watchers: list[FolderEvents] = []
        self._blocks = 0
        self._lock = threading.RLock()

    @property
    def is_lost(self) -> bool:
        return False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """A context manager: in its block also downloads are noticed that end between two looks.  Raises
        OSError if the folder cannot be made."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        self.refresh()
        with self._lock:
            self._blocks += 1
            watcher = FolderEvents.open(self.folder) if self._blocks == 1 else None
            self._watchers += [watcher] if watcher else []
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks:
                    while self._watchers:
                        self._watchers.pop().close()

    def next(self) -> FolderTransfers:
        """Close this object, and return one for the next lease, which ignores the present files."""
        self.refresh()
        self.close()
        following = FolderTransfers(self.folder)
        following._by_file = {key: dataclasses.replace(one) for key, one in self._by_file.items()}
        return following

    def close(self) -> None:
        self.is_closed = True
        for transfer in self.known:
            transfer.fail("the session or lease was over before it was complete")

    def refresh(self) -> None:
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        suffix = PARTIAL_SUFFIXES["chromium"]
        deleted = [name for watcher in self._watchers for name in watcher.deleted(suffix)]
        found: set[tuple[int, int]] = set()
        for name, facts in sorted(self._files(), key=lambda pair: pair[1].st_ctime_ns):
            if name.startswith(SHARED_MEMORY_PREFIXES):  # a temporary name, for some milliseconds
                continue
            key = (facts.st_dev, facts.st_ino)
            found.add(key)
            transfer = self._by_file.get(key)
            was_another = transfer is not None and transfer.path not in (
                "",
                os.path.join(self.folder, name),
            )
            if transfer is None or transfer.state == "failed" or was_another:
                transfer = self._by_file[key] = Transfer(final_name(name, suffix))
                self.known.append(transfer)
            transfer.size = facts.st_size
            if not name.endswith(suffix) and transfer.state == "in_progress":
                transfer.name, transfer.path = name, os.path.join(self.folder, name)
                transfer.state = "complete"
        for key, transfer in list(self._by_file.items()):
            if key not in found:
                del self._by_file[key]
                if transfer.state == "in_progress":
                    self._gave_up(transfer)
        for name in deleted:  # some of these files did not exist at any look
            own = final_name(name, suffix)
            if time.monotonic() - self._given_up.get(own, 0.0) > RETRY:
                self.known.append(Transfer(own))
                self._gave_up(self.known[-1])

    def _files(self) -> list[tuple[str, os.stat_result]]:
        """The files in the folder.  One look may miss a file that is renamed meanwhile, readdir(3)."""
        under_way = {key for key, one in self._by_file.items() if one.state == "in_progress"}
        for _ in range(RENAMES + 1):
            files = _files_in(self.folder)
            if under_way <= {(facts.st_dev, facts.st_ino) for _, facts in files}:
                break
        return files

    def _gave_up(self, transfer: Transfer) -> None:
        transfer.fail(CANCELLED)
        self._given_up[transfer.name] = time.monotonic()


def subscribe(connection: BidiConnection) -> None:
    """Subscribe to the browser's events of downloads.  Raises ProtocolError if it does not have them, or
    an error of the websocket."""
    connection.command("session.subscribe", {"events": list(EVENTS)})


def size_of(path: str) -> int:
    """The size of a file in bytes; 0 if it does not exist."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def partial_files(folder: str, suffix: str) -> list[tuple[str, int, FileId]]:
    """The partial files in a folder, by ascending inode: name without the suffix, bytes, device and
    inode."""
    files = sorted(_files_in(folder), key=lambda pair: pair[1].st_ino)
    return [
        (name[: -len(suffix)], facts.st_size, (facts.st_dev, facts.st_ino))
        for name, facts in files
        if name.endswith(suffix)
    ]


def _files_in(folder: str) -> list[tuple[str, os.stat_result]]:
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
    return found


def _fits(partial: str, name: str) -> bool:
    """True if a partial file may be that of a download: ``partial`` is its name without the suffix,
    ``name`` the name of the download."""
    stem = name.rpartition(".")[0] or name
    return partial == name or partial.startswith(stem) or len(partial.partition(".")[0]) == 8


def _free_bytes(folder: str) -> int | None:
    try:
        facts = os.statvfs(folder)
    except OSError:
        return None
    return facts.f_bavail * facts.f_frsize


def move_to(path: str, folder: str, name: str, *, is_shared: bool) -> str:
    """Rename a file into a folder of the same file system, with a number if the name is taken; returns
    its new path.  Raises OSError.

    ``is_shared``: other processes save files there.  Then link(2) gives the file its new name, before
    the old one is removed, since link(2) cannot replace another file.
    """
    for place in _unused_names(folder, name):
        if not is_shared:
            if os.path.lexists(place):
                continue
            os.rename(path, place)
            return place
        try:
            os.link(path, place)
            os.unlink(path)
            return place
        except FileExistsError:
            continue
        except FileNotFoundError:
            raise
        except OSError:  # a file system without hard links
            if not os.path.lexists(place):
                os.rename(path, place)
                return place
    raise AssertionError("unreachable")


def _unused_names(folder: str, name: str) -> Iterator[str]:
    """Paths for a file of this name: first the name itself, then with numbers, as browsers choose them.
    A name that is too long for the file system is shortened."""
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    if len(os.fsencode(extension)) > NAME_MAX // 2:
        stem, dot, extension = name, "", ""
    for number in itertools.count():
        rest = f" ({number}){dot}{extension}" if number else f"{dot}{extension}"
        room, encoded = NAME_MAX - len(os.fsencode(rest)), os.fsencode(stem)
        short = stem if len(encoded) <= room else encoded[:room].decode(errors="ignore")
        yield os.path.join(folder, f"{short}{rest}")


__all__ = [
    "BidiTransfers",
    "FolderTransfers",
    "State",
    "Transfer",
    "Transfers",
    "move_to",
    "size_of",
    "subscribe",
]
