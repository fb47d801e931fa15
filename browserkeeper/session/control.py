"""``SessionControl``: the inside of a ``BrowserSession``, for the pool, the pytest plugin and Celery.

It has what they need beyond the public methods.  Not for users: its names may change in any release.
``control_of(session)`` returns it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from ..admission.gate import SlotRequest
from ..config import SessionConfig
from ..drivers.cancellation import Cancellation
from ..drivers.proxies import run_explained
from ..errors import (
    BrowserkeeperError,
    ForkedSessionError,
    LaunchError,
    LimitError,
    SessionClosed,
    refuse_to_pickle,
)
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..options.identity import Identity
from ..options.storage_state import StorageState
from ..process import system
from ..process.identity import ProcessFacts, ProcessIdentity
from ..process.limit_errors import limit_of, require_descriptors
from ..report import ExitReport
from .admission import Admission, check_deadlines
from .apart import hold, run_apart
from .call import Call, to_the_end
from .call_stack import CallStack
from .commands import Commands, over_error
from .downloads import Expectation, SessionDownloads, User
from .ending import DISCONNECT_TIMEOUT, DeadlineError, raise_if_leaked
from .launch import Attempt, LaunchPlan, StartRefusedError, cause_to_show, is_no_attempt
from .preparation import Preparation
from .seat import Seat
from .spans import SessionSpans
from .storage import STORAGE_STATE, load_state, read_state

if TYPE_CHECKING:
    from ..admission.slots import Slot
    from ..drivers.managed import CommandHandler
    from ..drivers.websockets import Filter
    from ..proxy.relay import Route
    from .commands import AnyAttempt, Started

T = TypeVar("T")
S = TypeVar("S")
"""BrowserSession, which is in a module above."""
F = TypeVar("F", bound=Callable[..., Any])

SPANS_TIMEOUT = 2.0
"""Seconds to wait until a session's spans have ended; it takes microseconds."""
FREE_LAUNCHES = 5
"""How many launches of one start may fail without the browser's being tried, besides ``attempts``."""
SETTLE_PAUSE = 0.005
"""Seconds between two looks at a start that was called off."""

logger = logging.getLogger("browserkeeper")


class Start:
    """State of a session's start while it runs: whether it was called off, and the failed launches."""

    def __init__(self, cancelled: Callable[[], Exception]) -> None:
        self.began = self.deadline = 0.0
        """``deadline``: until when an attempt may take, from the moment when the start has its slot."""
        self.called_at: CallStack | None = None
        self.driver: Any = None
        """Selenium's driver, from its launch until the start returns it."""
        self.threads: set[int] = set()
        """The idents of the threads of the start: the caller's, and the one that it waits for."""
        self.cancellation = Cancellation(cancelled)
        self.settled = False
        """True when the start has succeeded or failed."""
        self.failures: list[LaunchError] = []

    @property
    def called_off(self) -> bool:
        return self.cancellation.requested

    def may_retry(self, error: BaseException, config: SessionConfig) -> bool:
        """True if another launch may help and there is time for it.  Never after a leak, nor after an
        operator has ended the session."""
        if not isinstance(error, LaunchError):
            return False
        self.failures.append(error)
        report = error.report
        if self.called_off or (report and (not report.clean or report.reason == "operator")):
            return False
        left = self.deadline - time.monotonic()
        counted = [failure for failure in self.failures if not is_no_attempt(failure)]
        may_go_on = len(counted) < config.attempts and len(self.failures) - len(counted) <= FREE_LAUNCHES
        if error.retryable and left > 1 and may_go_on:
            logger.warning("launch %d failed, trying again: %s", len(self.failures), error)
            return True
        return False


