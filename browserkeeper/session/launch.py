"""One launch of a browser: its plan, the guard with driver and browser, and what can go wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import http.client
import logging
import os
import re
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..admission.slots import Slot
from ..config import SessionConfig
from ..drivers import downloads
from ..drivers.bidi import BidiConnection, ProtocolError
from ..drivers.browser_handle import BrowserHandle, LocalBrowserHandle, is_running
from ..drivers.downloads import CANCEL_GRACE, PARTIAL_SUFFIXES, directory_of_user
from ..drivers.identity import DEFAULT_CONTEXT, Applied, apply, may_save_by_bidi, needs_bidi
from ..drivers.launch import Launch
from ..drivers.own_pages import OwnPages
from ..drivers.stand_in import give_up
from ..drivers.storage_state import VisitedOrigins
from ..drivers.user_prompts import UserPrompts
from ..errors import (
    BrowserkeeperError,
    ConfigError,
    ContainmentError,
    GridError,
    IdentityError,
    LaunchError,
    LedgerError,
    ProfileError,
    SessionTimeout,
    VersionMismatch,
)
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..guard.options import AUTO, ISOLATED, REQUIRED
from ..options.display import screen_of, variables_of
from ..process import identity_of, system
from ..process.containment import Containment
from ..process.guard_process import GuardPlan, GuardProcess
from ..process.identity import ProcessFacts, ProcessIdentity
from ..process.limit_errors import (
    Refusals,
    causes_of_death,
    limit_of_errno,
    probable_causes,
    require_space,
)
from ..report import ExitReport
from ..state.ledger import Ledger
from ..state.records import Record, new_id
from ..state.tmpdirs import new_tmpdir_path
from .browser_exit import BrowserExit, ExitWatch, last_words, signal_name
from .ending import EVENT_TIMEOUT, DeadlineError, Ending, GuardEnd
from .environment import environment
from .log_search import LogSearch
from .preparation import Preparation
from .record import describe
from .user_directories import link_user_directories

if TYPE_CHECKING:
    from ..drivers.managed import CommandHandler
    from ..drivers.network import DriverNetwork
    from ..drivers.resolve import Resolved
    from ..proxy.relay import Route

logger = logging.getLogger("browserkeeper")

ENDED_WITHOUT_PORT = "The driver ended before it opened its port."
PORT_PAUSE = 0.005
"""Seconds, at the most, between two checks for the driver's port; Selenium waits up to 0.5."""
_NO_RETRY = re.compile(
    r"only supports|cannot find|no chrome binary|unrecognized|invalid argument|"
    r"unable to find a matching|not executable|binary is not|expected browser binary|credentials",
    re.IGNORECASE,
)
"""Words of error messages after which another launch would fail in the same way."""
DIED_BY_ITSELF = ("browser-died", "connection-lost", "exited", "display-died")
"""Reasons of an end that a limit of the system may have caused."""
WRONG_OPTIONS = (AttributeError, KeyError, TypeError, ValueError)
"""What Selenium raises for options with values that it did not expect."""


class StartRefusedError(Exception):
    """The driver did not start the browser, or Selenium did not accept the options.

    ``__cause__`` is the error of Selenium or of a library below it.
    """


def cause_to_show(error: BaseException) -> BaseException | None:
    """The cause of a failed launch whose traceback helps: it leads to the user's own options.

    None for errors of Selenium and of the connection to the driver: what they say is in the text.
    """
    cause = error.__cause__
    return cause if isinstance(cause, (OSError, *WRONG_OPTIONS)) else None


