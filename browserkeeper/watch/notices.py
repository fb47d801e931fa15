"""What there is to say, and the memory that lets it be said once."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from typing import Any, Literal

Kind = Literal[
    "swept",
    "not-swept",
    "overdue",
    "guard-stopped",
    "unguarded",
    "zombies",
    "processes-low",
    "memory-low",
    "space-low",
    "container-restarted",
    "container-not-restarted",
    "container-left",
    "container-missing",
    "container-uncounted",
    "docker-unreachable",
    "look-failed",
    "over",
]
DONE = ("swept", "container-restarted")
"""What was done, and is never over."""
PATIENCE = 3
"""Rounds that a finding must be absent to be over: what comes and goes is said once."""


@dataclasses.dataclass(frozen=True)
class Notice:
    """One finding of one round.

    ``subject`` says, with ``kind``, what is the same finding in the next round.  ``magnitude``: it
    is said again when this has grown.  ``remedy``: what a person can do, "" where it was done.
    """

    kind: Kind
    subject: str
    message: str
    remedy: str = ""
    session: str = ""
    magnitude: int = 0
    error: BaseException | None = dataclasses.field(default=None, compare=False)

    @property
    def level(self) -> int:
        return logging.INFO if self.kind in ("swept", "over") else logging.WARNING

    @property
    def text(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()

    def log_fields(self) -> dict[str, Any]:
        """For a log record's ``extra=`` (docs/operations.md lists them)."""
        facts = {"event.action": f"watch-{self.kind}", "browserkeeper.subject": self.subject}
        if self.remedy:
            facts["browserkeeper.remedy"] = self.remedy
        if self.session:
            facts["browserkeeper.session.id"] = self.session
        return facts

    def to_dict(self) -> dict[str, Any]:
        names = ("kind", "subject", "message", "remedy", "session")
        return {name: getattr(self, name) for name in names}


class Memory:
    """Which findings have been said, and how many rounds they have been absent since."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], tuple[Notice, int]] = {}

    def news(self, round: Iterable[Notice]) -> list[Notice]:
        """Of one round's findings those that are new or have grown, and those that are over."""
        found = {(notice.kind, notice.subject): notice for notice in round}
        news = [notice for key, notice in found.items() if self._is_news(key, notice)]
        for key, (notice, absent) in list(self._told.items()):
            if key not in found:
                self._told[key] = notice, absent + 1
        for key, notice in found.items():
            told = self._told.get(key, (notice, 0))[0]
            self._told[key] = (notice if notice in news else told), 0
        return news + self._over()

    def _is_news(self, key: tuple[str, str], notice: Notice) -> bool:
        return key not in self._told or notice.magnitude > self._told[key][0].magnitude

    def _over(self) -> list[Notice]:
        over = [key for key, (_, absent) in self._told.items() if absent >= PATIENCE]
        ended = [self._told.pop(key)[0] for key in over]
        return [
            Notice("over", notice.subject, f"No longer so: {notice.message}", session=notice.session)
            for notice in ended
            if notice.kind not in DONE
        ]


__all__ = ["Memory", "Notice"]
