"""The downloads of a session or a lease, for users: the list of them, and ``expect_download``."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from ..config import SessionConfig, check_count, check_seconds
from ..drivers.bidi import BidiConnection, ProtocolError
from ..drivers.downloads import directory_of_user, files_written_by
from ..drivers.page_addresses import PageAddresses
from ..drivers.transfers import (
    BidiTransfers,
    FolderTransfers,
    Transfer,
    Transfers,
    subscribe,
)
from ..errors import (
    BrowserkeeperError,
    ConfigError,
    DownloadError,
    DownloadFailed,
    DownloadTimeout,
    DownloadTooLarge,
)
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..process.identity import ProcessIdentity
from .download import Download, ExpectedDownload, facts_of

if TYPE_CHECKING:
    from selenium import webdriver

    from ..drivers.page_addresses import RunCommand

TIMEOUT = 30.0
"""Seconds until a download has to begin, and between two of its bytes."""
PAUSE = 0.02
"""Seconds between two looks at a download."""
CHECK_PAUSE = 0.25
"""Seconds between two looks whether the session is over."""
ALERT_PAUSE = 0.5
"""Seconds without a byte after which the browser is asked for an alert about the download."""
CONNECT_TIMEOUT = 10.0
"""Seconds for the browser's answer to the subscription; it takes 5 to 50 ms."""
LOST_TIMEOUT = 3.0
"""Seconds to wait for the end of a browser whose connection is lost."""
END_TIMEOUT = 10.0
"""Seconds for the end of a session that has begun to end."""
logger = logging.getLogger("browserkeeper")


@dataclasses.dataclass(frozen=True)
class User:
    """The session or lease that waits for a download.

    ``check()`` raises the error of a session or lease that is over, and returns None otherwise.  ``run``
    runs a classic WebDriver command.
    """

    check: Callable[[], None]
    run: RunCommand


