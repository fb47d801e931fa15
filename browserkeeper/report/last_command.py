"""``LastCommand``: one WebDriver command of a session that ended badly, as plain values."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

OK, INTERRUPTED, IN_FLIGHT = "ok", "interrupted", "in flight"
"""Values of :attr:`LastCommand.outcome`; every other one is the name of an exception's class."""


@dataclasses.dataclass(frozen=True)
class LastCommand:
    """A WebDriver command: which one, on what, how long, and how it ended.

    ``name`` is Selenium's name of the command, such as ``findElement``.  ``target`` says what it was
    about without any value that the program has given, "" where nothing may be shown (see
    docs/security.md).  ``outcome`` is ``ok``, the name of the class of the exception that it raised,
    ``interrupted`` (an exception from outside, such as a signal handler's, came before the answer) or
    ``in flight`` (there was no answer when the session ended).  ``seconds`` is how long it took, or how
    long it had waited at the end of the session.  ``ago`` is how many seconds before the end of the
    session it was sent; 0 for one that was sent after the end, and found the session dead.
    """

    name: str
    target: str = ""
    outcome: str = OK
    seconds: float = 0.0
    ago: float = 0.0

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> LastCommand:
        """Raises TypeError or KeyError for other values."""
        command = cls(**{field.name: facts[field.name] for field in dataclasses.fields(cls)})
        texts = (command.name, command.target, command.outcome)
        numbers = (command.seconds, command.ago)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"not a command: {facts!r}")
        if not all(isinstance(number, (int, float)) for number in numbers):
            raise TypeError(f"not a command: {facts!r}")
        return command

    def __str__(self) -> str:
        what = f"{self.name} {self.target}".rstrip()
        if self.outcome == IN_FLIGHT:
            return f"{what}: in flight for {self.seconds:.2f} s when the session ended"
        return f"{what}: {self.outcome}, {self.seconds:.2f} s, sent {self.ago:.2f} s before the end"


def commands_as_text(commands: Sequence[LastCommand], indent: str = "") -> str:
    """A heading and one line for each command; "" for none."""
    if not commands:
        return ""
    what = "Its last command" if len(commands) == 1 else f"Its last {len(commands)} commands"
    lines = [f"{what}, oldest first:" if len(commands) > 1 else f"{what}:"]
    return "\n".join(f"{indent}{line}" for line in [*lines, *(f"  {one}" for one in commands)])


def latest_that_fit(commands: Iterable[LastCommand], limit: int) -> list[str]:
    """The texts of the latest commands, oldest first: as many as have together at most ``limit``
    characters of JSON."""
    texts: list[str] = []
    for command in reversed(list(commands)):
        limit -= len(json.dumps(str(command))) + 2
        if limit < 0:
            break
        texts.insert(0, str(command))
    return texts


__all__ = [
    "INTERRUPTED",
    "IN_FLIGHT",
    "OK",
    "LastCommand",
    "commands_as_text",
    "latest_that_fit",
]
