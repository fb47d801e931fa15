"""What the site needs beyond the pages in docs/, as hooks of mkdocs (mkdocs.yml).

- Pages link to files outside of docs/ (``../examples/login_once.py``), which GitHub shows. The site has
  a page for each such file below ``repository/``, and the links lead there.
- ``*.md`` in the navigation stands for all pages of that folder that it does not name.
- Directives of mkdocstrings and mkdocs-click are in comments, which GitHub does not show:
  ``<!-- ::: browserkeeper.browser -->``.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = "repository"
"""The folder of the site for pages of files outside of docs/."""
FENCE = re.compile(r"(^ *```.*?^ *```[^\S\n]*$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
DIRECTIVE = re.compile(r"^<!--\s*(::: .*?)\s*-->$", re.MULTILINE | re.DOTALL)
LANGUAGES = {
    ".conf": "ini",
    ".json": "json",
    ".py": "python",
    ".service": "ini",
    ".sh": "sh",
    ".socket": "ini",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
}
"""Of a file's block, by the end of the file's name."""


# -- hooks


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replaces each ``FOLDER/*.md`` of the navigation by the pages of the folder."""
    named = set(_named_pages(config.nav))
    config.nav = _with_pages(config.nav, Path(config.docs_dir), named)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each file outside of docs/ that a page links to, or a page of these."""
    docs = Path(config.docs_dir).relative_to(ROOT).as_posix()
    pages = [f"{docs}/{file.src_uri}" for file in files.documentation_pages()]
    todo = [(page, (ROOT / page).read_text()) for page in pages]
    known = {_place_of(page, docs) for page in pages}
    while todo:
        source, text = todo.pop()
        for target in _targets(source, text):
            place = _place_of(target, docs)
            if place in known or target.startswith(f"{docs}/"):
                continue
            known.add(place)
            shown = _page_text(target)
            files.append(File.generated(config, place, content=shown))
            todo.append((_source_of(place, docs), shown))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Has links lead to the site's pages, and takes directives out of their comments."""
    docs = Path(config.docs_dir).relative_to(ROOT).as_posix()
    place = page.file.src_uri
    source = _source_of(place, docs)

    def lead(match: re.Match[str]) -> str:
        target = _resolve(source, match[1])
        if target is None:
            return match.group()
        there = posixpath.relpath(_place_of(target, docs), posixpath.dirname(place) or ".")
        return there + (match[2] or "")

    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(lead, DIRECTIVE.sub(r"\1", part)) for part in parts[::2]]
    return "".join(parts)


# -- the navigation


def _named_pages(nav: Any) -> Iterator[str]:
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        if isinstance(value, str):
            yield value
        else:
            yield from _named_pages(value)


def _with_pages(nav: Any, docs: Path, named: set[str]) -> list[Any]:
    found: list[Any] = []
    for entry in nav:
        if isinstance(entry, dict):
            ((title, value),) = entry.items()
            found.append({title: value if isinstance(value, str) else _with_pages(value, docs, named)})
        elif entry.endswith("*.md"):
            pages = (path.relative_to(docs).as_posix() for path in sorted(docs.glob(entry)))
            found.extend(page for page in pages if page not in named)
        else:
            found.append(entry)
    return found


# -- files outside of docs/


def _targets(source: str, text: str) -> Iterator[str]:
    """The paths from the repository's root that a page links to, if they exist."""
    for part in FENCE.split(text)[::2]:
        for match in LINK.finditer(part):
            if target := _resolve(source, match[1]):
                yield target


def _resolve(source: str, link: str) -> str | None:
    """The path from the repository's root of a relative link, or None if no such file exists."""
    if "://" in link or link.startswith(("/", "mailto:")):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    return target if not target.startswith("..") and (ROOT / target).exists() else None


def _readable(path: str) -> str:
    """A folder's README.md, if it has one; else the path itself."""
    readme = f"{path}/README.md"
    return readme if (ROOT / readme).is_file() else path


def _place_of(target: str, docs: str) -> str:
    """The ``src_uri`` of the page that the site has for a file, by its path from the root."""
    if target.startswith(f"{docs}/"):
        return target.removeprefix(f"{docs}/")
    if (ROOT / target).is_dir():
        target = f"{target}/README.md"
    elif not target.endswith(".md"):
        target = f"{target}.md"
    # mkdocs leaves out files whose names begin with a dot.
    return f"{OUTSIDE}/" + re.sub(r"(^|/)[.]", r"\1", target)


def _source_of(place: str, docs: str) -> str:
    """The path from the root of what a page shows, by its ``src_uri``."""
    if not place.startswith(f"{OUTSIDE}/"):
        return f"{docs}/{place}"
    return place.removeprefix(f"{OUTSIDE}/")


def _page_text(target: str) -> str:
    """The page of a file or of a folder, which the search leaves out."""
    head = "---\nsearch:\n  exclude: true\n---\n"
    path = ROOT / _readable(target)
    if path.suffix == ".md":
        return head + path.read_text()
    if path.is_dir():
        inside = sorted(entry for entry in path.iterdir() if not entry.name.startswith((".", "__")))
        listed = "".join(f"- [{entry.name}]({entry.name})\n" for entry in inside)
        return f"{head}# {target}\n\n{listed}"
    text = path.read_text(errors="replace")
    fence = "`" * 4
    return f"{head}# {target}\n\n{fence}{LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n{fence}\n"
