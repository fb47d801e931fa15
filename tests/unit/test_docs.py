"""The documentation names what exists: links, anchors, paths, tests, layers, the hooks of pre-commit."""

from __future__ import annotations

import ast
import functools
import itertools
import re
from pathlib import Path

import pytest

from tests.support.pages import blocks_of

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
SHOWING_PATHS = ("sh", "text")
"""Languages of blocks in which paths are those of this repository."""
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
FILE = re.compile(r"[\w.-]+(?:/[\w.-]+)+\.(?:py|sh|md|yml|yaml|json|svg|conf|service)")
TEST = re.compile(r"test_\w+")
PERCENT = re.compile(r"%[.\d]*[a-z]")
OUTSIDE = re.compile(r"(?:gate|live|history)/")
"""Files in the state directory, not in the repository."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings; of equal ones the later are numbered."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", page.read_text())):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip().lower())
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        numbered = (f"{slug}-{number}" for number in itertools.count(1))
        found.add(slug if slug not in found else next(name for name in numbered if name not in found))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        place, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_a_page_names_exist(page: Path) -> None:
    """Paths in backticks, in commands and in overviews, from the root of the repository, of the package
    or of the page."""
    blocks = [block for block in blocks_of(name_of(page)) if block.language in SHOWING_PATHS]
    codes = [*CODE.findall(FENCE.sub("", page.read_text())), *(block.text for block in blocks)]
    words = {word for code in codes for word in FILE.findall(code) if not OUTSIDE.match(word)}
    places = (ROOT, ROOT / "browserkeeper", page.parent)
    assert not {word for word in words if not any((place / word).exists() for place in places)}


@functools.cache
def names_of_tests() -> set[str]:
    texts = (path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    return {name for text in texts for name in re.findall(r"def (test_\w+)\(", text)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    named = {code for code in CODE.findall(FENCE.sub("", page.read_text())) if TEST.fullmatch(code)}
    assert not named - names_of_tests()


def templates() -> set[str]:
    """Every string of the package, with "…" for what an f-string or "%" fills in."""
    found = set()
    for path in (ROOT / "browserkeeper").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            if isinstance(node, (ast.JoinedStr, ast.Constant)):
                constants = (part.value if isinstance(part, ast.Constant) else "…" for part in parts)
                found.add(PERCENT.sub("…", "".join(map(str, constants))))
    return found


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    tables = re.findall(r"^\| message \|.*\n\|[ -|]*\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert len(tables) > 5
    first, *others = ([CODE.findall(row.split("|")[1]) for row in t.splitlines()] for t in tables)
    messages = [message for row in first for message in row]
    # The sentences of the other tables may be put together from several strings.
    parts = [part for table in others for row in table for one in row for part in one.split("…")]
    known = templates()
    for text in [*messages, *(part.strip(" '(),.:") for part in parts)]:
        words = re.compile(" ".join(f"(?:{re.escape(word)}|…+)" for word in text.split()))
        assert any(map(words.search, known)), text
    assert len(messages) > 8


def test_the_design_page_shows_the_layers_of_the_architecture_test() -> None:
    source = ast.parse((ROOT / "tests" / "unit" / "test_architecture.py").read_text())
    (value,) = (
        node.value
        for node in source.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "LAYERS"
    )
    layers = [names - {"__init__"} for names in reversed(ast.literal_eval(value))]
    section = (
        (ROOT / "docs" / "design.md").read_text().partition("## The layers\n")[2].partition("\n## ")[0]
    )
    block = FENCE.search(section)
    assert block
    lines = block.group().splitlines()[1:-1]
    assert [set(re.split(r"\s{3,}", line)[0].split()) for line in lines] == layers


def test_pre_commit_runs_what_make_check_runs() -> None:
    hooks = re.findall(r"entry: \.venv/bin/(.*)", (ROOT / ".pre-commit-config.yaml").read_text())
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    assert hooks == re.findall(r"@\$\(BIN\)/(.*)", recipe.group(1))
