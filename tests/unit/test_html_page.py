"""What all HTML pages share: escaped texts, the policy, an error where Jinja2 is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from browserkeeper.errors import ConfigError
from browserkeeper.html.page import render_page, require_jinja2
from tests.support.cli import ROOT

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(2)'>",
    "</style><style>* { display: none }",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(3)",
    "--><svg onload=alert(4)>",
    "'; img-src *",
]
TEMPLATE = """{% extends "base.html" %}
{% macro cell(text) %}<td>{{ text }}</td>{% endmacro %}
{% block body %}
<p title="{{ text }}">{{ text }}</p><table><tr>{{ cell(text) }}</table><pre>{{ "a" ~ text }}</pre>
{% endblock %}
"""


class Reader(HTMLParser):
    """The elements of a page, the values of their attributes, and their texts."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[str] = []
        self.values: list[str | None] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A page of another layer, in its own directory, with a name that Jinja2 does not know as HTML."""
    path = tmp_path / "page.jinja"
    path.write_text(TEMPLATE)
    path.with_name("page.css").write_text("p > b { color: red }")
    return path


def page_with(template: Path, text: str, *, images: bool = False) -> str:
    facts = {"title": text, "text": text}
    return render_page(template, template.with_name("page.css"), images=images, **facts)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_of_other_programs_stays_a_text_wherever_a_template_prints_it(
    template: Path, text: str
) -> None:
    read, harmless = Reader(page_with(template, text)), Reader(page_with(template, "harmless"))
    assert read.elements == harmless.elements
    assert read.values == [text if value == "harmless" else value for value in harmless.values]
    assert read.texts == [found.replace("harmless", text) for found in harmless.texts]
    assert sum(text in found for found in read.texts) == 4, "title, paragraph, macro, joined text"


def test_characters_that_do_not_print_are_replaced_and_lines_stay_lines(template: Path) -> None:
    texts = Reader(page_with(template, "one\n\ttwo\x1b[31m\u202e\ud800\x00")).texts
    assert "one\n\ttwo\ufffd[31m\ufffd\ufffd\ufffd" in texts


def test_the_policy_allows_images_only_if_the_page_asks_for_them(template: Path) -> None:
    def policy(*, images: bool) -> str:
        values = Reader(page_with(template, "x", images=images)).values
        return next(value for value in values if value and value.startswith("default-src"))

    hashed = "default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; "
    end = "base-uri 'none'; form-action 'none'"
    assert re.fullmatch(hashed + end, policy(images=False))
    assert re.fullmatch(hashed + "img-src data:; " + end, policy(images=True))


def test_the_style_sheet_is_not_escaped(template: Path) -> None:
    assert "<style>p > b { color: red }</style>" in page_with(template, "x")


def test_a_variable_that_the_template_misspells_is_an_error(template: Path) -> None:
    template.write_text('{% extends "base.html" %}{% block body %}{{ texd }}{% endblock %}')
    with pytest.raises(UndefinedError, match="texd"):
        page_with(template, "x")


# ------------------------------------------------------------------------------------ without Jinja2


def without_jinja2(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python that has no Jinja2."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "jinja2.py").write_text("raise ModuleNotFoundError('No module', name='jinja2')")
    return {**os.environ, "PYTHONPATH": f"{modules}:{ROOT}"}


@pytest.mark.parametrize("target", ["page.html", "-", "/nowhere/at/all.html"])
def test_report_html_without_jinja2_names_the_extra_before_it_looks_at_anything(
    tmp_path: Path, target: str
) -> None:
    environment = {**without_jinja2(tmp_path), "BROWSERKEEPER_STATE_DIR": "/dev/null/no/directory"}
    words = [sys.executable, "-m", "browserkeeper", "report", "--html", target]
    working = tmp_path / "working"
    working.mkdir()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=working)
    assert done.returncode != 0
    assert "--html needs Jinja2" in done.stderr
    assert "pip install 'browserkeeper[html]'" in done.stderr
    assert done.stdout == ""
    assert not os.listdir(working), "no page was begun"


def test_report_without_html_needs_no_jinja2(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "browserkeeper", "report", "--since", "1m"]
    done = subprocess.run(words, env=without_jinja2(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_module_that_jinja2_itself_lacks_is_not_called_a_missing_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jinja2.py").write_text("import a_module_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "jinja2"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_nobody_has") as caught:
        require_jinja2("--html")
    assert not isinstance(caught.value, ConfigError)
