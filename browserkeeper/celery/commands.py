"""``celery -A app browserkeeper ps|sweep``: all workers' hosts at once, by remote control.

Celery finds it by the entry point ``celery.commands``.  Workers of one host see the same sessions:
each host is told of once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from .remote_control import PATIENCE
from .sweeping import COMMAND_PS, COMMAND_SWEEP

Answers = dict[str, dict[str, Any]]
NOTHING_HEARD = 69
"""Exit status: EX_UNAVAILABLE, as ``celery inspect`` has it."""

timeout_option = click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=PATIENCE, help="Seconds to wait for workers."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON: answers by worker.")


@click.group(name="browserkeeper")
def group() -> None:
    """Browser sessions on all workers' hosts."""


@group.command(name="ps")
@timeout_option
@json_option
@click.pass_context
def ps(ctx: click.Context, /, timeout: float, as_json: bool, **_: Any) -> None:
    """List the sessions of each worker's host.

    Exit status: 0 all is well; 1 something is orphaned or cannot be looked at; 69 no worker answered.
    """
    answers = ask(ctx.obj.app, COMMAND_PS, timeout)
    if as_json:
        click.echo(json.dumps(answers, indent=2))
    else:
        for worker, answer in by_host(answers):
            for line in ps_lines(answer):
                click.echo(f"{host_of(worker)}  {line}")
    finish(ctx, answers, ok=all(answer.get("ok", False) for answer in answers.values()))


@group.command(name="sweep")
@click.option("--yes", is_flag=True, help="Remove what is found; without it nothing is touched.")
@click.option("--older-than", type=click.FloatRange(min=0), default=0.0, help="Seconds.")
@timeout_option
@json_option
@click.pass_context
def sweep(
    ctx: click.Context, /, yes: bool, older_than: float, timeout: float, as_json: bool, **_: Any
) -> None:
    """Find, and with --yes remove, what dead owners left on each worker's host.

    Exit status: 0 nothing is left; 1 something is, or cannot be looked at; 69 no worker answered.
    """
    answers = ask(ctx.obj.app, COMMAND_SWEEP, timeout, yes=yes, older_than=older_than)
    if as_json:
        click.echo(json.dumps(answers, indent=2))
    else:
        for worker, answer in answers.items():
            for line in sweep_lines(answer, yes=yes):
                click.echo(f"{host_of(worker)}  {line}")
    left = [f for answer in answers.values() for f in answer.get("findings", ()) if not f["removed"]]
    finish(ctx, answers, ok=not left and not any("error" in answer for answer in answers.values()))


def ask(app: Any, command: str, timeout: float, **arguments: Any) -> Answers:
    """What each worker answered in time, by its name."""
    replies = app.control.broadcast(command, arguments=arguments, reply=True, timeout=timeout)
    return {worker: answer for reply in replies or () for worker, answer in reply.items()}


def finish(ctx: click.Context, answers: Answers, *, ok: bool) -> None:
    if not answers:
        click.echo("No worker answered; is one running, and has its app called install()?", err=True)
        ctx.exit(NOTHING_HEARD)
    ctx.exit(0 if ok else 1)


def host_of(worker: str) -> str:
    return worker.partition("@")[2] or worker


def by_host(answers: Answers) -> Iterator[tuple[str, dict[str, Any]]]:
    """One worker's answer for each host."""
    seen: set[str] = set()
    for worker, answer in sorted(answers.items()):
        if host_of(worker) not in seen:
            seen.add(host_of(worker))
            yield worker, answer


def ps_lines(answer: dict[str, Any]) -> Iterator[str]:
    if "error" in answer:
        yield f"error: {answer['error']}"
    for session in answer.get("sessions", ()):
        yield (
            f"{session['id']}  {session['browser']}  {session['state']}  owner {session['owner']['pid']}"
            f"  {session['age']:.0f} s  {len(session['processes'])} processes"
            f"  {session['memory'] / 1e6:.0f} MB"
        )
        for pid in session.get("zombies", ()):
            yield f"zombie: pid {pid} of session {session['id']}"
    for record in answer.get("bad_records", ()):
        yield f"bad record {record['path']}: {record['why']}"
    if not answer.get("sessions") and "error" not in answer:
        yield "no live sessions"


def sweep_lines(answer: dict[str, Any], *, yes: bool) -> Iterator[str]:
    if "error" in answer:
        yield f"error: {answer['error']}"
    for finding in answer.get("findings", ()):
        verdict = "removed" if finding["removed"] else f"not removed {finding['problem']}".rstrip()
        yield (
            f"{finding['kind']} {finding['session']}  {finding['what']}"
            f"  {len(finding['processes'])} processes  {verdict if yes else 'would be removed'}"
        )
    if not answer.get("findings") and "error" not in answer:
        yield "nothing is left of any dead owner"


__all__ = ["group"]
