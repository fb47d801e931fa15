"""``browser()`` and ``BrowserSession``: one browser from its start to its verified end.

The owner's half of the story.  The other half is in ``guard.py``, which outlives the owner; all
that is said here about an ending is what the guard has certified, or, where the guard itself was
killed, what ``removal.end_dead_session`` found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.client
import inspect
import logging
import os
import re
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from ..cleanup.removal import account_of_end, give_back
from ..config import (
    ATTEMPTS,
    CLOSE_TIMEOUT,
    COMMAND_TIMEOUT,
    START_TIMEOUT,
    Debugging,
    OnLeak,
    SessionConfig,
)
from ..drivers.browser_handle import BrowserHandle, LocalBrowserHandle, is_running
from ..drivers.launch import Launch
from ..errors import (
    BrowserDied,
    BrowserkeeperError,
    CommandTimeout,
    ConfigError,
    ContainmentError,
    ForkedSessionError,
    GridError,
    LaunchError,
    LeakError,
    LedgerError,
    SessionClosed,
    SessionTimeout,
    VersionMismatch,
)
from ..grid.address import VARIABLE as GRID
from ..process import identity_of, own_name, system
from ..process.containment import Containment, Kind, choose
from ..process.guard_process import GuardPlan, GuardProcess
from ..process.identity import ProcessFacts, ProcessIdentity
from ..report import ExitReport
from ..state.ledger import Ledger
from ..state.records import Record, Session, new_id
from ..state.tmpdirs import PREFIX, choose_root
from .spans import SessionSpans

if TYPE_CHECKING:
    from selenium import webdriver

    from ..drivers.managed import CommandHandler
    from ..drivers.resolve import Resolved

    D_co = TypeVar("D_co", bound=webdriver.Remote, covariant=True)
else:
    D_co = TypeVar("D_co", covariant=True)

T = TypeVar("T")

logger = logging.getLogger("browserkeeper")

NEWS_PATIENCE = 2.0
"""Seconds to wait for the guard to say why a connection broke; it says so in milliseconds."""
PORT_PAUSE = 0.005
"""Seconds, at the most, between two looks for the driver's port; Selenium's reach 0.5."""
_HOPELESS = re.compile(
    r"only supports|cannot find|no chrome binary|unrecognized|invalid argument|"
    r"unable to find a matching|not executable|binary is not|expected browser binary|credentials",
    re.IGNORECASE,
)


class BrowserSession(Generic[D_co]):
    """A browser, its driver and the guard that ends them; made by :func:`browser`.

    A context manager for one use, and safe to use from several threads.  As a decorator it makes
    a new session for each call.
    """

    def __init__(self, config: SessionConfig):
        self.config = config
        self.id = ""
        self.report: ExitReport | None = None
        """How the session ended; None until it has."""
        self.deadline_errors: dict[str, Callable[[str, ExitReport | None], SessionTimeout]] = {}
        """What to raise when a deadline passes, by its reason: for those who set one, and can say more
        about it (pools, Celery's tasks)."""
        self._owner = os.getpid()
        self._driver: D_co | None = None
        self._guarded: GuardProcess | None = None
        self._record: Record | None = None
        self._browser: BrowserHandle = LocalBrowserHandle(None)
        self._state: Literal["new", "starting", "live", "closed"] = "new"
        self._end_lock = threading.RLock()
        self._pending = 0
        self._pending_lock = threading.Lock()
        self._interrupted = False
        self._closing = False
        self._starter = 0
        self._settled = threading.Event()
        self._lead = 0
        self._driver_process: ProcessIdentity | None = None
        self._ledger: Ledger | None = None
        self._notes: tuple[str, ...] = ()
        self._seconds: dict[str, float] = {}
        self._spans = SessionSpans()
        self._release: weakref.finalize[Any, Any] | None = None

    # -- facts

    @property
    def name(self) -> str:
        """The browser's name, as it was asked for."""
        return self.config.name

    @property
    def driver(self) -> D_co:
        """The Selenium driver.  Raises SessionClosed before the start and after the end."""
        if self._driver is None:
            raise SessionClosed(f"This session is {self._state}; use it inside `with`, or start() it.")
        return self._driver

    @property
    def pid(self) -> int | None:
        """The browser's main process; None for one on a Grid."""
        return self.identity.pid if self.identity else None

    @property
    def tmpdir(self) -> str:
        """The session's own TMPDIR, "" before its start; gone when the session is."""
        return self._record.session.tmpdir if self._record else ""

    @property
    def containment(self) -> str:
        """The containment that this session really has, "" before its start."""
        return self._guarded.plan.containment.kind if self._guarded else ""

    @property
    def guard_pid(self) -> int | None:
        """The guard's process, the ancestor of all the others (its standby, more exactly)."""
        return self._guarded.pid if self._guarded else None

    def processes(self) -> list[ProcessFacts]:
        """Driver and browser: what lives below the guard now.  O(the session's own tree) on Linux."""
        return system.tree(self._lead) if self._lead and self.report is None else []

    def memory(self) -> int:
        """Bytes of the whole tree, shared pages counted once (PSS; RSS off Linux)."""
        return sum(system.memory(process.pid) for process in self.processes())

    def uses_more_than(self, limit: int) -> bool:
        """Is ``memory()`` above so many bytes?  Mostly a hundred times faster than that: resident
        sizes, which are never below PSS, are added up first, and are often enough."""
        if sum(system.resident(process.pid) for process in self.processes()) <= limit:
            return False
        return self.memory() > limit

    def __repr__(self) -> str:
        return f"<BrowserSession {self.name} {self.id or 'unstarted'} {self._state} pid={self.pid}>"

    # -- start

    def start(self) -> D_co:
        """Start the browser and return its driver.

        Raises ConfigError, ResolveError or VersionMismatch before anything is started;
        LaunchError, LedgerError, ContainmentError or SessionTimeout when all that had been
        started is gone again.
        """
        with self._end_lock:
            if self._state != "new":
                raise SessionClosed(f"{self!r} was started before; make a new one with browser().")
            self._state, self._starter = "starting", threading.get_ident()
        self._spans.begin(self.name)
        try:
            return self._start()
        except BaseException as error:
            self._spans.failed(error)
            raise
        finally:
            self._settled.set()

    def _start(self) -> D_co:
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

        began = time.monotonic()
        causes: list[LaunchError] = []
        retrying = Retrying(
            stop=stop_after_attempt(self.config.attempts),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            retry=retry_if_exception(lambda error: self._may_retry(error, causes, began)),
            reraise=True,
        )
        try:
            retrying(self._attempt, began)
        except LaunchError as error:
            self._state = "closed"
            if self._closing:
                raise self._called_off() from error
            if len(causes) > 1:
                raise error from causes[0]
            raise
        except BaseException:
            self._state = "closed"
            raise
        self._seconds["start"] = time.monotonic() - began
        with self._end_lock:
            self._state = "live"
            if self._closing:
                self._end("closed")
                raise self._over("during its start")
            self._spans.started(self.id)
        self._say_started(self._seconds["start"])
        return self.driver

    def _say_started(self, seconds: float) -> None:
        if self._guarded is not None:
            self._guarded.tell_started(seconds)
        facts = {
            "event.action": "session-started",
            "event.duration": int(seconds * 1e9),  # ECS: nanoseconds
            "browserkeeper.session.id": self.id,
            "browserkeeper.browser": self.name,
        }
        logger.info("%s session %s started in %.2f s", self.name, self.id, seconds, extra=facts)

    def _may_retry(self, error: BaseException, causes: list[LaunchError], began: float) -> bool:
        if not isinstance(error, LaunchError):
            return False
        causes.append(error)
        left = began + self.config.start_timeout - time.monotonic()
        if self._closing or (error.report is not None and not error.report.clean):
            return False
        if error.retryable and left > 1 and len(causes) < self.config.attempts:
            logger.warning("launch %d failed, trying again: %s", len(causes), error)
            return True
        return False

    def _attempt(self, began: float) -> None:
        """One launch: a new id, TMPDIR, port and guard.  What fails is taken back whole."""
        deadline = began + self.config.start_timeout
        ledger = self._ledger = Ledger.open()
        ledger.prune()
        self.report, self._guarded, self._lead = None, None, 0
        launch, plan, session = self._plan(ledger, began)
        self._record = Record(ledger.record_path(session.id), session, (), ())
        try:
            guarded = self._guarded = GuardProcess(plan)
        except OSError as error:
            raise LaunchError(f"The guard cannot be started: {error}.") from error
        try:
            self._watch_over(guarded, self._record)
            options = launch.build_options()
            port = self._wait_for_port(guarded, launch, deadline)
            self._connect(guarded, launch, options, port, deadline)
        except BaseException as error:
            news = guarded.event("failed") or guarded.event("ending")
            self._raise_if_leaked(self._end("failed"), error)
            ended = guarded.event("ended")
            tail = ended["report"]["log_tail"].strip() if ended else ""
            if isinstance(error, _launch_failures()):
                raise self._launch_error(error, tail, news, deadline) from error
            if isinstance(error, LaunchError):
                raise self._launch_error(error, tail, news, deadline) from error.__cause__
            raise

    def _watch_over(self, guarded: GuardProcess, record: Record) -> None:
        """What has to be in place before anything else can go wrong."""
        self._record = dataclasses.replace(record, guards=(identity_of(guarded.pid),))
        self._release = weakref.finalize(self, _let_go, guarded, self._owner, repr(self))
        if self._closing:
            raise self._called_off()

    def _plan(self, ledger: Ledger, began: float) -> tuple[Launch, GuardPlan, Session]:
        config = self.config
        if config.log:
            _check_log(config.log)
        found = self._resolve(ledger)
        self.id = new_id()
        tmpdir = os.path.join(choose_root(), PREFIX + self.id)
        launch = self._prepare(found, tmpdir, ledger)
        self._notes = (launch.note,) if launch.note else ()
        containment = choose(config.containment)
        session = self._describe(tmpdir, containment, began)
        left = config.timeout and max(0.001, began + config.timeout - time.monotonic())
        plan = GuardPlan(
            session=self.id,
            command=launch.command,
            env=environment(config.env, launch.env, tmpdir),
            containment=containment,
            document=session.to_json(),
            tmpdir=tmpdir,
            record=str(ledger.record_path(self.id)),
            history=str(ledger.history_path(self.id)),
            log=os.path.join(tmpdir, "driver.log"),
            keep_log=config.log or "",
            timeout=left or 0,
            kill_deadline=config.close_timeout,
            farewell=launch.farewell,
            account=launch.account,
        )
        return launch, plan, session

    def _resolve(self, ledger: Ledger) -> Resolved | None:
        """None for a Grid, which has browsers and drivers of its own."""
        from ..drivers.resolve import resolve

        config = self.config
        if config.remote is not None:
            return None
        return resolve(
            config.name,
            binary=config.binary,
            driver_path=config.driver_path,
            offline=config.offline,
            directory=ledger.directory,
        )

    def _prepare(self, found: Resolved | None, tmpdir: str, ledger: Ledger) -> Launch:
        from ..drivers import chromium, firefox, remote

        config = self.config
        if found is None:
            return remote.prepare(config, self.id, tmpdir)
        if config.engine == "firefox":
            return firefox.prepare(config, found, tmpdir, ledger.directory)
        return chromium.prepare(config, found, tmpdir, ledger.directory)

    def _describe(self, tmpdir: str, containment: Containment, began: float) -> Session:
        started = time.time() - (time.monotonic() - began)
        return Session(
            id=self.id,
            kind="session",
            browser=self.name,
            owner=identity_of(os.getpid()),
            owner_name=own_name(),
            host=system.host_id(),
            containment=containment.kind,
            created=started,
            deadline=started + self.config.timeout if self.config.timeout else None,
            tmpdir=tmpdir,
            cgroup=containment.leaf(self.id),
            grid=str(self.config.remote or ""),
        )

    def _wait_for_port(self, guarded: GuardProcess, launch: Launch, deadline: float) -> int:
        """The driver prints the port it got; no free port is guessed, so none can be taken."""
        pattern = re.compile(launch.port_pattern)
        pause = 0.002
        while True:
            match = pattern.search(_read(guarded.plan.log))
            if match and (port := int(match.group(1)) or _unsaid_port(guarded)):
                return port
            until = min(deadline, time.monotonic() + pause)
            if guarded.wait_for("failed", "ending", "ended", deadline=until):
                raise LaunchError("The driver ended before it opened its port.")
            if not guarded.is_alive():
                raise LaunchError("The guard was killed during the launch.")
            if time.monotonic() >= deadline:
                raise LaunchError(f"The driver opened no port within {self.config.start_timeout:g} s.")
            pause = min(pause * 1.2, PORT_PAUSE)

    def _connect(
        self, guarded: GuardProcess, launch: Launch, options: Any, port: int, deadline: float
    ) -> None:
        from ..drivers import managed

        # A driver can be sooner with its port than the guard with its news on a busy machine.
        spawned = guarded.wait_for("spawned", deadline=deadline)
        if spawned is None:
            raise LaunchError("The guard was killed during the launch.")
        self._lead, self._driver_process = spawned["guard"], identity_of(spawned["pid"])
        service = managed.ManagedService(self, launch.command[0], port, guarded.process)
        left = max(0.1, deadline - time.monotonic())
        driver = managed.connect(self.name, self, service, options, left, self.config.remote)
        managed.set_command_timeout(driver, self.config.command_timeout)
        self._driver = cast(D_co, driver)
        self._browser = launch.see(driver.caps, self.processes())

    def _launch_error(
        self,
        error: Exception,
        tail: str,
        news: Mapping[str, Any] | None,
        deadline: float,
    ) -> BrowserkeeperError:
        """Say what the case is, and whether another attempt may help."""
        if news and news["event"] == "failed":
            return self._guard_failure(news)
        if news and news["reason"] == "timeout":
            text = (
                f"{self.name} did not start within the session's timeout of {self.config.timeout:g} s."
            )
            return self.deadline_errors.get("timeout", SessionTimeout)(text, self.report)
        failure = GridError if self.config.remote else LaunchError
        if news and news["reason"] in ("terminated", "exited") and not isinstance(error, LaunchError):
            text = "The driver ended" if news["reason"] == "exited" else "The guard was terminated"
            return failure(f"{text} during the launch.", log_tail=tail, report=self.report)
        if isinstance(error, LaunchError):
            return failure(str(error), log_tail=tail, report=self.report)
        if time.monotonic() >= deadline - 0.05:
            text = f"{self.name} did not answer within start_timeout={self.config.start_timeout:g} s."
            return failure(text + self._why_so_late(), log_tail=tail, report=self.report)
        text = str(getattr(error, "msg", None) or error).split("\n")[0]
        if "only supports" in text:
            return VersionMismatch(f"The driver refuses the browser: {text}", "?", "?")
        return failure(
            f"{self.name} did not start: {text or type(error).__name__}",
            log_tail=tail,
            retryable=not _HOPELESS.search(text) and not isinstance(error, TypeError),
            report=self.report,
        )

    def _why_so_late(self) -> str:
        """Only a Grid can tell: a request that waits in its queue waits for a slot."""
        remote = self.report.remote if self.report else None
        if remote is None or not remote.queued:
            return ""
        return (
            f" {remote.grid} had no free slot for it: raise start_timeout, use a BrowserPool, or give "
            "the Grid more slots; it may also have none at all for such a browser."
        )

    def _guard_failure(self, news: Mapping[str, Any]) -> BrowserkeeperError:
        where, text = news["where"], news["text"]
        if where == "record":
            return LedgerError(
                f"The record of the session cannot be written: {text}. Free space in the state "
                "directory, or set BROWSERKEEPER_STATE_DIR to another one."
            )
        if where == "cgroup":
            return ContainmentError(f"The cgroup cannot be made: {text}. Use containment='subreaper'.")
        remedy = "Set BROWSERKEEPER_TMPDIR to another directory." if where == "tmpdir" else ""
        return LaunchError(
            f"{self.name} cannot be started ({where}): {text}. {remedy}",
            retryable=False,
            report=self.report,
        )

    # -- commands

    def run_command(self, name: str, params: Mapping[str, Any], command: Callable[[], T]) -> T:
        """Every WebDriver command of the driver passes here; its errors come out typed.

        Raises ForkedSessionError in a process that inherited the session; SessionClosed,
        SessionTimeout, CommandTimeout or BrowserDied when the session is or comes to an end.
        """
        self._refuse_fork("used")
        if self._state == "starting":
            return command()
        if self._state == "closed":
            raise self._over()
        from selenium.common.exceptions import WebDriverException
        from urllib3.exceptions import HTTPError
        from websocket import WebSocketException

        self._count(+1)
        try:
            return command()
        except WebDriverException as error:
            if self._browser_is_lost(f"{type(error).__name__}: {error.msg}"):
                raise self._explain(name, error) from error
            raise
        except (HTTPError, WebSocketException, OSError) as error:
            raise self._explain(name, error) from error
        except BaseException:
            self._interrupted = True  # its answer is still to come: this connection is of no use
            raise
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._pending_lock:  # += is no atomic operation
            self._pending += change

    def _browser_is_lost(self, message: str) -> bool:
        guarded = self._guarded
        if guarded is None or guarded.event("ending") or not guarded.is_alive():
            return True
        return self._browser.is_lost(message)

    def _explain(self, name: str, error: Exception) -> BrowserkeeperError:
        """The typed error for a command that came to nothing; the session is ended by then."""
        from urllib3.exceptions import ReadTimeoutError

        assert self._guarded is not None
        over = self._guarded.event("ending") is not None
        if not over and isinstance(error, (ReadTimeoutError, TimeoutError)):
            reason = "command-timeout"
        elif over or self._browser_is_lost("") or self._wait_for_news(self._guarded):
            reason = "browser-died"
        else:
            reason = "connection-lost"
        self._raise_if_leaked(self._end(reason), error)
        return self._over(f"during {name!r}", error)

    def _wait_for_news(self, guarded: GuardProcess) -> bool:
        """The connection broke, so the guard is about to say why, or the browser is about to go."""
        guarded.wait_for("ending", "ended", deadline=time.monotonic() + NEWS_PATIENCE)
        return self._browser_is_lost("")

    def _over(self, when: str = "", cause: Exception | None = None) -> BrowserkeeperError:
        """The error that tells why this session is over."""
        reason = self.report.reason if self.report else "closed"
        config, head = self.config, f"{self.name} session {self.id}"
        when = f" {when}" if when else ""
        if reason in self.deadline_errors:
            text = f"{head} passed its deadline{when} and was ended."
            return self.deadline_errors[reason](text, self.report)
        if reason == "timeout":
            limit = f" of {config.timeout:g} s" if config.timeout else ""
            text = f"{head} passed its timeout{limit}{when} and was ended."
            return SessionTimeout(text, self.report)
        if reason == "command-timeout":
            return CommandTimeout(
                f"{head}: no answer within command_timeout={config.command_timeout:g} s{when}; "
                "the session was ended.",
                self.report,
            )
        if reason in ("closed", "error"):
            return SessionClosed(f"{head} was closed{when}.", self.report)
        texts = {
            "browser-died": "its browser died or was killed",
            "connection-lost": "the connection to its driver broke",
            "exited": "its driver ended by itself or was killed",
            "terminated": "its guard was terminated",
            "guard-died": "its guard was killed",
            "hung": "it did not answer in time",
        }
        detail = f" ({str(cause).splitlines()[0]})" if cause and str(cause) else ""
        return BrowserDied(f"{head}: {texts.get(reason, reason)}{when}{detail}.", self.report)

    def _refuse_fork(self, verb: str) -> None:
        if os.getpid() != self._owner:
            raise ForkedSessionError(
                f"{self.name} session {self.id} belongs to process {self._owner} and cannot be "
                f"{verb} in its fork {os.getpid()}. Open a session in the child itself."
            )

    # -- end

    def close(self) -> ExitReport:
        """End the session and verify it; the second call returns the same report.

        A command in flight in another thread is cut off, and raises SessionClosed there.  Raises
        LeakError as ``on_leak`` says, ForkedSessionError in a process that inherited the session.
        """
        self._refuse_fork("ended")
        if self._state == "starting":
            self._call_off()
        report = self._end("closed")
        self._raise_if_leaked(report, None)
        return report

    def end(self, reason: str) -> ExitReport:
        """End the session without asking, for a reason of the caller's, and verify it.

        Raises nothing for a leak: the report says it.
        """
        self._refuse_fork("ended")
        self._interrupted = True
        return self._end(reason)

    def call_off(self) -> None:
        """Give up a start that is under way in another thread, which raises SessionClosed there;
        returns at once."""
        self._closing = True
        if self._guarded is not None:
            self._guarded.tell_to_end("closed")

    def set_deadline(self, seconds: float | None, reason: str = "timeout") -> None:
        """The guard ends the session for ``reason``, one word, in that many seconds from now; it
        does so whatever this process is stuck in.  None takes the deadline back."""
        if self._guarded is not None:
            self._guarded.set_deadline(seconds or 0, reason)

    @property
    def at_rest(self) -> bool:
        """No command is in flight, and none was cut off before its answer came."""
        return self._pending == 0 and not self._interrupted

    def looks_alive(self) -> bool:
        """A look at driver and browser without a word to them: both are there, neither is stopped
        or a zombie, and the guard has not begun to end them.  Costs microseconds."""
        if self._state != "live" or self._guarded is None or self._guarded.event("ending"):
            return False
        return is_running(self._driver_process) and self._browser.is_running()

    def failure(self) -> BrowserkeeperError | None:
        """The error that a command would raise because the session is over, or on its way."""
        ending = self._guarded.event("ending") if self._guarded else None
        if self.report is None and ending is not None:
            self._end(ending["reason"])
        return self._over() if self.report is not None else None

    def driver_for(self, keeper: CommandHandler) -> D_co:
        """Another driver object on this session, whose commands pass through ``keeper``."""
        from ..drivers import managed

        return cast(D_co, managed.another(self.driver, keeper))

    @property
    def identity(self) -> ProcessIdentity | None:
        """The browser's main process, with the start time that tells it from a recycled pid."""
        return self._browser.identity

    def _called_off(self) -> SessionClosed:
        return SessionClosed(f"{self.name} session {self.id} was closed during its start.")

    def _call_off(self) -> None:
        """Closed before its start is done: by another thread, or by a signal handler of the
        starting one, which cannot wait for itself and gets an exception to carry out."""
        self.call_off()
        if self._starter == threading.get_ident():
            raise self._called_off()
        self._settled.wait(self.config.start_timeout + 2 * self.config.close_timeout)

    def quit_driver(self) -> None:
        """What ``driver.quit()`` does: a normal ending, verified like any other."""
        if self._state != "starting":  # Selenium's constructor tidies up; the launch does it too
            self.close()

    def _end(self, reason: str) -> ExitReport:
        """The one way to die.  Whoever comes second waits for the first, then has its report."""
        with self._end_lock:
            if self.report is not None:
                return self.report
            if self._guarded is None:
                self._state = "closed"
                self.report = _nothing_started(self, reason)
                return self.report
            began = time.monotonic()
            facts = self._ask_and_end(self._guarded, reason)
            report = self._account(facts)
            self._disconnect()
            seconds = {**report.seconds, **self._seconds, "close": time.monotonic() - began}
            notes = (*report.notes, *self._notes)
            self.report = dataclasses.replace(report, seconds=seconds, notes=notes)
            if self._release:
                self._release.detach()
            if self._state == "live":
                self._state = "closed"
            logger.info("%s", self.report, extra=self.report.log_fields())
            self._spans.ended(self.report, self._over, seconds["close"])
            return self.report

    def _ask_and_end(self, guarded: GuardProcess, reason: str) -> dict[str, Any] | None:
        """The guard's account.  It is told to end even when the asking is interrupted."""
        deadline = time.monotonic() + self.config.close_timeout
        try:
            if self._worth_asking(reason):
                self._ask(deadline)
        finally:
            # It kills for close_timeout before it reports what is stuck; then we read it.
            patience = deadline + self.config.close_timeout + NEWS_PATIENCE
            facts = guarded.end(reason, patience)
        return facts

    def _worth_asking(self, reason: str) -> bool:
        """A profile that is kept must be written; nothing else is worth the browser's time."""
        calm = reason in ("closed", "error") and not self._interrupted and self._pending == 0
        keeps_a_profile = not self.config.disposable and self.config.remote is None
        return self._state == "live" and keeps_a_profile and calm

    def _ask(self, deadline: float) -> None:
        """DELETE the session; the browser writes its profile, for half the close timeout."""
        service = getattr(self._driver, "service", None)
        if service is None or self._driver is None:
            return
        limit = max(0.1, (deadline - time.monotonic()) / 2)
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=limit)
        try:
            connection.request("DELETE", f"/session/{self._driver.session_id}")
            connection.getresponse().read()
            until = time.monotonic() + limit
            while time.monotonic() < until and not self._browser_is_lost(""):
                time.sleep(0.01)
        except (OSError, http.client.HTTPException) as error:
            self._notes += (f"the browser did not end when asked: {error}",)
        finally:
            connection.close()

    def _account(self, facts: Mapping[str, Any] | None) -> ExitReport:
        """The guard's report; else what it wrote down; else our own, where it was killed."""
        assert self._record is not None
        assert self._ledger is not None
        report = account_of_end(facts, self._ledger, self._record, self.config.remote)
        if self.config.remote is None or report.was_asked:
            return report
        # The relay was killed before it could ask, and the guard knows no Grid.
        report = give_back(report, self._record.session, self.config.remote, self.config.close_timeout)
        with contextlib.suppress(OSError):
            self._ledger.retire(self._record, report)
        return report

    def _disconnect(self) -> None:
        """Close what the driver object holds open in our own process: sockets and a thread."""
        driver, self._driver = self._driver, None
        if driver is None:
            return
        with contextlib.suppress(Exception):
            cast(Any, driver).disconnect_bidi()
        with contextlib.suppress(Exception):
            cast(Any, driver.command_executor).close()

    def _raise_if_leaked(self, report: ExitReport, in_flight: BaseException | None) -> None:
        """A leak is raised, unless another exception is on its way, which it must not hide."""
        if report.clean or self.config.on_leak == "ignore":
            return
        text = f"Something of the session is left.\n{report}"
        if self.config.on_leak == "raise" and in_flight is None:
            raise LeakError(text, report)
        logger.error(text)
        if self.config.on_leak == "warn":
            warnings.warn(text, ResourceWarning, stacklevel=3)

    # -- the context manager and the decorator

    def __enter__(self) -> D_co:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if os.getpid() != self._owner:
            return  # a fork that leaves the block: the session is its parent's
        if error is not None:
            self._spans.left_by(error)
        timed_out = self.report is not None and self.report.reason == "timeout"
        report = self._end("closed" if error is None else "error")
        self._raise_if_leaked(report, error)
        if error is None and report.reason == "timeout" and not timed_out:
            raise self._over("when its block ended")

    def __call__(self, function: Callable[..., T]) -> Callable[..., T]:
        """Decorate a function: each call gets a session of its own, its driver as ``driver``.

        A function without a parameter of that name just runs inside a session.  Raises
        ConfigError for coroutines and generators, whose bodies run after the call has returned.
        """
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise ConfigError(
                f"@browser() cannot decorate {function.__name__}: its body runs after the call "
                "returns. Use `with browser() as driver:` inside it."
            )
        return _with_driver(self.config, function)


