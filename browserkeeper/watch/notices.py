"""Findings of the watch, and which of them are new."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator
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
ACTIONS = ("swept", "container-restarted")
"""What the watch did: such a notice is never reported as over."""
ABSENT_ROUNDS = 3
"""Rounds without a finding until it is over: one that comes and goes is reported once."""


@dataclasses.dataclass(frozen=True)
class Notice:
    """One finding of one round.

    Two notices with the same ``kind`` and ``subject`` are the same finding; it is reported again
    when its ``magnitude`` has grown.  ``remedy``: what a person can do, "" if there is nothing to
    do.  ``session`` and ``label``: the id and the label of the session that it is about, or "".
    """

    kind: Kind
    subject: str
    message: str
    remedy: str = ""
    session: str = ""
    label: str = ""
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
        if self.label:
            facts["browserkeeper.label"] = self.label
        return facts

    def to_dict(self) -> dict[str, Any]:
        names = ("kind", "subject", "message", "remedy", "session", "label")
        return {name: getattr(self, name) for name in names}


class ReportedNotices:
    """Remembers which findings have been reported, and for how many rounds each has been absent."""

    def __init__(self) -> None:
        self._reported: dict[tuple[str, str], tuple[Notice, int]] = {}

    def update(self, round: Iterable[Notice]) -> list[Notice]:
        """Given the findings of one round, returns those to report: the new ones, those that have
        grown, and a notice "over" for each that has been absent for ABSENT_ROUNDS rounds."""
        found = {(notice.kind, notice.subject): notice for notice in round}
        fresh = {key: notice for key, notice in found.items() if self._is_new(key, notice)}
        for key, (notice, absent) in self._reported.items():
            self._reported[key] = notice, 0 if key in found else absent + 1
        self._reported.update((key, (notice, 0)) for key, notice in fresh.items())
        return [*fresh.values(), *self._forget_absent()]

    def _is_new(self, key: tuple[str, str], notice: Notice) -> bool:
        return key not in self._reported or notice.magnitude > self._reported[key][0].magnitude

    def _forget_absent(self) -> Iterator[Notice]:
        over = [key for key, (_, absent) in self._reported.items() if absent >= ABSENT_ROUNDS]
        for notice, _ in [self._reported.pop(key) for key in over]:
            if notice.kind not in ACTIONS:
                message = f"No longer so: {notice.message}"
                yield Notice("over", notice.subject, message, session=notice.session, label=notice.label)


__all__ = ["ABSENT_ROUNDS", "Notice", "ReportedNotices"]
