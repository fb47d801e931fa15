"""A thread for each browser, which launches it, renews it between leases, and ends it."""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Callable

from ..errors import BrowserkeeperError, HookError, LaunchError, LimitError
from ..process.limit_errors import limit_of
from ..report import ExitReport
from .browser import Browser, NotReusableError
from .hook_call import GivenUpError, call_hook
from .hooks import HookName, Hooks
from .logs import log, log_error
from .threads import start_thread


@dataclasses.dataclass(frozen=True)
class MustWait:
    """The launch waits for a slot of the host."""


@dataclasses.dataclass(frozen=True)
class Admitted:
    """The launch has its slot of the host, and begins."""


@dataclasses.dataclass(frozen=True)
class Launched:
    """The browser is ready for its first lease."""

    seconds: float
    """Without the wait for a slot."""


@dataclasses.dataclass(frozen=True)
class LaunchFailed:
    """Nothing is left of the launch; the worker's thread ends."""

    error: BrowserkeeperError


@dataclasses.dataclass(frozen=True)
class Ready:
    """The browser was renewed, or answered a ping."""

    retire_reason: str
    """Why it should be replaced, although it can be leased; else ""."""
    renewed: bool
    """False after a ping."""
    checked: bool = False
    """True if the user's ``check`` was called and passed."""


@dataclasses.dataclass(frozen=True)
class HookFailed:
    """A user's hook failed after the launch.  The browser may be alive or dead."""

    error: HookError


@dataclasses.dataclass(frozen=True)
class NotReusable:
    """The browser is alive, but must not be leased again."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Lost:
    """The browser is dead, or does not answer."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """The browser has ended, as the report says; the worker's thread ends.

    The report has a problem, and no certificate, where every attempt to end the browser raised an error.
    """

    report: ExitReport | None
    """None for a place in a browser that goes on."""


WorkerEvent = (
    MustWait | Admitted | Launched | LaunchFailed | Ready | HookFailed | NotReusable | Lost | Ended
)

END_ATTEMPTS = 3
"""How often a browser's end is tried if it raises an error."""
LIMIT_PAUSE = 0.5
"""Seconds between two attempts to renew a browser, while this process may open no more files."""
END_PAUSE = 0.1
"""Seconds between the first two attempts; the later pauses are longer."""


