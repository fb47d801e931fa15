"""A lease: one user's time with one browser, and the gate that its commands pass through."""

from __future__ import annotations

import dataclasses
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import BrowserkeeperError, ConfigError, LeaseEnded, LeaseTimeout
from ..session import BrowserSession
from .browser import Browser
from .latch import Latch
from .scheduler import Member

if TYPE_CHECKING:
    from selenium import webdriver

    D_co = TypeVar("D_co", bound=webdriver.Remote, covariant=True)
else:
    D_co = TypeVar("D_co", covariant=True)

STACK_DEPTH = 12
"""Frames of the taker's stack that are remembered, to name who never gave a browser back."""


@dataclasses.dataclass(frozen=True)
class LeaseInfo:
    """Who holds what.  ``since`` is in seconds since the epoch, ``seconds`` how long that is ago;
    ``deadline`` is the seconds that are left of ``max_lease``, None without one."""

    browser_id: str
    pid: int | None
    thread: str
    since: float
    seconds: float
    uses: int
    deadline: float | None
    stack: str

    def __str__(self) -> str:
        where = self.stack.strip().splitlines()
        place = f", taken at {where[-2].strip()}" if len(where) > 1 else ""
        return f"{self.browser_id} by {self.thread} for {self.seconds:.1f} s{place}"


class Request:
    """One call for a browser: who asks, and the answer.  The supervisor answers it once."""

    def __init__(self) -> None:
        self.thread = threading.current_thread().name
        frames = traceback.walk_stack(None)
        self._stack = traceback.StackSummary.extract(frames, limit=STACK_DEPTH, lookup_lines=False)
        self.asked = time.monotonic()
        self.granted = 0.0
        self.granted_epoch = 0.0
        self.member: Member | None = None
        self.verdict: str | None = None
        """After the lease: why the browser must not be used again, "" where it may."""
        self.gate: Callable[[], Gate | None] = lambda: None
        """A weak reference: when the gate is garbage, nobody waits or works any more."""
        self.error: BrowserkeeperError | None = None
        self.warned = False
        self._answered = Latch()

    def grant(self, member: Member, now: float) -> None:
        self.granted, self.granted_epoch, self.member = now, time.time(), member
        self._answered.set()

    def refuse(self, error: BrowserkeeperError) -> None:
        self.error = error
        self._answered.set()

    def wait(self, timeout: float) -> Member | None:
        """The member; None where nothing came in time.  Raises the error of a refusal."""
        self._answered.wait(timeout)
        if self.error is not None:
            raise self.error
        return self.member

    @property
    def stack(self) -> str:
        """As in a traceback, without the pool's own frames."""
        ours = __name__.rpartition(".")[0].replace(".", "/")
        frames = [frame for frame in reversed(self._stack) if ours not in frame.filename]
        return "".join(traceback.StackSummary.from_list(frames).format())

    def info(self, now: float, max_lease: float | None) -> LeaseInfo:
        assert self.member is not None
        browser: Browser = self.member.body
        seconds = now - self.granted
        return LeaseInfo(
            browser_id=browser.id,
            pid=browser.identity.pid if browser.identity else None,
            thread=self.thread,
            since=self.granted_epoch,
            seconds=seconds,
            uses=self.member.uses,
            deadline=None if max_lease is None else max_lease - seconds,
            stack=self.stack,
        )


