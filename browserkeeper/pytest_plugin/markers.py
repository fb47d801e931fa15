"""The markers: their help texts, a check of their arguments, and the values that a test has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

LINES = (
    "keeper_browser(*names): run this test on these browsers, whatever the command line says",
    "keeper_skip(*names, reason=''): do not run this test on these browsers",
    "keeper_options(**arguments): arguments of browserkeeper.browser() for this test's browsers",
    "keeper_timeout(seconds): how long this test's browser may live",
    "keeper_allow_leak(reason): a browser that this test leaves running does not fail it",
)
"""As ``pytest --markers`` shows them."""

NAMES = tuple(line.partition("(")[0] for line in LINES)

BROWSER_NAME = "keeper_browser_name"
"""The fixture whose parameter is the browser's name."""

SHARED_BY_TESTS = {"keeper_pool", "keeper_module_driver"}
"""The fixtures whose browsers several tests share."""

HIDDEN: Any = getattr(pytest, "HIDDEN_PARAM", None)
"""Keeps a parameter out of a test's id.  None before pytest 8.4."""


def register(config: pytest.Config) -> None:
    for line in LINES:
        config.addinivalue_line("markers", line)


# ------------------------------------------------------------------------------------ checking


def problem(mark: pytest.Mark) -> str:
    """What is wrong with a marker; "" if it is valid, or not one of this plugin."""
    checks = {
        "keeper_browser": _browsers_problem,
        "keeper_skip": _skip_problem,
        "keeper_options": _options_problem,
        "keeper_timeout": _timeout_problem,
        "keeper_allow_leak": _reason_problem,
    }
    check = checks.get(mark.name)
    near = difflib.get_close_matches(mark.name, NAMES, n=1, cutoff=0.8)
    if check is not None:
        text = check(mark)
    else:
        text = f"there is no such marker. Did you mean {near[0]}?" if near else ""
    return f"@pytest.mark.{mark.name}: {text}" if text else ""


def problems(marks: Iterable[pytest.Mark]) -> list[str]:
    return [text for mark in marks if mark.name.startswith("keeper_") and (text := problem(mark))]


def _browsers_problem(mark: pytest.Mark) -> str:
    return "it takes no keyword arguments." if mark.kwargs else _names_problem(mark)


def _names_problem(mark: pytest.Mark) -> str:
    from ..config import SessionConfig
    from ..errors import ConfigError

    if not mark.args:
        return f'give it the names of browsers, such as {mark.name}("firefox").'
    try:
        for name in mark.args:
            SessionConfig.build(name=name)
    except ConfigError as error:
        return str(error)
    return ""


def _skip_problem(mark: pytest.Mark) -> str:
    if not isinstance(mark.kwargs.get("reason", ""), str) or set(mark.kwargs) - {"reason"}:
        return "its only keyword argument is reason=, a string."
    return _names_problem(mark)


def _options_problem(mark: pytest.Mark) -> str:
    from ..config import SessionConfig
    from ..errors import ConfigError

    if mark.args or not mark.kwargs:
        return "give it arguments of browser() by name, such as keeper_options(window_size=(800, 600))."
    known = browser_arguments()
    unknown = [name for name in mark.kwargs if name not in known]
    if unknown:
        return f"browser() has no argument {', '.join(unknown)}. It has: {', '.join(sorted(known))}."
    try:
        SessionConfig.build(**mark.kwargs)
    except ConfigError as error:
        return str(error)
    return ""


def _timeout_problem(mark: pytest.Mark) -> str:
    from ..config import check_seconds
    from ..errors import ConfigError

    if len(mark.args) != 1 or mark.kwargs:
        return "give it one number of seconds, such as keeper_timeout(30)."
    try:
        check_seconds("seconds", mark.args[0])
    except ConfigError as error:
        return str(error)
    return ""


def _reason_problem(mark: pytest.Mark) -> str:
    reason = allowed_reason(mark)
    if len(mark.args) + len(mark.kwargs) == 1 and isinstance(reason, str) and reason.strip():
        return ""
    return 'give it one reason, such as keeper_allow_leak("issue 123").'


def browser_arguments() -> set[str]:
    from ..config import BrowserArguments

    return set(BrowserArguments.__annotations__)


# ------------------------------------------------------------------------------------- reading


def allowed_reason(mark: pytest.Mark) -> Any:
    """The reason that a keeper_allow_leak gives."""
    return mark.args[0] if mark.args else mark.kwargs.get("reason")


def options_of(item: pytest.Item | pytest.Collector) -> dict[str, Any]:
    """The arguments for ``browser()``; a marker on the test wins over one on its class."""
    merged: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers("keeper_options"))):
        merged.update(mark.kwargs)
    if (timeout := item.get_closest_marker("keeper_timeout")) is not None:
        merged["timeout"] = timeout.args[0]
    return merged


def skips_of(item: pytest.Item) -> dict[str, str]:
    """The browsers that a test is skipped on, each with the reason."""
    return {
        name: mark.kwargs.get("reason") or f"keeper_skip({name!r})"
        for mark in item.iter_markers("keeper_skip")
        for name in mark.args
    }


def parametrize(metafunc: pytest.Metafunc, default: tuple[str, ...]) -> None:
    """Make one test for each of its browsers; with a single browser the test stays as it is.

    A test that uses a fixture of SHARED_BY_TESTS is parametrized with a single browser too: otherwise it
    would share the browser of tests with another one, since pytest keeps a fixture without a parameter.
    A single browser is not shown in the test's id.
    """
    item = metafunc.definition
    if BROWSER_NAME not in metafunc.fixturenames or _is_parametrized(item):
        return
    mark = item.get_closest_marker("keeper_browser")
    names = dict.fromkeys(mark.args if mark else default)
    skipped = skips_of(item)
    alone = mark is None and len(names) == 1
    if mark is None and _is_overridden(metafunc):
        return
    if alone and not skipped and not SHARED_BY_TESTS & set(metafunc.fixturenames):
        return
    shown = {name: HIDDEN if alone and HIDDEN else name for name in names}
    parameters = [_parameter(name, skipped, shown[name]) for name in names]
    metafunc.parametrize(BROWSER_NAME, parameters, scope="session")


def _parameter(name: str, skipped: Mapping[str, str], shown: Any) -> Any:
    marks = [pytest.mark.skip(reason=skipped[name])] if name in skipped else []
    return pytest.param(name, marks=marks, id=shown)


def _is_overridden(metafunc: pytest.Metafunc) -> bool:
    """Does a conftest or the test's module override the fixture?"""
    definitions: list[Any] = getattr(metafunc, "_arg2fixturedefs", {}).get(BROWSER_NAME) or []
    return bool(definitions) and not definitions[-1].func.__module__.startswith(__package__ or "?")


def _is_parametrized(item: pytest.Item) -> bool:
    return any(BROWSER_NAME in _names(mark) for mark in item.iter_markers("parametrize"))


def _names(mark: pytest.Mark) -> list[str]:
    first: tuple[Any, ...] = mark.args[:1]
    names = first[0] if first else mark.kwargs.get("argnames", ())
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