def _with_driver(config: SessionConfig, function: Callable[..., T]) -> Callable[..., T]:
    signature = inspect.signature(function)
    wants_driver = "driver" in signature.parameters
    others = [p for name, p in signature.parameters.items() if name != "driver"]
    outer = signature.replace(parameters=others)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> T:
        with BrowserSession[Any](config) as driver:
            if not wants_driver:
                return function(*args, **kwargs)
            given = outer.bind(*args, **kwargs)
            given.apply_defaults()
            arguments = {
                name: driver if name == "driver" else given.arguments[name]
                for name in signature.parameters
            }
            full = inspect.BoundArguments(signature, arguments)
            return function(*full.args, **full.kwargs)

    wrapper.__signature__ = outer  # type: ignore[attr-defined]
    return wrapper


# ------------------------------------------------------------------------------------ helpers


def _let_go(guarded: GuardProcess, owner: int, name: str) -> None:
    """The session object was dropped, or the interpreter is ending: the guard must know.

    Holds no reference to the session.  In a fork it does nothing: the session is the parent's.
    """
    if os.getpid() != owner:
        return
    if guarded.is_alive():
        guarded.end("abandoned", time.monotonic() + CLOSE_TIMEOUT)
        warnings.warn(f"{name} was never closed; its guard has ended it.", ResourceWarning, stacklevel=2)