class Gate:
    """What the driver of a lease talks to (its ``keeper``): open as long as the lease is.

    It is made before a browser is asked for, and the pool looks at it, not for messages: when it
    is garbage, so are the lease and its driver, and with a ``verdict`` the lease is over.
    So no exception in the user's thread, at whatever moment a signal handler raises it, can lose
    a browser.
    """

    def __init__(self, request: Request):
        self.request = request
        request.gate = weakref.ref(self)
        self.uses = 0
        self.retire_reason = ""
        self.driver: Any = None
        self.lease: Callable[[], Lease[Any] | None] = lambda: None
        self._pending = 0
        self._lock = threading.RLock()  # a signal handler may end the lease between two lines

    @property
    def browser(self) -> Browser:
        assert self.request.member is not None
        browser: Browser = self.request.member.body
        return browser

    @property
    def session(self) -> BrowserSession[Any]:
        return self.browser.session

    def run_command(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """Every command of the lease's driver.  Raises LeaseEnded after the lease."""
        with self._lock:
            if not self.is_open:
                raise self.ended()
            self._pending += 1
        try:
            return self.browser.run(name, params, command)
        finally:
            with self._lock:
                self._pending -= 1

    def quit_driver(self) -> None:
        """``driver.quit()``: the habit of those who came from plain Selenium.  The browser is
        ended, verified; the pool notices and replaces it."""
        if self.is_open:
            self.retire_reason = self.retire_reason or "quit"
            self.session.close()

    def shut(self) -> None:
        """End the lease."""
        used_bidi = self.driver is not None and getattr(self.driver, "used_bidi", False)
        with self._lock:
            if self._pending:
                self.request.verdict = "interrupted: a command was in flight at the end of the lease"
            elif used_bidi:
                self.request.verdict = (
                    "beyond: the lease used BiDi, whose subscriptions outlast a context"
                )
            else:
                self.request.verdict = self.retire_reason
        if used_bidi:
            self.driver.disconnect_bidi()

    @property
    def is_open(self) -> bool:
        return self.request.verdict is None

    def ended(self) -> BrowserkeeperError:
        failure = self.browser.failure()
        if isinstance(failure, LeaseTimeout):
            return failure
        return LeaseEnded(
            f"This lease of browser {self.browser.id} is over: the pool may have given the browser "
            "to somebody else. Use the driver inside `with pool.lease()`.",
            self.session.report,
        )


class Lease(Generic[D_co]):
    """A browser for a while: ``with pool.lease() as lease: lease.driver.get(...)``.

    One that is dropped without having been given back is taken back, with a ResourceWarning.
    """

    def __init__(self, gate: Gate, release: Callable[[], None]):
        self._gate, self._release = gate, release
        gate.lease = weakref.ref(self)

    @property
    def driver(self) -> D_co:
        """A Selenium driver for this lease alone.  Raises LeaseEnded after it, from every command."""
        if self._gate.driver is None:
            if not self._gate.is_open:
                raise self._gate.ended()
            self._gate.driver = self._gate.browser.driver_for(self._gate)
        driver: D_co = self._gate.driver
        return driver

    @property
    def uses(self) -> int:
        """How many leases this browser has had, this one included."""
        return self._gate.uses

    @property
    def browser_id(self) -> str:
        """The id of its session, as in ``browserkeeper ps`` and the logs."""
        return self._gate.browser.id

    @property
    def session(self) -> BrowserSession[Any]:
        """The session behind it: ``processes()``, ``memory()``, ``report``."""
        return self._gate.session

    @property
    def download_dir(self) -> Path | None:
        """Where this lease's downloads go.  They go when the lease does, unless the pool was given
        a ``download_dir``."""
        return self._gate.browser.downloads

    def retire(self, reason: str = "") -> None:
        """Have the browser replaced when the lease ends: it is banned, confused, or suspect."""
        self._gate.retire_reason = f"requested: {reason}" if reason else "requested"

    def release(self) -> None:
        """Give the browser back; the second call does nothing.

        Raises LeaseTimeout where ``max_lease`` had passed by then.
        """
        if not self._gate.is_open:
            return
        failure = self._gate.browser.failure()
        self._release()
        if isinstance(failure, LeaseTimeout):
            raise failure

    def __enter__(self) -> Lease[D_co]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.release()
        except LeaseTimeout:
            if error is None:
                raise

    def __repr__(self) -> str:
        state = "open" if self._gate.is_open else "over"
        return f"<Lease {state} browser={self.browser_id} uses={self.uses}>"


def lease_of(driver: webdriver.Remote) -> Lease[Any]:
    """The lease of a driver that came from a pool.  Raises ConfigError for any other."""
    keeper = getattr(driver, "keeper", None)
    lease = keeper.lease() if isinstance(keeper, Gate) else None
    if lease is None:
        raise ConfigError(f"{driver!r} did not come from a BrowserPool, or its lease is gone.")
    return lease