class SessionControl(Generic[S]):
    """One session: starts it, passes its commands on, and ends it.  Safe to use from several threads.

    It is the command handler of the session's driver.
    """

    __reduce_ex__ = refuse_to_pickle

    def __init__(self, config: SessionConfig, make_session: Callable[[SessionControl[S]], S]):
        """``make_session`` returns a BrowserSession for this object; see :attr:`session`."""
        self._make_session = make_session
        self._session: Callable[[], S | None] = lambda: None
        self.config = config
        self.state: Literal["new", "starting", "live", "closed"] = "new"
        self.attempt: AnyAttempt | None = None
        """The latest launch, the seat in a browser with several leases, or the lease of a server; None
        before the first one."""
        self.deadline_errors: dict[str, DeadlineError] = {}
        """What to raise when a deadline passes, by its reason: code that sets a deadline can say more
        about it than the session (a pool's ``max_lease``, a Celery task's time limit)."""
        self.user_deadlines: dict[str, tuple[float, float]] = {}
        """Those that ``BrowserSession.set_deadline`` has set, by reason: their seconds, and when they
        pass (``time.monotonic()``)."""
        self.spans = SessionSpans()
        self.downloads = SessionDownloads()
        self.admission = Admission(config)
        self.owner = os.getpid()
        self._start = Start(weakly(self._called_off))
        self.use_request(self.admission.request)
        self._commands: Commands | None = None
        self._why_it_died = ""
        self._nothing_started: ExitReport | None = None
        self._lock = threading.RLock()

    @property
    def session(self) -> S:
        """The BrowserSession that users see.

        A weak reference: driver and BrowserSession both hold this object, and the BrowserSession holds
        the driver, so that the session ends with the last of them, by reference counting.  Where the
        user has kept the driver alone, this makes another BrowserSession.
        """
        session = self._session()
        if session is None:
            session = self._make_session(self)
        return session

    def belongs_to(self, session: S) -> None:
        """Make it what :attr:`session` returns, as long as it lives."""
        self._session = weakref.ref(session)

    @property
    def id(self) -> str:
        """The id of the latest launch; "" before."""
        return self.attempt.id if self.attempt else ""

    @property
    def name(self) -> str:
        """The session in messages."""
        return self.attempt.name if self.attempt else f"{self.config.name} session "

    @property
    def report(self) -> ExitReport | None:
        """How the latest launch ended; None before its end."""
        return self.attempt.report if self.attempt else self._nothing_started

    @property
    def driver(self) -> Any:
        """Raises SessionClosed before the start and after the end; where the program did not end the
        session, the error that says what did."""
        driver = self.attempt.driver if self.attempt else None
        if driver is None:
            was_live = self._commands is not None
            if was_live and self.report is not None and self.report.reason not in ("closed", "failed"):
                raise self.over()
            raise SessionClosed(f"This session is {self.state}; use it inside `with`, or start() it.")
        return driver

    @property
    def identity(self) -> ProcessIdentity | None:
        """The browser's main process, with its start time, which tells it from a reused pid."""
        return self.attempt.browser.identity if self.attempt else None

    def processes(self) -> list[ProcessFacts]:
        """See ``BrowserSession.processes``."""
        return self.attempt.processes() if self.attempt else []

    def uses_more_than(self, limit: int) -> bool:
        """True if the session uses more than ``limit`` bytes (PSS; RSS off Linux).

        Resident sizes are added up first: they are never below PSS, are mostly enough to say no, and
        cost a hundredth of it.
        """
        processes = self.processes()
        if sum(system.resident(process.pid) for process in processes) <= limit:
            return False
        return sum(system.memory(process.pid) for process in processes) > limit

    # -- the start

    def claim_start(self) -> None:
        """To be called before :meth:`start`.  Raises SessionClosed where it was called before."""
        with self._lock:
            if self.state != "new":
                raise SessionClosed(
                    f"{self.session!r} was started before; make a new one with browser()."
                )
            self.state = "starting"
            self._start.called_at = CallStack()
            self._start.threads.add(threading.get_ident())
            self._start.began = time.monotonic()

    def use_request(self, request: SlotRequest) -> None:
        """Have the start ask the host for its slot by this request.  To be called before the start."""
        self.admission.request = request
        self._start.cancellation.on_request = request.wake

    def occupy(self, seat: Seat) -> Any:
        """In place of a start: attach the session to a browser that runs, and return its driver.

        Raises LaunchError, SessionClosed if it was called off, and the error of a browser that has
        ended.  After an error the seat has ended.
        """
        self.claim_start()
        self.attempt = seat
        seat.guard.expire = weakly(self.end)
        try:
            seat.guard.set_deadline(self.config.start_timeout, "hung")
            driver = seat.connect(self)
            with self._lock:
                if self._start.called_off:
                    raise self._called_off()
                self.state, self._commands = "live", Commands(seat)
            self.downloads.browser = seat.browser.identity
            seat.guard.set_deadline(0, "hung")
            return driver
        except BaseException:
            self.end("failed")
            raise
        finally:
            self._start.settled = True

    def start(self) -> Any:
        """Start the browser and return its driver; see ``BrowserSession.start``.

        The caller has to catch every exception, and call :meth:`abandon_start`.
        """
        return Call(self._start_apart).run(stop=self.call_off)

    def abandon_start(self, error: BaseException) -> None:
        """End all that the start has made, before ``error`` leaves it.

        ``error`` may come from outside, and at any moment, also after the browser has started.
        """
        if self.attempt is not None and self.attempt.report is None:
            self.spans.left_by(error)
            raise_if_leaked(self.end("failed"), self.config.on_leak, "session", error)
        if self.state == "starting":
            self.state = "closed"
        self._start.settled = True
        if self.spans.are_open:
            to_the_end(lambda: self.spans.failed(error))

    def _start_apart(self) -> Any:
        """The whole start, in a thread of its own: no exception from outside comes up here."""
        start, config = self._start, self.config
        start.threads.add(threading.get_ident())
        self.spans.begin(config.name, config.label)
        try:
            try:
                attempt = self._launch_within_limits()
            except BrowserkeeperError as error:
                raise error.with_traceback(None)  # noqa: B904 # it leads through tenacity
            waited = self.admission.waited
            seconds = attempt.ending.seconds["start"] = time.monotonic() - start.began - waited
            with self._lock:
                if start.called_off:
                    self._end("closed")
                    raise self._called_off()
                self.state, self._commands = "live", Commands(attempt)
                self.spans.started(attempt.id)
            attempt.guard.tell_started(seconds, waited)
            self._open_downloads(attempt)
            self.admission.hand_over()
            if not config.disposable and config.is_here:
                attempt.let_the_browser_quit()
            facts = {
                "event.action": "session-started",
                "event.duration": int(seconds * 1e9),  # ECS: nanoseconds
                "browserkeeper.session.id": attempt.id,
                "browserkeeper.browser": config.name,
                "browserkeeper.seconds": {"start": seconds, "slot_wait": waited},
                **({"browserkeeper.label": config.label} if config.label else {}),
            }
            name = f'{attempt.id} "{config.label}"' if config.label else attempt.id
            logger.info("%s session %s started in %.2f s", config.name, name, seconds, extra=facts)
            return self.driver  # raises SessionClosed where it was closed meanwhile
        finally:
            self.admission.give_back()  # of a start that has failed
            start.driver = None
            start.settled = True

    def _launch_within_limits(self) -> Started:
        """Raises LaunchError where a limit of the system stops the start, at the first attempt."""
        start, config = self._start, self.config
        try:
            require_descriptors()
            start.cancellation.check()
            if config.server is not None:
                return self._lease_from_server()
            preparation = Preparation.make(config, start.cancellation)
            self.admission.take(config, preparation.ledger, self._check_wait)
            start.deadline = time.monotonic() + config.start_timeout
            self.spans.admitted(self.admission.waited)
            slot = self.admission.slot
            bind = self.admission.bind
            make = functools.partial(_make_attempt, preparation, slot, bind, start.began, start.deadline)
            return self._launch_with_retries(make)
        except (OSError, RuntimeError, MemoryError) as error:
            is_explained = isinstance(error, BrowserkeeperError) and not isinstance(error, LimitError)
            if is_explained or not (limit := limit_of(error)):
                raise
            text = f"{self.config.name} cannot be started. {limit}"
            raise LaunchError(text, retryable=False, report=self.report) from None

    def _lease_from_server(self) -> Started:
        """Lease the session from the server, whose queue takes the place of the host's slots."""
        from ..drivers import server
        from .server_attempt import ServerAttempt

        start, config = self._start, self.config
        server.check(config)
        waits = config.wait if config.wait is not None else math.inf
        start.deadline = time.monotonic() + config.start_timeout + waits
        until = start.deadline if math.isfinite(start.deadline) else None
        self.spans.admitted(0.0)
        return self._launch_with_retries(functools.partial(ServerAttempt, config, start.began, until))

    def _check_wait(self, why: Callable[[], str]) -> float | None:
        """While the start waits for its slot: see :meth:`Admission.take`."""
        start = self._start
        start.cancellation.check()
        return check_deadlines(self.config, start.began, self.user_deadlines, self.deadline_errors, why)

    def _launch_with_retries(self, make: Callable[[], Started]) -> Started:
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

        start = self._start
        retrying = Retrying(
            stop=stop_after_attempt(self.config.attempts + FREE_LAUNCHES),  # may_retry() decides
            wait=wait_random_exponential(multiplier=0.1, max=2),
            sleep=start.cancellation.sleep,
            retry=retry_if_exception(functools.partial(start.may_retry, config=self.config)),
            reraise=True,
        )
        try:
            # tenacity's objects refer to each other in circles
            return retrying(weakly(self._launch), make)
        except LaunchError as error:
            if start.called_off:
                raise self._called_off() from error
            if len(start.failures) > 1:
                raise error from start.failures[0]
            raise
        finally:
            start.failures.clear()  # their tracebacks hold the drivers of launches that failed

    def _launch(self, make: Callable[[], Started]) -> Started:
        """One launch.  One that fails is ended, verified, before its error is raised."""
        self.attempt = None
        cancellation = self._start.cancellation
        cancellation.check()
        attempt = self.attempt = make()
        if self.admission.slot is not None:
            attempt.ending.seconds["slot_wait"] = self.admission.slot.waited
        try:
            assert self._start.called_at is not None
            name = f"{self.config.name} session {attempt.id}"
            attempt.ending.end_with(self, name, self._start.called_at)
            cancellation.watch(attempt.guard)
            cancellation.check()
            for reason, (_, passes) in list(self.user_deadlines.items()):  # set before this launch
                attempt.guard.set_deadline(max(0.001, passes - time.monotonic()), reason)
            self._start.driver = attempt.connect(self)
            return attempt
        except BaseException as error:
            is_late = time.monotonic() >= self._start.deadline - 0.05  # the end takes its own time
            event = attempt.guard.event("failed") or attempt.guard.event("ending")
            report = self._end("failed")
            raise_if_leaked(report, self.config.on_leak, "session", error)
            if not isinstance(error, (LaunchError, StartRefusedError)):
                raise
            passed = self._passed_user_deadline(event.get("reason", "") if event else "")
            explained = attempt.explain(error, event, self.deadline_errors, passed, is_late=is_late)
            raise explained from cause_to_show(error)

    def call_off(self) -> None:
        """Cancel the start, which then raises SessionClosed in its thread.  Returns at once."""
        self._start.cancellation.request()

    def _called_off(self) -> SessionClosed:
        return SessionClosed(f"{self.name.rstrip()} was closed during its start.")

    # -- commands

    def run_command(self, name: str, params: Mapping[str, Any], command: Callable[[], T]) -> T:
        """Run a WebDriver command of the driver.

        Raises ForkedSessionError in a process that inherited the session, a SessionTimeout, BrowserDied
        or SessionClosed where the session is over or comes to an end, and Selenium's errors as they are.
        """
        self.refuse_fork("used")
        if self.state == "starting":
            return command()
        if self.state == "closed" or self._commands is None:
            raise self.over()
        if self.attempt is not None:
            command = self.attempt.wrapped(name, command)
        self.downloads.note_command(name, params)
        # A command that was interrupted goes on, and must not keep alive what the program has dropped.
        commands, fail = self._commands, weakly(self._fail)
        return run_explained(self.proxy_route, name, lambda: commands.run(name, params, command, fail))

    def _open_downloads(self, attempt: Started) -> None:
        """Begin to note downloads.  If leases have contexts, the pool does this with its own
        connection."""
        self.downloads.browser = attempt.browser.identity
        if not self.downloads.is_in_contexts:
            self.downloads.open(self.config, attempt.driver.caps, attempt.tmpdir, attempt.bidi)

    def expect_download(self, timeout: float | None, count: int) -> Expectation:
        """See ``BrowserSession.expect_download``."""
        return self.downloads.expect(
            User(self.raise_if_over, self._run_classic), timeout, count, "expect_download()"
        )

    def _run_classic(self, name: str, params: dict[str, Any]) -> Any:
        return self.driver.execute(name, params)["value"]

    def raise_if_over(self) -> None:
        """Raises the error that a command would raise, if the session is over or its browser is lost."""
        from selenium.common.exceptions import WebDriverException

        self.refuse_fork("used")
        if self.state != "live":
            raise (
                self.over() if self.report is not None else SessionClosed("The session is not started.")
            )
        if error := self.failure():
            raise error
        if not self.looks_alive():
            try:
                self._run_classic("w3cGetWindowHandles", {})
            except BrowserkeeperError:
                raise
            except WebDriverException:  # the browser has answered: it runs again after a stop
                pass

    def read_storage_state(self, indexed_db: bool) -> dict[str, Any]:
        """The storage state of the browser's own windows.  Raises StorageStateError, and what
        :meth:`run_command` raises."""
        return self.run_command(STORAGE_STATE, {}, lambda: read_state(self._live(), indexed_db))

    def load_storage_state(self, state: StorageState) -> None:
        """Load a state into the browser's own windows, before their first page.  Raises IdentityError,
        and what :meth:`run_command` raises."""
        self.run_command(STORAGE_STATE, {}, lambda: load_state(self._live(), state))

    def tell_lease(self, identity: Identity, label: str, max_lease: float | None) -> None:
        """Tell the server that a lease of a pool begins in this session; see :meth:`ServerAttempt.tell`.
        Raises the error of the session if it is over."""
        from .server_attempt import ServerAttempt

        attempt = self.attempt
        if not isinstance(attempt, ServerAttempt) or attempt.driver is None:
            raise self.over()
        attempt.tell(identity, label, max_lease)

    def _live(self) -> Attempt:
        attempt = self.attempt
        if not isinstance(attempt, Attempt) or attempt.driver is None:
            raise self.over()
        return attempt

    @property
    def proxy_route(self) -> Route | None:
        """The relay's route to the proxy of the session; None without a proxy."""
        return self.attempt.route if self.attempt is not None else None

    def quit_driver(self) -> None:
        """What ``driver.quit()`` does: a normal end, verified like any other."""
        if self.state != "starting":  # Selenium's constructor calls quit() where it fails
            self.close()

    @property
    def bidi_filter(self) -> Filter | None:
        """The filter for BiDi commands of the session's own driver; None if they are sent unchanged."""
        if not self.config.is_here or self.attempt is None:
            return None
        from ..drivers.session_filter import SessionFilter

        blocking = self.config.identity.block if self.config.engine == "firefox" else None
        return SessionFilter(self.attempt.own_pages, blocking or None)

    def driver_for(self, handler: CommandHandler, reused: Any = None) -> Any:
        """Another driver object on this session, whose commands pass through ``handler``.  ``reused``: a
        driver object of an ended lease, which becomes that object; None for a new one."""
        from ..drivers import managed

        return managed.another(self.driver, handler, reused)

    def observe_command(
        self, name: str, params: Mapping[str, Any]
    ) -> contextlib.AbstractContextManager[None]:
        """For a command that does not pass through :meth:`run_command`: keep it as one of the last."""
        if self._commands is None or os.getpid() != self.owner:
            return contextlib.nullcontext()
        return self._commands.observed(name, params)

    def forget_commands(self) -> None:
        """To be called between two users of the session: what an error of the second one says that the
        session was doing must not be the first one's."""
        if self._commands is not None:
            self._commands.forget()

    @property
    def at_rest(self) -> bool:
        """True if no command is in flight, and none was interrupted before its answer came."""
        return self._commands is None or self._commands.at_rest

    def looks_alive(self) -> bool:
        """True if driver and browser exist, neither is stopped or a zombie, and the guard is not ending
        the session.  Sends them nothing, and costs microseconds."""
        attempt = self.attempt
        if self.state != "live" or attempt is None or attempt.guard.event("ending"):
            return False
        return attempt.looks_alive()

    def failure(self) -> BrowserkeeperError | None:
        """The error that a command would raise because the session is over; None while it is not.

        Where the guard is ending the session, waits for the end.
        """
        attempt = self.attempt
        if attempt is not None and attempt.report is None and (event := attempt.guard.event("ending")):
            self.end(event["reason"])
        return self.over() if self.report is not None else None

    def over(self, when: str = "", cause: Exception | None = None) -> BrowserkeeperError:
        """The error that says why this session is over; see :func:`over_error`."""
        if self._commands is not None and self._commands.last_window_closed:
            when = "with its last window (the browser ends with it)"
        errors = self.deadline_errors
        if self.attempt is not None and (known := self.attempt.error_of_end(when)) is not None:
            return known
        passed = self._passed_user_deadline(self.report.reason if self.report else "")
        return over_error(
            self.config, self.report, self.name, errors, when, cause, passed, self._why_it_died
        )

    def _passed_user_deadline(self, reason: str) -> float | None:
        """The seconds of the user's deadline that has ended the session, by the ``reason`` of its end;
        None where none has.

        Two limits have the reason ``timeout``: that of ``browser()``, and the user's without a name.
        The nearer one has passed.
        """
        if reason not in self.user_deadlines:
            return None
        seconds, passes = self.user_deadlines[reason]
        own = self.config.timeout if reason == "timeout" else None
        return None if own is not None and self._start.began + own < passes else seconds

    def _fail(self, reason: str, command: str, error: Exception) -> BrowserkeeperError:
        """End the session after a command that failed; returns the error to raise for it."""
        raise_if_leaked(self._end(reason), self.config.on_leak, "session", error)
        return self.over(f"during {command!r}", error)

    def refuse_fork(self, verb: str) -> None:
        """Raises ForkedSessionError in a process that inherited the session by fork."""
        if os.getpid() != self.owner:
            raise ForkedSessionError(
                f"{self.config.name} session {self.id} belongs to process {self.owner} and cannot be "
                f"{verb} in its fork {os.getpid()}. Open a session in the child itself."
            )

    # -- the end

    def set_deadline(self, seconds: float | None, reason: str) -> None:
        """Have the guard end the session in so many seconds; None takes the deadline of that reason
        back.  Leaves the deadlines of other reasons as they are."""
        if self.attempt is not None:
            self.attempt.guard.set_deadline(seconds or 0, reason)

    def set_user_deadline(self, seconds: float | None, reason: str) -> None:
        """See ``BrowserSession.set_deadline``; the arguments are checked."""
        if self.report is not None:
            return  # its error names the deadline that has ended the session
        if seconds is None:
            for known in [reason] if reason else list(self.user_deadlines):
                self.user_deadlines.pop(known, None)
                self.set_deadline(None, known)
            return
        reason = reason or "timeout"
        self.user_deadlines[reason] = (seconds, time.monotonic() + seconds)
        self.admission.request.wake()  # where the start waits for its slot
        self.set_deadline(seconds, reason)

    def take_back_deadlines(self) -> None:
        """Take back the deadlines of all reasons.  The session's ``timeout`` stays."""
        self.user_deadlines.clear()
        self.set_deadline(None, "*")

    def name_lease(self, label: str) -> None:
        """The label of the lease that has the browser from now on; "" for none.  The report of the
        session's end has it in place of the session's own."""
        if (attempt := self.attempt) is not None:
            attempt.ending.label = label or self.config.label
            attempt.guard.name_lease(label)

    def cut_off(self) -> None:
        """See ``BrowserSession.cut_off``."""
        if os.getpid() != self.owner:
            return  # a fork inherits signal handlers
        self.call_off()
        attempt = self.attempt  # another thread's start may replace it
        if attempt is not None and attempt.report is None:
            attempt.guard.tell_to_end("closed")

    def close(self) -> ExitReport:
        """End the session, and raise, warn of or log a leak; see ``BrowserSession.close``.

        A start that is under way in another thread is called off, and waited for.  In a signal handler
        of the starting thread, which cannot wait for itself, SessionClosed is raised instead.
        """
        self.refuse_fork("ended")
        if self.state == "starting":
            self.call_off()
            if threading.get_ident() in self._start.threads:
                raise self._called_off()
            limit = self.config.start_timeout + 2 * self.config.close_timeout
            until = time.monotonic() + limit
            # threading.Event has a lock that hangs when a signal handler waits as well.
            while not self._start.settled and time.monotonic() < until:
                time.sleep(SETTLE_PAUSE)
        try:
            report = self.end("closed")
        except BaseException:
            self.end("closed")  # nothing, unless an exception from outside came before the end
            raise
        raise_if_leaked(report, self.config.on_leak, "session", stacklevel=4)
        return report

    def end(self, reason: str) -> ExitReport:
        """End the session for this reason, and verify it.

        Idempotent: concurrent callers get the same report.  Raises nothing for a leak: the report names
        it.  An exception from outside that comes meanwhile is raised when the session has ended.
        """
        return self.report or to_the_end(lambda: self._end(reason))

    def _end(self, reason: str) -> ExitReport:
        """See :meth:`end`; for threads of :class:`Call`."""
        with hold(self._lock, self.config.close_timeout):
            if self.report is not None:
                return self.report
            attempt = self.attempt
            if attempt is None:
                self.state = "closed"
                self._nothing_started = ExitReport(
                    self.id, self.config.name, reason, "", "nothing was started", commands_known=True
                )
                return self._nothing_started
            run_apart(lambda: attempt.ending.name_downloads(self.downloads.close()), DISCONNECT_TIMEOUT)
            run_apart(attempt.disconnect_bidi, DISCONNECT_TIMEOUT)
            report = attempt.ending.run(reason, attempt.disconnect)
            if self.state == "live":
                self._why_it_died = attempt.causes_of_death()
            if self.state == "live":
                self.state = "closed"
            if self.spans.are_open:
                run_apart(functools.partial(self._end_spans, report), SPANS_TIMEOUT)
            return report

    def _end_spans(self, report: ExitReport) -> None:
        self.spans.ended(report, self.over, report.seconds["close"])


def _make_attempt(
    preparation: Preparation,
    slot: Slot | None,
    bind: Callable[[str], None],
    began: float,
    deadline: float,
) -> Attempt:
    """An attempt to launch on this machine.  ``bind`` is called with the id of its session."""
    plan = LaunchPlan.make(preparation, slot, began, deadline)
    bind(plan.record.session.id)
    return Attempt(plan)


def weakly(method: F) -> F:
    """The bound method as a function that does not keep its object alive, and that raises ReferenceError
    once the object is gone."""
    reference = weakref.WeakMethod(method)

    def call(*given: Any) -> Any:
        found = reference()
        if found is None:
            raise ReferenceError("the session was dropped")
        return found(*given)

    return cast("F", call)
