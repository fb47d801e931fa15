"""Writes the parts of docs/reference/ that the code owns: the arguments of browser(), end reasons.

    python -m scripts.reference [--check]

Such a part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``, so that the page reads on
GitHub as it does on the site. ``--check`` writes nothing, and exits with 1 if a page is out of date.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import griffe

from browserkeeper.report import REASONS
from browserkeeper.session import browser

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
PAGES = {
    "docs/host.md": "../host.md",
    "docs/identity.md": "../identity.md",
    "docs/options.md": "../options.md",
    "docs/server.md": "../server.md",
}


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(text: str) -> str:
    """A docstring's text in a cell of a table: one line, with Markdown's code."""
    text = " ".join(text.split())
    text = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text).replace("|", "\\|")
    for page, link in PAGES.items():
        text = text.replace(f"`{page}`", f"[{page.rpartition('/')[2]}]({link})")
    return text


# -- browser()


def arguments() -> str:
    """The arguments of browser() by its signature and its docstring."""
    known = inspect.signature(browser).parameters
    texts = {argument.name: argument.description for argument in described_arguments()}
    assert set(texts) == set(known) - {"unknown"}, set(texts) ^ set(known)
    rows = (
        [f"`{name}`", f"`{default_of(known[name])}`", kind_of(known[name]), cell(texts[name])]
        for name in texts
    )
    return table(["argument", "default", "type", "meaning"], rows)


def described_arguments() -> Iterator[griffe.DocstringParameter]:
    docstring = griffe.Docstring(inspect.cleandoc(browser.__doc__ or ""))
    for section in griffe.parse_google(docstring, warnings=False):
        if isinstance(section, griffe.DocstringSectionParameters):
            yield from section.value


def default_of(parameter: inspect.Parameter) -> str:
    value = parameter.default
    return f"{value:g}" if isinstance(value, float) else repr(value)


def kind_of(parameter: inspect.Parameter) -> str:
    """The annotation with a user's words: the values of a Literal, a path for an os.PathLike."""
    named = {"Debugging": "'pipe' | 'port'", "OnLeak": "'raise' | 'warn' | 'ignore'"}
    named["Kind"] = "'auto' | 'subreaper' | 'cgroup' | 'portable'"
    named["Wait"] = "float | 'start_timeout' | None"
    text = str(parameter.annotation)
    text = (
        named.get(text, text)
        .replace("str | os.PathLike[str]", "path")
        .replace("Literal[False]", "False")
    )
    return f"`{text}`".replace("|", "\\|")


# -- end reasons


def end_reasons() -> str:
    return table(["reason", "meaning"], ([f"`{name}`", cell(text)] for name, text in REASONS.items()))


PARTS: dict[str, Callable[[], str]] = {
    "arguments": arguments,
    "end-reasons": end_reasons,
}
"""What writes each part, by the name in its comment."""


def with_parts(text: str) -> str:
    """The page's text with its generated parts as the code has them now."""
    return PART.sub(lambda match: f"{match[1]}{PARTS[match[2]]()}{match[3]}", text)


def main() -> int:
    stale = []
    for page in sorted(REFERENCE.glob("*.md")):
        text = page.read_text()
        if (new := with_parts(text)) != text:
            stale.append(page)
            if "--check" not in sys.argv:
                page.write_text(new)
    for page in stale:
        print(f"{page.name}: {'is out of date' if '--check' in sys.argv else 'written'}")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
