"""The fenced code blocks of the documentation's pages, so that a test runs the text that users copy.

A block that is a file has the file's name as its title::

    ```python title="app.py"

Blocks of a language are also found by it: ``blocks_of(page, "console")``.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w+-]*)(?P<attributes>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
TITLE = re.compile(r'title="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: its page as a path from the repository, and the line at which its text starts."""

    page: str
    line: int
    language: str
    title: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str, language: str = "") -> list[Block]:
    """The blocks of a page (``docs/pool.md``) from its top, all or those of a language."""
    text = (ROOT / page).read_text()
    found = [
        Block(
            page,
            text.count("\n", 0, match.start("text")) + 1,
            match["language"],
            title.group(1) if (title := TITLE.search(match["attributes"])) else "",
            textwrap.dedent(match["text"]),
        )
        for match in FENCE.finditer(text)
    ]
    return [block for block in found if language in ("", block.language)]


def files_of(page: str) -> dict[str, str]:
    """The text of each block that is a file, by the file's name."""
    named = [block for block in blocks_of(page) if block.title]
    files = {block.title: block.text for block in named}
    assert len(files) == len(named), f"{page}: two blocks have the same title"
    return files


def write_files(page: str, directory: Path) -> None:
    """Writes every block of a page that is a file below a directory, as a user would copy them."""
    for name, text in files_of(page).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
