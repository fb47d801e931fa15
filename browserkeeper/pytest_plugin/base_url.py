"""The base URL of a run: ``driver.get("/cart")`` opens that address relative to it, as a link in a page.

Where pytest-base-url is loaded, which pytest-selenium and pytest-playwright bring along, its option, its
ini key and its fixture ``base_url`` are used.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from .failing import fail

SCHEMES = ("http", "https", "file")
OPTION = "--keeper-base-url"


def read(config: pytest.Config, value: str, place: str) -> str:
    """The base URL that was given to this plugin, checked; "" without one.

    ``place`` says where it was given.  Raises pytest.UsageError for a value that is not valid, and where
    pytest-base-url was given another one.
    """
    if problem := problem_of(value):
        raise pytest.UsageError(f"{place}: {problem}")
    other = _given_to_pytest_base_url(config)
    if value and other and value != other:
        raise pytest.UsageError(
            f"{place} is {value!r}, and that of pytest-base-url is {other!r} (--base-url, "
            "PYTEST_BASE_URL or the ini key base_url): give the one or the other."
        )
    return value


def problem_of(value: str) -> str:
    """Why it cannot be a base URL; "" if it can be one, or is empty."""
    try:
        parts = urlsplit(value)
    except ValueError as error:
        return f"{value!r} is no base URL: {error}."
    if not value or (parts.scheme in SCHEMES and (parts.netloc or parts.scheme == "file")):
        return ""
    return f"{value!r} is no base URL. Give an absolute one, such as http://localhost:8000."


def has_pytest_base_url(config: pytest.Config) -> bool:
    return hasattr(config.option, "verify_base_url")


def _given_to_pytest_base_url(config: pytest.Config) -> str:
    """Its option, or else its ini key, which it may have copied into the option; "" without it."""
    if not has_pytest_base_url(config):
        return ""
    return str(config.getoption("base_url") or config.getini("base_url") or "")


def of_run(request: pytest.FixtureRequest, given: str) -> str:
    """The base URL of the tests; ``given`` is that of this plugin's option.

    Fails the test with one line if the fixture ``base_url`` of pytest-base-url, or an override of it,
    has another value.
    """
    if not has_pytest_base_url(request.config):
        return given
    theirs: Any = request.getfixturevalue("base_url")
    if theirs is None or theirs == "":
        return given
    if given and theirs != given:
        fail(
            f"{OPTION} is {given!r}, and the fixture base_url is {theirs!r}: give the one or the other."
        )
    return checked(theirs, "base_url")


def checked(value: Any, fixture: str) -> str:
    """The value of a fixture, "" for None.  Fails the test with one line if it is no base URL."""
    if value is None:
        return ""
    if not isinstance(value, str):
        fail(f"the fixture {fixture} must return a URL as str, not {value!r}.")
    if problem := problem_of(value):
        fail(f"the fixture {fixture}: {problem}")
    return value
