"""``adopt()``: a driver that other code has made gets the ending of a session of ours.

As far as that goes from outside: its guard is no ancestor of it.  docs/remote.md says what is
weaker than with ``browser()``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ..cleanup.removal import account_of_end
from ..config import CLOSE_TIMEOUT, OnLeak, check_choice, check_seconds
from ..errors import ConfigError, ForkedSessionError, LaunchError, LeakError, SessionTimeout
from ..grid.address import VARIABLE as GRID
from ..guard.files import is_private_directory
from ..process import identity_of, own_name, system
from ..process.containment import Containment
from ..process.guard_process import GuardPlan, GuardProcess
from ..process.identity import ProcessFacts, ProcessIdentity
from ..report import ExitReport
from ..state.ledger import Ledger
from ..state.records import Record, Session, new_id

if TYPE_CHECKING:
    from selenium import webdriver

    D = TypeVar("D", bound=webdriver.Remote)
else:
    D = TypeVar("D")

logger = logging.getLogger("browserkeeper")

ARM_TIMEOUT = 15.0
"""Seconds for the guard to be there; it takes 0.2, and more on a machine that is busy."""
CONTAINMENT = Containment("adopted", "other code started it")


class AdoptedSession(Generic[D]):
    """A driver of other code's making, and the guard that ends it; made by :func:`adopt`."""

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
        self.report: ExitReport | None = None
        """How the session ended; None until it has."""
        self._roots, self._timeout = roots, timeout
        self._directories = tuple(_directories_of(driver))
        self._close_timeout, self._on_leak = close_timeout, on_leak
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._ledger = Ledger.open()
        self._ledger.prune()
        session = self._describe()
        self._guarded = GuardProcess(self._plan(session))
        guard = system.facts(self._guarded.pid)
        guards = (guard.identity,) if guard else ()
        known = tuple((root, "") for root in roots)
        self._record = Record(self._ledger.record_path(self.id), session, guards, known)
        self._wait_until_armed()
        self._release = weakref.finalize(self, _let_go, self._guarded, self._owner)
        # Their own clean-up would wait for a browser that is gone, and prove nothing.
        cast(Any, driver).quit = self.quit

    @property
    def name(self) -> str:
        """The browser's name, as the driver says it."""
        return str(cast(Any, self.driver).caps.get("browserName") or "browser")

    def processes(self) -> list[ProcessFacts]:
        """Driver and browser, and what is below them now."""
        found: dict[int, ProcessFacts] = {}
        for root in self._roots:
            facts = system.facts(root.pid)
            if facts is not None and root.is_same_as(facts.identity):
                found.update({p.pid: p for p in (facts, *system.tree(root.pid))})
        return [process for process in found.values() if not process.is_zombie]

    def _describe(self) -> Session:
        now = time.time()
        return Session(
            id=self.id,
            kind="session",
            browser=self.name,
            owner=identity_of(os.getpid()),
            owner_name=own_name(),
            host=system.host_id(),
            containment=CONTAINMENT.kind,
            created=now,
            deadline=now + self._timeout if self._timeout else None,
        )

    def _plan(self, session: Session) -> GuardPlan:
        return GuardPlan(
            session=self.id,
            command=(*(f"{root.pid}:{root.start!r}" for root in self._roots), *self._directories),
            env={name: value for name, value in os.environ.items() if name != GRID},
            containment=CONTAINMENT,
            document=session.to_json(),
            record=str(self._ledger.record_path(self.id)),
            history=str(self._ledger.history_path(self.id)),
            timeout=self._timeout or 0,
            kill_deadline=self._close_timeout,
        )

    def _wait_until_armed(self) -> None:
        """Raises LaunchError; the driver is then as it was."""
        deadline = time.monotonic() + ARM_TIMEOUT
        news = self._guarded.wait_for("spawned", "failed", "ended", deadline=deadline)
        if news is None or news["event"] != "spawned":
            why = news.get("text", "it ended") if news else "it did not start"
            self._guarded.end("failed", time.monotonic() + self._close_timeout)
            raise LaunchError(f"The guard of the adopted driver is not there: {why}.")

    # -- the end

    def close(self) -> ExitReport:
        """End driver and browser, verified; the second call returns the same report.

        Raises LeakError as ``on_leak`` says, ForkedSessionError in a process that inherited it.
        """
        if os.getpid() != self._owner:
            raise ForkedSessionError(f"Process {self._owner} has adopted this driver; it ends it.")
        report = self._end("closed")
        self._raise_if_leaked(report, None)
        return report

    def quit(self) -> None:
        """The same, for those who expect that name; ``driver.quit()`` comes here too."""
        self.close()

    def _end(self, reason: str) -> ExitReport:
        with self._lock:
            if self.report is not None:
                return self.report
            began = time.monotonic()
            facts = self._guarded.end(reason, began + 2 * self._close_timeout)
            report = account_of_end(facts, self._ledger, self._record)
            self._reap()
            seconds = {**report.seconds, "close": time.monotonic() - began}
            self.report = dataclasses.replace(report, seconds=seconds)
            self._release.detach()
            with contextlib.suppress(Exception):
                cast(Any, self.driver).command_executor.close()
            logger.info("%s", self.report, extra=self.report.log_fields())
            return self.report

    def _reap(self) -> None:
        """The driver is our own child, so its zombie is ours; ``service.stop()`` may have had it."""
        service = getattr(self.driver, "service", None)
        process = getattr(service, "process", None)
        if process is not None:
            with contextlib.suppress(Exception):
                process.wait(self._close_timeout)
        for root in self._roots:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(root.pid, os.WNOHANG)

    def _raise_if_leaked(self, report: ExitReport, in_flight: BaseException | None) -> None:
        if report.clean or self._on_leak == "ignore":
            return
        text = f"Something of the adopted session is left.\n{report}"
        if self._on_leak == "raise" and in_flight is None:
            raise LeakError(text, report)
        logger.error(text)
        if self._on_leak == "warn":
            warnings.warn(text, ResourceWarning, stacklevel=3)

    def __enter__(self) -> AdoptedSession[D]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if os.getpid() != self._owner:
            return
        report = self._end("closed" if error is None else "error")
        self._raise_if_leaked(report, error)
        if error is None and report.reason == "timeout":
            raise SessionTimeout(
                f"The adopted {self.name} passed its timeout of {self._timeout:g} s and was ended.",
                report,
            )


