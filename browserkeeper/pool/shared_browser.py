"""The browsers of a pool with ``leases_per_browser`` > 1, and the places in them.

A place has one lease at a time.  The scheduler handles each place like a browser.  The launch of a place
takes a free place in a running browser, or starts a browser.  Its end frees the place; the end of the
last place ends the browser.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from ..admission.gate import SlotRequest
from ..config import SessionConfig
from ..errors import LaunchError, SessionClosed
from ..report import ExitReport
from ..session import BrowserSession, control_of
from ..session.launch import Attempt
from ..session.seat import Seat
from ..session.shared_session import LEAVE_TIMEOUT, SharedSession
from .config import PoolConfig
from .scheduler import SURGE

if TYPE_CHECKING:
    from ..drivers.contexts import Contexts, DownloadFolders, RunCommand
    from ..session.control import SessionControl

LOOK_EVERY = 1.0
"""Seconds between two checks for a free place.  They are needed because no notice comes of a browser's
death."""

OF_ONE_PLACE = frozenset(
    (
        *("cancelled", "drained", "idle_timeout", "identity", "interrupted", "limit", "lost", "quit"),
        *("resized", "with_browser"),
    )
)
"""Reasons to retire one place that are no reasons to replace its browser.  After any other reason the
browser gets no new lease in any of its places."""
WITH_BROWSER = "with_browser"
"""The reason to retire the other places of a browser that is to be replaced at once."""


class SharedBrowser:
    """One browser with its places.  Its attributes are changed under the lock of ``Browsers``."""

    def __init__(self, config: SessionConfig):
        self.session = BrowserSession[Any](config)
        self.state: Literal["starting", "live", "over"] = "starting"
        self.places: dict[int, Place] = {}
        self.retire_reason = ""
        """Why no more places are taken in this browser; "" if they may be."""
        self.uses = 0
        """How many leases the browser has had, in all of its places."""
        self.expires_at = 0.0
        """When the browser is too old (clock of the scheduler); 0 before its first place is ready."""
        self.shared: SharedSession | None = None

    def start(self, request: SlotRequest) -> None:
        """Start the browser.  Blocks.  Raises the error of a failed start, of which nothing is left."""
        control = control_of(self.session)
        control.use_request(request)
        control.downloads.is_in_contexts = True  # not the first WebDriver session's
        self.session.start()
        try:
            assert isinstance(control.attempt, Attempt)
            self.shared = SharedSession(control, control.attempt)
        except BaseException as error:
            report = control.end("failed")
            if isinstance(error, LaunchError):
                error.report = report
            raise

    def end(self, reason: str) -> ExitReport:
        """End the browser, and return its verified report.  Idempotent."""
        return self.shared.end(reason) if self.shared else control_of(self.session).end(reason)

    @property
    def has_room(self) -> bool:
        """True if the browser may get another lease, as far as the pool knows."""
        if self.retire_reason or self.state == "over":
            return False
        return self.shared is None or self.shared.is_usable


class Browsers:
    """The browsers of one pool.  Safe to use from several threads."""

    def __init__(self, config: PoolConfig):
        self.config = config
        """With the present ``max_size``."""
        self.started = 0
        """How many browsers have started so far."""
        self.reports: collections.deque[ExitReport] = collections.deque()
        """Of browsers that ended while a place waited for them; for the controller, which takes them."""
        self._launch: SessionConfig | None = None
        self._all: list[SharedBrowser] = []
        self._changed = threading.Condition()
        self.is_closed = False

    def count(self) -> int:
        """How many browsers there are, those that start and end included."""
        return len(self._all)

    def sessions(self) -> list[BrowserSession[Any]]:
        """The sessions of the browsers, each once."""
        return [one.session for one in self._all.copy()]

    def surplus(self) -> list[SharedBrowser]:
        """As many browsers as there are above ``max_size``, those with the fewest places first.
        Browsers that get no more places already do not count."""
        staying = [one for one in self._all.copy() if not one.retire_reason]
        staying.sort(key=lambda one: len(one.places))
        return staying[: max(0, len(staying) - self.config.max_size)]

    def retire(self, browser: SharedBrowser, reason: str) -> None:
        """Take no more places in the browser, which then ends with its last one."""
        with self._changed:
            browser.retire_reason = browser.retire_reason or reason
            self._changed.notify_all()

    def close(self) -> None:
        """Let launches fail that wait for a place.  From then on the end of any place ends its whole
        browser."""
        with self._changed:
            self.is_closed = True
            for browser in self._all:
                if browser.shared is not None:
                    browser.shared.is_closing = True
            self._changed.notify_all()

    def wake(self) -> None:
        """Have launches that wait check again for a place."""
        with self._changed:
            self._changed.notify_all()

    def take(self, place: Place) -> SharedBrowser:
        """Take this place in a running browser, and return the browser.

        Starts a browser if none has a free place.  Blocks while there are as many browsers as there may
        be.  Raises SessionClosed if the place is called off, and the error of a start that this place
        has begun.
        """
        starts = False
        launch = self._launch = self._launch or _launch_config(self.config)  # may import selenium
        while not starts:
            if place.browser is not None and not place.browser.has_room:
                self._leave_lost(place)
            with self._changed:
                place.check()
                browser, starts = self._find(place, launch)
                if browser is None:
                    place.wait_begins()
                elif browser.state == "live" and browser.has_room:
                    place.slot.on_admitted()
                    return browser
                if not starts:
                    self._changed.wait(LOOK_EVERY)
        assert browser is not None
        try:
            place.starting = browser
            place.check()
            browser.start(place.slot)
        except BaseException:
            self._settle(browser, "over")
            raise
        finally:
            place.starting = None
        self._settle(browser, "live")
        return browser

    def _find(self, place: Place, launch: SessionConfig) -> tuple[SharedBrowser | None, bool]:
        """Give the place a number in a browser; returns the browser, and True if this place has to start
        it.

        In this order: the browser that the place has already, one that runs, one that starts, a new
        one.  Returns None if there are as many browsers as there may be.
        """
        if place.browser is not None:
            return place.browser, False
        size = self.config.leases_per_browser
        free = [one for one in self._all if one.has_room and len(one.places) < size]
        free.sort(key=lambda one: (one.state != "live", -len(one.places)))
        found = free[0] if free else None
        staying = sum(not one.retire_reason for one in self._all)
        starts = False
        most = self.config.max_size + SURGE
        if found is None and staying < self.config.max_size and len(self._all) < most:
            found, starts = SharedBrowser(launch), True
            self._all.append(found)
        if found is not None:
            place.number = next(n for n in range(1, size + 1) if n not in found.places)
            found.places[place.number] = place
            place.browser = found
        return found, starts

    def _leave_lost(self, place: Place) -> None:
        """Leave a browser that got out of use before this place was taken.  Its other places may have
        left it before, so that it has to be ended here; then its report is in ``reports``."""
        browser = place.browser
        if browser is not None and browser in self._all:
            report = self.leave(place, browser.retire_reason or "failed")
            if report is not None:
                self.reports.append(report)
        place.browser = None

    def _settle(self, browser: SharedBrowser, state: Literal["live", "over"]) -> None:
        """Note that the start of a browser has succeeded (``live``) or failed (``over``)."""
        with self._changed:
            browser.state = state
            if state == "live":
                self.started += 1
                if self.is_closed and browser.shared is not None:
                    browser.shared.is_closing = True
            else:
                self._all.remove(browser)
                browser.places.clear()
            self._changed.notify_all()

    def leave(self, place: Place, reason: str) -> ExitReport | None:
        """Free the place, whose lease has ended, and end the browser with its last place.

        Returns the browser's report if it has ended, None if it goes on.
        """
        browser = place.browser
        if browser is None:
            return None
        with self._changed:
            if browser.places.get(place.number) is place:  # it may have left before, and another come
                del browser.places[place.number]
            is_last = not browser.places
            if is_last:
                browser.retire_reason = browser.retire_reason or reason
        report = browser.session.report
        if report is None and is_last:
            report = browser.end(reason)
        with self._changed:
            if is_last and browser in self._all:
                browser.state = "over"
                self._all.remove(browser)
            self._changed.notify_all()
        return report


class Place:
    """A place in one of a pool's browsers, for a ``PooledBrowser``."""

    def __init__(self, browsers: Browsers, slot: SlotRequest):
        """``slot``: the request for a slot of the host, which is used if this place has to start a
        browser."""
        self._browsers, self.slot = browsers, slot
        self.browser: SharedBrowser | None = None
        self.number = 0
        """From 1 to ``leases_per_browser``; 0 before there is a browser."""
        self.starting: SharedBrowser | None = None
        """The browser that this place is starting; None if it starts none."""
        self.on_over: Callable[[], None] = lambda: None
        """Called when the lease or the browser is over, whoever has ended it."""
        self._is_called_off = False
        self._waits = False
        self._seat: Seat | None = None

    def occupy(self, control: SessionControl[Any]) -> Any:
        """Take a place, attach a WebDriver session there, and return its driver.

        Blocks, without a limit while all places are taken.  Raises the errors of :meth:`Browsers.take`
        and of ``SessionControl.occupy``.
        """
        browser = self._browsers.take(self)
        shared = browser.shared
        assert shared is not None
        control.config = browser.session.config
        seat = self._seat = Seat(shared, self.number)
        seat.on_over = self._tell_over
        try:
            self.check()  # call_off() may have been called before there was a seat
        except BaseException:
            seat.guard.ended()  # call_off() may give it a deadline: it would be the browser's
            raise
        try:
            return control.occupy(seat)
        except BaseException:
            if not self._is_called_off:  # a launch that was called off is no fault of the browser
                self._retire_browser()
            raise

    def open_contexts(
        self, capabilities: dict[str, Any], run: RunCommand, folders: DownloadFolders
    ) -> Contexts:
        """Make the first user context of this place.  Raises the errors of ``open_contexts``."""
        from ..drivers.contexts import open_contexts
        from ..drivers.contexts.chromium import Shared

        assert self._seat is not None
        shared = Shared(self._seat.connection, self._seat.shared.first)
        config = self._browsers.config.browser
        try:
            contexts = open_contexts(config, capabilities, run, folders, shared)
        except BaseException:
            self._retire_browser()
            raise
        self._seat.before_leaving = contexts.end_identity
        return contexts

    def _retire_browser(self) -> None:
        """Take no more places in this browser after a failure: the next launch gets another browser."""
        if self.browser is not None:
            self._browsers.retire(self.browser, "failed")

    def call_off(self) -> None:
        """Cancel the launch; returns at once."""
        self._is_called_off = True
        if (starting := self.starting) is not None:
            control_of(starting.session).call_off()
        if (seat := self._seat) is not None and seat.driver is None:
            seat.guard.set_deadline(LEAVE_TIMEOUT, "hung")
        self._browsers.wake()

    def check(self) -> None:
        """Raises SessionClosed if the launch was cancelled, or the pool closed."""
        if self._is_called_off or self._browsers.is_closed:
            raise SessionClosed("The launch was cancelled.")

    def wait_begins(self) -> None:
        """Tell the pool, once, that all places are taken."""
        if not self._waits:
            self._waits = True
            self.slot.on_wait()

    def leave(self, reason: str) -> ExitReport | None:
        """See :meth:`Browsers.leave`.  To be called after the end of the seat."""
        return self._browsers.leave(self, reason)

    def _tell_over(self) -> None:
        self.on_over()


def _launch_config(config: PoolConfig) -> SessionConfig:
    """How the browsers of such a pool are started."""
    from ..drivers.contexts import for_contexts

    browser = dataclasses.replace(for_contexts(config.browser, shared=True), debugging="port")
    if browser.max_download is None:
        return browser
    # The bound of the user is for each lease; the guard's is for the browser.
    bound = browser.max_download * config.leases_per_browser
    return dataclasses.replace(browser, max_download=bound)


def is_of_one_place(reason: str) -> bool:
    """True for a reason to retire one place that is no reason to replace its browser."""
    return reason.partition(":")[0] in OF_ONE_PLACE


__all__ = ["Browsers", "Place", "SharedBrowser", "is_of_one_place"]
