"""Labels: what a user may give, what is made of names that Celery and pytest fill in, what fits a
pattern."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from browserkeeper import BrowserPool, ConfigError, browser
from browserkeeper.options.labels import LONGEST, check_label, matches, safe_label


class Monitor(str, enum.Enum):
    CHECKOUT = "checkout"


BAD = {
    "a line break": "two\nlines",
    "a line break at the end": "checkout\n",
    "a tab": "a\tb",
    "a bell": "bell\a",
    "NUL": "a\0b",
    "an escape sequence": "\x1b[31mred",
    "an escape sequence of one byte (C1)": "\x9b31mred",
    "a line separator of Unicode": "a\u2028b",
    "half of a surrogate pair": "half\ud800",
    "a byte that was no UTF-8": "caf\udce9",
    "right-to-left override": "left\u202eright",
    "right-to-left isolate": "left\u2067right",
    "zero-width space": "check\u200bout",
    "zero-width joiner": "check\u200dout",
    "byte order mark": "\ufeffcheckout",
    "soft hyphen": "check\u00adout",
    "an invisible letter": "check\u3164out",
    "a variation selector": "check\ufe0fout",
    "a tag": "check\U000e0061out",
    "a private character": "\ue000",
    "no characters": "",
    "spaces only": "  ",
    "a space at the end": "checkout ",
    "too many characters": "x" * (LONGEST + 1),
    "a number": 5,
    "True": True,
    "bytes": b"checkout",
    "a list": ["checkout"],
}


@pytest.mark.parametrize("value", BAD.values(), ids=list(BAD))
@pytest.mark.parametrize("taker", [browser, BrowserPool])
def test_a_label_that_does_not_show_as_it_is_is_refused(taker: Any, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^label=") as raised:
        taker(label=value)
    assert str(raised.value).isprintable(), "the message itself is shown on terminals"


def test_the_refusal_names_the_character_and_its_place() -> None:
    with pytest.raises(ConfigError, match=r"holds U\+202E RIGHT-TO-LEFT OVERRIDE at position 4"):
        browser(label="left\u202eright")


@pytest.mark.parametrize(
    "label",
    [
        "checkout-monitor",
        "Überwachung № 7",
        "店 の 監視",
        "مراقبة",
        "🛒 cart",
        "a[1] 'b' \"c\" <d>",
        "x" * LONGEST,
    ],
)
def test_labels_of_any_language_are_taken_as_they_are(label: str) -> None:
    assert browser(label=label).config.label == label
    assert BrowserPool(label=label).config.browser.label == label


def test_without_a_label_there_is_none() -> None:
    assert browser().config.label == browser(label=None).config.label == ""


def test_a_member_of_an_enumeration_stands_for_its_value() -> None:
    label = browser(label=Monitor.CHECKOUT).config.label
    assert (label, type(label)) == ("checkout", str)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("shop.check[1d8f]", "shop.check[1d8f]"),
        ("test_a.py::test_b[\x1b[31m]", "test_a.py::test_b[\\x1b[31m]"),
        ("test_a.py::test_b[a\nb\ud800\u202e]", "test_a.py::test_b[a\\nb\\ud800\\u202e]"),
        ("  spaces ", "spaces"),
        ("", ""),
        ("\n", ""),
        (None, "None"),
    ],
)
def test_what_is_filled_in_is_made_safe(text: object, label: str) -> None:
    assert safe_label(text) == label


def test_a_long_name_that_is_filled_in_keeps_its_beginning_and_its_end() -> None:
    label = safe_label("shop.tasks." + "x" * 500 + "[1d8f]")
    assert len(label) == LONGEST
    assert label.startswith("shop.tasks.xxx")
    assert label.endswith("xxx[1d8f]")
    assert "…" in label


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec=None), max_size=300))
def test_whatever_is_filled_in_would_be_taken_from_a_user_too(text: str) -> None:
    label = safe_label(text)
    assert not label or check_label("label", label) == label
    assert safe_label(label) == label


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("shop.check[1d8f]", True),
        ("shop.check[*]", True),
        ("shop.*", True),
        ("*1d8f*", True),
        ("shop.check?1d8f?", True),
        ("*", True),
        ("shop.check[1]", False),
        ("shop", False),
        ("SHOP.*", False),
        ("", False),
    ],
)
def test_patterns_have_stars_and_question_marks_and_brackets_stand_for_themselves(
    pattern: str, fits: bool
) -> None:
    assert matches("shop.check[1d8f]", pattern) == fits
    assert not matches("", pattern), "no label"
