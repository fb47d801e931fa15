"""The last commands of a session, kept to say what it was doing when it ended badly.

A command costs two readings of the clock and two tuples (``benchmarks/commands.py``).  Texts are made at
the end, and only at a bad one.  Of a command its name is kept, and the parameters in
:data:`command_targets.SHOWN`, as text.  So nothing here refers to a driver, an element or an argument of
the program, and there are never more than :data:`NUMBER` commands besides those in flight.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..report.last_command import IN_FLIGHT, LastCommand
from .command_targets import SHOWN, shown_name, target_of

NUMBER = 20
"""How many commands a report has."""
LONGEST_PARAMETER = 2000
"""Characters that are kept of a parameter: a ``data:`` address may have millions."""

Given = tuple["str | None", ...]
InFlight = tuple[str, Given, float]
"""Name, shown parameters, and when it was sent, in seconds of ``time.monotonic()``."""
Ended = tuple[str, Given, float, float, str]
"""The same, its seconds, and its outcome."""
NOTHING: Given = ()


class LastCommands:
    """The last commands of one session.

    Its methods take no lock, so that a signal handler may call any of them at any moment: each changes a
    deque or a dict by one operation, which is atomic.
    """

    def __init__(self) -> None:
        self._ended: collections.deque[Ended] = collections.deque(maxlen=NUMBER)
        self._in_flight: dict[object, InFlight] = {}

    @property
    def any_in_flight(self) -> bool:
        return bool(self._in_flight)

    def begin(self, key: object, name: str, params: Mapping[str, Any]) -> None:
        """A command is about to be sent.  ``key`` is kept until :meth:`end` gets it."""
        names, given = SHOWN.get(name), NOTHING
        if names is not None and type(params) is dict:
            given = tuple([_text(params.get(each)) for each in names])
        self._in_flight[key] = (name, given, time.monotonic())

    def end(self, key: object, outcome: str) -> None:
        """The command has ended.  Does nothing if it was not begun."""
        begun = self._in_flight.pop(key, None)
        if begun is not None:
            name, given, sent = begun
            self._ended.append((name, given, sent, time.monotonic() - sent, outcome))

    def forget(self) -> None:
        """Forget the commands that have ended: those that follow are another user's."""
        self._ended.clear()

    def take(self) -> Taken:
        """What is known at this moment."""
        return Taken(self._ended.copy(), list(self._in_flight.copy().values()))


@dataclasses.dataclass(frozen=True)
class Taken:
    """The commands that had ended, and those that were in flight, when a session was about to end."""

    ended: Sequence[Ended]
    in_flight: Sequence[InFlight]

    def until(self, end: float) -> tuple[LastCommand, ...]:
        """The last commands, those in flight behind the others; ``end`` is when the session ended, in
        seconds of ``time.monotonic()``.

        If more than :data:`NUMBER` are in flight, those that have waited longest.
        """
        waiting = sorted(self.in_flight, key=lambda command: command[2])[:NUMBER]
        room = NUMBER - len(waiting)
        ended = sorted(self.ended, key=lambda command: command[2])[-room:] if room else []
        found = [_command(*one, end) for one in ended]
        found += [_command(*one, max(0.0, end - one[2]), IN_FLIGHT, end) for one in waiting]
        return tuple(found)


def _command(
    name: str, given: Given, sent: float, seconds: float, outcome: str, end: float
) -> LastCommand:
    ago = round(max(0.0, end - sent), 3)
    return LastCommand(shown_name(name), target_of(name, given), outcome, round(seconds, 3), ago)


def _text(value: object) -> str | None:
    """A parameter that is a text, shortened; None for any other."""
    if type(value) is str and len(value) <= LONGEST_PARAMETER:
        return value
    if isinstance(value, str):  # of a subclass only the text: its object may refer to anything
        return str.__str__(value)[:LONGEST_PARAMETER]
    return None
