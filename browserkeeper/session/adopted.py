"""``adopt()``: puts a driver that other code has started under a guard.

That guard is no ancestor of the driver, so the certificate is weaker than with ``browser()``;
docs/remote.md says where.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ..config import CLOSE_TIMEOUT, OnLeak, check_choice, check_seconds
from ..errors import ConfigError, ForkedSessionError, LaunchError, SessionTimeout
from ..grid.address import environment_without_credentials
from ..guard.files import is_private_directory
from ..process import identity_of, require_own_proc, system
from ..process.containment import Containment
from ..process.guard_process import GuardPlan, GuardProcess
from ..process.identity import ProcessFacts, ProcessIdentity
from ..report import ExitReport
from ..state.ledger import Ledger
from ..state.records import Record, Session, new_id
from .ending import Ending, leave_block, raise_if_leaked
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

    def __init__(
        self,
        driver: D,
        roots: tuple[ProcessIdentity, ...],
        timeout: float | None,
        close_timeout: float,
        on_leak: OnLeak,
    ):
        self.driver = driver
        self.id = new_id()
        self._roots, self._timeout = roots, timeout
        self._close_timeout, self._on_leak = close_timeout, on_leak
        self._owner = os.getpid()
        ledger = Ledger.open()
        ledger.prune()
        session = describe(
            self.id,
            self.name,
            CONTAINMENT,
            created=time.time(),
            timeout=timeout,
            lock=str(ledger.lock_path(self.id)),
        )
        guard = GuardProcess(self._plan(ledger, session))
        known = tuple((root, "") for root in roots)
        record = Record(ledger.record_path(self.id), session, (identity_of(guard.pid),), known)
        self._ending = Ending(guard, ledger, record, close_timeout)
        _wait_until_armed(guard, close_timeout)
        self._ending.end_with(self, f"An adopted {self.name}")
        # The driver's own quit() would wait for a browser that is gone, and prove nothing.
        cast(Any, driver).quit = self.quit

    @property
    def name(self) -> str:
        """The browser's name in the driver's capabilities."""
        return str(cast(Any, self.driver).caps.get("browserName") or "browser")

    @property
    def report(self) -> ExitReport | None:
        """How the session ended; None before its end."""
        return self._ending.report

    def processes(self) -> list[ProcessFacts]:
        """Driver, browser and all processes below them now."""
        found: dict[int, ProcessFacts] = {}
        for root in self._roots:
            facts = system.facts(root.pid)
            if facts is not None and root.is_same_as(facts.identity):
                found.update({p.pid: p for p in (facts, *system.tree(root.pid))})
        return [process for process in found.values() if not process.is_zombie]

    def _plan(self, ledger: Ledger, session: Session) -> GuardPlan:
        roots = (f"{root.pid}:{root.start!r}" for root in self._roots)
        return GuardPlan(
            session=self.id,
            command=(*roots, *_directories_of(self.driver)),
            env=environment_without_credentials(),
            containment=CONTAINMENT,
            document=session.to_json(),
            record=str(ledger.record_path(self.id)),
            lock=session.lock,
            history=str(ledger.history_path(self.id)),
            timeout=self._timeout or 0,
            kill_deadline=self._close_timeout,
        )

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
        return self._ending.run(reason, disconnect=self._disconnect)

    def _disconnect(self) -> None:
        """Reap the driver, a child of this process, unless ``service.stop()`` has, and close the
        connections to it."""
        process = getattr(getattr(self.driver, "service", None), "process", None)
        if process is not None:
            with contextlib.suppress(Exception):
                process.wait(self._close_timeout)
        for root in self._roots:
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
        if os.getpid() != self._owner:
            return  # a fork that leaves the block: the session belongs to its parent
        report = leave_block(self._end, error, self._on_leak, "adopted session")
        if error is None and report.reason == "timeout":
            raise SessionTimeout(
                f"The adopted {self.name} passed its timeout of {self._timeout:g} s and was ended.",
                report,
            )


def _wait_until_armed(guard: GuardProcess, close_timeout: float) -> None:
    """Wait until the guard watches the driver.

    Raises LaunchError where it does not.  The guard is then told to end, and may end the driver as well.
    """
    event = guard.wait_for("spawned", "failed", "ended", deadline=time.monotonic() + ARM_TIMEOUT)
    if event is None or event["event"] != "spawned":
        why = event.get("text", "it ended") if event else f"no answer within {ARM_TIMEOUT:g} s"
        guard.end("failed", time.monotonic() + close_timeout)
        raise LaunchError(f"The guard of the adopted driver did not start: {why}.")


def adopt(
    driver: D,
    *,
    timeout: float | None = None,
    close_timeout: float = CLOSE_TIMEOUT,
    on_leak: OnLeak = "raise",
) -> AdoptedSession[D]:
    """Put a driver that other code has started under a guard: ``with adopt(driver) as session: ...``.

    For drivers of Selenium and of libraries made of it (undetected-chromedriver, SeleniumBase), on this
    machine.  From now on the driver ends as a session of :func:`browser` does, also where this process
    is killed.  ``driver.quit()`` becomes that verified end.

    Args:
        driver: a driver that has been started, and has not quit.
        timeout: seconds from now until the guard ends the session.
        close_timeout: seconds for the kill.
        on_leak: what to do if anything survives: ``raise`` LeakError, ``warn`` or ``ignore``.

    Raises:
        ConfigError: the driver is none, is on a Grid, is browserkeeper's own, was adopted before, or has
            ended.
        ContainmentError: ``/proc`` shows another pid namespace than this process's.
        LaunchError: the guard did not start.
    """
    require_own_proc()
    if timeout is not None:
        check_seconds("timeout", timeout)
    check_seconds("close_timeout", close_timeout)
    check_choice("on_leak", on_leak, ("raise", "warn", "ignore"))
    return AdoptedSession(driver, _roots_of(driver), timeout, close_timeout, on_leak)


def _roots_of(driver: Any) -> tuple[ProcessIdentity, ...]:
    """The processes of the driver and the browser.  Raises ConfigError for what cannot be adopted."""
    if hasattr(driver, "command_handler"):
        raise ConfigError("This driver is browserkeeper's own: it has a guard already.")
    if isinstance(getattr(getattr(driver, "quit", None), "__self__", None), AdoptedSession):
        raise ConfigError("This driver was adopted before.")
    service = getattr(driver, "service", None)
    process = getattr(service, "process", None)
    if process is None or not hasattr(driver, "caps"):
        raise ConfigError(
            f"{type(driver).__name__} has no driver process on this machine, or has quit. For a Grid, "
            "use browser(remote=...)."
        )
    found = system.facts(process.pid)
    if found is None or found.is_zombie:
        raise ConfigError("The driver's process is gone: adopt it before it quits.")
    return (found.identity, *_browser_of(driver, found.pid))


def _browser_of(driver: Any, root: int) -> list[ProcessIdentity]:
    """The browser's process, besides the driver's.

    undetected-chromedriver starts the browser itself, so it is not below the driver.
    """
    capabilities = driver.caps
    names = (capabilities.get("goog:processID"), capabilities.get("moz:processID"))
    pids = {pid for pid in (*names, getattr(driver, "browser_pid", None)) if isinstance(pid, int)}
    return [found.identity for pid in pids - {root} if (found := system.facts(pid))]


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
