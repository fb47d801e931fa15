"""What is behind a pool's handle: it joins the parts, and waits for nothing.

The scheduler decides, in the supervisor's thread; attendants act, each in its own; requests carry
the answers to users' threads.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import BrowserkeeperError, PoolClosed
from ..process import system
from ..report import ExitReport
from .breaker import Breaker
from .browser import Browser
from .config import PoolConfig
from .latch import Latch
from .lease import LeaseInfo, Request
from .published_state import Facts, StatePublisher
from .scheduler import Member, Order, Scheduler
from .supervisor import Supervisor
from .worker import BrowserWorker

T = TypeVar("T")

logger = logging.getLogger("browserkeeper")

ANSWER_PATIENCE = 30.0
"""Seconds for the supervisor to answer a question, which takes it microseconds."""
REPORTS_KEPT = 100
COUNTED = (
    *("requests_num", "requests_queued", "requests_errors", "returns_bad"),
    *("browsers_num", "browsers_errors", "browsers_lost", "leaks"),
)


class Core:
    """The pool without its handle.  Methods named ``on_…`` and those that take ``now`` run in
    the supervisor's thread only."""

    def __init__(self, config: PoolConfig, make_browser: Callable[[PoolConfig], Browser]):
        self.config = config
        self.make_browser = make_browser
        self.owner = os.getpid()
        self.reports: list[ExitReport] = []
        self.seconds = {"usage": 0.0, "requests_wait": 0.0, "browsers": 0.0, "renewals": 0.0}
        self.scheduler = Scheduler(config.limits, Breaker())
        self._attendants: dict[Member, BrowserWorker] = {}
        self._exit_fds: dict[Member, int] = {}
        self._renew_began: dict[Member, float] = {}
        self._hopes: list[tuple[Callable[[], bool], Latch]] = []
        self.board = StatePublisher(config.browser.name)
        self.supervisor = Supervisor(self._carry_out, self._next_due)

    # -- orders

    def _carry_out(self, now: float) -> None:
        self._take_back(now)
        self.scheduler.settle(now)
        self._warn_of_leaks(now)
        self._look_after_unwatched(now)
        while orders := self.scheduler.take_orders():
            for order in orders:
                self._obey(order, now)
        self._fulfil()
        if self.scheduler.closed and self.is_empty():
            self.board.take_down()
        else:
            self.board.refresh(self._facts, now)

    def _facts(self, now: float) -> Facts:
        members = [member for member in self.scheduler.members() if member.body is not None]
        known = {member.body.id: member.state for member in members if member.body.id}
        return known, self.stats(now)

    def _obey(self, order: Order, now: float) -> None:
        if order.verb == "grant":
            assert order.member is not None
            self._grant(order.member, order.ticket, now)
        elif order.verb == "refuse":
            assert order.error is not None
            order.ticket.refuse(order.error)
        else:
            assert order.member is not None
            {
                "launch": self._launch,
                "refresh": self._renew,
                "ping": lambda member: self._attendants[member].ping(),
                "close": self._close,
            }[order.verb](order.member)

    def _grant(self, member: Member, request: Request, now: float) -> None:
        browser: Browser = member.body
        if not browser.looks_alive():
            logger.warning("pool: browser %s is dead or stopped; the next one goes out", browser.id)
            self.scheduler.unfit(member, now)
            return
        if self.config.max_lease is not None:
            browser.set_deadline(self.config.max_lease, "lease-expired")
        self.seconds["requests_wait"] += now - request.asked
        request.grant(member, now)

    def _launch(self, member: Member) -> None:
        member.body = self.make_browser(self.config)
        self._attendants[member] = BrowserWorker(member.body, MemberNews(self, member), member.number)

    def _renew(self, member: Member) -> None:
        self._renew_began[member] = time.monotonic()
        if self.config.max_lease is not None:
            member.body.set_deadline(None, "lease-expired")
        self._attendants[member].renew()

    def _close(self, member: Member) -> None:
        if fd := self._exit_fds.pop(member, 0):
            self.supervisor.forget(fd)
        if member.state == "starting":
            member.body.call_off()
        else:
            logger.info("pool: browser %s retires: %s", member.body.id, member.retiring)
            reason = "browser-died" if member.retiring == "lost" else "retired"
            self._attendants[member].close(reason)

    # -- news, in the supervisor's thread

    def on_launched(self, member: Member, seconds: float, now: float) -> None:
        self.seconds["browsers"] += seconds
        identity = member.body.identity
        fd = system.exit_fd(identity) if identity else -1
        if fd >= 0:
            self._exit_fds[member] = fd
            self.supervisor.watch(fd, lambda now: self.on_exit(member, now))
        self.scheduler.launched(member, now)

    def on_launch_failed(self, member: Member, error: BrowserkeeperError, now: float) -> None:
        if not member.retiring:
            logger.warning("pool: a browser did not start: %s", error)
        self._attendants.pop(member)
        if (report := getattr(error, "report", None)) is not None:
            self._keep(report)
        self.scheduler.launch_failed(member, error, now)

    def on_ready(self, member: Member, retiring: str, renewed: bool, now: float) -> None:
        if renewed:
            self.seconds["renewals"] += now - self._renew_began.pop(member, now)
        self.scheduler.answered(member, retiring, now)

    def on_unfit(self, member: Member, reason: str, now: float) -> None:
        if reason == "lost":
            self.scheduler.lost(member, reason, now)
        else:
            self.scheduler.retire(member, reason, now)

    def on_exit(self, member: Member, now: float) -> None:
        """Its browser's process has exited, by whatever cause."""
        self._exit_fds.pop(member, None)
        self._lost(member, now)

    def on_gone(self, member: Member, report: ExitReport, now: float) -> None:
        self._attendants.pop(member, None)
        self._renew_began.pop(member, None)
        self._keep(report)
        self.scheduler.gone(member, now)

    def _take_back(self, now: float) -> None:
        """The browsers of leases that are over, given back or dropped, and the tickets of those
        who wait no longer."""
        for request in self._held():
            verdict = request.verdict
            if verdict is None and request.gate() is None:
                verdict = "abandoned"
            if verdict is not None:
                assert request.member is not None
                self.seconds["usage"] += now - request.granted
                self.scheduler.returned(request.member, verdict, now)
        for request in self.scheduler.queue():
            if request.gate() is None:
                self.scheduler.withdrew(request, now)

    def on_withdrawn(self, request: Request, now: float) -> None:
        """Its thread has gone, whether it was answered at the last moment or not."""
        if request.member is not None and request.member.ticket is request:
            if self.config.max_lease is not None:
                request.member.body.set_deadline(None, "lease-expired")
            self.scheduler.declined(request.member, now)
        else:
            self.scheduler.withdrew(request, now)

    def _keep(self, report: ExitReport) -> None:
        self.reports = [*self.reports, report][-REPORTS_KEPT:]
        if not report.clean:
            self.scheduler.counts["leaks"] += 1

    # -- time

    def _next_due(self, now: float) -> float | None:
        moments = [self.scheduler.next_due(now), self.board.next_due()]
        if self.config.leak_warn is not None:
            moments += [r.granted + self.config.leak_warn for r in self._held() if not r.warned]
        return min((moment for moment in moments if moment is not None), default=None)

    def _held(self) -> list[Request]:
        return [member.ticket for member in self.scheduler.members("leased") if member.ticket.granted]

    def _warn_of_leaks(self, now: float) -> None:
        for request in self._held() if self.config.leak_warn is not None else ():
            assert self.config.leak_warn is not None
            if not request.warned and now - request.granted >= self.config.leak_warn:
                request.warned = True
                info = request.info(now, self.config.max_lease)
                logger.warning(
                    "pool: browser %s has been out for %.0f s, with %s, which took it here:\n%s",
                    *(info.browser_id, info.seconds, info.thread, info.stack),
                )

    def _look_after_unwatched(self, now: float) -> None:
        """Where there are no pidfds."""
        for member in self.scheduler.members("idle", "leased"):
            if member not in self._exit_fds and not member.body.looks_alive():
                self._lost(member, now)

    def _lost(self, member: Member, now: float) -> None:
        if member.state != "closing":
            logger.warning("pool: browser %s has ended while it was %s", member.body.id, member.state)
        self.scheduler.lost(member, "lost", now)

    # -- for other threads

    def wait_until(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Wait for the supervisor to bring it about; ``deadline`` on the monotonic clock.
        False at the deadline, and when the pool has stopped."""
        if condition():
            return True
        hope = (condition, Latch())
        self.supervisor.post(lambda now: self._hopes.append(hope))
        hope[1].wait(deadline - time.monotonic())
        return condition()

    def _fulfil(self) -> None:
        for hope in list(self._hopes):
            condition, fulfilled = hope
            if condition():
                self._hopes.remove(hope)
                fulfilled.set()

    def is_empty(self) -> bool:
        return not self.scheduler.members()

    def ask(self, question: Callable[[float], T]) -> T:
        """An answer from the supervisor's thread, where the scheduler holds still."""
        answer: list[T] = []

        def reply(now: float) -> None:
            self._take_back(now)
            answer.append(question(now))

        if not self.supervisor.ask(reply, ANSWER_PATIENCE) or not answer:
            raise PoolClosed("The pool is closed.")
        return answer[0]

    def leases(self) -> list[LeaseInfo]:
        return self.ask(lambda now: [r.info(now, self.config.max_lease) for r in self._held()])

    def stats(self, now: float) -> dict[str, float]:
        scheduler = self.scheduler
        return {
            "pool_min": self.config.min_idle,
            "pool_max": self.config.max_size,
            "pool_size": len(scheduler.members()),
            "pool_available": scheduler.available,
            "pool_leased": len(scheduler.members("leased")),
            "pool_starting": len(scheduler.members("starting")),
            "pool_renewing": len(scheduler.members("refreshing", "checking")),
            "requests_waiting": scheduler.waiting,
            **{name: scheduler.counts[name] for name in COUNTED},
            **{name: n for name, n in scheduler.counts.items() if name.startswith("retired_")},
            **{f"{name}_seconds": value for name, value in self.seconds.items()},
        }

    def abandon(self) -> None:
        """The handle is gone: end everything, without waiting."""
        if os.getpid() == self.owner and not self.scheduler.closed:
            self.supervisor.post(self.scheduler.close)


class MemberNews:
    """What one worker says goes to the supervisor."""

    def __init__(self, core: Core, member: Member):
        self._core, self._member = core, member

    def launched(self, seconds: float) -> None:
        self._post(lambda now: self._core.on_launched(self._member, seconds, now))

    def launch_failed(self, error: BrowserkeeperError) -> None:
        self._post(lambda now: self._core.on_launch_failed(self._member, error, now))

    def ready(self, retiring: str, renewed: bool) -> None:
        self._post(lambda now: self._core.on_ready(self._member, retiring, renewed, now))

    def unfit(self, reason: str) -> None:
        self._post(lambda now: self._core.on_unfit(self._member, reason, now))

    def gone(self, report: ExitReport) -> None:
        self._post(lambda now: self._core.on_gone(self._member, report, now))

    def _post(self, act: Callable[[float], None]) -> None:
        self._core.supervisor.post(act)
