"""Who has ended a session, or drained the host, by hand: when, from which program, and why."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from typing import Any

LONGEST = 200
"""Characters of each text that are kept of a file, which anybody who is this user may have written."""


@dataclasses.dataclass(frozen=True)
class Operator:
    """A person or a program that has acted on sessions of other programs.

    ``user`` is the login name, with the name before ``sudo`` where that is known; ``program`` and
    ``pid`` are those of the tool; ``at`` is in seconds since the epoch; ``reason`` is the operator's own
    text, "" where none was given.
    """

    user: str = "?"
    program: str = "?"
    pid: int = 0
    at: float = 0.0
    reason: str = ""

    @classmethod
    def from_dict(cls, facts: object) -> Operator:
        """What can be read of a file's content; anything else becomes the default of its field."""
        given = facts if isinstance(facts, Mapping) else {}

        def text(name: str, default: str) -> str:
            value = given.get(name)
            return value[:LONGEST] if isinstance(value, str) and value else default

        pid, at = given.get("pid"), given.get("at")
        return cls(
            text("user", "?"),
            text("program", "?"),
            pid if isinstance(pid, int) and not isinstance(pid, bool) else 0,
            float(at) if isinstance(at, (int, float)) and abs(at) < 1e11 else 0.0,
            text("reason", ""),
        )

    @classmethod
    def parse(cls, text: str) -> Operator:
        """From the JSON of a request file, as :meth:`from_dict`; the default where it is no JSON."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return cls()
        return cls.from_dict(document.get("operator") if isinstance(document, Mapping) else None)

    def to_dict(self) -> dict[str, Any]:
        """The fields as values of JSON; :meth:`from_dict` reads them."""
        return dataclasses.asdict(self)

    @property
    def when(self) -> str:
        """The time in UTC, for people."""
        moment = datetime.datetime.fromtimestamp(self.at, datetime.timezone.utc)
        return f"{moment:%Y-%m-%d %H:%M:%S} UTC"

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"{self.user} ({self.program}, pid {self.pid}) at {self.when}{why}"


__all__ = ["Operator"]
