"""What a shell may complete: commands by their names, sessions and labels from the state directory.

click writes the scripts for bash, zsh and fish (``_BROWSERKEEPER_COMPLETE=bash_source browserkeeper``).
They start this program for each key, so nothing is imported but the command that is on the line.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import click

from ..errors import BrowserkeeperError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..state.ledger import Ledger

MOST_ENDED = 50
"""Ended sessions that are looked at, newest first."""

Completer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def _completer(names: Callable[[Ledger], Iterable[tuple[str, str]]]) -> Completer:
    """``names``: pairs of a word and a help text.  Words that a shell does not
    take as they are, such as those with white space, are left out: bash would insert them without
    quotes.  A state directory that cannot be read has none."""

    def complete(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from ..state.ledger import Ledger

        found: dict[str, str] = {}
        with contextlib.suppress(BrowserkeeperError, OSError):
            found = dict(names(Ledger.open()))
        return [
            CompletionItem(word, help=help)
            for word, help in found.items()
            if word.startswith(begun) and shlex.quote(word) == word
        ]

    return complete


def _live(ledger: Ledger) -> Iterator[tuple[str, str]]:
    from ..state.records import Record

    for record in ledger.records():
        if isinstance(record, Record):
            about = f"{record.session.browser} of {record.session.owner_name}"
            yield record.session.id, about
            if record.session.label:
                yield record.session.label, about


def _ended(ledger: Ledger) -> Iterator[tuple[str, str]]:
    for ended in ledger.ended(MOST_ENDED):
        yield ended.session.id, f"{ended.session.browser} of {ended.session.owner_name}"


def _labels(ledger: Ledger) -> Iterator[tuple[str, str]]:
    from ..state.records import Record

    for record in ledger.records():
        if isinstance(record, Record) and record.session.label:
            yield record.session.label, "live"
    for ended in ledger.ended(MOST_ENDED):
        if ended.label:
            yield ended.label, "ended"


live_sessions = _completer(_live)
"""Ids and labels of live sessions."""
ended_sessions = _completer(_ended)
"""Ids of ended sessions."""
labels = _completer(_labels)
"""Labels of live and of ended sessions."""


def files(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The shell's own completion of paths."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(begun, type="file")]


__all__ = ["ended_sessions", "files", "labels", "live_sessions"]