@dataclasses.dataclass(frozen=True)
class LaunchPlan:
    """What belongs to one attempt of a start: its id, TMPDIR and record, and how to launch it.

    ``deadline`` is in seconds of ``time.monotonic()``.
    """

    config: SessionConfig
    launch: Launch
    guard: GuardPlan
    ledger: Ledger
    record: Record
    deadline: float

    @classmethod
    def make(
        cls, preparation: Preparation, slot: Slot | None, began: float, deadline: float
    ) -> LaunchPlan:
        """``began``: when the start began (``time.monotonic()``).  ``slot``: None where it needs none.

        Raises ProfileError for a profile that cannot be used, LimitError where there is no room.
        """
        config, containment = preparation.config, preparation.containment
        ledger, found = preparation.ledger, preparation.found
        session_id = new_id()
        tmpdir = new_tmpdir_path(session_id)
        require_space(os.path.dirname(tmpdir))
        launch = _prepare(config, found, session_id, tmpdir, ledger)
        waited = slot.waited if slot is not None else 0.0
        created = time.time() - (time.monotonic() - began) + waited  # without the wait: it is no start
        left = config.timeout and max(0.001, began + config.timeout - time.monotonic())
        session = describe(
            session_id,
            config.name,
            containment,
            created=created,
            timeout=config.timeout and max(0.001, config.timeout - waited),
            tmpdir=tmpdir,
            grid=str(config.remote or ""),
            lock=str(ledger.lock_path(session_id)),
            label=config.label,
        )
        guard = GuardPlan(
            session=session_id,
            command=launch.command,
            env=environment({**variables_of(config, tmpdir), **config.env}, launch.env, tmpdir),
            containment=containment,
            document=session.to_json(),
            tmpdir=tmpdir,
            record=str(ledger.record_path(session_id)),
            lock=session.lock,
            slot=slot.path if slot is not None else "",
            history=str(ledger.history_path(session_id)),
            log=os.path.join(tmpdir, "driver.log"),
            keep_log=config.log or "",
            timeout=left or 0,
            kill_deadline=config.close_timeout,
            stop_grace_period=launch.stop_grace_period,
            status_file=launch.status_file,
            display=preparation.xvfb,
            screen=screen_of(config) if preparation.xvfb else "",
            profile=str(launch.profile.directory) if launch.profile else "",
            downloads=directory_of_user(config) if found else "",
            partial_suffix=PARTIAL_SUFFIXES.get(config.engine, "") if found else "",
            max_download=config.max_download or 0,
            max_download_grace=CANCEL_GRACE if config.engine == "chromium" else 0,
            isolation=_isolation(config, launch, containment),
            browser=launch.browser,
        )
        record = Record(ledger.record_path(session_id), session, (), ())
        return cls(config, launch, guard, ledger, record, deadline)


class StandInError(LaunchError):
    """An isolated driver whose stand-in for the browser has failed: the next launch is not isolated."""


def is_no_attempt(error: LaunchError) -> bool:
    """True for a launch that failed without the browser's being tried: it may be repeated, besides
    ``attempts``."""
    return isinstance(error, StandInError) or lost_its_port(error)


def lost_its_port(error: LaunchError) -> bool:
    """True if the driver ended because its port was in use, which says nothing about the browser.

    ChromeDriver lets the system choose a port of IPv6 or IPv4, and then needs the same number of the
    other one, which another program may have.
    """
    return str(error).startswith(ENDED_WITHOUT_PORT) and "port not available" in error.log_tail


