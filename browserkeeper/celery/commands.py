"""The command line ``celery -A app browserkeeper ps|sweep``: asks all workers by remote control.

Celery finds it by the entry point ``celery.commands``.  Workers of one host see the same sessions, so
``ps`` prints one answer for each host.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from ..status.text import printable
from .remote_control import COMMAND_PS, COMMAND_SWEEP, REPLY_TIMEOUT

Answers = dict[str, dict[str, Any]]
NO_ANSWER = 69
"""Exit status EX_UNAVAILABLE, the same as ``celery inspect`` has."""

timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=REPLY_TIMEOUT,
    help="Seconds to wait for workers.",
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

    Exit status: 0 all is well; 1 something is orphaned or cannot be examined; 69 no worker answered.
    """
    answers = ask(ctx.obj.app, COMMAND_PS, timeout)
    if as_json:
        click.echo(json.dumps(answers, indent=2))
    else:
        for worker, answer in by_host(answers):
            for line in ps_lines(answer):
                click.echo(printable(f"{host_of(worker)}  {line}"))
    finish(ctx, answers, ok=all(answer.get("ok", False) for answer in answers.values()))


@group.command(name="sweep")
@click.option("--yes", is_flag=True, help="Remove the findings; without it they are only listed.")
@click.option("--older-than", type=click.FloatRange(min=0), default=0.0, help="Seconds.")
@timeout_option
@json_option
@click.pass_context
def sweep(
    ctx: click.Context, /, yes: bool, older_than: float, timeout: float, as_json: bool, **_: Any
) -> None:
    """Find, and with --yes remove, what dead owners left on each worker's host.

    Exit status: 0 nothing is left; 1 something is, or cannot be examined; 69 no worker answered.
    """
    answers = ask(ctx.obj.app, COMMAND_SWEEP, timeout, yes=yes, older_than=older_than)
    if as_json:
        click.echo(json.dumps(answers, indent=2))
    else:
        for worker, answer in answers.items():
            for line in sweep_lines(answer, yes=yes):
                click.echo(printable(f"{host_of(worker)}  {line}"))
    left = [f for answer in answers.values() for f in answer.get("findings", ()) if not f["removed"]]
    finish(ctx, answers, ok=not left and not any("error" in answer for answer in answers.values()))


def ask(app: Any, command: str, timeout: float, **arguments: Any) -> Answers:
    """The workers' answers by worker name, after waiting ``timeout`` seconds."""
    replies = app.control.broadcast(command, arguments=arguments, reply=True, timeout=timeout)
    return {worker: answer for reply in replies or () for worker, answer in reply.items()}


def finish(ctx: click.Context, answers: Answers, *, ok: bool) -> None:
    """Exit with the command's status."""
    if not answers:
        click.echo(
            "No worker answered. Is one running, and does its app call browserkeeper.celery.install()?",
            err=True,
        )
        ctx.exit(NO_ANSWER)
    ctx.exit(0 if ok else 1)


def host_of(worker: str) -> str:
    """``celery@host`` → ``host``."""
    return worker.partition("@")[2] or worker


def by_host(answers: Answers) -> Iterator[tuple[str, dict[str, Any]]]:
    """(worker, answer) of one worker on each host."""
    seen: set[str] = set()
    for worker, answer in sorted(answers.items()):
        if host_of(worker) not in seen:
            seen.add(host_of(worker))
            yield worker, answer


def ps_lines(answer: dict[str, Any]) -> Iterator[str]:
    if "error" in answer:
        yield f"error: {answer['error']}"
    for session in answer.get("sessions", ()):
        label = session.get("label", "")  # a worker of an older version sends none
        yield (
            f"{session['id']}  {session['browser']}  {session['state']}  owner {session['owner']['pid']}"
            f"  {session['age']:.0f} s  {len(session['processes'])} processes"
            f"  {session['memory'] / 1e6:.0f} MB"
            f"{'  ' if label else ''}{label}"
        )
        for pid in session.get("zombies", ()):
            yield f"zombie: pid {pid} of session {session['id']}"
    if host := answer.get("host"):
        most = f" of {host['max_browsers']}" if host["max_browsers"] else ""
        yield f"host: {host['browsers']}{most} browsers, {host['waiting']} starts wait"
        if host["draining"]:
            yield "host: drained, no session starts"
        if host["problem"]:
            yield "host: its limits or slots have a problem; `browserkeeper ps` on that host says more"
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
