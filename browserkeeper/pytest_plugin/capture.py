"""Saves the state of a browser when its test fails.  Bounded in time, and raises no error itself.

The steps are independent: if one fails, for an alert, a crashed tab or a dead browser, the error
becomes a line in ``capture.txt`` and the next step follows.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import BrowserkeeperError
from .records import OpenedBrowser, TestRecord

if TYPE_CHECKING:
    from ..session import BrowserSession

PATIENCE = 10.0
"""Seconds for all commands to one browser; they take 0.1, and 1 on a busy machine."""
SHORT_PATIENCE = 3.0
"""The same if a command of the test was interrupted: the browser probably still executes it."""
LARGEST_LOG = 2_000_000
"""Bytes of a driver's log that are read, from its end."""

_FIREFOX_CONSOLE = re.compile(r"^(console\.\w+:|JavaScript (error|warning):).*$", re.MULTILINE)


def take(record: TestRecord, opened: OpenedBrowser) -> None:
    """Save what the settings ask for.  Idempotent for each browser.

    Ends a browser that does not answer in time: its next command would hang as well.
    """
    settings = record.settings
    screenshot = settings.wants_screenshot(failed=record.failed)
    everything = settings.wants_capture(failed=record.failed)
    if opened.captured or not opened.was_started or not (screenshot or everything):
        return
    opened.captured = record.kept = True
    paused = opened.trace.paused() if opened.trace is not None else contextlib.nullcontext()
    with paused, contextlib.suppress(OSError):  # a full disk must not hide why the test failed
        _Capture(record, opened).run(screenshot=screenshot, everything=everything)


class _Capture:
    def __init__(self, record: TestRecord, opened: OpenedBrowser):
        self._folder, self._opened, self._driver = record.folder, opened, opened.driver
        self._problems: list[str] = []
        self._gone = opened.driver is None or opened.report is not None
        from ..session import control_of

        calm = control_of(opened.session).at_rest
        self._deadline = time.monotonic() + (PATIENCE if calm else SHORT_PATIENCE)

    def run(self, *, screenshot: bool, everything: bool) -> None:
        if everything:
            self._put("processes.txt", _processes(self._opened))
        if self._gone:
            self._problems.append("the browser had ended before, so it could not be captured")
        else:
            with self._short_timeout():
                self._ask(screenshot=screenshot, everything=everything)
        if everything:
            self._put_log()
        if self._problems:
            self._put("capture.txt", "\n".join(self._problems) + "\n")

    def _ask(self, *, screenshot: bool, everything: bool) -> None:
        """The most useful first, in case the time runs out."""
        self._alert()
        if everything:
            self._step("url.txt", lambda: f"{self._driver.current_url}\n")
        if screenshot:
            self._step("screenshot.png", self._screenshot)
        if everything:
            self._step("page.html", lambda: cast(str, self._driver.page_source))
            self._step("console.log", self._console)

    def _alert(self) -> None:
        """Save an open alert's text and dismiss it: no other command works while it is open."""
        from selenium.common.exceptions import NoAlertPresentException

        def text() -> str | None:
            try:
                alert = self._driver.switch_to.alert
                found: str = alert.text
                alert.dismiss()
            except NoAlertPresentException:
                return None
            return f"{found}\n"

        self._step("alert.txt", text)

    def _screenshot(self) -> bytes:
        return base64.b64decode(self._driver.get_screenshot_as_base64())

    def _console(self) -> str | None:
        """Chromium has a log for it; Firefox writes it into the driver's (see ``browser_spec``)."""
        if self._opened.session.config.engine == "firefox":
            lines = [match.group() for match in _FIREFOX_CONSOLE.finditer(read_log(self._opened))]
        else:
            lines = [f"{e['level']}: {e['message']}" for e in self._driver.get_log("browser")]
        return "".join(f"{line}\n" for line in lines)

    # -- one step

    def _step(self, name: str, make: Callable[[], str | bytes | None]) -> None:
        """Call ``make`` and save what it returns, unless None.  Errors become a line in capture.txt."""
        left = self._deadline - time.monotonic()
        if self._gone or left <= 0:
            self._problems.append(f"{name}: {'the browser has ended' if self._gone else 'no time left'}")
            return
        _set_timeout(self._driver, left)
        try:
            content = self._past_an_alert(make)
        except BrowserkeeperError as error:
            self._gone = self._opened.report is not None
            self._note(name, error)
        except Exception as error:  # noqa: BLE001 # whatever Selenium and its libraries raise
            self._note(name, error)
        else:
            if content is not None:
                self._put(name, content)

    def _past_an_alert(self, make: Callable[[], str | bytes | None]) -> str | bytes | None:
        """Call ``make``; if an alert is open by then, dismiss it and call ``make`` again."""
        from selenium.common.exceptions import UnexpectedAlertPresentException

        try:
            return make()
        except UnexpectedAlertPresentException as error:
            self._put("alert.txt", f"{error.alert_text}\n")
            self._alert()
            return make()

    def _note(self, name: str, error: Exception) -> None:
        text = str(getattr(error, "msg", None) or error).strip().partition("\n")[0]
        self._problems.append(f"{name}: {type(error).__name__}: {text}")

    def _put(self, name: str, content: str | bytes) -> None:
        self._folder.put(self._opened.file(name), content)

    def _put_log(self) -> None:
        if self._opened.session.config.log:
            return  # the guard saves it at the end, complete
        if log := read_log(self._opened):
            self._put("driver.log", self._opened.session.config.identity.mask(log))

    @contextlib.contextmanager
    def _short_timeout(self) -> Iterator[None]:
        """Restores the command timeout at the end: a leased browser serves more tests."""
        normal = self._opened.session.config.command_timeout
        try:
            yield
        finally:
            _set_timeout(self._driver, normal)