def _launch_failures() -> tuple[type[Exception], ...]:
    """What Selenium and the libraries below it raise when a launch fails.  Any other exception
    came from outside (Celery's SoftTimeLimitExceeded, a signal handler's) and stays what it is."""
    from selenium.common.exceptions import WebDriverException
    from urllib3.exceptions import HTTPError

    wrong_options = (AttributeError, KeyError, TypeError, ValueError)
    return (WebDriverException, HTTPError, http.client.HTTPException, OSError, *wrong_options)


def _nothing_started(session: BrowserSession[Any], reason: str) -> ExitReport:
    return ExitReport(session.id, session.name, reason, "", "nothing was started")


def environment(
    theirs: Mapping[str, str | None], launch: Mapping[str, str], tmpdir: str
) -> dict[str, str]:
    """Ours and the user's: a value of None unsets.  A Grid's password, which may be in ours, is no
    browser's nor driver's business.

    The XDG directories lie in TMPDIR, since browsers leave crash reports and caches in them
    (``~/.config/chromium/Crash Reports``, ``~/.config/mozilla``, ``~/.cache/mozilla``: measured).
    """
    private = {
        "XDG_CONFIG_HOME": os.path.join(tmpdir, "config"),
        "XDG_CACHE_HOME": os.path.join(tmpdir, "cache"),
        "XDG_DATA_HOME": os.path.join(tmpdir, "data"),
    }
    merged: dict[str, str | None] = {**os.environ, GRID: None, **private, **launch, **theirs}
    return {name: str(value) for name, value in merged.items() if value is not None}


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return b""


