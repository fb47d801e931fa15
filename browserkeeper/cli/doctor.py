"""``browserkeeper doctor``: prints what ``diagnosis.py`` finds."""

from __future__ import annotations

import dataclasses

import click

from ..diagnosis import Check, diagnose
from . import output

STYLES = {"ok": "", "warn": "yellow", "fail": "red"}


@click.command()
@output.json_option
def command(as_json: bool) -> int:
    """Check this machine for all that sessions need, with a remedy for each finding.

    Starts a few short-lived processes: the browsers' and drivers' --version, a guard, and an
    orphan, to see whether PID 1 reaps it. Nothing is downloaded and nothing is removed.

    Exit status: 0 sessions will work, perhaps with warnings; 1 something must be mended first.

    \b
    Example:
      browserkeeper doctor --json
    """
    checks = list(diagnose())
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        output.print_json({"ok": not failed, "checks": [dataclasses.asdict(c) for c in checks]})
    else:
        show(checks)
    return int(failed)


def show(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        head = f"{check.status:4}  {check.name:{width}}  "
        output.print_line(head + check.what, STYLES[check.status])
        if check.remedy:
            output.print_line(" " * len(head) + check.remedy)