class BrowserWorker:
    """Launches its browser when it is made; then does one job after another.

    The browser's guard ends a browser that hangs, so no job blocks for ever.  Each job ends with an
    event, whatever it raises, and the last event is LaunchFailed or Ended: the pool waits for it.
    """

    def __init__(
        self,
        browser: Browser,
        name: str,
        report: Callable[[WorkerEvent], None],
        number: int,
        hooks: Hooks | None = None,
    ):
        """``report`` is called in the worker's thread, or in that of the launch, with the result of each
        job, and with how the launch gets its slot of the host.  ``name`` is the browser's.
        ``hooks`` are the user's.

        Raises LaunchError if the system gives no more threads.
        """
        self._browser, self._name, self._report = browser, name, report
        browser.slot.on_wait = lambda: report(MustWait())
        browser.slot.on_admitted = self._on_admitted
        self._hooks = hooks or Hooks()
        self._is_called_off = False
        self._began = 0.0
        self._jobs: queue.SimpleQueue[Callable[[], WorkerEvent]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"browserkeeper-{number}", daemon=True)
        start_thread(self._thread)

    # -- from any thread: each call queues a job and returns at once

    def renew(self, is_last: bool = False) -> None:
        """``is_last``: only call the user's ``reset``, since the browser gets no further lease."""
        self._jobs.put(self._reset_last if is_last else self._renew)

    def ping(self, for_lease: bool = False) -> None:
        """``for_lease``: call the user's ``check`` as well."""
        self._jobs.put(self._check if for_lease else self._ping)

    def call_off(self) -> None:
        """Cancel the launch."""
        self._is_called_off = True
        self._browser.call_off()

    def close(self, reason: str) -> None:
        """End the browser.  This is the last job."""
        self._jobs.put(lambda: Ended(self._end(reason)))

    # -- in the worker's thread

    def _run(self) -> None:
        event: WorkerEvent | None = None
        try:
            event = self._launch()
            while not isinstance(event, (LaunchFailed, Ended)):
                self._report(event)
                event = self._jobs.get()()
        except BaseException:  # noqa: BLE001 # no job raises; the pool must not wait for this thread
            log_error("browser %s: its thread failed", self._browser.id)
        if not isinstance(event, (LaunchFailed, Ended)):
            event = Ended(self._end("failed"))
        self._report(event)

    def _launch(self) -> WorkerEvent:
        self._began = time.monotonic()
        try:
            self._browser.launch()
        except BrowserkeeperError as error:
            return LaunchFailed(error)
        except BaseException as error:  # noqa: BLE001 # requests may be waiting: they are told the cause
            cause = limit_of(error) or error or type(error).__name__
            text = f"The browser did not get ready for its first lease: {cause}"
            return LaunchFailed(LaunchError(text, report=self._end("failed")))
        try:
            self._call_hook("configure")
        except BaseException as error:  # noqa: BLE001 # as above
            launch_error = LaunchError(
                f"The browser did not get ready for its first lease: {error or type(error).__name__}",
                report=self._end("failed"),
            )
            launch_error.__cause__ = error
            return LaunchFailed(launch_error)
        return Launched(time.monotonic() - self._began)

    def _on_admitted(self) -> None:
        self._began = time.monotonic()
        self._report(Admitted())

    def _call_hook(self, name: HookName) -> None:
        """Raises the errors of ``call_hook``.  The hook is not waited for if the pool ends the
        browser."""
        call_hook(
            self._hooks,
            name,
            self._browser,
            lambda: self._is_called_off or not self._jobs.empty(),
        )

    def _reset_last(self) -> WorkerEvent:
        try:
            if self._browser.at_rest:
                self._call_hook("reset")
        except HookError as error:
            return HookFailed(error)
        except GivenUpError:
            return Lost()
        except BaseException as error:  # noqa: BLE001 # the browser is closed in any case
            log(logging.WARNING, "browser %s died in its last reset: %s", self._browser.id, error)
            return Lost()
        return NotReusable("")

    def _check(self) -> WorkerEvent:
        answer = self._ping()
        if not isinstance(answer, Ready) or self._hooks.check is None:
            return answer
        try:
            self._call_hook("check")
        except HookError as error:
            return HookFailed(error)
        except GivenUpError:
            return Lost()
        except BaseException as error:  # noqa: BLE001 # a browser that cannot be checked is replaced
            log(logging.WARNING, "browser %s cannot be checked: %s", self._browser.id, error)
            return Lost()
        return dataclasses.replace(answer, checked=True)

    def _renew(self) -> WorkerEvent:
        """Call the user's ``reset``, and renew the browser.

        Where a limit of this process stops the renewal, tries again until there is room,
        or another job waits: the browser is sound."""
        try:
            if self._browser.at_rest:  # else renew() refuses it
                self._call_hook("reset")
            while True:
                try:
                    return Ready(self._browser.renew(), renewed=True)
                except LimitError as error:
                    self._browser.set_deadline(None, "hung")
                    if not self._jobs.empty():
                        return NotReusable("limit")
                    log(
                        logging.WARNING, "browser %s waits to be made ready: %s", self._browser.id, error
                    )
                time.sleep(LIMIT_PAUSE)
        except HookError as error:
            return HookFailed(error)
        except GivenUpError:
            return Lost()
        except NotReusableError as error:
            return NotReusable(str(error))
        except BaseException as error:  # noqa: BLE001 # a browser that cannot be renewed is replaced
            is_to_end = not self._jobs.empty()  # as when the pool is closed
            level = logging.DEBUG if is_to_end else logging.WARNING
            log(level, "browser %s cannot be made ready: %s", self._browser.id, error)
            return Lost()

    def _ping(self) -> WorkerEvent:
        try:
            return Ready(self._browser.ping(), renewed=False)
        except LimitError:  # this process could not ask; that says nothing about the browser
            self._browser.set_deadline(None, "hung")
            return Ready("", renewed=False)
        except BaseException as error:  # noqa: BLE001 # a browser that does not answer is replaced
            log(logging.WARNING, "browser %s does not answer: %s", self._browser.id, error)
            return Lost()

    def _end(self, reason: str) -> ExitReport | None:
        """End the browser, and return its report.  Tries again after an error.

        Raises nothing: where every attempt failed, the report says that the end is not proved.  Then
        the browser's guard ends it, when the pool has dropped the session.
        """
        for attempt in range(1, END_ATTEMPTS + 1):
            try:
                return self._browser.end(reason)
            except BaseException as error:  # noqa: BLE001 # a place of the pool waits for this end
                problem = f"its end raised {error!r}; it is not known whether its processes are gone"
                text = "browser %s: attempt %d of %d to end it failed"
                log_error(text, self._browser.id, attempt, END_ATTEMPTS)
            if attempt < END_ATTEMPTS:
                time.sleep(END_PAUSE * attempt)
        return ExitReport(self._browser.id, self._name, reason, "", None, problems=(problem,))
