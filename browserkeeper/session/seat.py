"""A seat: one lease's WebDriver session in a browser that other leases use at the same time.

``SessionControl`` runs a seat like a session with a browser of its own.  In place of a launch
(``Attempt``) it has a :class:`Seat`: an attached WebDriver session of the same ChromeDriver process.
The end of a seat closes its user context.  The browser goes on; if the browser does not confirm that the
context is closed, the browser is ended as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..drivers.devtools_view import DevtoolsView
from ..drivers.own_pages import OwnPages
from ..drivers.seat_connection import NotLeftError, SeatConnection
from ..errors import BrowserkeeperError, LaunchError
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..process.identity import ProcessFacts
from ..report import ExitReport
from .apart import hold, run_apart
from .ending import DISCONNECT_TIMEOUT
from .last_commands import LastCommands
from .shared_session import LEAVE_TIMEOUT, LONGEST_LEAVE, SharedSession

if TYPE_CHECKING:
    from ..config import SessionConfig
    from ..drivers.bidi import BidiConnection
    from ..drivers.managed import CommandHandler
    from ..drivers.user_prompts import UserPrompts
    from ..process.guard_process import GuardProcess
    from ..proxy.relay import Route

LOOK_EVERY = 0.25
"""Seconds between two checks whether the browser is to end, during the wait for the end of a seat."""
CONTEXT_CLOSED = "context-closed"
"""The certificate of a seat that has ended in a browser that goes on."""

logger = logging.getLogger("browserkeeper")


class SeatGuard:
    """The guard of one seat: its deadlines end the seat alone.  All other questions are answered by the
    guard of the browser.

    The event ``ending`` comes when the seat or its browser begins to end.
    """

    def __init__(self, seat: Seat, shared: SharedSession, guard: GuardProcess):
        self._shared, self._guard = shared, guard
        self._ending: dict[str, Any] | None = None
        self.expire: Callable[[str], object] = lambda reason: None
        """Ends the seat for this reason."""
        self._expired = self._call_expire
        self._over = threading.Event()
        self._seat = weakref.ref(seat)

    @property
    def pid(self) -> int:
        return self._guard.pid

    def _call_expire(self, reason: str) -> None:
        self.expire(reason)

    def event(self, name: str) -> dict[str, Any] | None:
        """The seat's own ``ending``, or an event of the browser's guard."""
        if name == "ending" and self._ending is not None:
            return self._ending
        found = self._guard.event(name)
        if name == "ending" and found and (late := self._shared.deadlines.passed(self._expired)):
            # This program was stuck, so the guard has ended the browser for the seat's deadline.
            return {**found, "reason": late}
        return found

    def wait_for(self, *names: str, deadline: float) -> dict[str, Any] | None:
        if self._ending is not None and "ending" in names:
            return self._ending
        return self._guard.wait_for(*names, deadline=deadline)

    def is_alive(self) -> bool:
        return self._guard.is_alive()

    def set_deadline(self, seconds: float, reason: str) -> None:
        """End the seat in ``seconds`` from now; 0 takes the deadline of that reason back (``*``: all).

        If the seat has not ended BACKSTOP seconds after its deadline, the guard ends the browser, also
        if this process is stuck.  Does nothing once the seat has ended: no code would take such a
        deadline back, and so the guard would end the browser.
        """
        if self._over.is_set():
            return
        self._shared.deadlines.set(self._expired, reason, seconds)
        if self._over.is_set():  # it has ended meanwhile
            self._shared.deadlines.set(self._expired, "*", 0)

    def tell_to_end(self, reason: str) -> None:
        """End the seat in the background; returns at once."""
        self._ending = self._ending or {"event": "ending", "reason": reason}
        self.set_deadline(0.001, reason)

    def name_lease(self, label: str) -> None:
        self._shared.name(self, label)

    @property
    def is_late(self) -> bool:
        """True if a deadline of the seat has passed."""
        return bool(self._shared.deadlines.passed(self._expired))

    def begin_end(self, reason: str) -> str:
        """Note that the seat begins to end.  Returns the reason of the end, which is the first reason
        that was given for the seat or its browser."""
        event = self.event("ending")
        if event is None:
            event = self._ending = {"event": "ending", "reason": reason}
        self._shared.deadlines.begin_end(self)
        return str(event["reason"])

    def ended(self) -> None:
        """Note that the seat, or its browser, has ended; takes its deadlines back."""
        self._over.set()
        self._shared.deadlines.ended(self, self._expired)
        self._shared.name(self, "")


class SeatEnding:
    """Ends one seat, once.  Has the methods of ``Ending``."""

    def __init__(self, seat: Seat, shared: SharedSession):
        self.report: ExitReport | None = None
        self.label = ""
        self.seconds: dict[str, float] = {}
        self.last_commands = LastCommands()
        self._seat, self._shared = weakref.ref(seat), shared
        self._lock = threading.RLock()

    def name_downloads(self, names: Mapping[str, str]) -> None:
        """Does nothing: the end of a seat removes its folder of downloads, with partial files."""

    def run(self, reason: str, disconnect: Callable[[], None]) -> ExitReport:
        """End the seat for this reason.  Idempotent: concurrent callers get the same report.

        Blocks for LONGEST_LEAVE seconds, and for the end of the browser, at the most.  Returns the
        report of the browser, if the browser has ended, or was ended because it did not confirm the end
        of the seat (:meth:`_leave`).
        """
        seat = self._seat()
        assert seat is not None
        with hold(self._lock, LONGEST_LEAVE + LEAVE_TIMEOUT):
            if self.report is not None:
                return self.report
            taken, began = self.last_commands.take(), time.monotonic()
            why = seat.guard.begin_end(reason)
            try:
                report = self._end(seat, why)
            finally:
                seat.guard.ended()
            if report.ended_badly:
                report = dataclasses.replace(report, commands=taken.until(began), commands_known=True)
            run_apart(disconnect, DISCONNECT_TIMEOUT)
            seconds = {**report.seconds, **self.seconds, "close": time.monotonic() - began}
            if self.report is None:
                self.report = dataclasses.replace(report, label=self.label, seconds=seconds)
                run_apart(seat.on_over, DISCONNECT_TIMEOUT)
            return self.report

    def _end(self, seat: Seat, reason: str) -> ExitReport:
        shared, attempt = self._shared, self._shared.attempt
        name = attempt.name
        if shared.is_closing or shared.is_over:
            report = shared.end(reason)
            return _with(report, reason) if seat.guard.is_late else report
        try:
            self._leave(seat)
        except NotLeftError as error:
            has_died = shared.is_over or attempt.browser.is_lost()
            if not has_died:
                text = "%s is ended: it did not confirm the end of a lease (%s): %s"
                logger.warning(text, name, reason, error)
            report = shared.end("browser-died" if has_died else "hung")
            return report if has_died and not seat.guard.is_late else _with(report, reason)
        logger.debug("%s: the seat of a lease has ended (%s); the browser goes on", name, reason)
        plan = attempt.plan
        return ExitReport(
            *(seat.id, plan.config.name, reason, plan.guard.containment.kind, CONTEXT_CLOSED),
            ended_at=time.time(),
            notes=("the user context of the lease was closed; the browser and its other leases go on",),
        )

    def _leave(self, seat: Seat) -> None:
        """Have the seat leave the browser.  Raises NotLeftError if the browser does not confirm that the
        seat's contexts are closed, if it is stopped or does nothing any more, or if the pool is
        closed."""
        shared, done = self._shared, threading.Event()
        problems: list[BaseException] = []

        def leave() -> None:
            try:
                seat.leave(LONGEST_LEAVE)
            except BaseException as error:  # noqa: BLE001 # raised by the thread that waits
                problems.append(error)
            finally:
                done.set()

        seen, look_at = shared.work_done(), time.monotonic() + LEAVE_TIMEOUT
        run_apart(leave, 0)
        while not done.wait(LOOK_EVERY):
            if shared.is_closing:
                raise NotLeftError("the pool is closed")
            if time.monotonic() < look_at:
                continue
            before, seen = seen, shared.work_done()
            look_at = time.monotonic() + LEAVE_TIMEOUT
            if not seat.looks_alive() or seen == before:
                raise NotLeftError("browser or driver is stopped, or does nothing any more")
        if problems:
            raise problems[0]


class Seat:
    """One seat of a browser, from the attaching of its WebDriver session to its end.

    It has the attributes of an ``Attempt`` that ``SessionControl`` and ``Commands`` use.
    """

    def __init__(self, shared: SharedSession, number: int):
        """``number``: the number of the seat in this browser, from 1."""
        attempt = shared.attempt
        self.shared, self._attempt, self.number = shared, attempt, number
        self.id, self.plan = attempt.id, attempt.plan
        self.browser, self.driver_process = attempt.browser, attempt.driver_process
        self.connection = SeatConnection(shared.connection)
        self.guard = SeatGuard(self, shared, attempt.guard)
        self.ending = SeatEnding(self, shared)
        self.on_over: Callable[[], None] = _do_nothing
        """Called when the seat has ended, in a thread of its own."""
        self.before_leaving: Callable[[], None] = _do_nothing
        """Called before the contexts are closed, for a quarter of the time of :meth:`leave` at most; its
        errors are logged."""
        self._driver: Callable[[], Any] = lambda: None
        self._url = ("", 0)
        self._view: DevtoolsView | None = None
        self.bidi: BidiConnection | None = None
        self.prompts: UserPrompts | None = None
        self.own_pages = OwnPages()
        self.visited: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For messages."""
        return f"lease in {self.plan.config.name} session {self.id}"

    @property
    def report(self) -> ExitReport | None:
        return self.ending.report

    @property
    def driver(self) -> Any:
        """Selenium's driver object; None before :meth:`connect`, after the end, and once it was
        garbage-collected."""
        return self._driver() if self.report is None else None

    def processes(self) -> list[ProcessFacts]:
        """The processes of the whole browser; none after the end of the seat."""
        return self._attempt.processes() if self.report is None else []

    def connect(self, handler: CommandHandler) -> Any:
        """Attach a WebDriver session to the browser, and return Selenium's driver object.

        Takes 0.02 to 0.4 s.  Raises LaunchError if ChromeDriver does not attach the session within
        ``start_timeout``, if this version cannot be used, or if the seat was ended meanwhile.
        """
        from selenium.common.exceptions import WebDriverException
        from urllib3.exceptions import HTTPError

        from ..drivers import managed
        from ..drivers.chromium import attach_options
        from ..drivers.driver_service import make_service

        first, config = self.shared.control.driver, self.plan.config
        service = make_service(first.service.driver_process, handler.quit_driver)
        seen = _seen_by(self.connection, self.shared.first.default)
        try:
            view = self._view = DevtoolsView(int(self.shared.address.rpartition(":")[2]), seen)
            options = attach_options(config, view.address)
            driver = managed.connect(config.name, handler, service, options, config.start_timeout)
        except BrowserkeeperError:
            raise
        except (
            *(WebDriverException, HTTPError, http.client.HTTPException, OSError),
            RuntimeError,  # the system gives no more threads
        ) as error:
            line = str(getattr(error, "msg", None) or error).split("\n")[0]
            raise LaunchError(
                f"{config.name}: ChromeDriver attached no further session to the browser: {line}"
            ) from None
        if not view.filtered:
            raise LaunchError(
                f"{config.name}: this version of Chromium or ChromeDriver cannot have several leases in "
                "one browser: each would see the windows of the others. Use leases_per_browser=1."
            )
        view.stop_listening()
        if process := first.caps.get("goog:processID"):
            driver.caps["goog:processID"] = process  # an attached session has none
        managed.set_command_timeout(driver, config.command_timeout)
        self._driver = weakref.ref(driver)
        self._url = (f"/session/{driver.session_id}", service.port)
        if self.report is not None:  # a deadline has ended the seat during the attaching
            with contextlib.suppress(NotLeftError):
                self._end_session(LEAVE_TIMEOUT)
            raise LaunchError(f"{config.name}: the seat was ended while its session was attached.")
        return driver

    def leave(self, timeout: float) -> None:
        """Close the seat's contexts, and end its WebDriver session.  Blocks.  Raises NotLeftError unless
        both are confirmed within ``timeout`` seconds."""
        end = time.monotonic() + timeout
        run_apart(self.before_leaving, timeout / 4)
        self.connection.leave(end - time.monotonic())
        if self._url[0]:
            self._end_session(max(0.01, end - time.monotonic()))

    def _end_session(self, timeout: float) -> None:
        path, port = self._url
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        try:
            connection.request("DELETE", path)
            connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            raise NotLeftError(f"ChromeDriver did not end its session: {error!r}") from None
        finally:
            connection.close()

    # -- the attributes and methods of an Attempt

    @property
    def config(self) -> SessionConfig:
        """The configuration of the browser's first session."""
        return self.plan.config

    @property
    def tmpdir(self) -> str:
        return self._attempt.tmpdir

    @property
    def display(self) -> str:
        return self._attempt.display

    @property
    def containment(self) -> str:
        return self._attempt.containment

    @property
    def route(self) -> Route | None:
        return self._attempt.route

    def looks_alive(self) -> bool:
        return self._attempt.looks_alive()

    def error_of_end(self, when: str) -> BrowserkeeperError | None:
        """Always None: the report says why the seat is over."""
        return None

    def wrapped(self, name: str, command: Callable[[], Any]) -> Callable[[], Any]:
        return command

    def is_quitting(self) -> bool:
        """True if the seat is ending.  The answers of its commands are then worthless: for a script in a
        page that is closed ChromeDriver reports success, with null (measured with 156)."""
        return self.guard.event("ending") is not None

    def causes_of_death(self) -> str:
        return self._attempt.causes_of_death()

    def disconnect_bidi(self) -> None:
        driver = self.driver
        if driver is not None:
            driver.disconnect()

    def disconnect(self) -> None:
        """Close what the driver object holds open in this process."""
        driver = self._driver()
        self.connection.close()
        if self._view is not None:
            self._view.close()
        if driver is None:
            return
        with contextlib.suppress(Exception):
            driver.disconnect()
        with contextlib.suppress(Exception):
            driver.command_executor.close()


def _seen_by(connection: SeatConnection, default: str) -> Callable[[Mapping[str, Any]], bool]:
    """A function that returns True for the windows that the seat's WebDriver session may see: its own,
    and those of the ``default`` context, in which there is no lease.

    The function has no reference to the seat, since a seat that is garbage-collected must end.
    """

    def is_seen(target: Mapping[str, Any]) -> bool:
        context = target.get("browserContextId")
        return context == default or context in connection.contexts

    return is_seen


def _with(report: ExitReport, reason: str) -> ExitReport:
    """The browser's report, with the reason of the seat's end."""
    return dataclasses.replace(report, reason=reason)


def _do_nothing() -> None:
    """A hook that was not set."""


__all__ = ["CONTEXT_CLOSED", "Seat"]
