"""A lease: one user's time with one browser, from the request to the release."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import (
    BrowserkeeperError,
    ConfigError,
    LeaseEnded,
    LeaseTimeout,
    PoolClosed,
    refuse_to_pickle,
)
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..options.identity import NO_IDENTITY, Identity
from ..session import BrowserSession, control_of
from ..session.call_stack import CallStack
from ..session.download import Download
from ..session.downloads import TIMEOUT, Expectation, User
from ..session.not_a_driver import no_attribute
from ..session.storage import STORAGE_STATE, check_and_save
from .browser import Browser
from .latch import Latch
from .scheduler import Member

if TYPE_CHECKING:
    from selenium import webdriver

    from ..drivers.managed import CommandHandler
    from ..drivers.websockets import Filter
    from ..proxy.relay import Route

    D_co = TypeVar("D_co", bound=webdriver.Remote, covariant=True)
else:
    D_co = TypeVar("D_co", covariant=True)


@dataclasses.dataclass(frozen=True)
class LeaseInfo:
    """A lease that is out: which browser, which thread has it, and since when.

    ``label`` is the lease's name, "" without one.
    ``since`` is in seconds since the epoch, ``seconds`` is the lease's age, and ``deadline`` is how
    many seconds are left of ``max_lease`` (None without one).
    """

    browser_id: str
    pid: int | None
    thread: str
    since: float
    seconds: float
    uses: int
    deadline: float | None
    stack: str
    label: str = ""

    def __str__(self) -> str:
        where = self.stack.strip().splitlines()
        place = f", taken at {where[-2].strip()}" if len(where) > 1 else ""
        name = f' "{self.label}"' if self.label else ""
        return f"{self.browser_id}{name} by {self.thread} for {self.seconds:.1f} s{place}"


class Request:
    """One call of ``lease()``: made by the user's thread, answered once by the pool's event loop."""

    def __init__(self, label: str = "", identity: Identity = NO_IDENTITY) -> None:
        self.label, self.identity = label, identity
        self.thread = threading.current_thread().name
        self._stack = CallStack()
        self.made_at = time.monotonic()
        self.granted_at = 0.0
        """On the monotonic clock; 0 until the request is granted."""
        self.granted_epoch = 0.0
        self.member: Member | None = None
        self.uses = 0
        """How many leases the pool's member has had, with this one, when it was granted."""
        self.browser_uses = 0
        """How many leases the browser has had, in all of its places."""
        self.error: BrowserkeeperError | None = None
        self.handler: Callable[[], LeaseHandler | None] = lambda: None
        """A weak reference.  When it is dead, no thread waits for this request or uses its lease."""
        self.ended_with: str | None = None
        """None until the lease ends; then why the browser must be retired, "" if it need not be."""
        self.timed_out = False
        """True when it raises PoolTimeout."""
        self.cancelled = False
        """True when no thread wants the answer, and none uses the lease."""
        self.is_taking = False
        """True once the browser is being told the identity of this request."""
        self.wake: Callable[[], None] = lambda: None
        """Has the event loop look at this request.  Set by the controller."""
        self.leak_logged = False
        self._answered = Latch()
        self.on_answer: Callable[[], None] = _do_nothing
        """Called after the answer, in the event loop's thread; must neither block nor raise."""

    def cancel(self) -> None:
        """Take the request back, and its lease if it was granted meanwhile; returns at once.

        A thread that waits for the answer gets PoolClosed.
        """
        self.cancelled = True
        self.wake()

    def grant(self, member: Member, now: float) -> None:
        self.granted_at, self.granted_epoch, self.uses = now, time.time(), member.uses
        self.member = member
        self._answered.set()
        self.on_answer()

    def refuse(self, error: BrowserkeeperError) -> None:
        self.error = error
        self._answered.set()
        self.on_answer()

    def wait(self, timeout: float) -> Member | None:
        """Block until the answer.  Returns None after ``timeout`` seconds; raises a refusal's error."""
        self._answered.wait(timeout)
        return self.answer()

    def answer(self) -> Member | None:
        """The browser that was granted; None before the answer.  Raises the error of a refusal."""
        if self.error is not None:
            raise self.error
        return self.member

    @property
    def stack(self) -> str:
        """Where the lease was asked for, formatted as in a traceback, without the pool's own frames."""
        return str(self._stack)

    def info(self, now: float, max_lease: float | None) -> LeaseInfo:
        assert self.member is not None
        browser: Browser = self.member.browser
        seconds = now - self.granted_at
        return LeaseInfo(
            browser_id=browser.id,
            pid=browser.identity.pid if browser.identity else None,
            thread=self.thread,
            since=self.granted_epoch,
            seconds=seconds,
            uses=self.browser_uses,
            deadline=None if max_lease is None else max_lease - seconds,
            stack=self.stack,
            label=self.label,
        )


