"""The options of a Firefox that have no effect in a new user context.

Preferences and arguments apply to the whole process, and so to its contexts; extensions run in them.
Options are lost that apply only to the first window's page, which no lease gets, or that the pool sets
for all contexts.  The tables come from Firefox's documentation and from single trials with Firefox 153.
No test repeats them in a browser: ``tests/pool/test_options_in_leases.py`` tests only Chromium.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..options.check import preferences_of_profile

FIRST_WINDOW = "it applies only to the first window's page, which no lease gets"
NO_PRIVATE = "Firefox has no containers in private windows"
NO_PROMPT = "a context saves its downloads without a question"
OWN_FOLDER = "each context has a folder of its own for its downloads"

PREFERENCES: Mapping[str, tuple[bool | int, str]] = {
    "permissions.isolateBy.userContext": (True, "all contexts would have the permissions of one"),
    "places.history.enabled": (False, "pages would show which links earlier leases have visited"),
    "browser.formfill.enable": (False, "form fields would offer what earlier leases have typed"),
    "browser.sessionstore.max_tabs_undo": (0, "tabs of earlier leases could be opened again"),
    "browser.sessionstore.max_windows_undo": (0, "windows of earlier leases could be opened again"),
}
"""Preferences of a Firefox with contexts, and why no other value can be held."""

LOST_PREFERENCES: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "browser.startup.page": ((0,), FIRST_WINDOW),
    "browser.privatebrowsing.autostart": ((False,), NO_PRIVATE),
    "browser.download.useDownloadDir": ((True,), NO_PROMPT),
    "browser.download.always_ask_before_handling_new_types": ((False,), NO_PROMPT),
    "browser.download.folderList": ((2,), OWN_FOLDER),
}
"""Preferences that a context holds only with these values, and why."""

LOST_ARGUMENTS: Mapping[str, str] = {
    "new-tab": FIRST_WINDOW,
    "new-window": FIRST_WINDOW,
    "private": NO_PRIVATE,
    "private-window": NO_PRIVATE,
    "search": FIRST_WINDOW,
    "url": FIRST_WINDOW,
}
"""Arguments without their dashes, in lower case, and why they are lost."""

FLAGS = frozenset(["foreground", "headless", "kiosk", "private", "safe-mode"])
"""Arguments without a value: what follows one of them is the address of a page."""


def lost_options(options: Any, preferences: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The user's preferences that are lost, each as text with the reason.

    ``preferences`` are those of ``browser()``, which replace those of ``options``.
    """
    of_options = getattr(options, "preferences", {})
    given = {**preferences_of_profile(options), **of_options, **preferences}
    for name, value in given.items():
        own, why = PREFERENCES.get(name, (value, ""))
        if value != own:
            yield f"preference {name!r}: {value!r}", why
        held, why = LOST_PREFERENCES.get(name, ((value,), ""))
        if value not in held:
            yield f"preference {name!r}: {value!r}", why


def lost_arguments(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The user's arguments that are lost, each with the reason."""
    before = ""
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0].lower()
        if argument.startswith("-"):
            if why := LOST_ARGUMENTS.get(name):
                yield f"argument {argument!r}", why
            before = "" if "=" in argument or name in FLAGS else name
        else:
            if not before:
                yield f"argument {argument!r}", FIRST_WINDOW
            before = ""


__all__ = ["PREFERENCES", "lost_arguments", "lost_options"]
