"""Labels: the names that users give to sessions and pools, and that Celery and pytest fill in.

A label is shown on terminals, in logs, in error messages and on HTML pages, and commands select sessions
by it.  So it holds no character that does not show: two labels that look the same are the same.
"""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from typing import Any

from ..errors import ConfigError

LONGEST = 200
"""Characters of a label."""
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks without a glyph.  ``str.isprintable()`` accepts them: they are neither control
characters nor format characters.  From Unicode's property Default_Ignorable_Code_Point, and the blank
braille pattern."""


def check_label(name: str, value: Any) -> str:
    """The label that a user gave for the argument ``name``, as a plain str.  Raises ConfigError."""
    if not isinstance(value, str):
        raise ConfigError(f"{name}={value!r}: give a string, such as {name}='checkout-monitor'.")
    text = str.__str__(value)  # of an enum's member too, whose own str() is its name
    if len(text) > LONGEST:
        raise ConfigError(
            f"{name}={_shortened(text, 40)!r} has {len(text)} characters: give it {LONGEST} at most."
        )
    for position, character in enumerate(text):
        if not _shows(character):
            raise ConfigError(
                f"{name}={text!r} holds {_name_of(character)} at position {position}, which does not "
                "show as a character: leave it out."
            )
    if not text or text != text.strip():
        why = "begins or ends with a space" if text.strip() else "is empty"
        raise ConfigError(f"{name}={text!r} {why}: give it visible text, or leave it out.")
    return text


def safe_label(text: object) -> str:
    """A label made of any text: what does not show is escaped as in Python's strings, and the middle of
    a long one is replaced by an ellipsis.  "" for a text without visible characters."""
    whole = str(text).strip()
    if len(whole) > 2 * LONGEST:  # the rest would be cut anyway, and may be megabytes
        whole = whole[:LONGEST] + whole[-LONGEST:]
    shown = "".join(c if _shows(c) else _escaped(c) for c in whole)
    return _shortened(shown, LONGEST)


def matches(label: str, pattern: str) -> bool:
    """Is this the label, or one that fits the pattern?  ``*`` stands for any characters, ``?`` for one.

    Brackets stand for themselves: Celery's and pytest's labels have them.  False for "", which is no
    label.
    """
    return label != "" and fnmatch.fnmatchcase(label, pattern.replace("[", "[[]"))


def _shows(character: str) -> bool:
    """A line break, an escape sequence, a direction mark and a half of a surrogate pair do not."""
    return character.isprintable() and not _INVISIBLE.match(character)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _name_of(character: str) -> str:
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()


def _shortened(text: str, most: int) -> str:
    """The end is kept too: a task's id and a test's parameters are there."""
    if len(text) <= most:
        return text
    head = (most - len(ELLIPSIS)) * 2 // 3
    tail = most - len(ELLIPSIS) - head
    return (text[:head].rstrip() + ELLIPSIS + text[-tail:]).strip()


__all__ = ["ELLIPSIS", "LONGEST", "check_label", "matches", "safe_label"]