def _do_nothing() -> None:
    """The ``on_answer`` of a request for which a thread waits."""


class LeaseHandler:
    """The command handler of a lease's driver: passes commands on while the lease lasts.

    It is made before a browser is asked for.  The lease and its driver refer to it; the pool has a
    weak reference.  The event loop needs no message that a lease has ended: it looks whether
    ``ended_with`` is set, or whether the handler was garbage-collected together with lease and
    driver.  So no exception in the user's thread can lose a browser, at whatever moment a signal
    handler raises it.
    """

    __reduce_ex__ = refuse_to_pickle

    def __init__(self, request: Request, pool: object = None):
        """``pool`` is kept alive with the lease: one that is dropped ends its browsers."""
        self.request, self._pool = request, pool
        self.check_identity: Callable[[Identity], None] = lambda identity: None
        """Raises ConfigError for words that a lease of this pool cannot have."""
        self.is_single_use = False
        """True if the browser ends after this lease in any case."""
        request.handler = weakref.ref(self)
        self.retire_reason = ""
        self.driver_reference: Callable[[], Any] = lambda: None
        """A weak reference: the driver has this handler, and the lease has the driver."""
        self.lease: Callable[[], Lease[Any] | None] = lambda: None
        # No lock, which an exception of a signal handler could leave taken: a command first notes
        # itself and then looks whether it is refused, and the end of the lease does it the other way.
        self._pending: collections.deque[None] = collections.deque()
        """One entry for each command in flight."""
        self._refuses = False

    @property
    def driver(self) -> Any:
        """The lease's driver object; None where none was asked for, or it was dropped."""
        return self.driver_reference()

    @property
    def browser(self) -> Browser:
        assert self.request.member is not None
        browser: Browser = self.request.member.browser
        return browser

    @property
    def session(self) -> BrowserSession[Any]:
        return self.browser.session

    @property
    def is_open(self) -> bool:
        """False once the lease has ended."""
        return self.request.ended_with is None

    @property
    def has_identity(self) -> bool:
        """True if :meth:`take_identity` has something to tell the browser."""
        return bool(self.request.identity) or self.browser.must_take

    def take_identity(self) -> None:
        """Set the identity of the request in the browser, before the user gets the lease.

        After any exception the lease is over, and the browser is replaced.  Raises the errors of
        :meth:`.Browser.take`.
        """
        if not self.has_identity:
            return
        try:
            self.request.is_taking = True  # first: the event loop looks at them in the other order
            if self.request.cancelled:
                raise PoolClosed("The request was cancelled.")
            self.browser.take(self.request.identity)
        except BaseException:
            self.cut_off("identity: the browser did not take it")
            raise

    def run_command(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """Run a command of the lease's driver.  Raises LeaseEnded after the lease."""
        self._pending.append(None)
        try:
            if self._refuses or not self.is_open:
                raise self.ended_error()
            return self.browser.run(name, params, command)
        finally:
            self._pending.pop()

    def observe_command(
        self, name: str, params: Mapping[str, Any]
    ) -> contextlib.AbstractContextManager[None]:
        """Keep a command over a connection of the driver's own, which the end of the lease closes."""
        if self._refuses or not self.is_open:
            return contextlib.nullcontext()
        return control_of(self.session).observe_command(name, params)

    def expect_download(self, timeout: float | None, count: int) -> Expectation:
        """See ``Lease.expect_download``.  Raises LeaseEnded after the lease."""
        self._raise_if_over()
        downloads = control_of(self.session).downloads
        user = User(self._raise_if_over, self._run_classic)
        return downloads.expect(user, timeout, count, "expect_download()")

    def downloads(self) -> tuple[Download, ...]:
        """See ``Lease.downloads``."""
        if not self.is_open:
            raise self.ended_error()
        return control_of(self.session).downloads.all("downloads")

    def _run_classic(self, name: str, params: dict[str, Any]) -> Any:
        control = control_of(self.session)
        return self.run_command(name, params, lambda: control.driver.execute(name, params))["value"]

    def _raise_if_over(self) -> None:
        if not self.is_open:
            raise self.ended_error()
        if error := self.browser.failure():
            raise error
        control_of(self.session).raise_if_over()

    @property
    def bidi_filter(self) -> Filter | None:
        """The filter for the lease's BiDi commands: the filter of its context, or of its session.

        Raises LeaseEnded after the lease.
        """
        if self._refuses or not self.is_open:
            raise self.ended_error()
        found = self.browser.bidi_filter
        if found is None:
            return control_of(self.session).bidi_filter
        found.ended_error = functools.partial(_ended_error, weakref.ref(self))
        return found

    @property
    def proxy_route(self) -> Route | None:
        """The relay's route to the lease's proxy; None without a proxy."""
        return self.browser.proxy_route

    def quit_driver(self) -> None:
        """``driver.quit()``, a habit from plain Selenium, ends the browser; the pool replaces it."""
        if self.is_open:
            self.retire_reason = self.retire_reason or "quit"
            self.session.close()

    def end_lease(self) -> None:
        """Refuse all further commands, and let the pool have the browser back.  Idempotent.

        An exception of a signal handler, at whatever moment, ends the lease too; then the browser is
        replaced.
        """
        try:
            self._refuses = True
            driver = self.driver
            used_bidi = driver is not None and getattr(driver, "used_bidi", False)
            if self._pending:
                reason = "interrupted: a command was in flight at the end of the lease"
            elif used_bidi and self.browser.bidi_filter is None:
                reason = "beyond: the lease used BiDi, and not in a context of its own"
            else:
                reason = self.retire_reason
            if self.is_open:
                self.request.ended_with = reason
        except BaseException:
            self.cut_off("interrupted: an exception came while the lease was released")
            raise
        if driver is not None:
            driver.disconnect()

    def cut_off(self, reason: str) -> None:
        """End the lease at once, whoever uses it, and have its browser ended.  Does nothing if the lease
        is over: then the browser may be another lease's."""
        if self.is_open:
            self.request.ended_with = reason
            self.request.wake()

    def ended_error(self) -> BrowserkeeperError:
        """The error for a command that comes after the end of the lease."""
        failure, report = self.browser.failure(), self.session.report
        member = self.request.member
        if member is None or member.uses != self.request.uses:
            # The latest commands may be those of a later lease, and must not be shown here.
            report = report and dataclasses.replace(report, commands=())
        elif isinstance(failure, LeaseTimeout):
            return failure
        return LeaseEnded(
            f"This lease of browser {self.browser.id} is over: the pool may have leased the browser "
            "again. Use the driver inside `with pool.lease()`.",
            report,
        )


def _ended_error(reference: weakref.ref[LeaseHandler]) -> BrowserkeeperError:
    handler = reference()
    return LeaseEnded("This lease is over.") if handler is None else handler.ended_error()


class Lease(Generic[D_co]):
    """A browser for a limited time: ``with pool.lease() as lease: lease.driver.get(...)``.

    A lease that is garbage-collected before its release is released by the pool, with a
    ResourceWarning.
    """

    __reduce_ex__ = refuse_to_pickle

    def __init__(self, handler: LeaseHandler, release: Callable[[], None]):
        self._handler, self._release = handler, release
        self._driver: Any = None
        handler.lease = weakref.ref(self)

    @property
    def driver(self) -> D_co:
        """The Selenium driver of this lease.  After the lease each of its commands raises LeaseEnded."""
        if self._driver is None:
            if not self._handler.is_open:
                raise self._handler.ended_error()
            self._driver = self._handler.browser.driver_for(self._handler)
            self._handler.driver_reference = weakref.ref(self._driver)
        driver: D_co = self._driver
        return driver

    def drive_by(self, make: Callable[[LeaseHandler], CommandHandler], reused: Any) -> Any:
        """For doors that keep one driver object over several leases: returns the lease's driver, whose
        commands pass through the handler that ``make`` returns for the lease's own.

        ``reused``: the driver object of an earlier lease of the same pool, which becomes this lease's;
        None for a new one.  To be called before :attr:`driver` is read.
        """
        self._driver = self._handler.browser.driver_for(make(self._handler), reused)
        self._handler.driver_reference = weakref.ref(self._driver)
        return self._driver

    @property
    def is_open(self) -> bool:
        """False once the lease has ended, whatever has ended it."""
        return self._handler.is_open

    @property
    def ends_its_browser(self) -> bool:
        """True if the browser ends with this lease, which is over."""
        return bool(self._handler.request.ended_with) or self._handler.is_single_use

    def failure(self) -> BrowserkeeperError | None:
        """The error that a command would raise because the lease is over, or its browser has ended; None
        if it would run.  May block."""
        if error := self._handler.browser.failure():
            return error
        return None if self._handler.is_open else self._handler.ended_error()

    @property
    def uses(self) -> int:
        """How many leases this browser has had, this one included."""
        return self._handler.request.browser_uses

    @property
    def browser_id(self) -> str:
        """The id of the browser's session, as in ``browserkeeper ps`` and the logs."""
        return self._handler.browser.id

    @property
    def session(self) -> BrowserSession[Any]:
        """The browser's session, for its ``processes()``, ``memory()`` and ``report``."""
        return self._handler.session

    @property
    def download_dir(self) -> Path | None:
        """The directory of this lease's downloads.  They are removed when the lease ends, unless the
        pool was given a ``download_dir``."""
        return self._handler.browser.downloads

    def expect_download(self, timeout: float | None = TIMEOUT, *, count: int = 1) -> Expectation:
        """Wait for a download that a block begins: ``with lease.expect_download() as download: ...``.

        See :func:`browserkeeper.expect_download`, which takes the driver in place of the lease.
        """
        return self._handler.expect_download(timeout, count)

    @property
    def downloads(self) -> tuple[Download, ...]:
        """All downloads of this lease, in the order in which they began, also those outside an
        :meth:`expect_download` block.

        Raises LeaseEnded after the lease, and ConfigError if downloads of this browser cannot be seen.
        """
        return self._handler.downloads()

    def storage_state(
        self, path: str | os.PathLike[str] | None = None, *, indexed_db: bool = False
    ) -> dict[str, Any]:
        """The storage state of this lease only; see ``BrowserSession.storage_state``."""

        def read(with_databases: bool) -> dict[str, Any]:
            handler = self._handler
            found: dict[str, Any] = handler.run_command(
                STORAGE_STATE, {}, lambda: handler.browser.read_storage_state(with_databases)
            )
            return found

        return check_and_save(self.session.config, path, indexed_db, read)

    if not TYPE_CHECKING:  # a type checker finds what is missing by itself

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name, "use `with pool.lease() as lease:`, and then lease.driver.{}")

    def retire(self, reason: str = "") -> None:
        """Have the browser replaced when the lease ends, because a site has banned it, for example."""
        self._handler.retire_reason = f"requested: {reason}" if reason else "requested"

    def release(self) -> None:
        """End the lease and give the browser back.  The second call does nothing.

        Raises LeaseTimeout if ``max_lease`` passed before.
        """
        if not self._handler.is_open:
            return
        failure: BaseException | None = None
        try:
            failure = self._handler.browser.failure()
        finally:
            self._release()
        if isinstance(failure, LeaseTimeout):
            raise failure

    def begin_again(self, identity: Identity, label: str) -> None:
        """Give the lease an identity and a label, in place of those that it began with: for a server,
        whose clients may lease a session before they know its user.

        To be called before the lease's first command.  Raises ConfigError for words that the lease
        cannot have, and the errors of :meth:`take_identity`.
        """
        handler = self._handler
        handler.check_identity(identity)
        handler.request.label = label
        handler.browser.name_lease(label)
        if identity:
            handler.request.identity = identity
            handler.take_identity()

    @property
    def has_identity(self) -> bool:
        """True if :meth:`take_identity`, which may block, has something to do."""
        return self._handler.has_identity

    def take_identity(self) -> None:
        """Called by the pool before the user gets the lease: sets the lease's identity in the
        browser.  Raises what the browser refuses."""
        self._handler.take_identity()

    def cut_off(self, reason: str) -> None:
        """End the lease from another thread, and have the browser ended; returns at once.  A command in
        flight raises SessionClosed, later ones LeaseEnded.  For the pool itself; users call
        :meth:`retire` and :meth:`release`."""
        self._handler.cut_off(reason)

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
        except BaseException:  # of a signal handler, wherever it came
            self.cut_off("interrupted: an exception came while the lease was released")
            raise

    def __repr__(self) -> str:
        state = "open" if self._handler.is_open else "over"
        return f"<Lease {state} browser={self.browser_id} uses={self.uses}>"


def lease_of(driver: webdriver.Remote) -> Lease[Any]:
    """Returns the lease of a driver that came from a pool.  Raises ConfigError for any other driver."""
    handler = getattr(driver, "command_handler", None)
    lease = handler.lease() if isinstance(handler, LeaseHandler) else None
    if lease is None:
        raise ConfigError(f"{driver!r} did not come from a BrowserPool, or its lease is gone.")
    return lease
