"""The documentation as a site: the strict build, and what is in its pages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest

import browserkeeper
from browserkeeper.cli import group
from tests.support.pages import ROOT

pytestmark = pytest.mark.slow

LIMIT = 900
"""Seconds for a build, which takes 12 on a quiet machine."""


def build(root: Path, to: Path) -> subprocess.CompletedProcess[str]:
    """The build of `make docs` (without its --quiet), of a copy of the documentation."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(to)],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    done = build(ROOT, place)
    assert done.returncode == 0, done.stdout
    return place


class Page(HTMLParser):
    """The ids of a page's elements, the addresses that a browser fetches for it, and its plain text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given["id"]} if "id" in given else set()
        self.fetched += [given["src"]] if "src" in given else []
        if "href" in given:
            (self.links if tag == "a" else self.fetched).append(given["href"])

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def pages(site: Path) -> Iterator[Path]:
    """All but the page for addresses that do not exist, whose links are those of a server's root."""
    return (path for path in site.rglob("*.html") if path.name != "404.html")


def test_each_public_name_has_an_anchor_and_a_description(site: Path) -> None:
    html = (site / "reference" / "api.html").read_text()
    page = Page(site / "reference" / "api.html")
    for name in browserkeeper.__all__:
        assert f"browserkeeper.{name}" in page.ids, name
        found = re.search(
            rf'id="browserkeeper\.{name}".*?<div class="doc doc-contents[^>]*>.*?<p>(.*?)</p>',
            html,
            re.DOTALL,
        )
        assert found, name
        assert len(re.sub(r"<[^>]*>", "", found[1]).split()) >= 3, name


def test_no_role_of_sphinx_and_no_directive_is_left_in_a_page(site: Path) -> None:
    for path in pages(site):
        if "repository" not in path.relative_to(site).parts:
            assert not re.search(r":(meth|class|func|attr|data|mod):|::: ", Page(path).text), path


def test_each_command_has_its_options(site: Path) -> None:
    page = Page(site / "reference" / "cli.html")
    context = click.Context(group, info_name="browserkeeper")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        assert f"browserkeeper-{name}" in page.ids
        for option in command.params:
            assert not isinstance(option, click.Option) or option.opts[0] in page.text, (
                name,
                option.opts,
            )


def test_links_to_files_outside_of_docs_lead_to_pages_with_their_text(site: Path) -> None:
    example = Page(site / "repository" / "examples" / "login_once.py.html").text
    assert "from browserkeeper import" in example
    assert "examples/login_once.py.html" in " ".join(Page(site / "identity.html").links)
    assert "troubleshooting.html" in " ".join(Page(site / "repository" / "index.html").links)


def test_every_link_and_every_anchor_of_the_site_exists(site: Path) -> None:
    """Also those of pages that mkdocs does not check itself: in HTML, and made by plugins."""
    known = {path.resolve(): Page(path) for path in pages(site)}
    broken = []
    for path, page in known.items():
        for link in page.links:
            if "://" in link or link.startswith("mailto:"):
                continue
            place, _, anchor = link.partition("#")
            target = (path.parent / place).resolve() if place else path
            is_there = target.exists() or (target / "index.html").exists()
            anchors = known[target].ids if target in known else {anchor}
            if not is_there or (anchor and anchor not in anchors):
                broken.append(f"{path.relative_to(site.resolve())}: {link}")
    assert not broken


def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    for path in pages(site):
        assert not [address for address in Page(path).fetched if "//" in address], path


def test_every_page_of_docs_is_in_the_navigation(site: Path) -> None:
    links = set(Page(site / "index.html").links)
    for path in (ROOT / "docs").rglob("*.md"):
        place = path.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert place in links or place == "index.html"


BROKEN = {
    "a link": (
        "[gone](nowhere.md)",
        "[gone](pool.md#no-such-heading)",
        "[gone](../examples/nowhere.py)",
    ),
    "a name": ("<!-- ::: browserkeeper.no_such_name -->",),
}
COMPLAINTS = {
    "a link": ("nowhere.md", "no-such-heading", "nowhere.py"),
    "a name": ("no_such_name",),
}


@pytest.mark.parametrize("what", BROKEN)
def test_control_a_broken_page_fails_the_build(tmp_path: Path, what: str) -> None:
    """A copy of the configuration and the hooks, with two small pages of which one is right."""
    for name in ("mkdocs.yml", "scripts", "browserkeeper", "docs/assets"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, tmp_path / name)
        else:  # without what other tests write there meanwhile
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    configuration = (tmp_path / "mkdocs.yml").read_text().partition("\nnav:\n")[0]
    (tmp_path / "mkdocs.yml").write_text(f"{configuration}\nnav: ['*.md']\n")
    (tmp_path / "docs" / "pool.md").write_text("# Pool\n\n[pool](#pool)\n")
    (tmp_path / "docs" / "index.md").write_text("# Home\n\n" + "\n\n".join(BROKEN[what]))
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert [complaint for complaint in COMPLAINTS[what] if complaint not in done.stdout] == []
    assert "pool.md' contains" not in done.stdout
