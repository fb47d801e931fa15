"""``BrowserSession``: one browser from its start to its verified end, as users see it."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..config import SessionConfig, check_seconds
from ..errors import ConfigError, refuse_to_pickle
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..process import system
from ..process.identity import ProcessFacts
from ..report import REASONS, ExitReport
from .asynchronous import in_thread
from .call import Call
from .control import SessionControl
from .download import Download
from .downloads import TIMEOUT, Expectation
from .ending import leave_block
from .not_a_driver import no_attribute
from .storage import check_and_save

if TYPE_CHECKING:
    from selenium import webdriver

    D_co = TypeVar("D_co", bound=webdriver.Remote, covariant=True)
else:
    D_co = TypeVar("D_co", covariant=True)

T = TypeVar("T")


class BrowserSession(Generic[D_co]):
    """A browser, its driver and the guard that ends them; made by :func:`browser`.

    A context manager for one use, and safe to use from several threads.  As a decorator it makes
    a new session for each call.
    """

    __reduce_ex__ = refuse_to_pickle

    def __init__(self, config: SessionConfig):
        self._hold(SessionControl(config, _session_for))

    def _hold(self, control: SessionControl[BrowserSession[Any]]) -> None:
        self._control = control
        self._driver = control.attempt.driver if control.attempt else None  # kept alive
        control.belongs_to(self)

    @property
    def config(self) -> SessionConfig:
        """The arguments of :func:`browser`, checked."""
        return self._control.config

    @property
    def name(self) -> str:
        """The browser's name, as given to :func:`browser`."""
        return self._control.config.name

    @property
    def id(self) -> str:
        """The session's id, as in the logs and ``browserkeeper ps``; "" before its start."""
        return self._control.id

    @property
    def report(self) -> ExitReport | None:
        """How the session ended; None before its end."""
        return self._control.report

    @property
    def driver(self) -> D_co:
        """The Selenium driver.  Raises SessionClosed before the start and after the end; where the
        program did not end the session, the error that says what did, as a command does."""
        driver: D_co = self._control.driver
        return driver

    @property
    def pid(self) -> int | None:
        """The browser's main process; None for a browser on a Grid or of a server, or one that was
        attached to."""
        identity = self._control.identity
        return identity.pid if identity else None

    @property
    def tmpdir(self) -> str:
        """The session's own TMPDIR, removed at its end; "" before its start, and for a lease of a
        server."""
        attempt = self._control.attempt
        return attempt.tmpdir if attempt else ""

    @property
    def display(self) -> str:
        """The X display of driver and browser, such as ``:100``; "" before the start, without one, and
        for a browser on a Grid or of a server.

        That of ``display="virtual"`` has a key: other programs that are to use it, such as a recorder,
        need the file ``Xauthority`` in :attr:`tmpdir` as their ``XAUTHORITY``.
        """
        attempt = self._control.attempt
        return attempt.display if attempt else ""

    @property
    def containment(self) -> str:
        """The containment that this session has, "" before its start."""
        attempt = self._control.attempt
        return attempt.containment if attempt else ""

    @property
    def guard_pid(self) -> int | None:
        """The pid of the standby guard, the ancestor of all other processes of the session; None for a
        lease of a server, whose guards are the server's."""
        attempt = self._control.attempt
        return attempt.guard.pid if attempt else None

    def processes(self) -> list[ProcessFacts]:
        """Driver, browser and all processes below them now.  O(their number) on Linux."""
        return Call(self._control.processes).run()

    def memory(self) -> int:
        """Bytes of all :meth:`processes`, shared pages counted once (PSS; RSS off Linux)."""
        return Call(lambda: sum(system.memory(one.pid) for one in self._control.processes())).run()

    def __repr__(self) -> str:
        return (
            f"<BrowserSession {self.name} {self.id or 'unstarted'} {self._control.state} pid={self.pid}>"
        )

    if not TYPE_CHECKING:  # a type checker finds what is missing by itself

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_") and self._control.state == "live":
                how = "this session is started, and its driver is `session.driver`: session.driver.{}"
            else:
                how = (
                    "use `with browser() as driver:` or `driver = browser().start()`, and then driver.{}"
                )
            raise no_attribute(self, name, how)

    def start(self) -> D_co:
        """Start the browser and return its driver.

        Raises ConfigError, ResolveError or VersionMismatch before anything is started;
        LaunchError, LedgerError, ContainmentError or SessionTimeout when all that had been
        started is gone again.  An exception from outside, such as a signal handler's, is raised
        unchanged, when all that had been started is gone again.
        """
        self._control.claim_start()
        try:
            driver: D_co = self._control.start()
            self._driver = driver
            return driver
        except BaseException as error:  # also of a signal handler, after the start has succeeded
            self._control.abandon_start(error)
            raise

    __enter__ = start  # the same function: a call in between would be a place for a signal's exception

    async def astart(self) -> D_co:
        """:meth:`start` for asyncio: the event loop goes on meanwhile.

        If the task is cancelled, the start is cancelled, which takes well under a second; the
        CancelledError is raised after all processes of the start have ended.
        """
        self._control.claim_start()
        try:
            driver: D_co = await in_thread(self._control.start, stop=self.cut_off)
            self._driver = driver
            return driver
        except GeneratorExit:  # the event loop was closed: the coroutine may not wait any more
            raise
        except BaseException as error:
            await in_thread(functools.partial(self._control.abandon_start, error))
            raise

    def expect_download(self, timeout: float | None = TIMEOUT, *, count: int = 1) -> Expectation:
        """Wait for a download that a block begins: ``with session.expect_download() as download: ...``.

        See :func:`browserkeeper.expect_download`, which takes the driver in place of the session.
        """
        self._refuse_pooled("expect_download()")
        return self._control.expect_download(timeout, count)

    @property
    def downloads(self) -> tuple[Download, ...]:
        """All downloads since the start, in the order in which they began, also those outside an
        :meth:`expect_download` block.

        Raises ConfigError if the downloads of this browser cannot be seen.
        """
        self._refuse_pooled("downloads")
        return self._control.downloads.all("downloads")

    def _refuse_pooled(self, what: str) -> None:
        if self._control.downloads.is_pooled:
            raise ConfigError(
                f"session.{what} would be about other leases of this browser, too: use lease.{what}."
            )

    def storage_state(
        self, path: str | os.PathLike[str] | None = None, *, indexed_db: bool = False
    ) -> dict[str, Any]:
        """Returns cookies and localStorage in Playwright's format; with ``path``, writes them to that
        file as well, for ``storage_state=`` of another session or lease.

        ``indexed_db``: also save IndexedDB.  The file is written completely or not at all, with mode
        0600. ``docs/identity.md`` says of which origins localStorage is saved.  Blocks for a minute at
        the most.  Raises ConfigError for a path that cannot be a file's, StorageStateError if the state
        cannot be read or written, and the session's errors.
        """
        if self.config.for_contexts:
            raise ConfigError(
                "session.storage_state() would not be that of the lease: use lease.storage_state()."
            )
        read = self._control.read_storage_state
        return check_and_save(self.config, path, indexed_db, read)

    def set_deadline(self, seconds: float | None, reason: str = "") -> None:
        """Have the guard end the session in ``seconds`` from now, for ``reason``, one word (``timeout``
        where none is given).

        The guard does so whatever this process is stuck in.  Each reason has a deadline of its own, and
        the nearest of all ends the session.  ``set_deadline(None, reason)`` takes the one of that reason
        back, ``set_deadline(None)`` all that this method has set.  The ``timeout`` of :func:`browser`,
        a pool's ``max_lease`` and a Celery task's limit stay.

        The seconds count from this call, also where it comes before the start, which then has to end by
        that time, too.  Does nothing once the session is over.  Raises ConfigError unless ``seconds`` is
        a positive number and ``reason`` one word that names no other end (``browserkeeper.report``).
        """
        if seconds is not None:
            check_seconds("seconds", seconds)
        if reason and not re.fullmatch(r"[^\s*]+", reason):
            raise ConfigError(f"reason={reason!r}: give one word, such as 'late'; the report has it.")
        if reason in REASONS and reason != "timeout":
            raise ConfigError(f"reason={reason!r}: the name of another end; give a word of your own.")
        self._control.set_user_deadline(seconds, reason)

    def cut_off(self) -> None:
        """Have the session ended by its guard; returns at once.

        For signal handlers: takes no lock, and waits for nothing.  A command in flight raises
        SessionClosed, and so does a start that is under way.  :meth:`close`, or the end of the ``with``
        block, waits for the end and verifies it.  An unstarted session cannot be started any more.
        Does nothing in a fork.
        """
        self._control.cut_off()

    def close(self) -> ExitReport:
        """End the session and verify it; the second call returns the same report.

        A command in flight in another thread is cut off, and raises SessionClosed there.  Raises
        LeakError as ``on_leak`` says, ForkedSessionError in a process that inherited the session.
        """
        return self._control.close()

    async def aclose(self) -> ExitReport:
        """:meth:`close` for asyncio: the event loop goes on meanwhile.

        A command that runs in a thread (``asyncio.to_thread``) is cut off, and raises SessionClosed
        there.  If the task is cancelled, the CancelledError is raised at once, and the end goes on.
        """
        return await in_thread(self.close)

    async def __aenter__(self) -> D_co:
        return await self.astart()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, GeneratorExit):  # the event loop was closed
            self.cut_off()
            return
        await in_thread(lambda: self.__exit__(kind, error, trace))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._leave(error)
        except BaseException:
            if os.getpid() == self._control.owner:
                self._control.end("error")  # nothing, unless what came from outside came before the end
            raise

    def _leave(self, error: BaseException | None) -> None:
        control = self._control
        if os.getpid() != control.owner:
            return  # a fork that leaves the block: the session belongs to its parent
        if error is not None:
            control.spans.left_by(error)
        known = control.report is not None  # then a command has raised a timeout already
        report = leave_block(control.end, error, self.config.on_leak, "session")
        is_late = report.reason == "timeout" or report.reason in control.user_deadlines
        was_cut_off = is_late or report.reason == "operator"
        if error is None and was_cut_off and not known:
            raise control.over("when its block ended")

    def __call__(self, function: Callable[..., T]) -> Callable[..., T]:
        """Decorate a function: each call gets a session of its own, its driver as ``driver``.

        A function without a parameter of that name just runs inside a session.  Raises
        ConfigError for coroutines and generators, whose bodies run after the call has returned.
        """
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise ConfigError(
                f"@browser() cannot decorate {function.__name__}: its body runs after the call "
                "returns. Use `with browser() as driver:` inside it, with asyncio `async with`."
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


def _session_for(control: SessionControl[BrowserSession[Any]]) -> BrowserSession[Any]:
    """A BrowserSession for a session whose own one was dropped, while its driver is used."""
    session = BrowserSession[Any].__new__(BrowserSession)
    session._hold(control)  # noqa: SLF001
    return session


def control_of(session: BrowserSession[Any]) -> SessionControl[BrowserSession[Any]]:
    """Internal: what pools, the pytest plugin and Celery use of a session.  Not for users."""
    control: SessionControl[BrowserSession[Any]] = vars(session)["_control"]
    return control


def session_of(driver: webdriver.Remote) -> BrowserSession[Any]:
    """The session of a driver.  Raises ConfigError for a driver that browserkeeper did not start."""
    handler = getattr(driver, "command_handler", None)  # of the session, or of a pool's lease
    session = getattr(handler, "session", None)
    if not isinstance(session, BrowserSession):
        raise ConfigError(f"{driver!r} was not started by browserkeeper.")
    return session


__all__ = ["BrowserSession", "control_of", "session_of"]
