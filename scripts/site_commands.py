"""The command line for the site: the commands' help as Markdown, which mkdocs-click puts on a page.

click's own help is text for a terminal: a paragraph below ``\\b`` keeps its lines, and a plain paragraph
is filled. On the page such a paragraph is a code block.
"""

from __future__ import annotations

import copy
import inspect
import re

import click

from browserkeeper.cli import group as commands

HEADED = re.compile(r"\A\s*([A-Z][\w ]*):\n")


def as_markdown(text: str) -> str:
    """A help text with its ``\\b`` paragraphs as blocks, and with code where code is meant."""
    found = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        kept = paragraph.lstrip("\n")
        if not kept.startswith("\b"):
            found.append(in_code(paragraph))
            continue
        kept = kept.lstrip("\b\n")
        if head := HEADED.match(kept):
            found.append(f"{head[1]}:")
            kept = kept[head.end() :]
        language = "sh" if head and head[1].startswith("Example") else "text"
        found.append(f"```{language}\n{inspect.cleandoc(kept)}\n```")
    return "\n\n".join(found)


def in_code(text: str) -> str:
    """Options and characters that Markdown would read as its own, as code."""
    text = re.sub(r"(?<![\w`-])(--[a-z][\w-]*)", r"`\1`", text)
    return re.sub(r"(?<!`)\*(?!`)", r"\\*", text)


def documented() -> click.Group:
    """The group with all of its commands imported and their texts changed; the originals stay."""
    context = click.Context(commands, info_name="browserkeeper")
    found = click.Group("browserkeeper", params=commands.params, help=as_markdown(commands.help or ""))
    for name in commands.list_commands(context):
        command = copy.copy(commands.get_command(context, name))
        assert command is not None
        texts = [command.help, command.epilog]
        command.help = "\n\n".join(as_markdown(text) for text in texts if text)
        command.name = name  # else that of the function, which is `command` everywhere
        found.add_command(command, name)
    return found


group = documented()
