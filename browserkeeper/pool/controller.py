"""Runs one pool: passes events to the scheduler, and carries out what the scheduler decides.

users' threads  --requests-->  event loop (this module, the scheduler)  --jobs-->  workers
                <--answers--                                            <--events--
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

from ..drivers.context_limits import NoContextsError
from ..errors import BrowserkeeperError, HookError, LaunchError, PoolClosed
from ..process import system
from ..report import ExitReport
from .browser import Browser, PooledBrowser
from .circuit_breaker import CircuitBreaker
from .config import PoolConfig
from .event_loop import EventLoop
from .host_share import HostShare
from .latch import Latch
from .lease import LeaseInfo, Request
from .logs import log, log_error
from .published_state import Content, StatePublisher
from .scheduler import (
    SOFT_REASONS,
    Close,
    Decision,
    Grant,
    Launch,
    Member,
    Ping,
    Promote,
    Refuse,
    Renew,
    Scheduler,
)
from .shared_browser import WITH_BROWSER, Browsers, SharedBrowser, is_of_one_place
from .worker import (
    Admitted,
    BrowserWorker,
    Ended,
    HookFailed,
    Launched,
    LaunchFailed,
    Lost,
    MustWait,
    NotReusable,
    Ready,
    WorkerEvent,
)

T = TypeVar("T")

ANSWER_TIMEOUT = 30.0
"""Seconds for the event loop to run a call; it takes microseconds."""
REPORTS_KEPT = 100
STATES = ("leased", "checking", "refreshing", "idle", "starting", "queued", "closing")
"""The states of places, in an order: the published state of a browser with several places is the first
of these that one of its places has."""
COUNTED = (
    *("requests_num", "requests_queued", "requests_errors", "returns_bad"),
    *("browsers_num", "browsers_errors", "browsers_lost", "leaks"),
    *("launches_queued", "retired_yielded", "retired_host_drained"),
    *("configure_errors", "check_errors", "reset_errors"),
)


class Controller:
    """What is behind a ``BrowserPool``: its event loop, scheduler and workers.

    Methods with a parameter ``now`` run in the event loop's thread only, and never block.  All
    others may be called from any thread.

    The event loop ends by itself when the pool was closed and the last browser has ended, also where no
    thread waits for that.
    """

    def __init__(self, config: PoolConfig, make_browser: Callable[[PoolConfig], Browser]):
        self.config = config
        self._may_take_fresh = config.isolation == "auto" and config.leases_per_browser == 1
        self.browsers = Browsers(config) if config.leases_per_browser > 1 else None
        """The browsers in which the members are places; None if each member has a browser of its own."""
        self.owner = os.getpid()
        self.reports: list[ExitReport] = []
        self.scheduler = Scheduler(config.limits, CircuitBreaker())
        self.host = HostShare(config.browser)
        self._make_browser = make_browser
        self._seconds = {"usage": 0.0, "requests_wait": 0.0, "browsers": 0.0, "renewals": 0.0}
        self._seconds["slots_wait"] = 0.0
        self._workers: dict[Member, BrowserWorker] = {}
        self._exit_fds: dict[Member, int] = {}
        """Pidfds of the browsers, where the kernel has them; the event loop watches and closes them."""
        self._renew_began: dict[Member, float] = {}
        self._queued_at: dict[Member, float] = {}
        """When each launch that waits for a slot of the host began to wait."""
        self._waiters: list[tuple[Callable[[], bool], Latch]] = []
        self._orders: collections.deque[Decision] = collections.deque()
        self._publisher = StatePublisher(config.browser.name, config.browser.label)
        # Each step runs whatever the steps before it raise.
        steps = (
            self._look_at_host,
            self._collect_ended_leases,
            self.scheduler.decide,
            self._replace_whole_browsers,
            self._log_long_leases,
            self._check_unwatched_browsers,
            self._carry_out_orders,
            self._publish,
            self._end_if_empty,
            self._wake_waiters,
        )
        self.loop = EventLoop(steps, self._next_due)

    # -- for users' threads

    def start(self) -> None:
        """Start the event loop.  Raises LaunchError if the system gives no more threads."""
        self.loop.post(self.scheduler.decide)
        self.loop.start()

    def call(self, function: Callable[[float], T]) -> T:
        """Run the function in the event loop's thread, and return its result.

        Raises PoolClosed if the loop has stopped.
        """
        result: list[T] = []

        def run(now: float) -> None:
            self._collect_ended_leases(now)
            result.append(function(now))

        if not self.loop.call(run, ANSWER_TIMEOUT) or not result:
            raise PoolClosed("The pool is closed.")
        return result[0]

    def wait_until(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Block until the event loop, which looks after each change, has seen the condition true; it may
        be false again by then.

        Returns False if it was never seen true before the deadline (on the monotonic clock), and where
        the event loop does not run.
        """
        if condition() or not self.loop.is_running():
            return condition()
        waiter = (condition, Latch())
        if self.loop.post(lambda now: self._waiters.append(waiter)):
            if waiter[1].wait(deadline - time.monotonic()) and not self.loop.is_over:
                return True  # it was; it need not be any more
            self.loop.post(lambda now: self._forget_waiter(waiter))
        return condition()

    def _forget_waiter(self, waiter: tuple[Callable[[], bool], Latch]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def request(self, request: Request) -> None:
        """Queue the request; returns at once.  Raises PoolClosed if the event loop is over."""
        request.wake = self.loop.wake
        if not self.loop.post(lambda now: self.scheduler.add_request(request, now)):
            raise PoolClosed("The pool is closed; it gives no more leases.")

    def waits_for_host(self) -> bool:
        """True if a launch waits for a slot of the host, or the host is drained.  A launch that waits
        for a place in a browser of the pool does not count."""
        queued = self.scheduler.members("queued")
        if self.browsers is not None:
            queued = [member for member in queued if member.browser.slot.waits_for()]
        return bool(queued) or self.scheduler.host.drained

    def is_empty(self) -> bool:
        return not self.scheduler.members()

    def leases(self) -> list[LeaseInfo]:
        return self.call(lambda now: [r.info(now, self.config.max_lease) for r in self._leased()])

    def is_over(self) -> bool:
        """True when the pool was closed, and all of its browsers have ended."""
        return self.scheduler.closed and self.is_empty()

    def close(self) -> None:
        """Close every browser, and then end the event loop; returns at once."""
        self.loop.post(self._begin_to_close)

    def _begin_to_close(self, now: float) -> None:
        if self.browsers is not None:
            self.browsers.close()
        self.scheduler.close(now)

    def abandon(self) -> None:
        """As :meth:`close`, after the ``BrowserPool`` was garbage-collected; does nothing in a fork."""
        if os.getpid() == self.owner:
            self.close()

    # -- the event loop

    def _publish(self, now: float) -> None:
        if self.is_over():
            self._publisher.withdraw()
        else:
            self._publisher.refresh(self._content, now)

    def _end_if_empty(self, now: float) -> None:
        if self.is_over():
            self.host.close(self.loop)
            self.loop.stop()

    def _look_at_host(self, now: float) -> None:
        """Tell the scheduler who waits outside the pool, and whether the host is drained."""
        if not self.is_over() and (view := self.host.look(now, self.loop)) is not None:
            self.scheduler.see_host(view, now)

    def _wake_waiters(self, now: float) -> None:
        for waiter in list(self._waiters):
            condition, latch = waiter
            if self.loop.is_over or condition():
                self._waiters.remove(waiter)
                latch.set()

    def _next_due(self, now: float) -> float | None:
        moments = [self.scheduler.next_due(now), self._publisher.next_due()]
        if (limit := self.config.leak_warn) is not None:
            moments += [r.granted_at + limit for r in self._leased() if not r.leak_logged]
        return min((moment for moment in moments if moment is not None), default=None)

    def _leased(self) -> list[Request]:
        """The requests whose leases are out."""
        return [m.request for m in self.scheduler.members("leased") if m.request.granted_at]

    def _collect_ended_leases(self, now: float) -> None:
        """Take back the browsers of leases that were released or garbage-collected, and cancel the
        requests whose callers are gone."""
        for request in [*self._leased(), *self.scheduler.queue()]:
            if request.cancelled:
                self.on_cancelled(request, now)
        for request in self._leased():
            reason = request.ended_with
            if reason is None and request.handler() is None:
                reason = "abandoned"
            if reason is not None:
                assert request.member is not None
                self._seconds["usage"] += now - request.granted_at
                self.scheduler.returned(request.member, reason, now)
        for request in self.scheduler.queue():
            if request.handler() is None:
                self.scheduler.cancel_request(request, now)

    def _log_long_leases(self, now: float) -> None:
        limit = self.config.leak_warn
        if limit is None:
            return
        for request in self._leased():
            if not request.leak_logged and now - request.granted_at >= limit:
                request.leak_logged = True
                info = request.info(now, self.config.max_lease)
                log(
                    logging.WARNING,
                    "pool: browser %s has been out for %.0f s, with %s, which took it here:\n%s",
                    *(info.browser_id, info.seconds, info.thread, info.stack),
                )

    def _check_unwatched_browsers(self, now: float) -> None:
        """Find dead browsers that have no pidfd which the event loop could watch."""
        for member in self.scheduler.members("idle", "leased"):
            if member in self._exit_fds:
                continue
            try:
                is_alive = member.browser.looks_alive()
            except Exception:  # noqa: BLE001 # it could not be seen: that is no proof of its death
                log_error("pool: browser %s cannot be looked at", member.browser.id)
                continue
            if not is_alive:
                self._log_and_lose(member, now)

    # -- browsers with several places

    def _replace_whole_browsers(self, now: float) -> None:
        """Replace browsers with several places as a whole.

        If one place is to be retired for a reason that concerns its browser, retire the other places as
        well, and take no more places in that browser.  The same for browsers above ``max_size``.
        """
        if self.browsers is None:
            return
        while self.browsers.reports:
            self._keep(self.browsers.reports.popleft())
        places: dict[SharedBrowser, list[Member]] = {}
        for member in self.scheduler.members():
            if member.browser is not None and (shared := member.browser.shared_browser) is not None:
                places.setdefault(shared, []).append(member)
                if member.retire_reason and not is_of_one_place(member.retire_reason):
                    self.browsers.retire(shared, member.retire_reason)
        for shared in self.browsers.surplus():
            self.browsers.retire(shared, "resized")
        for shared, members in places.items():
            staying = [member for member in members if not member.retire_reason]
            if shared.retire_reason and staying:
                is_known = shared.retire_reason in (*SOFT_REASONS, "max_uses")
                reason = shared.retire_reason if is_known else WITH_BROWSER
                self.scheduler.replace(staying, reason, now)

    def _join_group(self, member: Member) -> None:
        """Give a new place the age limit and the group of its browser: all places of a browser are too
        old at the same time, and have one slot of the host."""
        if (shared := member.browser.shared_browser) is not None:
            shared.expires_at = shared.expires_at or member.expires_at
            member.expires_at = shared.expires_at
            member.group = shared

    # -- decisions

    def _carry_out_orders(self, now: float) -> None:
        """Each order by itself: one that raises an error is reported to the scheduler, and the others
        are carried out all the same."""
        while True:
            self._orders.extend(self.scheduler.take_decisions())
            if not self._orders:
                return
            order = self._orders.popleft()
            try:
                self._carry_out(order, now)
            except BaseException as error:  # noqa: BLE001 # the scheduler decides what follows
                self._on_order_failed(order, error, now)
                if isinstance(error, LaunchError):  # its text says all
                    log(logging.WARNING, "pool: a browser did not start: %s", error)
                else:
                    log_error("pool: %s failed", type(order).__name__)

    def _on_order_failed(self, order: Decision, error: BaseException, now: float) -> None:
        match order:
            case Launch(member):
                if not isinstance(error, BrowserkeeperError):
                    error = LaunchError(f"The launch of a browser could not begin: {error!r}")
                self._workers.pop(member, None)
                self.scheduler.launch_failed(member, error, now)
            case Renew(member, _) | Ping(member, _):
                self.scheduler.lost(member, now)
            case Grant(member, _):
                self.scheduler.grant_failed(member, now)
            case Close(member) if member.state == "closing":
                self._workers.pop(member, None)
                self._keep(self._report_of_failed_end(member, error))
                self.scheduler.ended(member, now)
            case Promote() | Close() | Refuse():
                pass  # a launch that could not be cancelled is closed when it is done

    def _carry_out(self, order: Decision, now: float) -> None:
        match order:
            case Promote(member) | Renew(member, _) | Ping(member, _) | Close(member) if (
                member not in self._workers
            ):
                pass  # it has ended since, by an event of the same batch
            case Launch(member):
                member.browser = (
                    PooledBrowser(self.config, self.browsers)
                    if self.browsers is not None
                    else self._make_browser(self.config)
                )
                self.host.mark(member.browser.slot, member.priority)
                self._workers[member] = BrowserWorker(
                    member.browser,
                    self.config.browser.name,
                    self._poster_for(member),
                    member.number,
                    self.config.hooks,
                )
            case Promote(member):
                member.browser.slot.promote()
            case Renew(member, is_last):
                self._renew_began[member] = now
                member.browser.set_deadline(None, "lease-expired")
                self._workers[member].renew(is_last)
            case Ping(member, for_lease):
                if member.browser.looks_alive():
                    self._workers[member].ping(for_lease)
                else:  # dead or stopped: it would not answer
                    self._log_and_lose(member, now)
            case Close(member):
                self._close(member)
            case Grant(member, request):
                self._grant(member, request, now)
            case Refuse(request, error):
                request.refuse(error)

    def _poster_for(self, member: Member) -> Callable[[WorkerEvent], None]:
        def post(event: WorkerEvent) -> None:
            self.loop.post(lambda now: self.on_event(member, event, now))

        return post

    def _grant(self, member: Member, request: Request, now: float) -> None:
        browser: Browser = member.browser
        if request.cancelled or request.handler() is None:
            self.loop.wake()  # to take it back: its own wake-up may have come before this
        if member.state != "leased":  # it is closed since, by an event of the same batch
            self.scheduler.grant_failed(member, now)
            return
        if not browser.looks_alive():
            self.scheduler.grant_failed(member, now)
            log(logging.WARNING, "pool: browser %s is dead or stopped; taking another one", browser.id)
            return
        if self._is_spent(browser.shared_browser):
            self.scheduler.grant_failed(member, now, "max_uses")
            return
        if self.config.max_lease is not None:
            browser.set_deadline(self.config.max_lease, "lease-expired")
        browser.name_lease(request.label)
        self._seconds["requests_wait"] += now - request.made_at
        self._publisher.add_wait(now - request.made_at)
        request.browser_uses = self._count_use(member)
        request.grant(member, now)

    def _count_use(self, member: Member) -> int:
        """Count a lease; returns how many leases the member's browser has had, in all of its places."""
        shared: SharedBrowser | None = member.browser.shared_browser
        if shared is None or self.browsers is None:
            return member.uses
        shared.uses += 1
        if self._is_spent(shared):
            self.browsers.retire(shared, "max_uses")
        return shared.uses

    def _is_spent(self, shared: SharedBrowser | None) -> bool:
        """True if a browser with several places has had ``max_uses`` leases.  The scheduler counts the
        leases of each place alone, and may grant several places at once."""
        limit = self.config.max_uses
        return shared is not None and limit is not None and shared.uses >= limit

    def _close(self, member: Member) -> None:
        fd = self._exit_fds.pop(member, None)
        try:
            if member.state in ("queued", "starting"):
                self._workers[member].call_off()
            else:
                reason = "browser-died" if member.retire_reason == "lost" else "retired"
                self._workers[member].close(reason)
                text = "pool: browser %s retires: %s"
                log(logging.INFO, text, member.browser.id, member.retire_reason)
        finally:
            if fd is not None:
                self.loop.unwatch(fd)

    def _report_of_failed_end(self, member: Member, error: BaseException) -> ExitReport:
        problem = f"it could not be told to end: {error!r}; it is not known whether it is gone"
        name = self.config.browser.name
        return ExitReport(member.browser.id, name, "retired", "", None, problems=(problem,))

    # -- events: the scheduler learns of each first, so that no error here can hide it

    def on_event(self, member: Member, event: WorkerEvent, now: float) -> None:
        """The member's worker has finished a job."""
        if member not in self._workers:
            return  # given up before
        match event:
            case MustWait() | Admitted():
                self._on_slot(member, event, now)
            case Launched(seconds):
                self.scheduler.launched(member, now)
                self._seconds["browsers"] += seconds
                self._join_group(member)
                self._watch_for_exit(member)
            case LaunchFailed(error):
                self._on_launch_failed(member, error, now)
            case HookFailed(error):
                self._on_hook_failed(member, error, now)
            case Ready():
                self._on_ready(member, event, now)
            case NotReusable(reason):
                self.scheduler.retire(member, reason, now)
            case Lost():
                self.scheduler.lost(member, now)
            case Ended(report):
                del self._workers[member]
                self.scheduler.ended(member, now)
                self._renew_began.pop(member, None)
                self._keep(report)

    def _on_launch_failed(self, member: Member, error: BrowserkeeperError, now: float) -> None:
        del self._workers[member]
        self._end_wait_for_slot(member, now)
        self._keep(getattr(error, "report", None))
        if isinstance(error, NoContextsError) and self._may_take_fresh:
            self._take_fresh(member, error, now)
            return
        self.scheduler.launch_failed(member, error, now)
        if not member.retire_reason:  # else the launch was cancelled
            log(logging.WARNING, "pool: a browser did not start: %s", error)
            if isinstance(error.__cause__, HookError):
                self._count_hook_error(error.__cause__)

    def _take_fresh(self, member: Member, error: NoContextsError, now: float) -> None:
        """For ``isolation="auto"``, change to "fresh": the browser that was started is too old for
        contexts."""
        if self.config.isolation == "auto":
            self.config = dataclasses.replace(self.config, isolation="fresh")
            text = "pool: isolation='auto' takes 'fresh', a new browser for each lease: %s"
            log(logging.WARNING, text, error)
        self.scheduler.resize(self.config.limits, now)
        self.scheduler.launch_withdrawn(member, now)

    def _on_ready(self, member: Member, event: Ready, now: float) -> None:
        self.scheduler.ready(member, event.retire_reason, now, checked=event.checked)
        if event.renewed:
            self._seconds["renewals"] += now - self._renew_began.pop(member, now)

    def _on_hook_failed(self, member: Member, error: HookError, now: float) -> None:
        self.scheduler.hook_failed(member, error, now)
        self._count_hook_error(error)

    def _count_hook_error(self, error: HookError) -> None:
        self.scheduler.counts[f"{error.hook}_errors"] += 1
        self._publisher.add_hook_error(error.hook)
        log(logging.WARNING, "pool: a browser is replaced after a failed hook: %s", error)

    def _on_slot(self, member: Member, event: MustWait | Admitted, now: float) -> None:
        if self.scheduler.host.drained:  # one that is admitted shows that the drain is over
            self.host.look_soon()
            self._look_at_host(now)
        if isinstance(event, MustWait):
            self._queued_at[member] = now
            self.scheduler.must_wait(member, now)
        else:
            self._end_wait_for_slot(member, now)
            self.scheduler.admitted(member, now)

    def _end_wait_for_slot(self, member: Member, now: float) -> None:
        self._seconds["slots_wait"] += now - self._queued_at.pop(member, now)

    def _watch_for_exit(self, member: Member) -> None:
        post = self._poster_for(member)
        member.browser.when_over(lambda: post(Lost()))
        identity = member.browser.identity
        fd = system.exit_fd(identity) if identity else -1
        if fd >= 0:
            self.loop.watch(fd, lambda now: self.on_exit(member, now))
            self._exit_fds[member] = fd

    def on_exit(self, member: Member, now: float) -> None:
        """The browser's main process has exited, for whatever reason."""
        self._exit_fds.pop(member, None)
        self._log_and_lose(member, now)

    def on_cancelled(self, request: Request, now: float) -> None:
        """The request's thread no longer waits.  It may have been granted just before."""
        member = request.member
        is_granted = member is not None and member.request is request
        if not is_granted and request not in self.scheduler.queue():
            return  # it was refused; or its grant is decided, and is taken back when it is carried out
        if request.timed_out:
            self._publisher.add_timeout()
        if member is not None and is_granted:
            self._take_back(member, request, now)
        else:
            self.scheduler.cancel_request(request, now)
            # A thread that waits all the same is not to wait for ever.
            request.refuse(PoolClosed("The request was cancelled."))

    def _take_back(self, member: Member, request: Request, now: float) -> None:
        """Take back the browser of a request whose thread does not want it any more."""
        browser: Browser = member.browser
        browser.set_deadline(None, "lease-expired")
        browser.name_lease("")
        if request.is_taking:  # and may be doing so at this moment
            self.scheduler.returned(member, "interrupted: the lease was given up", now)
            return
        if (shared := browser.shared_browser) is not None:
            shared.uses -= 1
        self.scheduler.decline_grant(member, now)

    def _log_and_lose(self, member: Member, now: float) -> None:
        state = member.state
        self.scheduler.lost(member, now)
        if state != "closing":
            text = "pool: browser %s ended, or was stopped, while it was %s"
            log(logging.WARNING, text, member.browser.id, state)

    def _keep(self, report: ExitReport | None) -> None:
        """Keep a report, unless it is None or kept already.  If a place ends whose browser has others,
        there is no report; all places of a browser that has died have the same one."""
        if report is None:
            return
        if self.browsers is not None and any(one.session == report.session for one in self.reports):
            return
        self.reports = [*self.reports, report][-REPORTS_KEPT:]
        if not report.clean:
            self.scheduler.counts["leaks"] += 1

    # -- statistics

    def stats(self, now: float) -> dict[str, float]:
        """See ``BrowserPool.stats``."""
        scheduler = self.scheduler
        queued = len(scheduler.members("queued"))
        return {
            "pool_min": self.config.min_idle,
            "pool_max": self.config.most_leases,
            "pool_size": len(scheduler.members()),
            "pool_available": scheduler.available,
            "pool_leased": len(scheduler.members("leased")),
            "pool_starting": len(scheduler.members("starting")),
            "pool_renewing": len(scheduler.members("refreshing", "checking")),
            "pool_queued": queued,
            "requests_waiting": scheduler.waiting,
            "requests_waiting_for_slots": min(queued, scheduler.waiting),
            **{name: scheduler.counts[name] for name in COUNTED},
            **{name: n for name, n in scheduler.counts.items() if name.startswith("retired_")},
            **{f"{name}_seconds": value for name, value in self._seconds.items()},
            "leases_per_browser": self.config.leases_per_browser,
            "pool_browsers": len(scheduler.members()),
            **self._stats_of_browsers(),
        }

    def _stats_of_browsers(self) -> dict[str, float]:
        """The statistics that count browsers and not places, for browsers with several places."""
        if self.browsers is None:
            return {}
        return {"pool_browsers": self.browsers.count(), "browsers_num": self.browsers.started}

    def _content(self, now: float) -> Content:
        """What is published for other processes: the members' states, the labels of the leases, and the
        statistics."""
        states: dict[str, str] = {}
        labels: dict[str, str] = {}
        for member in self.scheduler.members():
            if member.browser is None or not (name := member.browser.id):
                continue
            if name not in states or STATES.index(member.state) < STATES.index(states[name]):
                states[name] = member.state  # of several places: that of the busiest one
            if member.state == "leased" and member.request is not None and member.request.label:
                label = member.request.label
                labels[name] = f"{labels[name]}, {label}" if name in labels else label
        return states, labels, self.stats(now)
