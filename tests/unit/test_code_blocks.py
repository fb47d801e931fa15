"""Every fenced code block of every page: it names its language, and is right in that language.

This is the least that a block passes. Blocks that are whole files are run as well, by the tests in
``tests/docs``.
"""

from __future__ import annotations

import ast
import configparser
import functools
import importlib
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from xml.etree import ElementTree

import click
import pytest
import yaml

import browserkeeper
from browserkeeper import pytest_plugin
from browserkeeper.cli import group
from tests.support.pages import ROOT, Block, blocks_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "benchmarks").glob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
)
KEPT = ("browser", "BrowserPool")
"""Functions and classes of browserkeeper whose keyword arguments are checked in a block."""
INDENTED = re.compile(r"(?:^|\n)[^\S\n]*\n {4,}[^\s*\-+\d|>]")
"""Code without a fence has no language, so nothing could check it."""
OPTION = re.compile(r"--[a-z][\w-]*")
PROMPT = re.compile(r"^\$ (.*)$", re.MULTILINE)


# -- Python


def check_python(text: str) -> None:
    """It compiles; the names of browserkeeper that it uses exist, and so do their arguments."""
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for node in ast.walk(compile(text, "block", "exec", flags)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("browserkeeper"):
            assert node.module
            module = importlib.import_module(node.module)
            for name in node.names:
                known = hasattr(module, name.name) or is_module(f"{node.module}.{name.name}")
                assert known, f"{node.module} has no {name.name}"
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("browserkeeper"):
                    importlib.import_module(name.name)
        elif isinstance(node, ast.Attribute) and is_named(node.value, "browserkeeper"):
            known = hasattr(browserkeeper, node.attr) or is_module(f"browserkeeper.{node.attr}")
            assert known, f"browserkeeper has no {node.attr}"
        elif isinstance(node, ast.Call):
            check_arguments(node)


def check_arguments(call: ast.Call) -> None:
    name = next((name for name in KEPT if is_named(call.func, name)), None)
    if name is None:
        return
    known = set(inspect.signature(getattr(browserkeeper, name)).parameters)
    given = {word.arg for word in call.keywords if word.arg is not None}
    if name == "BrowserPool":  # what it does not know, it gives to browser()
        known |= set(inspect.signature(browserkeeper.browser).parameters)
    assert not given - known, f"{name}() has no argument {given - known}"


def is_named(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


# -- commands


def check_shell(text: str) -> None:
    """The shell can parse it; the commands of browserkeeper, the options of pytest's plugin and the
    targets of make that it names exist."""
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for words in commands_in(text):
        check_command(words)


def check_console(text: str) -> None:
    """A session at a terminal: the lines after "$ " are commands, the others are output."""
    commands = PROMPT.findall(text)
    assert commands, 'no line begins with "$ "; a block without them is `sh`, or `text` for output'
    for command in commands:
        check_shell(command.removesuffix("\\"))


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of each command of a script, without comments, pipes and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()<>")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # a quoted text that goes over several lines
            continue
        command: list[str] = []
        for word in words:
            if set(word) <= set(";&|()"):
                yield command
                command = []
            else:
                command.append(word)
        yield command


def check_command(words: list[str]) -> None:
    """Checks a command if it is one of ours; words before it may start it (``kubectl exec … --``)."""
    for at, word in enumerate(words):
        if word.rpartition("/")[2] == "browserkeeper":
            check_browserkeeper(words[at + 1 :], of_celery="celery" in words[:at])
            return
        if word.rpartition("/")[2] in ("pytest", "py.test"):
            check_pytest(words[at + 1 :])
            return
        if word == "make" and at == 0:
            check_make(words[1:])
        if word == "-m" and words[at - 1].rpartition("/")[2].startswith("python"):
            check_module(words[at + 1])


def check_browserkeeper(words: list[str], *, of_celery: bool = False) -> None:
    if not words or (words[0].startswith("-") and set(words) <= {"-h", "--help", "--version"}):
        return
    if of_celery:
        from browserkeeper.celery.commands import group as commands
    else:
        commands = group
    context = click.Context(commands, info_name="browserkeeper")
    command = commands.get_command(context, words[0])
    assert command is not None, f"no command browserkeeper {words[0]}"
    known = {text for option in command.params for text in (*option.opts, *option.secondary_opts)}
    mine = words[1 : words.index("--")] if "--" in words else words[1:]
    given = {match.group() for word in mine if (match := OPTION.match(word))} - {"--help"}
    assert not given - known, f"browserkeeper {words[0]} has no {given - known}"


def check_pytest(words: list[str]) -> None:
    given = {match.group() for word in words if (match := OPTION.match(word))}
    unknown = {option for option in given if option.startswith("--keeper")} - options_of_pytest()
    assert not unknown, f"pytest has no {unknown}"


@functools.cache
def options_of_pytest() -> set[str]:
    parser = pytest.Parser(_ispytest=True)
    pytest_plugin.pytest_addoption(parser)
    groups = (*parser._groups, parser._anonymous)
    return {name for group in groups for option in group.options for name in option.names()}


def check_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    given = {word for word in words if "=" not in word and not word.startswith("-")}
    assert not given - targets, f"the Makefile has no {given - targets}"


def check_module(name: str) -> None:
    if name.partition(".")[0] in ("examples", "benchmarks", "tests", "scripts", "browserkeeper"):
        assert is_module(name), f"no module {name}"


# -- files


def check_ini(text: str) -> None:
    """Files of systemd, supervisord and pytest: sections with keys, of which systemd repeats some."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True)
    parser.read_string(text)
    assert parser.sections()


def check_yaml(text: str) -> None:
    assert list(yaml.safe_load_all(text))


def check_dockerfile(text: str) -> None:
    known = {
        "FROM",
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "ARG",
        "CMD",
        "ENTRYPOINT",
        "USER",
        "WORKDIR",
        "EXPOSE",
    }
    lines = (line for line in text.replace("\\\n", " ").splitlines() if line.strip())
    words = [line.split()[0] for line in lines if not line.startswith("#")]
    assert words
    assert set(words) <= known


def check_robot(text: str) -> None:
    from robot.api import TestSuite

    suite = TestSuite.from_string(text)
    assert not suite.has_tests or all(test.body for test in suite.tests)


def check_javascript(text: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node")
    done = subprocess.run(
        [node, "--check", "--input-type=module", "-"], input=text, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def check_crontab(text: str) -> None:
    """Variables; and five fields, or a word such as @hourly, before a command that is checked."""
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("#") or re.match(r"\w+ *=", line):
            continue
        when = r"@\w+" if line.startswith("@") else r"(?:[\d*/,-]+\s+){4}[\d*/,\w-]+"
        match = re.match(rf"{when}\s+(.+)", line)
        assert match, line
        check_shell(match.group(1))


def anything(_: str) -> None:
    """Output and pictures in letters."""


CHECKS: dict[str, Callable[[str], object]] = {
    "conf": check_ini,
    "console": check_console,
    "cron": check_crontab,
    "crontab": check_crontab,
    "dockerfile": check_dockerfile,
    "html": anything,
    "ini": check_ini,
    "javascript": check_javascript,
    "json": json.loads,
    "python": check_python,
    "robotframework": check_robot,
    "sh": check_shell,
    "systemd": check_ini,
    "text": anything,
    "toml": tomllib.loads,
    "xml": ElementTree.fromstring,
    "yaml": check_yaml,
}
"""By the language that a block names."""


@pytest.mark.parametrize("page", PAGES)
def test_code_blocks_are_right_in_their_language(page: str) -> None:
    for block in blocks_of(page):
        check(block)


def check(block: Block) -> None:
    assert block.language in CHECKS, (
        f"{block.where}: a block of {block.language or 'no language'}. "
        f"Name one of {', '.join(CHECKS)} after ```; `text` is for output."
    )
    try:
        CHECKS[block.language](block.text)
    except Exception as error:
        raise AssertionError(f"{block.where} ({block.language}): {error}") from error


@pytest.mark.parametrize("page", PAGES)
def test_no_page_has_code_without_a_fence(page: str) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    lists = re.compile(r"^(?:\s*(?:[-*+]|\d+\.)\s.*\n(?:[^\S\n]*\n|\s+.*\n)*)+", re.MULTILINE)
    assert not INDENTED.search(lists.sub("", text))


WRONG = {
    "python": [
        "def (",
        "from browserkeeper import browsers",
        "import browserkeeper\nbrowserkeeper.open_all()",
        "from browserkeeper import browser\nbrowser(time_out=3)",
        "BrowserPool('chrome', size=3)",
    ],
    "sh": [
        "if true",
        "browserkeeper list",
        "browserkeeper ps --trees",
        "pytest --keeper-browsers chrome",
        "make tests",
        "python -m examples.nothing",
        "env A=1 browserkeeper sweep --force",
        "kubectl exec POD -- browserkeeper drian",
        "celery -A app browserkeeper drian",
    ],
    "console": ["browserkeeper ps", "$ browserkeeper pss\nNo live sessions."],
    "crontab": ["* * * browserkeeper sweep", "@hourly browserkeeper sweeps"],
    "dockerfile": ["FORM debian"],
    "json": ["{a: 1}"],
    "toml": ["a = b"],
    "yaml": ["a: b: c"],
    "ini": ["key = 1"],
    "xml": ["<a>"],
    "": ["text"],
    "basic": ["10 PRINT"],
}


@pytest.mark.parametrize(
    ("language", "text"), [(k, text) for k, texts in WRONG.items() for text in texts]
)
def test_control_a_wrong_block_is_found(language: str, text: str) -> None:
    with pytest.raises(AssertionError):
        check(Block("page.md", 1, language, "", text))