def _set_timeout(driver: Any, seconds: float) -> None:
    from ..drivers.managed import set_command_timeout

    set_command_timeout(driver, seconds)


# ------------------------------------------------------------------------------------ logs


def _log_path(session: BrowserSession[Any]) -> Path | None:
    return Path(session.tmpdir, "driver.log") if session.tmpdir else None


def log_size(session: BrowserSession[Any]) -> int:
    path = _log_path(session)
    try:
        return path.stat().st_size if path else 0
    except OSError:
        return 0


def read_log(opened: OpenedBrowser) -> str:
    """The driver's log since the test got the browser; "" if the file is gone."""
    path = _log_path(opened.session)
    try:
        with open(path or os.devnull, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(opened.log_start, size - LARGEST_LOG))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


# ------------------------------------------------------------------------------- the processes


def _processes(opened: OpenedBrowser) -> str:
    """The session's processes at this moment, as text."""
    session = opened.session
    lines = [f"{session.name} session {session.id} ({session.containment}), when the test failed:"]
    for process in session.processes():
        lines.append(f"  {process.pid:>8} {process.state} {process.name} of {process.parent}")
    if len(lines) == 1:
        lines.append("  no process")
    return "\n".join(lines) + "\n"


def finish(record: TestRecord) -> None:
    """At the end of the test: save how each of its browsers ended, or remove the folder if there is
    nothing to keep."""
    if not record.kept:
        started = any(opened.was_started for opened in record.opened)
        if record.failed and started and record.settings.wants_capture(failed=True):
            record.kept = True  # it failed in a teardown, after the end of its browsers
        else:
            record.folder.discard()
            return
    if not record.settings.wants_capture(failed=record.failed):
        return
    with contextlib.suppress(OSError):
        for opened in record.opened:
            _append_report(record, opened)


def _append_report(record: TestRecord, opened: OpenedBrowser) -> None:
    path = record.folder.make() / opened.file("processes.txt")
    if opened.report is not None:
        ending = f"{opened.report}\n"
    elif opened.is_leased:
        ending = "It was given back to its pool and lives on for other tests.\n"
    else:
        ending = "It is still running.\n"
    before = f"{path.read_text()}\n" if path.exists() else ""
    path.write_text(before + ending)
