"""The deadlines and the end of a lease of a server, as far as this process handles them.

A local session has a guard process.  A lease needs none: the server watches this process (over a unix
socket by a pidfd, over TCP by its connections and its commands), and the server's guards end the
browser.  :class:`LeaseGuard` has the methods that a session calls of its guard.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import threading
import time
from typing import Any

from ..drivers.server_links import Links
from ..errors import BrowserkeeperError, LeaseTimeout, SessionClosed, SessionTimeout
from ..report import ExitReport, RemoteEnd
from ..wire.address import ServerAddress
from ..wire.errors import report_from
from ..wire.http import FAILURES, Answer, FailedLooks
from ..wire.requests import ask

CUT_AFTER = 0.5
"""Seconds that the server has to end a lease; after that this process cuts the commands in flight."""
UNREACHABLE_PATIENCE = 1.0
"""Seconds for which requests to a server that cannot be reached are repeated.  One that does not answer
in time can be reached."""
PAUSE = 0.05
"""Seconds between two requests to a server that gave no answer."""
WAIT_PAUSE = 0.005
"""Seconds between two checks whether an end in another thread is over."""
LOOK_TIMEOUT = 2.0
"""Seconds that the server has to list its sessions."""
QUIET_LOOKS, QUIET_PAUSE = 3, 0.3
"""How many successive lists of the server's sessions must have no session of a request that was closed,
and the seconds between them."""


class LeaseGuard:
    """The deadlines and the end of one lease.  Takes no lock, so that signal handlers may use it.

    In a fork of this process it does nothing: the lease is its parent's.
    """

    pid: int | None = None
    primary_pid = 0

    def __init__(self, address: ServerAddress, id: str, close_timeout: float):
        """``id``: the id of our session, which is in the request for the lease.  ``close_timeout``: in
        seconds."""
        self.address, self.links = address, Links()
        self.session = ""
        """The session's id at the server; "" before there is one."""
        self.server_pid = 0
        """The server's pid, as the server has said; 0 before."""
        self.told: BrowserkeeperError | None = None
        """The error by which the server has said that the lease is over."""
        self.was_refused = False
        """True if there can be no session: the server has refused the request, or it was not sent."""
        self.refusal: ExitReport | None = None
        """The report in the server's refusal, if a browser was started for the request and has ended."""
        self._id, self._close_timeout, self._owner = id, close_timeout, os.getpid()
        self._events: dict[str, dict[str, Any]] = {}
        self._deadlines: dict[str, float] = {}
        self._timer: threading.Timer | None = None

    # -- the methods of a guard

    def event(self, name: str) -> dict[str, Any] | None:
        """The event ``ending``, which has a reason, or ``ended``; None if it has not come yet."""
        return self._events.get(name)

    def wait_for(self, *names: str, deadline: float) -> dict[str, Any] | None:
        """Wait for one of these events, until ``deadline`` (``time.monotonic()``), and return it.
        Returns None after that, and at once if no end is under way, since then no event can come."""
        while True:
            for name in names:
                if (event := self._events.get(name)) is not None:
                    return event
            if "ending" not in self._events or time.monotonic() >= deadline:
                return None
            time.sleep(WAIT_PAUSE)

    def is_alive(self) -> bool:
        """True: the deadlines are kept in this process."""
        return True

    def tell_started(self, seconds: float, waited: float = 0.0) -> None:
        """Does nothing: the server keeps the history."""

    def name_lease(self, label: str) -> None:
        """Does nothing: the label of a lease is told to the server with the lease."""

    def set_deadline(self, seconds: float, reason: str) -> None:
        """As ``GuardProcess.set_deadline``, but kept by a thread of this process."""
        if reason == "*":
            self._deadlines.clear()
        elif seconds:
            self._deadlines[reason] = time.monotonic() + seconds
        else:
            self._deadlines.pop(reason, None)
        self._arm()

    def _arm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        nearest = min(self._deadlines.values(), default=None)
        if nearest is None or "ending" in self._events or os.getpid() != self._owner:
            return
        self._timer = timer = threading.Timer(max(0.0, nearest - time.monotonic()), self._look)
        timer.daemon = True
        timer.start()

    def _look(self) -> None:
        now = time.monotonic()
        passed = [(at, reason) for reason, at in list(self._deadlines.items()) if at <= now]
        if not passed:
            self._arm()
        elif self._begin(min(passed)[1]):
            self._run_end()

    # -- the end

    def began(self, session: str, server_pid: int) -> None:
        """Note the session that the server has given, and the server's pid."""
        self.server_pid, self.session = server_pid, session

    def note_end(self, error: BrowserkeeperError) -> None:
        """Note that a command has raised this error, by which the server says that the lease is over."""
        if self._begin(_reason_of(error)):
            self.told = error

    def tell_to_end(self, reason: str) -> None:
        """Have the lease ended in the background; returns at once."""
        if self._begin(reason):
            try:
                _thread.start_new_thread(self._run_end, ())
            except RuntimeError:  # the system gives no more threads: the caller of end() does it
                self.links.cut()

    def end(self, reason: str, deadline: float) -> tuple[str, RemoteEnd]:
        """End the lease, and return the reason of its end and what the server has answered.

        Blocks until ``deadline`` (``time.monotonic()``) at the most.
        """
        self._begin(reason)
        self._run_end()
        ended = self.wait_for("ended", deadline=deadline)
        remote: RemoteEnd = ended["remote"] if ended else self._remote(None, "no answer in time")
        if self.session and not remote.session:  # the session came while its request was being closed
            remote = self._end_session(time.monotonic() + self._close_timeout)
        reason = self._events["ending"]["reason"]
        return reason, remote

    def _begin(self, reason: str) -> bool:
        """Begin the end.  Returns True for the first call, whose reason is the reason of the end."""
        event = {"event": "ending", "reason": reason}
        if os.getpid() != self._owner or self._events.setdefault("ending", event) is not event:
            return False
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()
        return True

    def _run_end(self) -> None:
        """End the lease, unless another thread does or has done so."""
        mine: dict[str, Any] = {}
        if os.getpid() != self._owner or self._events.setdefault("claimed", mine) is not mine:
            return
        until = time.monotonic() + self._close_timeout
        try:
            remote = self._end_session(until) if self.session else self._end_request(until)
        except Exception as error:  # noqa: BLE001 # whoever waits for the end is told
            remote = self._remote(None, f"asking failed: {error!r}")
        self._events["ended"] = {"event": "ended", "remote": remote}

    def _end_session(self, until: float) -> RemoteEnd:
        """Send DELETE until the server says that the session is over, or until ``until``.  If that takes
        more than CUT_AFTER seconds, the commands in flight are cut off."""
        cut = threading.Timer(CUT_AFTER, self.links.cut)
        cut.daemon = True
        with contextlib.suppress(RuntimeError):  # the system gives no more threads
            cut.start()
        try:
            return self._delete(until)
        finally:
            cut.cancel()
            self.links.cut()

    def _delete(self, until: float) -> RemoteEnd:
        give_up = min(until, time.monotonic() + UNREACHABLE_PATIENCE)
        remote = self._remote(None, "was not asked in time")
        while (left := until - time.monotonic()) > 0.01:
            try:
                answer = ask(self.address, "DELETE", f"/session/{self.session}", left)
            except FAILURES as error:
                remote = self._remote(None, f"DELETE failed: {error or type(error).__name__}")
                if time.monotonic() > give_up:
                    return remote
            else:
                if answer.status == 200:
                    return self._remote(True, "200", report_from(answer.value))
                if answer.is_unknown_session:
                    return self._of_unknown_session(answer, until)
                remote = self._remote(None, answer.brief)
                if answer.status in (401, 403):
                    return remote
            time.sleep(PAUSE)
        return remote

    def _of_unknown_session(self, answer: Answer, until: float) -> RemoteEnd:
        """The end of a session that the server does not know.  It is proved if this is the server that
        has given the session."""
        value = answer.value
        data = value.get("data") if isinstance(value, dict) else None
        report = report_from(data) or getattr(self.told, "report", None)
        if data or self.told is not None:
            return self._remote(True, answer.brief, report)
        try:
            status = ask(self.address, "GET", "/status", max(0.1, until - time.monotonic())).value
            nodes = [str(node["id"]) for node in status["nodes"]]
        except (*FAILURES, KeyError, TypeError):
            nodes = []
        if self.server_pid and f"browserkeeper-{self.server_pid}" in nodes:
            return self._remote(True, answer.brief)
        return self._remote(None, f"it is another server than the one that gave it; {answer.brief}")

    def _end_request(self, until: float) -> RemoteEnd:
        """Close the request for a session, and end the session that was given meanwhile."""
        self.links.cut()
        if self.was_refused:
            return self._remote(True, "no session was created", self.refusal)
        return self._end_session_of_request(until)

    def _end_session_of_request(self, until: float) -> RemoteEnd:
        """Ask until the server has answered QUIET_LOOKS times that it has no session of this request.
        One that it has is ended."""
        quiet, failed = 0, FailedLooks(UNREACHABLE_PATIENCE)
        remote = self._remote(None, "the request was closed before its answer came")
        while time.monotonic() < until:
            if self.session:
                return self._end_session(until)
            try:
                left = min(LOOK_TIMEOUT, max(0.1, until - time.monotonic()))
                found = ask(self.address, "GET", "/browserkeeper/sessions", left).value
                mine = [str(one["id"]) for one in found if self._id in str(one.get("request", ""))]
            except (*FAILURES, TypeError, KeyError, AttributeError) as error:
                remote = self._remote(None, f"it was asked for its sessions: {error or type(error)}")
                if not isinstance(error, FAILURES) or failed.is_last(error, time.monotonic()):
                    return remote
                quiet = 0
                time.sleep(PAUSE)
                continue
            failed.clear()
            if mine:
                self.session = mine[0]
                return self._end_session(until)
            quiet += 1
            if quiet >= QUIET_LOOKS:
                return self._remote(True, "no session of this request is there")
            time.sleep(QUIET_PAUSE)
        return remote

    def _remote(self, gone: bool | None, answer: str, report: ExitReport | None = None) -> RemoteEnd:
        return RemoteEnd(
            str(self.address), self.session, gone, gone, answer, kind="server", report=report
        )


