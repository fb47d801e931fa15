"""``adopt()``: puts a driver that other code has started under a guard.

That guard is no ancestor of the driver, so the certificate is weaker than with ``browser()``;
docs/remote.md says where.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ..admission.gate import Gate
from ..admission.slots import Slot
from ..config import CLOSE_TIMEOUT, OnLeak, check_choice, check_seconds
from ..drivers.cancellation import Cancellation
from ..errors import (
    BrowserDied,
    ConfigError,
    ForkedSessionError,
    LaunchError,
    SessionTimeout,
    refuse_to_pickle,
)
from ..guard.files import is_private_directory
from ..options.labels import check_label
from ..process import identity_of, require_own_proc, system
from ..process.containment import Containment
from ..process.guard_process import GuardPlan, GuardProcess
from ..process.identity import ProcessFacts, ProcessIdentity
from ..report import ExitReport
from ..state.ledger import Ledger
from ..state.records import Record, Session, new_id
from ..wire.credentials import environment_without_credentials
from .adoptable import roots_of
from .call import Call, to_the_end
from .call_stack import CallStack
from .ending import Ending, GuardEnd, leave_block, raise_if_leaked
from .record import describe

if TYPE_CHECKING:
    from selenium import webdriver

    D = TypeVar("D", bound=webdriver.Remote)
else:
    D = TypeVar("D")

ARM_TIMEOUT = 15.0
"""Seconds for the guard to start and find the driver; it takes 0.2, and more on a busy machine."""
CONTAINMENT = Containment("adopted", "other code started it")


class AdoptedSession(Generic[D]):
    """A driver that other code started, and the guard that ends it; made by :func:`adopt`."""

    __reduce_ex__ = refuse_to_pickle

    def __init__(
        self,
        driver: D,
        id: str,
        roots: tuple[ProcessIdentity, ...],
        ending: Ending,
        timeout: float | None,
        close_timeout: float,
        on_leak: OnLeak,
    ):
        self.driver, self.id = driver, id
        self._roots, self._ending, self._timeout = roots, ending, timeout
        self._close_timeout, self._on_leak = close_timeout, on_leak
        self._owner = os.getpid()

    @property
    def name(self) -> str:
        """The browser's name in the driver's capabilities."""
        return _name_of(self.driver)

    @property
    def report(self) -> ExitReport | None:
        """How the session ended; None before its end."""
        return self._ending.report

    def processes(self) -> list[ProcessFacts]:
        """Driver, browser and all processes below them now."""
        return Call(self._processes).run()

    def _processes(self) -> list[ProcessFacts]:
        found: dict[int, ProcessFacts] = {}
        for root in self._roots:
            facts = system.facts(root.pid)
            if facts is not None and root.is_same_as(facts.identity):
                found.update({p.pid: p for p in (facts, *system.tree(root.pid))})
        return [process for process in found.values() if not process.is_zombie]

    def close(self) -> ExitReport:
        """End driver and browser, verified; the second call returns the same report.

        Raises LeakError as ``on_leak`` says, ForkedSessionError in a process that inherited the session.
        """
        if os.getpid() != self._owner:
            raise ForkedSessionError(
                f"This driver was adopted by process {self._owner}; only that process can end it."
            )
        report = self._end("closed")
        raise_if_leaked(report, self._on_leak, "adopted session")
        return report

    def quit(self) -> None:
        """The same as :meth:`close`, for code that expects this name.  After :func:`adopt`,
        ``driver.quit()`` calls it."""
        self.close()

    def _end(self, reason: str) -> ExitReport:
        ending = self._ending
        return ending.report or to_the_end(lambda: ending.run(reason, self._disconnect))

    def _disconnect(self) -> None:
        """Reap the driver, a child of this process, unless ``service.stop()`` has, and close its pipes
        and the connections to it."""
        process = getattr(getattr(self.driver, "service", None), "process", None)
        if process is not None:
            with contextlib.suppress(Exception):
                process.wait(self._close_timeout)
            for stream in ("stdin", "stdout", "stderr"):  # as service.stop() does
                with contextlib.suppress(Exception):
                    getattr(process, stream).close()
        for root in self._roots:
            found = system.facts(root.pid)
            if found is not None and root.is_same_as(found.identity):  # a zombie's number is not reused
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(root.pid, os.WNOHANG)
        with contextlib.suppress(Exception):
            cast(Any, self.driver).command_executor.close()

    def __enter__(self) -> AdoptedSession[D]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._leave(error)
        except BaseException:
            if os.getpid() == self._owner:
                self._end("error")  # nothing, unless what came from outside came before the end
            raise

    def _leave(self, error: BaseException | None) -> None:
        if os.getpid() != self._owner:
            return  # a fork that leaves the block: the session belongs to its parent
        report = leave_block(self._end, error, self._on_leak, "adopted session")
        if report.reason == "operator":
            text = f"The adopted {self.name} was ended by an operator: {report.operator or 'by hand'}."
            if error is None:
                raise BrowserDied(text, report)
            if sys.version_info >= (3, 11):
                error.add_note(text)  # Selenium's own error only says that the driver is gone
        if error is None and report.reason == "timeout":
            raise SessionTimeout(
                f"The adopted {self.name} passed its timeout of {self._timeout:g} s and was ended.",
                report,
            )


class Adoption(Generic[D]):
    """One call of :func:`adopt`, until it returns or is undone."""

    def __init__(
        self, driver: D, timeout: float | None, close_timeout: float, on_leak: OnLeak, label: str
    ):
        self.cancellation = Cancellation(
            lambda: LaunchError("The adoption was called off."), reason="released"
        )
        self._driver, self._timeout, self._label = driver, timeout, label
        self._close_timeout, self._on_leak = close_timeout, on_leak
        self._called_at = CallStack()
        self._end: GuardEnd | None = None
        self._ending: Ending | None = None
        self._slot: Slot | None = None
        self._own_quit: Any = None  # where the driver object itself has one, and not its class

    def run(self) -> AdoptedSession[D]:
        """Start the guard, and have it keep driver and browser.

        Raises ConfigError, LedgerError or LaunchError.  To be undone where it raises.
        """
        driver = self._driver
        if isinstance(getattr(getattr(driver, "quit", None), "__self__", None), AdoptedSession):
            raise ConfigError("This driver was adopted before.")
        roots = roots_of(driver)
        ledger = Ledger.open()
        ledger.prune()
        id = new_id()
        session = describe(
            id,
            _name_of(driver),
            CONTAINMENT,
            created=time.time(),
            timeout=self._timeout,
            lock=str(ledger.lock_path(id)),
            label=self._label,
        )
        self.cancellation.check()
        # Without waiting: the browser is there already.
        self._slot = Gate(ledger).force("adopted", label=self._label)
        self._slot.bind(id)
        try:
            guard = GuardProcess(self._plan(ledger, session, roots))
        except OSError as error:
            raise LaunchError(f"The guard cannot be started: {error}.") from None
        known = tuple((root, "") for root in roots)
        record = Record(ledger.record_path(id), session, (identity_of(guard.pid),), known)
        end = self._end = GuardEnd(guard, ledger, record, self._close_timeout)
        ending = self._ending = Ending(end, self._close_timeout, self._label)
        self.cancellation.watch(guard)
        _keep(guard)
        self._slot.hand_over()
        adopted = AdoptedSession(
            driver, id, roots, ending, self._timeout, self._close_timeout, self._on_leak
        )
        ending.end_with(adopted, f"An adopted {adopted.name}", self._called_at)
        # The driver's own quit() would wait for a browser that is gone, and prove nothing.
        self._own_quit = vars(driver).get("quit")
        cast(Any, driver).quit = adopted.quit
        return adopted

    def undo(self) -> None:
        """Leave driver and browser as they were.  Blocks until the guard is gone."""
        if self._ending is not None:
            self._ending.forget()
        if self._end is not None:
            self._end.release()
        if self._slot is not None:
            self._slot.release()
        if self._ending is None:
            return
        if isinstance(getattr(cast(Any, self._driver).quit, "__self__", None), AdoptedSession):
            del cast(Any, self._driver).quit
            if self._own_quit is not None:
                cast(Any, self._driver).quit = self._own_quit

    def _plan(self, ledger: Ledger, session: Session, roots: tuple[ProcessIdentity, ...]) -> GuardPlan:
        return GuardPlan(
            session=session.id,
            command=(*(f"{root.pid}:{root.start!r}" for root in roots), *_directories_of(self._driver)),
            env=environment_without_credentials(),
            containment=CONTAINMENT,
            document=session.to_json(),
            record=str(ledger.record_path(session.id)),
            lock=session.lock,
            slot=self._slot.path if self._slot is not None else "",
            history=str(ledger.history_path(session.id)),
            timeout=self._timeout or 0,
            kill_deadline=self._close_timeout,
        )


def _keep(guard: GuardProcess) -> None:
    """Wait until the guard is ready, and have it keep the driver.  Raises LaunchError."""
    until = time.monotonic() + ARM_TIMEOUT
    for name in ("ready", "spawned"):
        event = guard.wait_for(name, "failed", "ended", deadline=until)
        if event is None or event["event"] != name:
            why = event.get("text", "it ended") if event else f"no answer within {ARM_TIMEOUT:g} s"
            if event is None and not guard.is_alive():
                why = "it was killed"
            where = f" ({event['where']})" if event and "where" in event else ""
            raise LaunchError(
                f"The guard of the adopted driver did not start{where}: {why}. Driver and browser were "
                "left alone."
            )
        if name == "ready":
            guard.keep()


def _name_of(driver: Any) -> str:
    """The browser's name in the driver's capabilities."""
    return str(driver.caps.get("browserName") or "browser")


def adopt(
    driver: D,
    *,
    timeout: float | None = None,
    close_timeout: float = CLOSE_TIMEOUT,
    on_leak: OnLeak = "raise",
    label: str | None = None,
) -> AdoptedSession[D]:
    """Put a driver that other code has started under a guard: ``with adopt(driver) as session: ...``.

    For drivers of Selenium and of libraries made of it (undetected-chromedriver, SeleniumBase), on this
    machine.  From now on the driver ends as a session of :func:`browser` does, also where this process
    is killed.  ``driver.quit()`` becomes that verified end.

    The browser counts for the host's limit from now on (``docs/host.md``).  It takes its slot without
    waiting, since it is there already: so there may be more browsers than the limit says.

    Args:
        driver: a driver that has been started, and has not quit.
        timeout: seconds from now until the guard ends the session.
        close_timeout: seconds for the kill.
        on_leak: what to do if anything survives: ``raise`` LeakError, ``warn`` or ``ignore``.
        label: a name for the session, as for :func:`browser`.

    Where this raises, also an exception from outside such as a signal handler's, driver and browser are
    left alone: they run on, without a guard.

    Raises:
        ConfigError: the driver is none, is on a Grid, is browserkeeper's own, was adopted before, or has
            ended; or nothing shows that the process which it calls its browser is its browser.
        ContainmentError: ``/proc`` shows another pid namespace than this process's.
        LedgerError: the state directory cannot be used, or the host has a limit and its slots cannot be
            counted.
        LaunchError: the guard did not start.
    """
    require_own_proc()
    if timeout is not None:
        check_seconds("timeout", timeout)
    check_seconds("close_timeout", close_timeout)
    check_choice("on_leak", on_leak, ("raise", "warn", "ignore"))
    name = "" if label is None else check_label("label", label)
    adoption = Adoption(driver, timeout, close_timeout, on_leak, name)
    try:
        return Call(adoption.run).run(stop=adoption.cancellation.request)
    except BaseException:
        to_the_end(adoption.undo)
        raise


def _directories_of(driver: Any) -> Iterator[str]:
    """Profile directories to remove at the end.

    undetected-chromedriver makes one itself, and has an attribute that says whether to keep it.
    """
    place = getattr(driver, "user_data_dir", None)
    if getattr(driver, "keep_user_data_dir", True) is False and isinstance(place, str):
        path = os.path.realpath(place)
        if os.path.dirname(path) == os.path.realpath(tempfile.gettempdir()) and is_private_directory(
            path
        ):
            yield path


__all__ = ["AdoptedSession", "adopt"]