class SessionDownloads:
    """The downloads of one session, or of the present lease of a pool's browser."""

    def __init__(self) -> None:
        self.is_pooled = False
        """True for a browser of a pool, whose downloads belong to leases."""
        self.is_in_contexts = False
        """True where each lease has a user context: then the pool calls :meth:`open`."""
        self._connection: BidiConnection | None = None
        self._is_own_connection = False
        self._transfers: Transfers | None = None
        self._opened: list[str] = []
        """The addresses of the last ``driver.get()`` calls, the latest last; 10 at the most."""
        self._opens = 0
        self._config: SessionConfig | None = None
        self._tmpdir = ""
        self.browser: ProcessIdentity | None = None
        """The browser's main process; None where it is not known."""

    def open(
        self,
        config: SessionConfig,
        capabilities: dict[str, Any],
        tmpdir: str,
        connection: BidiConnection | None = None,
    ) -> None:
        """To be called after the start of the browser.  ``connection``: a connection to use, which the
        caller closes; without it one is opened."""
        self._config, self._tmpdir = config, tmpdir
        to = connection or capabilities.get("webSocketUrl")
        if config.is_here and isinstance(to, (BidiConnection, str)):
            self._connect(to)
        if config.is_here and self._connection is None and self._is_visible():
            self._transfers = FolderTransfers(os.path.join(self._tmpdir, "downloads"))
        else:
            self.begin_lease()

    def _connect(self, to: BidiConnection | str) -> None:
        """Subscribe to the browser's downloads.  Logs a warning if that fails: the session works
        without."""
        from websocket import WebSocketException

        self._is_own_connection = isinstance(to, str)
        try:
            connection = BidiConnection(to, CONNECT_TIMEOUT) if isinstance(to, str) else to
            try:
                subscribe(connection)
            except BaseException:
                if self._is_own_connection:
                    connection.close()
                raise
            self._connection = connection
        except (OSError, RuntimeError, ProtocolError, WebSocketException) as error:
            logger.warning("the browser does not tell of its downloads: %s", error)

    @property
    def _user_directory(self) -> str:
        return directory_of_user(self._config) if self._config is not None else ""

    def _is_visible(self) -> bool:
        """True if downloads can be noticed by looking into the folder: it must be the session's own.
        Other programs may save files to a directory of the user."""
        config = self._config
        if config is None or config.engine != "chromium" or config.debugger_address:
            return False
        return not self._user_directory

    def begin_lease(self, context: str = "", folder: str | os.PathLike[str] = "") -> None:
        """Forget the downloads so far.  ``context``: the user context of the lease; ``folder``: the
        directory for its downloads."""
        config = self._config
        if config is None or self._connection is None:
            if isinstance(self._transfers, FolderTransfers):
                self._transfers = self._transfers.next()
            return
        if self._transfers is not None:
            self._transfers.close()
        self._transfers = BidiTransfers(
            self._connection,
            config.engine,
            os.fspath(folder) or self._user_directory or os.path.join(self._tmpdir, "downloads"),
            context=context,
            bound=config.max_download,
            is_named_by_id=bool(context) and config.engine == "chromium",
            is_shared=bool(self._user_directory),
            written=files_written_by(self.browser, config.engine, self._user_directory),
        )

    @property
    def unfinished(self) -> list[Transfer]:
        """The downloads that have begun and not ended."""
        if self._transfers is None:
            return []
        self._transfers.refresh()
        return [one for one in self._transfers.known if one.state == "in_progress"]

    def close(self) -> dict[str, str]:
        """To be called before the browser's end.  Returns the names of the unfinished downloads; the
        keys are the names of their partial files without the suffix."""
        names = {}
        if self._transfers is not None:
            self._transfers.refresh()
            under_way = [one for one in self._transfers.known if one.state == "in_progress"]
            names = {one.partial: one.name for one in under_way if one.partial}
            self._transfers.close()
        if self._connection is not None and self._is_own_connection:
            self._connection.close()
        return names

    def note_command(self, name: str, params: Mapping[str, Any]) -> None:
        """Note the address of ``driver.get()``, which may be a download."""
        if name == "get":
            self._opens += 1
            self._opened = [*self._opened[-9:], str(params.get("url", ""))]

    def opened_since(self, number: int) -> tuple[int, list[str]]:
        """Returns how often ``driver.get()`` was called so far, and the addresses of the calls after the
        first ``number`` calls; 10 at the most."""
        new = self._opens - number
        return self._opens, self._opened[-new:] if new else []

    # -- for users

    def required(self, what: str) -> Transfers:
        """Returns the downloads, or raises ConfigError if those of this browser cannot be seen.
        ``what``: the user's call, for the message."""
        config = self._config
        if config is not None and not config.is_here:
            where = "the server" if config.place == "server" else "the Grid"
            raise ConfigError(
                f"{what} cannot be used with {config.elsewhere}: files arrive at {where}. Set "
                "options.enable_downloads = True and use driver.download_file()."
            )
        if self._transfers is not None:
            return self._transfers
        if config is not None and config.debugger_address:
            raise ConfigError(
                f"{what} cannot be used with a browser that was attached to: it saves its downloads to "
                "a directory of its own. Set options.enable_bidi = True, by which it tells of them."
            )
        raise ConfigError(
            f"{what} needs a browser that tells of its downloads by BiDi, and this one does not. Leave "
            "the capability webSocketUrl out, and use a browser that has BiDi (Firefox 140 or newer)."
        )

    def all(self, what: str) -> tuple[Download, ...]:
        """All downloads so far.  Raises ConfigError if they cannot be seen; ``what`` is as in
        :meth:`required`."""
        transfers = self.required(what)
        transfers.refresh()
        return tuple(Download(one, transfers) for one in transfers.known)

    def expect(self, user: User, timeout: float | None, count: int, what: str) -> Expectation:
        """See :func:`expect_download`; ``what`` is as in :meth:`required`.  Raises ConfigError."""
        if timeout is not None:
            check_seconds("timeout", timeout)
        check_count("count", count, least=1)
        transfers = self.required(what)
        bound = self._bound_text()
        return Expectation(transfers, user, timeout, count, bound, self.opened_since)

    def _bound_text(self) -> str:
        bound = self._config.max_download if self._config is not None else None
        return f"max_download={bound:,} bytes" if bound else "max_download"


