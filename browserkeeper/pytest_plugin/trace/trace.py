"""The trace of one browser of a test."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...session import control_of
from ...session.call import Call
from .events import Events
from .recorder import Entry, Picture, Recorder

if TYPE_CHECKING:
    from ...session import BrowserSession

MOST_PICTURES = 60
MOST_CHARACTERS = 16_000_000
"""Of all pictures of one trace, in base64; the latest are kept."""
DROPPED = "the screenshot was left out: a trace has the latest {} at most"

logger = logging.getLogger("browserkeeper")


class Trace:
    """Records one driver from :meth:`begin` to :meth:`end`."""

    def __init__(self, driver: Any, session: BrowserSession[Any]):
        self._driver, self._session = driver, session
        self.lacks: list[str] = []
        """What the trace does not have, and why."""
        self._events: Events | None = None
        self._pictures: list[Picture] = []
        self._is_over = False
        self.last: Picture | None = None
        """The picture of the end of the test."""
        self.recorder = Recorder(self._look, "")

    @property
    def events(self) -> Events | None:
        """None where the browser has no BiDi."""
        return self._events

    def begin(self) -> None:
        """Connect, and record the driver's commands from now on.  Raises nothing of its own."""
        Call(self._connect).run()
        self._driver.observer = self.recorder

    def _connect(self) -> None:
        """Runs in a thread of its own: so the errors that it catches are its own."""
        config = self._session.config
        url = self._driver.caps.get("webSocketUrl")
        if not config.is_here:
            where = "a server" if config.server is not None else "a Grid"
            self.lacks.append(
                f"The browser is that of {where}: there are no screenshots, no console messages and no "
                "requests."
            )
            return
        if not isinstance(url, str):
            self.lacks.append(
                "The browser runs without BiDi, since an option says so: there are no screenshots, no "
                "console messages and no requests."
            )
            return
        try:
            self.recorder.handle = self._driver.current_window_handle
            attempt: Any = control_of(self._session).attempt
            self._events = Events(url, attempt.own_pages, self.recorder.handle)
        except Exception as error:  # noqa: BLE001 # whatever Selenium and websockets raise
            text = str(getattr(error, "msg", None) or error).partition("\n")[0]
            self.lacks.append(f"Console, requests and screenshots: {type(error).__name__}: {text}")

    # -- pictures

    def _look(self, handle: str) -> Picture | None:
        """A picture for the recorder.  An exception from outside that comes meanwhile is raised."""
        if self._events is None or self._is_over or not control_of(self._session).at_rest:
            return None
        events = self._events
        return self._keep(Call(lambda: events.look(handle)).run())

    def _keep(self, picture: Picture) -> Picture:
        if picture.data:
            self._pictures.append(picture)
            while len(self._pictures) > MOST_PICTURES or self._size() > MOST_CHARACTERS:
                oldest = self._pictures.pop(0)
                oldest.data, oldest.note = "", DROPPED.format(MOST_PICTURES)
        return picture

    def _size(self) -> int:
        return sum(len(picture.data) for picture in self._pictures)

    # -- the end

    def begin_phase(self, phase: str) -> None:
        self.recorder.phase = phase

    def look_at_end(self) -> None:
        """Take the picture of the end, unless the browser has ended.  Raises nothing of its own."""
        if self._session.report is None:
            self.last = self._look(self.recorder.handle) or self.last

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the commands of the block out: they are the plugin's, and not the test's."""
        self.recorder.is_paused = True
        try:
            yield
        finally:
            self.recorder.is_paused = False

    def end(self) -> None:
        """Close the connection, before the browser ends or goes to the next test.  Idempotent."""
        if self._is_over:
            return
        self._is_over = True
        self._driver.observer = None
        if self._events is not None:
            Call(self._events.close).run()

    @property
    def entries(self) -> list[Entry]:
        return self.recorder.entries


__all__ = ["Trace"]
