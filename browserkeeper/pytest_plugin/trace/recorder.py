"""The commands of one driver, recorded as they come.

The recorder stands between a managed driver and its command handler (``CommandObserver``).  It refers to
no driver, element or argument of the program: an entry is made of texts and numbers.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...errors import hide_frames as __tracebackhide__  # noqa: F401
from . import words

FIRST, LAST = 200, 1800
"""How many commands are kept: the first of the test, and the latest."""
MOST_ELEMENTS = 2000
"""Elements whose selectors are known."""

IN_FLIGHT, OK, INTERRUPTED = "in flight", "ok", "interrupted"

CHANGING = frozenset(
    """
    get refresh goBack goForward clickElement clearElement sendKeysToElement actions switchToWindow
    setWindowRect w3cMaximizeWindow fullscreenWindow minimizeWindow w3cAcceptAlert w3cDismissAlert
    setScreenOrientation
    """.split()  # noqa: SIM905 # words read better than quotes
)
"""Commands after which the page may look different."""
SCRIPT_PAUSE = 0.5
"""Seconds between two screenshots after scripts: a wait may call one several times a second."""

_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("inside", default=False)
"""True in a command that another command sends."""


@dataclasses.dataclass
class Picture:
    """A screenshot, or why there is none.  ``data`` is base64, "" for none."""

    note: str = ""
    kind: str = ""
    data: str = ""
    url: str = ""
    title: str = ""


@dataclasses.dataclass
class Entry:
    """One command.  ``start``: seconds since the start of the trace; ``seconds``: None until it ends."""

    number: int
    phase: str
    name: str
    target: str
    parameters: list[tuple[str, str]]
    start: float
    seconds: float | None = None
    outcome: str = IN_FLIGHT
    picture: Picture | None = None

    @property
    def failed(self) -> bool:
        return self.outcome not in (OK, IN_FLIGHT)


class Recorder:
    """Records the commands of one driver.  Its methods may be called from several threads."""

    def __init__(self, look: Callable[[str], Picture | None], handle: str):
        """``look(handle)`` takes a picture of a window; ``handle`` is that of the first one."""
        self._look, self.handle = look, handle
        self.began, self.began_at = time.monotonic(), time.time()
        self.phase = "setup"
        """The phase of the test that runs."""
        self.is_paused = False
        self._number = 0
        self._first: list[Entry] = []
        self._last: collections.deque[Entry] = collections.deque(maxlen=LAST)
        self._elements: dict[str, str] = {}
        self._looked = 0.0

    @property
    def entries(self) -> list[Entry]:
        return [*self._first, *self._last]

    @property
    def left_out(self) -> int:
        """How many commands of the middle were dropped."""
        return self._number - len(self._first) - len(self._last)

    def now(self) -> float:
        return time.monotonic() - self.began

    # -- what a managed driver calls

    def run_command(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """Run the command, record it, and return or raise what it does."""
        if self.is_paused:
            return command()
        entry = self._begin(name, params)
        is_inside, token = _inside.get(), _inside.set(True)
        try:
            answer = command()
        except BaseException as error:
            self._fail(entry, error)
            raise
        else:
            self._end(entry, OK)
        finally:
            _inside.reset(token)
        self._note(name, params, answer, entry.target)
        if not is_inside and self._may_have_changed(name, entry):
            self._looked = self.now()
            entry.picture = self._look(self.handle)
        return answer

    @contextlib.contextmanager
    def observed(self, method: str) -> Iterator[None]:
        """Record a command that the block sends by a websocket of Selenium's."""
        if self.is_paused:
            yield
            return
        entry = self._begin(f"bidi {method}", {})
        try:
            yield
        except BaseException as error:
            self._fail(entry, error)
            raise
        else:
            self._end(entry, OK)

    # -- entries

    def _begin(self, name: str, params: Mapping[str, Any]) -> Entry:
        given = params if type(params) is dict else {}
        about = words.target(name, given, self._elements)
        self._number += 1
        entry = Entry(self._number, self.phase, name, about, words.parameters(name, given), self.now())
        (self._first if len(self._first) < FIRST else self._last).append(entry)
        return entry

    def _end(self, entry: Entry, outcome: str) -> None:
        entry.seconds, entry.outcome = self.now() - entry.start, outcome

    def _fail(self, entry: Entry, error: BaseException) -> None:
        if not isinstance(error, Exception):  # KeyboardInterrupt, pytest's own
            self._end(entry, INTERRUPTED)
            return
        # The class alone: a driver's text repeats selectors, addresses and what was typed.
        self._end(entry, type(error).__name__)

    def _note(self, name: str, params: Mapping[str, Any], answer: Any, target: str) -> None:
        """Remember which element a selector has found, and which window is the present one."""
        value = answer.get("value") if type(answer) is dict else None
        if name == "switchToWindow":
            self.handle = words.text_of(params.get("handle"))
        elif name == "close":
            self.handle = ""
        elif name in words.SELECTORS:
            found = value if type(value) is list else [value]
            room = max(0, MOST_ELEMENTS - len(self._elements))
            for number, element in enumerate(found[:room]):
                key = words.text_of(vars(element).get("_id")) if hasattr(element, "__dict__") else ""
                self._elements[key] = f"{target} [{number}]" if type(value) is list else target

    def _may_have_changed(self, name: str, entry: Entry) -> bool:
        if name in CHANGING:
            return True
        if name not in words.SCRIPTS or entry.target in words.READERS:
            return False
        return self.now() - self._looked > SCRIPT_PAUSE


__all__ = ["IN_FLIGHT", "OK", "Entry", "Picture", "Recorder"]
