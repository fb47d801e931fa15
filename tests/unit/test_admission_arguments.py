"""The arguments of ``browser()`` about the host's gate: what they take, and how others are refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from browserkeeper import BrowserPool, ConfigError, browser
from browserkeeper.config import START_TIMEOUT


def test_wait_is_as_long_as_the_start_timeout_unless_it_is_given() -> None:
    assert browser().config.wait == START_TIMEOUT
    assert browser(start_timeout=7).config.wait == 7
    assert browser(start_timeout=7, wait="start_timeout").config.wait == 7
    assert browser(start_timeout=7, wait=90).config.wait == 90
    assert browser(wait=0).config.wait == 0
    assert browser(wait=None).config.wait is None  # no limit


@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("inf"), True, False, "5", "start", []])
def test_a_wait_that_is_no_number_of_seconds_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^wait=.*: give a number of seconds, 0 to try once, or None"):
        browser(wait=value)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (1, 1),
        (2**30, 2**30),
        ("1GiB", 2**30),
        ("512MB", 512_000_000),
        ("512 MiB", 2**29),
        ("1.5GiB", 3 * 2**29),
        ("2g", 2**31),
        (" 100 ", 100),
        ("64kib", 65536),
    ],
)
def test_min_memory_is_a_number_of_bytes_or_a_size(given: Any, size: int) -> None:
    assert browser(min_memory=given).config.min_memory == size


@pytest.mark.parametrize(
    "value",
    [0, -1, 1.5, True, "", "GiB", "1 GB 2", "-1GiB", "0", "0.1", "1e9", "9" * 400, "½GiB", b"1", []],
)
def test_a_min_memory_that_is_no_size_is_refused(value: Any) -> None:
    shown = re.escape(repr(value))
    with pytest.raises(ConfigError, match=rf"^min_memory={shown}: give a size such as '1GiB', '512MB'"):
        browser(min_memory=value)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", float("inf")])
def test_a_max_browsers_that_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^max_browsers=.*: give a whole number, 1 or more"):
        browser(max_browsers=value)


@pytest.mark.parametrize(("name", "value"), [("max_browsers", 1), ("min_memory", "1GiB")])
def test_bounds_of_this_machine_are_refused_for_a_browser_on_a_grid(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}= cannot be used with remote=: "):
        browser(remote="http://grid.example:4444", **{name: value})
    with pytest.raises(ConfigError, match=rf"^{name}= cannot be used with remote=: "):
        BrowserPool(remote="http://grid.example:4444", **{name: value})