class Expectation:
    """The context manager of ``expect_download``; for one use."""

    def __init__(
        self,
        transfers: Transfers,
        user: User,
        timeout: float | None,
        count: int,
        bound: str,
        opened_since: Callable[[int], tuple[int, list[str]]],
    ):
        """``bound``: ``max_download`` as text, for messages.  ``opened_since``: the method of
        :class:`SessionDownloads`."""
        self._opened_since, self._opens = opened_since, 0
        self._transfers, self._user, self._timeout, self._count = transfers, user, timeout, count
        self._bound = bound
        self._since = 0
        self._stack = contextlib.ExitStack()
        self._addresses: PageAddresses | None = None

    def __enter__(self) -> ExpectedDownload:
        self._user.check()
        self._transfers.refresh()
        with contextlib.ExitStack() as stack:
            if isinstance(self._transfers, FolderTransfers):
                stack.enter_context(self._transfers.watched())
                self._addresses = PageAddresses(self._user.run)
            self._since = len(self._transfers.known)
            self._opens, _ = self._opened_since(0)
            self._stack = stack.pop_all()
        return ExpectedDownload(self._transfers, self._since)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with self._stack:
                if error is None:
                    self._wait()
        except Exception:
            if error is None:
                raise
            logger.debug("after an exception of the block", exc_info=True)

    # -- the wait

    @property
    def _ours(self) -> list[Transfer]:
        return self._transfers.known[self._since :]

    def _wait(self) -> None:
        """Return when all downloads of the block are complete.  Raises DownloadError, or the error of a
        session that is over."""
        last, seen = time.monotonic(), (-1, -1, -1)
        checked = 0.0
        while True:
            if time.monotonic() - checked >= CHECK_PAUSE:
                self._user.check()
                checked = time.monotonic()
            self._transfers.refresh()
            ours = self._ours
            under_way = [one for one in ours if one.state == "in_progress"]
            if failed := next((one for one in ours if one.state == "failed"), None):
                if self._transfers.is_closed:
                    self._wait_for_end()
                raise self._failure(failed)
            if len(ours) >= self._count and not under_way:
                break
            now = (len(ours), len(under_way), sum(one.size for one in ours))
            if now != seen:
                last, seen = time.monotonic(), now
            if under_way and time.monotonic() - last > ALERT_PAUSE and self._dismiss_alert():
                last = time.monotonic()
            if self._timeout is not None and time.monotonic() - last > self._timeout:
                raise self._timeout_error(under_way)
            if self._transfers.is_lost:
                self._wait_for_end(LOST_TIMEOUT)  # Firefox closes the connection before it ends
                raise DownloadError(
                    "The connection by which the browser tells of its downloads is lost. Start another "
                    "session."
                )
            time.sleep(PAUSE)
        self._note_addresses()

    def _wait_for_end(self, timeout: float = END_TIMEOUT) -> None:
        """For a session or lease that is ending: wait until it is over, and raise its error."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            self._user.check()
            time.sleep(PAUSE)

    def _timeout_error(self, under_way: list[Transfer]) -> DownloadTimeout:
        if under_way:
            one = under_way[0]
            return DownloadTimeout(
                f"No byte of the download {one.name!r} came for {self._timeout:g} s; {one.size:,} bytes "
                "are there. Its server has stopped sending; a larger timeout= waits longer.",
                **facts_of(one),
            )
        begun = f"{len(self._ours)} of {self._count} downloads" if self._ours else "No download"
        return DownloadTimeout(
            f"{begun} began in the block, or in {self._timeout:g} s after it. The browser may have "
            "shown the answer as a page (a PDF), or the server has answered with an error."
        )

    def _failure(self, one: Transfer) -> DownloadFailed:
        if one.too_large:
            return DownloadTooLarge(
                f"The download {one.name!r} passed {self._bound} at {one.size:,} bytes, and was "
                "given up; its file is removed.",
                **facts_of(one),
            )
        return DownloadFailed(f"The download {one.name!r} has failed: {one.why}.", **facts_of(one))

    def _dismiss_alert(self) -> bool:
        """Firefox opens an alert about a download that was cut off, and reports the end of the download
        only after the alert was closed.  Closes such an alert; returns True if there was one."""
        from selenium.common.exceptions import WebDriverException

        if not isinstance(self._transfers, BidiTransfers) or self._transfers.engine != "firefox":
            return False
        try:
            if ".part" in str(self._user.run("w3cGetAlertText", {})):
                self._user.run("w3cDismissAlert", {})
                return True
        except BrowserkeeperError:
            raise
        except WebDriverException:  # no alert
            pass
        return False

    # -- a Chromium without BiDi

    def _note_addresses(self) -> None:
        if self._addresses is None:
            return
        asked = [*self._addresses.asked(), *self._opened_since(self._opens)[1]]
        nameless = [one for one in self._ours if not one.url]
        for one, url in zip(reversed(nameless), reversed(asked), strict=False):
            one.url = url


class DownloadsHandler(Protocol):
    """A part of the command handlers of sessions and leases."""

    def expect_download(self, timeout: float | None, count: int) -> Expectation: ...


def expect_download(
    driver: webdriver.Remote, timeout: float | None = TIMEOUT, *, count: int = 1
) -> Expectation:
    """Wait for a download that a block begins: ``with expect_download(driver) as download: ...``.

    The end of the block waits until a download has begun, and until it is complete.  After that,
    ``download.path`` is the file, and ``download.save_as(path)`` copies it.  ``driver`` is the driver of
    a session or of a lease.

    Args:
        timeout: seconds after the block until a download has to begin, and the longest time between two
            of its bytes.  None: no limit, until the session or lease is over.
        count: how many downloads the block begins; ``download.all`` is a tuple of all.

    Raises:
        DownloadTimeout: no download began in time, or the server has stopped sending.
        DownloadFailed: the browser gave the download up.
        DownloadTooLarge: the downloads passed ``max_download=``.
        ConfigError: the driver was not started by browserkeeper, or its downloads cannot be seen.

    An exception of the block is raised unchanged, without a wait.
    """
    handler = getattr(driver, "command_handler", None)
    expect = getattr(handler, "expect_download", None)
    if expect is None:
        raise ConfigError(
            f"{driver!r} was not started by browserkeeper. Give the driver of a session or of a lease."
        )
    expectation: Expectation = expect(timeout, count)
    return expectation


__all__ = ["Expectation", "SessionDownloads", "User", "expect_download"]
