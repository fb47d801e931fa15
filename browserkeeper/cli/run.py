"""``browserkeeper run``: this process becomes the guard of a command, by exec.

exec keeps the pid, so the parent still signals and waits for the process that it started; and it frees
the memory of Python's imports while the command runs.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from typing import NoReturn

import click

from ..cleanup.in_passing import finish_the_dead_by_a_process
from ..errors import ConfigError
from ..guard.options import CANNOT_RUN, NOT_FOUND
from ..options.labels import check_label
from ..process import own_line, system
from ..process.containment import Containment, choose
from ..process.guard_process import GuardPlan, foreground_command
from ..report import SCHEMA
from ..state.ledger import Ledger
from ..state.records import Session, new_id
from ..state.tmpdirs import new_tmpdir_path
from ..status.text import printable
from . import output
from .completion import files
from .environment import Command
from .parameters import seconds, seconds_or_zero

MOST_WORDS, LONGEST_WORD = 50, 200
"""Of the command line in the record: how many words, and characters of each."""


@click.command(
    "run",
    cls=Command,
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@click.option("--timeout", type=float, callback=seconds, metavar="SECONDS", help="End it after so long.")
@click.option(
    "--grace",
    type=float,
    default=5.0,
    show_default=True,
    callback=seconds_or_zero,
    metavar="SECONDS",
    help="Between SIGTERM and SIGKILL; 0: SIGKILL at once.",
)
@click.option("--label", metavar="TEXT", help="A name for it, which ps and history show.")
@click.option("--keep-tmpdir", is_flag=True, help="Leave TMPDIR as it is; else it gets its own.")
@click.option("--no-ledger", is_flag=True, help="No record and no history: for a read-only system.")
@output.json_option
@click.argument(
    "argv",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    shell_complete=files,
    metavar="CMD [ARG]...",
)
def command(
    timeout: float | None,
    grace: float,
    label: str | None,
    keep_tmpdir: bool,
    no_ledger: bool,
    as_json: bool,
    argv: tuple[str, ...],
) -> int:
    """Run any command so that nothing of it survives: an unmodified Selenium script, say.

    When CMD ends, or is ended, every process that came of it is ended too, however it detached
    itself, and the TMPDIR that CMD was given is removed. It keeps its terminal, its standard
    streams and its signals. As PID 1 of a container, this is the container's init.

    What is to be ended gets SIGTERM first: CMD, then what it leaves, after half of --grace all
    that is left, and SIGKILL after --grace. Another signal to this process, or Ctrl-C, ends the
    wait. Guards of sessions inside get up to 10 s more to end these.

    With --json one line on stderr says, before CMD starts, where its report will be.

    Exit status: CMD's own; 128+N when signal N ended it; 124 after the timeout; 125 wrong
    usage, or an error of browserkeeper's; 126 CMD cannot be run; 127 CMD was not found.

    \b
    Example:
      browserkeeper run --timeout 600 -- python scrape.py
    """
    name = "" if label is None else check_label("--label", label)
    if name and no_ledger:
        raise ConfigError("--label names the record and the history, and --no-ledger writes neither.")
    if status := refusal(argv[0], as_json=as_json):
        return status
    ledger = None if no_ledger else Ledger.open()
    if ledger:
        ledger.prune()
        finish_the_dead_by_a_process(ledger)
    containment = choose()
    session = describe(argv, timeout, containment, ledger, keep_tmpdir=keep_tmpdir, label=name)
    plan = GuardPlan(
        session=session.id,
        command=argv,
        env=dict(os.environ),
        containment=containment,
        document=session.to_json(),
        tmpdir=session.tmpdir,
        record=str(ledger.record_path(session.id)) if ledger else "",
        lock=session.lock,
        history=str(ledger.history_path(session.id)) if ledger else "",
        timeout=timeout or 0,
        grace=grace,
    )
    if as_json:
        place = {"schema": SCHEMA, "session": session.id, "history": plan.history or None}
        print(json.dumps(place), file=sys.stderr)
    return become_guard(plan)


def refusal(name: str, *, as_json: bool) -> int:
    """0 if the command can be run; else prints why not, and returns the status that a shell would."""
    if shutil.which(name):
        return 0
    places = [name] if os.sep in name else [os.path.join(p, name) for p in os.get_exec_path()]
    there = any(map(os.path.exists, places)) if name else False
    text = f"{name}: {'cannot be executed' if there else 'not found'}"
    if as_json:
        output.print_json({"error": {"type": "CannotRun" if there else "NotFound", "message": text}})
    print(f"browserkeeper run: {printable(text)}", file=sys.stderr)
    return CANNOT_RUN if there else NOT_FOUND


def describe(
    argv: tuple[str, ...],
    timeout: float | None,
    containment: Containment,
    ledger: Ledger | None,
    *,
    keep_tmpdir: bool,
    label: str,
) -> Session:
    """The session for its record.  Its owner is this process, whose pid exec keeps."""
    now, line, session, host = time.time(), own_line(), new_id(), system.host()
    return Session(
        id=session,
        kind="run",
        browser=os.path.basename(argv[0]),
        owner=line[0],
        ancestors=line,
        owner_name="browserkeeper run",
        host=host.id,
        init_start=host.init_start,
        uid=host.uid,
        lock=str(ledger.lock_path(session)) if ledger else "",
        containment=containment.kind,
        created=now,
        deadline=now + timeout if timeout else None,
        tmpdir="" if keep_tmpdir else new_tmpdir_path(session),
        cgroup=containment.leaf(session),
        command=shortened(argv),
        label=label,
    )


def shortened(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command for the record, which the guard gets in one environment variable: the kernel
    limits that to 128 KiB."""
    words = tuple(
        word if len(word) <= LONGEST_WORD else word[:LONGEST_WORD] + "…" for word in argv[:MOST_WORDS]
    )
    return words if len(argv) <= MOST_WORDS else (*words, "…")


def become_guard(plan: GuardPlan) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    words = foreground_command(plan, front=os.getpid() != 1)
    os.execve(words[0], words, plan.environment())