class Attempt:
    """One launch that was begun: its guard, and the driver once there is one.

    A session that tries again makes a new attempt, with a new id, TMPDIR, port and guard.
    """

    def __init__(self, plan: LaunchPlan):
        """Start the guard, which starts the driver.  Raises LaunchError where it cannot be started."""
        self.plan = plan
        self.id = plan.record.session.id
        self._refusals = Refusals.so_far()
        try:
            self.guard = GuardProcess(plan.guard)
        except OSError as error:
            limit = limit_of_errno(error.errno or 0, forking=True)
            text = f"The guard cannot be started: {limit or f'{error}.'}"
            raise LaunchError(text, retryable=not limit) from None
        config = plan.config
        try:
            record = dataclasses.replace(plan.record, guards=(identity_of(self.guard.pid),))
            end = GuardEnd(self.guard, plan.ledger, record, config.close_timeout, config.remote)
            self.ending = Ending(end, config.close_timeout, config.label)
            self.ending.notes = (plan.launch.note,) if plan.launch.note else ()
            self.driver_process: ProcessIdentity | None = None
            self._driver: Callable[[], Any] = lambda: None
            self._quits = False
            self.prompts: UserPrompts | None = None
            """Handles dialogs as without BiDi; None if that is not needed, or if the user has turned
            BiDi on."""
            self.bidi: BidiConnection | None = None
            """browserkeeper's own connection, besides Selenium's; None for a session that needs none."""
            self.own_pages = OwnPages()
            self.network: DriverNetwork | None = None
            """Makes the connections to an isolated driver; None for any other."""
            self._applied = Applied()
            self._visited: VisitedOrigins | None = None
            self.browser: BrowserHandle = LocalBrowserHandle(None)
            self.browser_exit: BrowserExit | None = None
            """How the browser ended, where it did so during the launch."""
        except BaseException:  # no caller has this attempt yet, to end it
            self.guard.end("failed", time.monotonic() + 2 * config.close_timeout)
            raise

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.plan.config.name} session {self.id}"

    @property
    def report(self) -> ExitReport | None:
        return self.ending.report

    def processes(self) -> list[ProcessFacts]:
        """Driver, browser, and all processes below them.  O(their number) on Linux."""
        primary = self.guard.primary_pid
        return system.tree(primary) if primary and self.report is None else []

    @property
    def driver(self) -> Any:
        """Selenium's driver object; None before :meth:`connect`, after the end, and once it was
        garbage-collected: the driver keeps its session alive, and not the other way round."""
        return self._driver() if self.report is None else None

    def connect(self, handler: CommandHandler) -> Any:
        """Wait for the driver, have it start the browser, and return Selenium's driver object.

        The driver's commands pass through ``handler``.  Raises LaunchError, StartRefusedError, and
        ConfigError for options that do not fit the browser.
        """
        launch, deadline = self.plan.launch, self.plan.deadline
        options = self._options()
        port = self._wait_for_port()
        # On a busy machine the driver's port may be known before the guard's event is sent.
        spawned = self.guard.wait_for("spawned", deadline=deadline)
        if spawned is None:
            raise LaunchError("The guard was killed during the launch.")
        self.driver_process = identity_of(spawned["pid"])
        self._enter_network(options, spawned)
        if not self.plan.config.remote:  # the guard has made TMPDIR, and no browser runs yet
            try:
                link_user_directories(self.plan.guard.env, self.plan.guard.tmpdir)
            except LaunchError as error:
                if self.guard.event("ending"):  # the guard has removed TMPDIR, for a reason of its own
                    raise StartRefusedError from error
                raise
        self._turn_bidi_on(options)
        driver = self._open_session_watched(handler, port, options, spawned["pid"])
        self._driver = weakref.ref(driver)
        of_display = spawned.get("display_pid")
        processes = [process for process in self.processes() if process.pid != of_display]
        self.browser = launch.find_browser(self._capabilities(driver), processes)
        if self.prompts is not None:
            driver.caps["unhandledPromptBehavior"] = self.prompts.capability  # which users read
        config = self.plan.config
        if needs_bidi(config):
            self._give_identity(driver)
        elif downloads.need_bidi(config):
            self._open_bidi(driver)
        return driver

    def _enter_network(self, options: Any, spawned: Mapping[str, Any]) -> None:
        """Of an isolated driver, take the sockets that lead to it, and have it start the stand-in."""
        handover = self.guard.handover
        if handover is None:  # it was never to be isolated
            return
        if spawned["isolation"] == ISOLATED:
            from ..drivers.network import DriverNetwork

            try:
                self.network = DriverNetwork.receive(handover)
            except OSError as error:
                if error.errno == errno.EMFILE:
                    raise  # this process may open no more files
                raise StartRefusedError from error  # the guard is over
            options.binary_location = self.plan.launch.stand_in
        handover.close()

    def _capabilities(self, driver: Any) -> Mapping[str, Any]:
        """Those of the session.  An isolated driver gives the pid of the stand-in; users and tools look
        for that of the browser."""
        capabilities: Mapping[str, Any] = driver.caps
        if self.network is None:
            return capabilities
        # On a busy machine the browser may answer before the guard's event is sent.
        started = self.guard.wait_for("browser", "ending", "ended", deadline=self.plan.deadline)
        if started is None or started["event"] != "browser":
            raise StartRefusedError  # the guard is over, or does not run
        if "goog:processID" in driver.caps:
            driver.caps["goog:processID"] = started["pid"]
        return {**capabilities, "goog:processID": started["pid"]}

    def _turn_bidi_on(self, options: Any) -> None:
        """Turn BiDi on if the identity, the downloads or a trace need it.  Dialogs are then handled as
        without BiDi, unless the user has turned it on."""
        config = self.plan.config
        wanted = may_save_by_bidi(config) or downloads.need_bidi(config)
        wanted = wanted or (config.for_trace and UserPrompts.can_take_over(options, config.engine))
        if "webSocketUrl" not in options.capabilities and wanted:
            options.web_socket_url = True
        if needs_bidi(config):
            options.web_socket_url = True
        if config.remote is None and not config.for_contexts and not config.debugger_address:
            self.prompts = UserPrompts.take_over(options, config.options, config.engine)

    def _open_bidi(self, driver: Any) -> None:
        """Connect for the downloads.  Logs a warning if that fails: the session works without the
        connection, except for downloads."""
        from websocket import WebSocketException

        left = max(0.1, self.plan.deadline - time.monotonic())
        try:
            self.bidi = BidiConnection(driver.caps["webSocketUrl"], left, self.own_pages)
        except (WebSocketException, OSError, RuntimeError, KeyError) as error:
            logger.warning("session %s: no BiDi connection for its downloads: %r", self.id, error)

    def _give_identity(self, driver: Any) -> None:
        """Set the words of the identity that the launch could not set, by a BiDi connection.

        Raises IdentityError if the browser refuses a word, and StartRefusedError if the connection
        breaks.
        """
        from websocket import WebSocketException

        config = self.plan.config
        left = max(0.1, self.plan.deadline - time.monotonic())
        try:
            self.bidi = BidiConnection(driver.caps["webSocketUrl"], left, self.own_pages)
            self._applied = apply(self.bidi, config.engine, DEFAULT_CONTEXT, config.identity, left)
            if config.identity.storage_state is not None:
                self._visited = VisitedOrigins(self.bidi)
        except (WebSocketException, OSError, KeyError) as error:
            raise StartRefusedError from error
        except ProtocolError as error:  # an old browser
            raise IdentityError(
                f"The browser cannot take the identity ({error}). Use a newer browser."
            ) from None

    @property
    def visited(self) -> tuple[str, ...]:
        """The origins of all documents since the start; () for a session that does not note them."""
        return self._visited.origins if self._visited is not None else ()

    def run_as_without_bidi(self, name: str, command: Callable[[], Any]) -> Any:
        """Run a command of the driver so that its result is the same as without browserkeeper's BiDi
        connection: dialogs stay open (:class:`UserPrompts`), and browserkeeper's own windows are not
        among the handles.
        """

        def execute(*given: Any) -> Any:
            """Keeps a reference to the driver only for this one command: the user's command may still
            run after the program has dropped the driver."""
            driver = self.driver
            if driver is None:
                raise ReferenceError("the driver was dropped")
            return driver.execute(*given)

        if self.prompts is not None:
            command = self.prompts.around(command, execute)
        answer = command()
        is_ours = self._applied.hidden_window or not self.own_pages.is_unused
        if is_ours and name in ("w3cGetWindowHandles", "close"):
            hidden = self._applied.hidden_window
            handles = [handle for handle in answer["value"] if handle != hidden]
            answer["value"] = [handle for handle in handles if handle not in self.own_pages]
            if name == "close" and not answer["value"]:
                execute("quit")  # as the driver does by itself after its last window
        return answer

    def _options(self) -> Any:
        """Selenium's options.  Imports selenium while the driver starts."""
        from selenium.common.exceptions import WebDriverException

        try:
            return self.plan.launch.build_options()
        except ConfigError:
            raise
        except (WebDriverException, OSError, *WRONG_OPTIONS) as error:
            raise StartRefusedError from error

    def _open_session_watched(
        self, handler: CommandHandler, port: int, options: Any, driver: int
    ) -> Any:
        """:meth:`_open_session`, which fails as soon as the browser has ended.

        geckodriver notices that by itself.  It also runs Firefox for its version first.
        """
        if self.plan.config.remote is not None or self.plan.config.engine == "firefox":
            watch = None
        else:
            watch = ExitWatch(self.guard, driver)
        try:
            with watch or contextlib.nullcontext():
                return self._open_session(handler, port, options)
        except StartRefusedError as error:
            noticed = BrowserExit.by_message(str(error.__cause__))
            self.browser_exit = watch.combine(noticed) if watch else noticed
            raise

    def _open_session(self, handler: CommandHandler, port: int, options: Any) -> Any:
        """Have the driver start the browser, and return Selenium's driver object."""
        from selenium.common.exceptions import WebDriverException
        from urllib3.exceptions import HTTPError, MaxRetryError, ProtocolError

        from ..drivers import managed
        from ..drivers.driver_service import DriverProcess, make_service

        config, launch = self.plan.config, self.plan.launch
        service = make_service(
            DriverProcess(
                config.name,
                launch.command,
                port,
                self.guard.process,
                self.plan.guard.env,
                launch.url_path,
                self.network,
            ),
            handler.quit_driver,
        )
        left = max(0.1, self.plan.deadline - time.monotonic())
        try:
            driver = managed.connect(config.name, handler, service, options, left, config.remote)
            managed.set_command_timeout(driver, config.command_timeout)
            return driver
        except BrowserkeeperError:
            raise
        except (
            WebDriverException,
            HTTPError,
            http.client.HTTPException,
            OSError,
            *WRONG_OPTIONS,
        ) as error:
            is_broken = isinstance(error, (ProtocolError, MaxRetryError, ConnectionError))
            if is_broken and config.remote is None:
                # A driver that dies closes its connections before the guard can see that it is dead.
                until = time.monotonic() + EVENT_TIMEOUT
                self.guard.wait_for("failed", "ending", "ended", deadline=until)
            raise StartRefusedError from error

    def _wait_for_port(self) -> int:
        """The driver chooses a free port and writes it to its log, so no other program can take it."""
        log = LogSearch(self.guard.plan.log, self.plan.launch.port_pattern)
        deadline = self.plan.deadline
        pause = 0.002
        while True:
            match = log.search()
            if match and (port := int(match.group(1)) or self._listening_port()):
                return port
            until = min(deadline, time.monotonic() + pause)
            if self.guard.wait_for("failed", "ending", "ended", deadline=until):
                raise LaunchError(ENDED_WITHOUT_PORT)
            if not self.guard.is_alive():
                self.guard.check_first_event()
                raise LaunchError("The guard was killed during the launch.")
            if time.monotonic() >= deadline:
                limit = self.plan.config.start_timeout
                if self.plan.guard.display and not self.guard.event("spawned"):
                    raise LaunchError(f"The virtual display (Xvfb) was not ready within {limit:g} s.")
                raise LaunchError(f"The driver opened no port within {limit:g} s.")
            pause = min(pause * 1.2, PORT_PAUSE)

    def _listening_port(self) -> int:
        """The port that the driver listens on, by the system's tables; 0 where it is not known yet.

        ChromeDriver writes port 0 where it gets 127.0.0.1 but not ::1, as in most containers (measured
        with 156).
        """
        spawned = self.guard.event("spawned")
        if spawned is None:
            return 0
        pids = [spawned["pid"], *(process.pid for process in system.tree(spawned["pid"]))]
        return next(filter(None, map(system.listening_port, pids)), 0)

    def let_the_browser_quit(self) -> None:
        """Have the guard ask the browser to quit in the end, whatever the end's cause, so that it writes
        a profile that is kept.  Not one that runs in another process's session."""
        browser, driver = self.browser.identity, self.driver
        if browser is not None and driver is not None:
            is_firefox = self.plan.config.engine == "firefox"
            port = driver.service.port if is_firefox else 0
            path = f"{self.plan.launch.url_path}/session/{driver.session_id}"
            seconds = self.plan.config.close_timeout / 2
            self.guard.tell_how_to_quit(seconds, browser.pid, port, path)
            self._quits = True

    @property
    def config(self) -> SessionConfig:
        """The configuration of the session."""
        return self.plan.config

    @property
    def tmpdir(self) -> str:
        """The session's TMPDIR."""
        return self.plan.guard.tmpdir

    @property
    def display(self) -> str:
        """The name of the session's virtual display, or the DISPLAY that its processes have; "" without
        one."""
        if not self.plan.config.is_here:
            return ""
        spawned = self.guard.event("spawned") or {}
        return str(spawned.get("display") or self.plan.guard.env.get("DISPLAY", ""))

    @property
    def containment(self) -> str:
        """How the session's processes are kept together."""
        return self.plan.guard.containment.kind

    @property
    def route(self) -> Route | None:
        """The relay's route to the proxy of the session; None without a proxy."""
        return self.plan.launch.route

    def looks_alive(self) -> bool:
        """True if driver and browser exist, and neither is stopped or a zombie.  Sends nothing."""
        return is_running(self.driver_process) and self.browser.is_running()

    def error_of_end(self, when: str) -> BrowserkeeperError | None:
        """None: the report of the session says why it is over."""
        return None

    def wrapped(self, name: str, command: Callable[[], Any]) -> Callable[[], Any]:
        """The command, with what browserkeeper's own BiDi connection changes taken back."""
        if self.bidi or self.prompts:
            return functools.partial(self.run_as_without_bidi, name, command)
        return command

    def is_quitting(self) -> bool:
        """True if the guard asks the browser to quit, or has done so."""
        return self._quits and self.guard.event("ending") is not None

    def disconnect_bidi(self) -> None:
        """Close the BiDi connection, before the browser's end: its thread would log that as an error."""
        driver = self.driver
        if driver is not None:
            driver.disconnect()
        self._close_bidi()

    def _close_route(self) -> None:
        """After the browser's end, so that it never finds another program at the relay's port."""
        if self.plan.launch.route is not None:
            self.plan.launch.route.close()

    def _close_bidi(self) -> None:
        if self.bidi is not None:
            self.bidi.close()
        self._applied.close()

    def disconnect(self) -> None:
        """Close what the driver object holds open in this process."""
        driver = self._driver()
        self._close_bidi()
        self._close_route()
        if self.network is not None:
            self.network.close()
        if driver is None:
            return
        with contextlib.suppress(Exception):
            driver.disconnect()
        with contextlib.suppress(Exception):
            driver.command_executor.close()

    def explain(
        self,
        error: LaunchError | StartRefusedError,
        event: Mapping[str, Any] | None,
        deadline_errors: Mapping[str, DeadlineError],
        user_deadline: float | None = None,
        *,
        is_late: bool = False,
    ) -> BrowserkeeperError:
        """Returns the error to raise for a launch that failed and was ended.

        It says the cause, the remedy, and whether another launch may help.  ``event``: the guard's
        "failed" or "ending" from before it was told to end, if there was one.  ``user_deadline``: the
        seconds of the user's deadline that has passed, if one has.  ``is_late``: the launch failed when
        its deadline had passed.
        """
        config, report = self.plan.config, self.report
        if report is not None and report.reason == "operator":
            who = report.operator or "by hand"
            text = f"{config.name} did not start: an operator has ended its session: {who}."
            return LaunchError(text, report=report)
        if event and event["event"] == "failed":
            return self._explain_guard(event)
        reason = event["reason"] if event else ""
        if user_deadline is not None:
            text = f"the deadline of {user_deadline:g} s that set_deadline() had set."
            return SessionTimeout(f"{config.name} did not start within {text}", report)
        if reason == "timeout":
            text = f"{config.name} did not start within the session's timeout of {config.timeout:g} s."
            return deadline_errors.get("timeout", SessionTimeout)(text, report)
        profile = self.plan.launch.profile
        if profile is not None and reason in ("", "failed") and (in_use := profile.error()):
            return in_use
        return self._explain_failure(error, reason, is_late)

    def _explain_failure(
        self, error: LaunchError | StartRefusedError, reason: str, is_late: bool
    ) -> BrowserkeeperError:
        """:meth:`explain` for what the guard, the driver or the browser has failed at."""
        config, report = self.plan.config, self.report
        ended = self.guard.event("ended")
        log_tail = config.identity.mask(ended["report"]["log_tail"].strip()) if ended else ""
        retryable = True
        limits = "" if config.remote else self._probable_limits()
        status = self._drivers_status()
        isolated = self.network is not None and self.guard.event("browser") is None
        if isolated and self.browser_exit is not None and reason in ("", "failed"):
            return self._explain_stand_in(log_tail)
        if self.browser_exit is not None and reason in ("", "failed"):
            text = self.browser_exit.describe(config.name, log_tail)
            retryable = self.browser_exit.may_be_chance(log_tail)
            limits = "" if self.browser_exit.is_explained(log_tail) else limits
        elif isinstance(error, LaunchError):
            text = str(error)
        elif reason == "terminated":
            text = "The guard was terminated during the launch."
        elif reason == "exited" or (status and config.remote is None):  # a relay exits when asked to
            text = f"The driver ended{status} during the launch."
        elif is_late:
            text = f"{config.name} did not answer within start_timeout={config.start_timeout:g} s."
            text += _hint_at_queue(report)
            if address := config.debugger_address:
                text += (
                    f" It was looked for at {address}, the options' debugger_address: start it with "
                    "that --remote-debugging-port and with a --user-data-dir that no other browser has."
                )
        else:
            cause = error.__cause__ or error
            line = str(getattr(cause, "msg", None) or cause).split("\n")[0]
            if "only supports" in line:
                return VersionMismatch(f"The driver refuses the browser: {line}", "?", "?")
            text = f"{config.name} did not start: {line or type(cause).__name__}"
            if _NO_RETRY.search(line) or isinstance(cause, TypeError):
                limits, retryable = "", False  # the driver has said what was wrong
        kind = GridError if config.remote else LaunchError
        retryable = retryable and not limits
        return kind(text + limits, log_tail=log_tail, retryable=retryable, report=report)

    def _explain_stand_in(self, log_tail: str) -> BrowserkeeperError:
        """The error where the script that stands for the browser has ended before it had one."""
        failed = self.guard.event("browser-failed") or {}
        if limit := limit_of_errno(failed.get("errno") or 0, forking=True):
            text = f"{self.plan.config.name} cannot be started: {limit}"
            return LaunchError(text, log_tail=log_tail, retryable=False, report=self.report)
        killed = self.browser_exit.signal if self.browser_exit and not failed else None
        if killed is not None:
            text = f"bk-browser, which stands for the browser, was killed by {signal_name(killed)}"
            return LaunchError(text, log_tail=log_tail, report=self.report)
        why = failed.get("text") or last_words(log_tail)
        why = f"the script that stands for the browser has failed: {why or 'it wrote nothing'}"
        if self.plan.config.isolate_driver is True:
            text = f"The driver cannot be isolated: {why}. Leave isolate_driver=True out."
            return ContainmentError(text)
        give_up(self.plan.launch.command[0], why)
        return StandInError(why, log_tail=log_tail, report=self.report)

    def _probable_limits(self) -> str:
        """Limits that this process has given to the browser and that are too low for one, as a sentence
        for an error; "" where there are none."""
        return probable_causes(self._refusals, os.path.dirname(self.plan.guard.tmpdir))

    def causes_of_death(self) -> str:
        """Limits that may have ended the browser of an open session, as a sentence for the error.

        "" where there are none, and for other ends.  To be called at the end: later the kernel may have
        killed other processes.
        """
        report = self.report
        if report is None or self.plan.config.remote is not None or report.reason not in DIED_BY_ITSELF:
            return ""
        return causes_of_death(self._refusals, report.seconds.get("lifetime", 0.0))

    def _drivers_status(self) -> str:
        """How the driver ended by itself, in brackets, by the report; "" where it did not, or where that
        is not known."""
        pid = self.driver_process.pid if self.driver_process else 0
        for process in self.report.processes if self.report else ():
            if process.pid == pid and process.outcome == "exited":
                return f" (status {process.code})"
            if process.pid == pid and process.outcome == "signalled" and process.signal:
                return f" (killed by {signal_name(process.signal)})"
        return ""

    def _explain_guard(self, event: Mapping[str, Any]) -> BrowserkeeperError:
        """The error for a guard that could not start the driver: where it failed, and how."""
        where, text, guard = event["where"], event["text"], self.plan.guard
        paths = {"record": guard.record, "tmpdir": guard.tmpdir, "log": guard.log, "slot": guard.slot}
        path = paths.get(where, "")
        # EAGAIN of an exec: the user has more processes than RLIMIT_NPROC (execve(2)).
        limit = limit_of_errno(event["errno"] or 0, path, forking=where in ("fork", "exec"))
        if where == "record":
            return LedgerError(
                f"The record of the session cannot be written: {limit or f'{text}.'} It is in the state "
                "directory: set BROWSERKEEPER_STATE_DIR to choose another one."
            )
        if where == "slot" and not limit:
            return LedgerError(
                f"The slot of the session, {path}, was removed before its browser started, or cannot be "
                f"locked: {text}. Start it again, and leave the state directory alone while it starts."
            )
        profile = self.plan.launch.profile
        if where == "profile" and profile is not None:
            return profile.error(locked=True) or ProfileError(f"Profile {profile.directory}: {text}.")
        if where == "isolation":
            return ContainmentError(
                f"The driver cannot be isolated: {text.partition('] ')[2] or text}. Allow that, or "
                "leave isolate_driver=True out: then every local user can connect to the driver's port."
            )
        if where == "cgroup" and not limit:
            return ContainmentError(f"The cgroup cannot be made: {text}. Use containment='subreaper'.")
        if where == "display" and not limit:
            words = text.partition("] ")[2] or text
            return LaunchError(f"The virtual display (Xvfb) did not start: {words}", report=self.report)
        remedy = "Set BROWSERKEEPER_TMPDIR to another directory." if where == "tmpdir" else ""
        head = f"{self.plan.config.name} cannot be started ({where})"
        return LaunchError(
            f"{head}: {limit or f'{text}.'} {remedy}".rstrip(),
            retryable=False,
            report=self.report,
        )


