"""What is saved of a browser when its test fails: bounded in time, and never an error itself.

Each step stands alone: an alert, a crashed tab or a dead browser costs one line in
``capture.txt`` and nothing else.
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
from .records import Opened, TestRecord

if TYPE_CHECKING:
    from ..session import BrowserSession

PATIENCE = 10.0
"""Seconds for all that is asked of one browser; it takes 0.1, and 1 on a busy machine."""
SHORT_PATIENCE = 3.0
"""Seconds where a command was cut off: the browser is likely to be stuck in it still."""
LARGEST_LOG = 2_000_000
"""Bytes of a driver's log that are read, from its end."""

_FIREFOX_CONSOLE = re.compile(r"^(console\.\w+:|JavaScript (error|warning):).*$", re.MULTILINE)


def take(record: TestRecord, opened: Opened) -> None:
    """Save all that the settings want; the second call for one browser does nothing.

    A browser that does not answer in time is ended by it: its next command would hang as well.
    """
    settings = record.settings
    screenshot = settings.wants_screenshot(failed=record.failed)
    everything = settings.wants_capture(failed=record.failed)
    if opened.captured or not opened.was_started or not (screenshot or everything):
        return
    opened.captured = record.kept = True
    with contextlib.suppress(OSError):  # a full disk must not hide why the test failed
        _Capture(record, opened).run(screenshot=screenshot, everything=everything)


class _Capture:
    def __init__(self, record: TestRecord, opened: Opened):
        self._folder, self._opened, self._driver = record.folder, opened, opened.driver
        self._problems: list[str] = []
        self._gone = opened.driver is None or opened.report is not None
        calm = opened.session.at_rest
        self._deadline = time.monotonic() + (PATIENCE if calm else SHORT_PATIENCE)

    def run(self, *, screenshot: bool, everything: bool) -> None:
        if everything:
            self._put("processes.txt", _processes(self._opened))
        if self._gone:
            self._problems.append("the browser had ended before: nothing could be asked of it")
        else:
            with self._short_timeout():
                self._ask(screenshot=screenshot, everything=everything)
        if everything:
            self._put_log()
        if self._problems:
            self._put("capture.txt", "\n".join(self._problems) + "\n")

    def _ask(self, *, screenshot: bool, everything: bool) -> None:
        """In the order of their worth, should the time run out."""
        self._alert()
        if everything:
            self._step("url.txt", lambda: f"{self._driver.current_url}\n")
        if screenshot:
            self._step("screenshot.png", self._screenshot)
        if everything:
            self._step("page.html", lambda: cast(str, self._driver.page_source))
            self._step("console.log", self._console)

    def _alert(self) -> None:
        """Nothing can be asked of a page with an open alert, so it is noted and dismissed."""
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
        """Chromium's own log; Firefox writes it into its driver's (see ``opening``)."""
        if self._opened.session.config.engine == "firefox":
            lines = [match.group() for match in _FIREFOX_CONSOLE.finditer(read_log(self._opened))]
        else:
            lines = [f"{e['level']}: {e['message']}" for e in self._driver.get_log("browser")]
        return "".join(f"{line}\n" for line in lines)

    # -- one step

    def _step(self, name: str, make: Callable[[], str | bytes | None]) -> None:
        """Ask, and save the answer; None is none.  Errors of any kind become a line."""
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
        """An alert may open at any moment; the first command that meets it dismisses it."""
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
            return  # its guard will do it, to the last line
        if log := read_log(self._opened):
            self._put("driver.log", log)

    @contextlib.contextmanager
    def _short_timeout(self) -> Iterator[None]:
        """For a while; a leased browser's next test has its full patience again."""
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


def read_log(opened: Opened) -> str:
    """What the driver has said since the test has the browser; "" once both are gone."""
    path = _log_path(opened.session)
    try:
        with open(path or os.devnull, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(opened.log_start, size - LARGEST_LOG))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


# ------------------------------------------------------------------------------- the processes


def _processes(opened: Opened) -> str:
    """The session's tree as it is now."""
    session = opened.session
    lines = [f"{session.name} session {session.id} ({session.containment}), when the test failed:"]
    for process in session.processes():
        lines.append(f"  {process.pid:>8} {process.state} {process.name} of {process.parent}")
    if len(lines) == 1:
        lines.append("  no process")
    return "\n".join(lines) + "\n"


def finish(record: TestRecord) -> None:
    """At the end of the test: how each of its browsers ended goes into its folder, or the folder
    goes."""
    if not record.kept:
        started = any(opened.was_started for opened in record.opened)
        if record.failed and started and record.settings.wants_capture(failed=True):
            record.kept = True  # it failed when its browsers were gone: in a teardown
        else:
            record.folder.discard()
            return
    if not record.settings.wants_capture(failed=record.failed):
        return
    with contextlib.suppress(OSError):
        for opened in record.opened:
            _append_report(record, opened)


def _append_report(record: TestRecord, opened: Opened) -> None:
    path = record.folder.make() / opened.file("processes.txt")
    if opened.report is not None:
        ending = f"{opened.report}\n"
    elif opened.is_leased:
        ending = "It was given back to its pool, and lives on for other tests.\n"
    else:
        ending = "It is still running.\n"
    before = f"{path.read_text()}\n" if path.exists() else ""
    path.write_text(before + ending)