def _unsaid_port(guarded: GuardProcess) -> int:
    """ChromeDriver says 0 where it gets 127.0.0.1 but not ::1, as in most containers (measured
    with 156): what it listens on is asked of the system.  0 where that is not known yet."""
    spawned = guarded.event("spawned")
    if spawned is None:
        return 0
    family = [spawned["pid"], *(process.pid for process in system.tree(spawned["pid"]))]
    return next(filter(None, map(system.listening_port, family)), 0)


def _check_log(path: str) -> None:
    """Raises ConfigError where the driver's log cannot be appended to this file in the end."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise ConfigError(f"log={path!r} is not a regular file.")
    try:  # 0600 from the start: it holds every address, typed text and cookie in detail
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    except OSError as error:
        raise ConfigError(f"log={path!r} cannot be written: {error.strerror}.") from error


def session_of(driver: webdriver.Remote) -> BrowserSession[Any]:
    """The session of a driver.  Raises ConfigError for one that browserkeeper did not start."""
    keeper = getattr(driver, "keeper", None)
    session = getattr(keeper, "session", keeper)  # a lease's keeper has its session
    if not isinstance(session, BrowserSession):
        raise ConfigError(f"{driver!r} was not started by browserkeeper.")
    return session


if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..config import BrowserArguments

    ChromeName = Literal["chrome", "chromium", "chromium-headless-shell"]


@overload
def browser(
    name: ChromeName = "chrome", **given: Unpack[BrowserArguments]
) -> BrowserSession[webdriver.Chrome]: ...
@overload
def browser(
    name: Literal["firefox"], **given: Unpack[BrowserArguments]
) -> BrowserSession[webdriver.Firefox]: ...
@overload
def browser(
    name: Literal["edge"], **given: Unpack[BrowserArguments]
) -> BrowserSession[webdriver.Edge]: ...
@overload
def browser(name: str, **given: Unpack[BrowserArguments]) -> BrowserSession[webdriver.Remote]: ...
def browser(
    name: str = "chrome",
    *,
    headless: bool = True,
    options: Any = None,
    arguments: Sequence[str] = (),
    ignore_default_arguments: bool | Sequence[str] = (),
    preferences: Mapping[str, Any] | None = None,
    profile: str | os.PathLike[str] | None = None,
    download_dir: str | os.PathLike[str] | None = None,
    window_size: tuple[int, int] | None = None,
    binary: str | os.PathLike[str] | None = None,
    driver_path: str | os.PathLike[str] | None = None,
    debugging: Debugging = "pipe",
    timeout: float | None = None,
    start_timeout: float = START_TIMEOUT,
    command_timeout: float = COMMAND_TIMEOUT,
    close_timeout: float = CLOSE_TIMEOUT,
    attempts: int = ATTEMPTS,
    containment: Kind = "auto",
    offline: bool | None = None,
    env: Mapping[str, str | None] | None = None,
    log: str | os.PathLike[str] | None = None,
    on_leak: OnLeak = "raise",
    remote: str | None = None,
) -> BrowserSession[Any]:
    """A browser that cannot leak: ``with browser() as driver: ...``.  Nothing is started yet.

    Args:
        name: ``chrome`` (Google Chrome, else Chromium), ``chromium``, ``chromium-headless-shell``,
            ``edge`` or ``firefox``.
        headless: False shows a window; needs a display.
        options: Selenium's ChromeOptions, EdgeOptions or FirefoxOptions; copied, never changed.
        arguments: more command-line arguments for the browser.
        ignore_default_arguments: our defaults to leave out, by name, or True for all of them
            (``drivers.chromium.DEFAULT_ARGUMENTS``, ``drivers.firefox.DEFAULT_PREFERENCES``).
        preferences: Chrome's ``prefs`` or Firefox's ``about:config`` values.
        profile: a profile directory to use and keep; without it each session has a fresh one.
        download_dir: where downloads go; without it they go when the session does.
        window_size: (width, height) in pixels.
        binary, driver_path: which to use, else they are looked for.
        debugging: ``pipe``: Chromium ends with its driver, whatever kills that, and opens no
            port; ``port`` for the old ``driver.bidi_connection()``, which needs one.
        timeout: seconds from the start to the end of the session, enforced by the guard.
        start_timeout: seconds for the start, all attempts included.  Finding the driver has
            limits of its own: 20 s for a version, 300 s for a download where none is there.
        command_timeout: seconds for one command; the session is ended when it passes.
        close_timeout: seconds for a polite ending, and again for the kill.
        attempts: launches to try where a retry can help.
        containment: ``auto`` (the strongest there is), ``cgroup``, ``subreaper``, ``portable``.
        offline: never ask the drivers' managers; default: ``BROWSERKEEPER_OFFLINE``.
        env: environment for driver and browser, over our own; None unsets.
        log: a file for the driver's log, in detail.
        on_leak: ``raise`` LeakError, ``warn`` or ``ignore`` where anything survives.
        remote: the URL of a Selenium Grid to have the browser on, credentials in it if it wants
            some: ``https://USER:PASSWORD@HOST``.

    Raises:
        ConfigError: an argument makes no sense.
    """
    given = dict(locals())
    return BrowserSession(SessionConfig.build(**given))


__all__ = ["BrowserSession", "browser", "session_of"]