def adopt(
    driver: D,
    *,
    timeout: float | None = None,
    close_timeout: float = CLOSE_TIMEOUT,
    on_leak: OnLeak = "raise",
) -> AdoptedSession[D]:
    """Put a driver of other code's under a guard from now on: ``with adopt(driver) as session: ...``.

    For Selenium's own drivers and what is made of them (undetected-chromedriver, SeleniumBase), on
    this machine.  From here on it ends as a session of :func:`browser` does, whatever kills this
    process; what happened before, nobody has guarded.  ``driver.quit()`` becomes that ending.

    Args:
        driver: started, and not quit yet.
        timeout: seconds from now to its end, enforced by the guard.
        close_timeout: seconds for the kill.
        on_leak: ``raise`` LeakError, ``warn`` or ``ignore`` where anything survives.

    Raises:
        ConfigError: no driver, one on a Grid, one that is ours or adopted already, or gone.
        LaunchError: the guard did not start.
    """
    if timeout is not None:
        check_seconds("timeout", timeout)
    check_seconds("close_timeout", close_timeout)
    check_choice("on_leak", on_leak, ("raise", "warn", "ignore"))
    return AdoptedSession(driver, _roots_of(driver), timeout, close_timeout, on_leak)


def _roots_of(driver: Any) -> tuple[ProcessIdentity, ...]:
    if hasattr(driver, "keeper"):
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
    """undetected-chromedriver starts the browser itself, so it is not below the driver."""
    capabilities = driver.caps
    names = (capabilities.get("goog:processID"), capabilities.get("moz:processID"))
    pids = {pid for pid in (*names, getattr(driver, "browser_pid", None)) if isinstance(pid, int)}
    return [found.identity for pid in pids - {root} if (found := system.facts(pid))]


def _directories_of(driver: Any) -> Iterator[str]:
    """undetected-chromedriver makes its profile itself, and says whether it is to go in the end."""
    place = getattr(driver, "user_data_dir", None)
    if getattr(driver, "keep_user_data_dir", True) is False and isinstance(place, str):
        path = os.path.realpath(place)
        if os.path.dirname(path) == os.path.realpath(tempfile.gettempdir()) and is_private_directory(
            path
        ):
            yield path


def _let_go(guarded: GuardProcess, owner: int) -> None:
    """The object was dropped, or the interpreter is ending."""
    if os.getpid() == owner and guarded.is_alive():
        guarded.end("abandoned", time.monotonic() + CLOSE_TIMEOUT)
        warnings.warn(
            "An adopted driver was never closed; its guard has ended it.", ResourceWarning, stacklevel=2
        )


__all__ = ["AdoptedSession", "adopt"]