def _isolation(config: SessionConfig, launch: Launch, containment: Containment) -> str:
    """As in GuardPlan.  Raises ConfigError where the driver must be isolated, and cannot be."""
    found = launch.isolation
    if found in (AUTO, REQUIRED) and containment.kind not in ("subreaper", "cgroup"):
        found = f"containment={containment.kind!r} cannot do it"
    if config.isolate_driver is True and found != REQUIRED:
        raise ConfigError(
            f"isolate_driver=True: the driver of this browser cannot be isolated: {found}."
        )
    return found


def _prepare(
    config: SessionConfig, found: Resolved | None, session_id: str, tmpdir: str, ledger: Ledger
) -> Launch:
    from ..drivers import chromium, firefox, remote

    if found is None:
        return remote.prepare(config, session_id, tmpdir)
    if config.engine == "firefox":
        return firefox.prepare(config, found, tmpdir, ledger.directory)
    return chromium.prepare(config, found, tmpdir, ledger.directory)


def _hint_at_queue(report: ExitReport | None) -> str:
    """What to do where the Grid says that the session was still waiting in its queue."""
    remote = report.remote if report else None
    if remote is None or not remote.queued:
        return ""
    return (
        f" {remote.grid} had no free slot for it: raise start_timeout, use a BrowserPool, or give "
        "the Grid more slots; it may also have none at all for such a browser."
    )
