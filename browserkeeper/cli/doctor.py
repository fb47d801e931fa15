"""``browserkeeper doctor``: prints the checks of this machine, or of a Celery app's settings."""

from __future__ import annotations

import dataclasses
import os
import sys

import click

from ..status.check import Check
from ..status.doctor import diagnose
from . import output
from .environment import Command
from .statuses import ExitStatus

STYLES = {"ok": "", "warn": "yellow", "fail": "red"}


@click.command("doctor", cls=Command)
@click.option("--celery", "app", metavar="MODULE:APP", help="Check this Celery app's settings instead.")
@output.json_option
def command(app: str | None, as_json: bool) -> int:
    """Check this machine for all that sessions need, with a remedy for each finding.

    Starts a few short-lived processes: the browsers' and drivers' --version, a guard, and an
    orphan, to see whether PID 1 reaps it. Nothing is downloaded and nothing is removed.

    Exit status: 0 sessions will work, perhaps with warnings; 1 something must be mended first;
    2 there is no such Celery app.

    \b
    Example:
      browserkeeper doctor --json
      browserkeeper doctor --celery project.celery:app
    """
    checks = list(diagnose()) if app is None else check_celery(app)
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        output.print_json({"ok": not failed, "checks": [dataclasses.asdict(c) for c in checks]})
    else:
        show(checks)
    return ExitStatus.FOUND if failed else ExitStatus.OK


def check_celery(name: str) -> list[Check]:
    """Raises ConfigError if there is no such app."""
    from ..status.celery_advice import check, load_app

    sys.path.insert(0, os.getcwd())  # as `celery -A` does; a console script starts without it
    return check(load_app(name))


def show(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        head = f"{check.status:4}  {check.name:{width}}  "
        output.print_line(head + check.what, STYLES[check.status])
        if check.remedy:
            output.print_line(" " * len(head) + check.remedy)