class LeaseEnd:
    """The end of a lease, for ``Ending``.  The proof of the end is the server's answer."""

    def __init__(self, guard: LeaseGuard, session: str, browser: str, close_timeout: float):
        self._guard, self._session, self._browser = guard, session, browser
        self._close_timeout, self._made_at = close_timeout, time.monotonic()

    def run(self, reason: str, began: float) -> ExitReport:
        reason, remote = self._guard.end(reason, began + 2 * self._close_timeout)
        there = remote.report
        problems = [remote.problem] if remote.problem else []
        if there is not None:
            problems += [f"{remote.grid}: {problem}" for problem in there.problems]
        return ExitReport(
            self._session,
            self._browser,
            reason,
            "server",
            _certificate(remote),
            survivors=there.survivors if there is not None else (),
            seconds={
                "lifetime": began - self._made_at,
                "killing": time.monotonic() - began,
            },
            ended_at=time.time(),
            problems=tuple(problems),
            remote=remote,
            operator=there.operator if there is not None else None,
        )

    def amend(self, report: ExitReport) -> None:
        """Does nothing: the server keeps the history."""


def _certificate(remote: RemoteEnd) -> str | None:
    if not remote.gone:
        return None
    return "server-answer" if remote.session else "nothing was started"


def _reason_of(error: BrowserkeeperError) -> str:
    """The reason of the end that the server has reported by this error."""
    report = getattr(error, "report", None)
    if isinstance(report, ExitReport) and report.reason:
        return report.reason
    if isinstance(error, LeaseTimeout):
        return "lease-expired"
    if isinstance(error, SessionTimeout):
        return "timeout"
    return "closed" if isinstance(error, SessionClosed) else "browser-died"


__all__ = ["LeaseEnd", "LeaseGuard"]
