"""``browserkeeper sweep --foreign``: what plain Selenium has left, with verdicts and evidence."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..cleanup.foreign import Foreign, ForeignSweep
from ..state.ledger import Ledger
from . import output
from .disk_usage import disk_usage
from .statuses import ExitStatus

NOTHING = "Plain Selenium has left nothing that can be seen."


def sweep(ledger: Ledger, older_than: float, *, yes: bool, as_json: bool) -> ExitStatus:
    """Judge, with ``yes`` end and remove the orphans, and show all.  Returns the exit status."""
    one_pass = ForeignSweep(ledger, older_than)
    found = one_pass.find()
    sizes = {path: disk_usage(path) for one in found for path in one.files}
    orphans = [one for one in found if one.verdict == "orphan"]
    if yes:
        found = [one_pass.end(one) for one in found]
    if as_json:
        output.print_json(document(found, one_pass.not_seen, sizes, yes=yes))
    else:
        show(found, sizes, yes=yes)
        for sentence in one_pass.not_seen:
            output.print_line(f"Could not look: {sentence}.", "yellow")
    if not yes:
        return ExitStatus.FOUND if orphans else ExitStatus.OK
    return ExitStatus.INCOMPLETE if any(one.problem for one in found) else ExitStatus.OK


def document(
    found: list[Foreign], not_seen: list[str], sizes: dict[str, int], *, yes: bool
) -> dict[str, Any]:
    chosen = [one for one in found if (one.removed if yes else one.verdict == "orphan")]
    return {
        "dry_run": not yes,
        "foreign": [as_dict(one, sizes) for one in found],
        "not_seen": not_seen,
        "totals": {
            "orphans": len(chosen),
            "processes": sum(len(one.processes) for one in chosen),
            "bytes": sum(size_of(one, sizes) for one in chosen),
        },
    }


def as_dict(one: Foreign, sizes: dict[str, int]) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "what": one.what,
        "pid": one.root.pid if one.root else None,
        "age": round(one.age, 1),
        "verdict": one.verdict,
        "why": one.why,
        "evidence": [dataclasses.asdict(check) for check in one.checks],
        "processes": [{"pid": process.pid, "name": process.name} for process in one.processes],
        "files": list(one.files),
        "bytes": size_of(one, sizes),
        "removed": one.removed,
        "problem": one.problem,
    }


def size_of(one: Foreign, sizes: dict[str, int]) -> int:
    return sum(sizes.get(path, 0) for path in one.files)


def show(found: list[Foreign], sizes: dict[str, int], *, yes: bool) -> None:
    """The table; then the evidence for each orphan, and what was or would be done."""
    if not found:
        output.print_line(NOTHING)
        return
    columns = ["kind", "what", "age", "processes", "size", "verdict"]
    rows = [cells(one, sizes, yes=yes) for one in found]
    output.print_table(columns, rows, ["red" if one.problem else "" for one in found])
    for one in found:
        if one.verdict == "orphan":
            output.print_line(f"Evidence that {one.what} is an orphan:")
            for check in one.checks:
                output.print_line(f"  {check.name}: {check.seen}", "dim")
            for path in one.files:
                output.print_line(f"  file: {path}", "dim")
    output.print_line(summary(found, sizes, yes=yes))


def cells(one: Foreign, sizes: dict[str, int], *, yes: bool) -> list[str]:
    return [
        one.kind,
        one.what,
        output.duration(one.age),
        str(len(one.processes)),
        output.megabytes(size_of(one, sizes)),
        verdict_of(one, yes=yes),
    ]


def verdict_of(one: Foreign, *, yes: bool) -> str:
    if one.verdict == "listed only":
        return f"listed only, because {one.why}"
    if one.problem:
        return f"orphan, not all was removed: {one.problem}"
    return "orphan, removed" if yes else "orphan, would be removed"


def summary(found: list[Foreign], sizes: dict[str, int], *, yes: bool) -> str:
    totals = document(found, [], sizes, yes=yes)["totals"]
    what = f"{output.count(totals['processes'], 'process')} and {output.megabytes(totals['bytes'])}"
    if yes:
        return f"Removed {what}."
    if not totals["orphans"]:
        return "No orphan is among them; nothing was touched."
    return f"{what} would be removed; nothing was touched (--yes does it)."


__all__ = ["sweep"]
