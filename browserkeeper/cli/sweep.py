"""``browserkeeper sweep``: lists what dead owners left, and removes it with ``--yes``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import click

from ..cleanup.foreign import USUAL_AGE
from ..cleanup.sweeper import Finding, LeftAlone, Sweeper
from ..state.ledger import Ledger
from . import output
from .disk_usage import disk_usage
from .environment import Command
from .statuses import ExitStatus


def finite(_: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter("give a finite number of seconds, 0 or more.", param=parameter)
    return value


@click.command("sweep", cls=Command)
@click.option(
    "--yes",
    is_flag=True,
    allow_from_autoenv=False,
    help="Remove what is found; without it nothing is touched.",
)
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    default=None,
    metavar="SECONDS",
    callback=finite,
    help=f"Only what is at least this old (default: 0; with --foreign: {USUAL_AGE:.0f}).",
)
@click.option(
    "--foreign",
    is_flag=True,
    allow_from_autoenv=False,
    help="In place of sessions: what plain Selenium has left.",
)
@output.json_option
def command(yes: bool, older_than: float | None, foreign: bool, as_json: bool) -> int:
    """Find, and with --yes remove, what dead owners left: processes, TMPDIRs, records.

    A session whose owner or guard lives is never touched. What cannot be judged, such as a session of
    another machine or a process that only bears a session's marker, is left alone and listed.

    With --foreign: drivers and browsers that other code than browserkeeper has started and whose program
    is dead, and the temporary profiles that no process uses. Only what is proved to be an orphan is
    ended; all else is listed with the reason.

    Exit status: 0 nothing was found, or all of it was removed; 1 something was found, and this
    was a dry run; 3 browserkeeper could not look; 4 something could not be removed.

    \b
    Example:
      browserkeeper sweep --yes --older-than 3600
    """
    if foreign:
        from . import foreign_text

        age = USUAL_AGE if older_than is None else older_than
        return foreign_text.sweep(Ledger.open(), age, yes=yes, as_json=as_json)
    return sweep_sessions(older_than or 0.0, yes=yes, as_json=as_json)


def sweep_sessions(older_than: float, *, yes: bool, as_json: bool) -> ExitStatus:
    """What dead owners of sessions have left."""
    findings, left_alone = one_pass(dry_run=True, older_than=older_than)
    sizes = {path: disk_usage(path) for finding in findings for path in finding.files}
    if yes:  # a second pass: sizes can only be measured before the removal
        findings, left_alone = one_pass(dry_run=False, older_than=older_than)
    if as_json:
        output.print_json(document(findings, left_alone, sizes, yes=yes))
    else:
        show(findings, sizes, yes=yes)
        for thing in left_alone:
            output.print_line(f"Left alone, not ours to judge: {thing.what}: {thing.why}.", "dim")
    if not yes:
        return ExitStatus.FOUND if findings else ExitStatus.OK
    done = all(finding.removed for finding in findings)
    return ExitStatus.OK if done else ExitStatus.INCOMPLETE


def one_pass(*, dry_run: bool, older_than: float) -> tuple[list[Finding], list[LeftAlone]]:
    """What a sweep found, and what it left alone."""
    sweeper = Sweeper(Ledger.open(), dry_run=dry_run, older_than=older_than)
    findings = list(sweeper.run())
    return findings, sweeper.left_alone


def size_of(finding: Finding, sizes: dict[str, int]) -> int:
    return sum(sizes.get(path, 0) for path in finding.files)


def processes_of(finding: Finding) -> list[dict[str, Any]]:
    """The processes that were ended, or in a dry run would be."""
    found = finding.report.processes if finding.report else finding.processes
    return [{"pid": process.pid, "name": process.name} for process in found]


def document(
    findings: list[Finding], left_alone: list[LeftAlone], sizes: dict[str, int], *, yes: bool
) -> dict[str, Any]:
    return {
        "dry_run": not yes,
        "findings": [as_dict(finding, sizes) for finding in findings],
        "left_alone": [dataclasses.asdict(thing) for thing in left_alone],
        "totals": {
            "findings": len(findings),
            "processes": sum(len(processes_of(finding)) for finding in findings),
            "bytes": sum(size_of(finding, sizes) for finding in findings),
        },
    }


def as_dict(finding: Finding, sizes: dict[str, int]) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "session": finding.session,
        "what": finding.what,
        "processes": processes_of(finding),
        "files": list(finding.files),
        "bytes": size_of(finding, sizes),
        "removed": finding.removed,
        "problem": finding.problem,
        "report": finding.report.to_dict() if finding.report else None,
    }


def show(findings: list[Finding], sizes: dict[str, int], *, yes: bool) -> None:
    if not findings:
        output.print_line("Nothing is left of any dead owner.")
        return
    columns = ["kind", "session", "what", "processes", "size", "removed"]
    rows = [cells(finding, sizes, yes=yes) for finding in findings]
    output.print_table(columns, rows, ["red" if f.problem else "" for f in findings])
    for path in sorted({path for finding in findings for path in finding.files}):
        output.print_line(f"  {path}", "dim")
    output.print_line(summary(findings, sizes, yes=yes))


def cells(finding: Finding, sizes: dict[str, int], *, yes: bool) -> list[str]:
    verdict = "yes" if finding.removed else "no"
    if finding.problem:
        verdict = f"{verdict}: {finding.problem}"
    return [
        finding.kind,
        finding.session,
        finding.what,
        str(len(processes_of(finding))),
        output.megabytes(size_of(finding, sizes)),
        verdict if yes or finding.problem else "would be",
    ]


def summary(findings: Iterable[Finding], sizes: dict[str, int], *, yes: bool) -> str:
    chosen = [finding for finding in findings if finding.removed or not yes]
    processes = sum(len(processes_of(finding)) for finding in chosen)
    size = output.megabytes(sum(size_of(finding, sizes) for finding in chosen))
    what = f"{output.count(processes, 'process')} and {size}"
    return (
        f"Removed {what}." if yes else f"{what} would be removed; nothing was touched (--yes does it)."
    )
