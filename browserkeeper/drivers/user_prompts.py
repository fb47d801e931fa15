"""How dialogs are handled in a session for which browserkeeper, and not the user, has turned BiDi on.

With BiDi, browsers answer a dialog as soon as it opens, unless the capability
``unhandledPromptBehavior`` is ``ignore``.  Without BiDi a dialog stays open until a command finds it
(measured with ChromeDriver 156 and geckodriver 0.37).  So here the session is started with ``ignore``,
and the command that finds a dialog handles it as the user's options say.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import hide_frames as __tracebackhide__  # noqa: F401

RunCommand = Callable[[str, dict[str, Any]], Any]
"""Runs a classic WebDriver command, given its name and parameters."""

WITHOUT_BIDI = {"default": "ignore", "beforeUnload": "accept"}
"""The session's ``unhandledPromptBehavior``.  A ``beforeunload`` dialog is accepted, as without BiDi."""

FOUND = re.compile(r'Unexpected (\w+) dialog detected\. Performed handler "ignore"')
"""Firefox's error for a command that found a dialog; the group is the kind of dialog."""
FOUND_BY_CHROMEDRIVER = "unexpected alert open"
"""ChromeDriver's error, which does not tell the kind."""


class UserPrompts:
    """How the user wants a dialog to be handled that blocks a command (w3.org/TR/webdriver2, user
    prompts)."""

    def __init__(self, wanted: Any = None):
        """``wanted``: the capability ``unhandledPromptBehavior``, a word or words by kind of dialog."""
        self._wanted = wanted

    @classmethod
    def of(cls, options: Any) -> UserPrompts:
        """From the user's options."""
        return cls((getattr(options, "capabilities", None) or {}).get("unhandledPromptBehavior"))

    @classmethod
    def take_over(cls, options: Any, of_user: Any, engine: str) -> UserPrompts | None:
        """Change ``options``, with which the session starts, so that dialogs are left to this class.

        Returns None, and changes nothing, if BiDi is off, or if the user has turned it on: then dialogs
        behave as with Selenium's BiDi.  The same for a Chromium whose ``unhandledPromptBehavior`` names
        kinds of dialogs one by one, since ChromeDriver's error does not tell the kind.
        """
        theirs = (getattr(of_user, "capabilities", None) or {}).get("webSocketUrl")
        prompts = cls.of(options)
        if (
            theirs
            or not cls.can_take_over(options, engine)
            or not options.capabilities.get("webSocketUrl")
        ):
            return None
        options.set_capability("unhandledPromptBehavior", dict(WITHOUT_BIDI))
        return prompts

    @classmethod
    def can_take_over(cls, options: Any, engine: str) -> bool:
        """False for a Chromium whose ``unhandledPromptBehavior`` names kinds of dialogs one by one."""
        return not (isinstance(cls.of(options).capability, Mapping) and engine == "chromium")

    @property
    def capability(self) -> Any:
        """The value of ``unhandledPromptBehavior`` in the capabilities of a plain driver."""
        return self._wanted or "dismiss and notify"

    def handler(self, kind: str) -> tuple[str, bool]:
        """For a kind of dialog such as "alert": "accept", "dismiss" or "ignore", and True if the command
        that found the dialog fails."""
        wanted = self._wanted
        if isinstance(wanted, Mapping):
            wanted = wanted.get(kind) or wanted.get("default")
        word, _, notify = str(wanted or "dismiss and notify").partition(" and ")
        return word, bool(notify) or word == "ignore"

    def around(self, command: Callable[[], Any], run: RunCommand) -> Callable[[], Any]:
        """Wrap a command.  If it fails because a dialog is open, the dialog is handled as the user
        wants, and then the command fails or is run again, as in a driver without BiDi."""
        from selenium.common.exceptions import NoAlertPresentException, UnexpectedAlertPresentException

        def run_command() -> Any:
            while True:
                try:
                    return command()
                except UnexpectedAlertPresentException as error:
                    found = FOUND.search(str(error.msg))
                    if found is None and FOUND_BY_CHROMEDRIVER not in str(error.msg):
                        raise
                    handler, fails = self.handler(found[1] if found else "default")
                    if handler != "ignore":
                        with contextlib.suppress(NoAlertPresentException):
                            run("w3cAcceptAlert" if handler == "accept" else "w3cDismissAlert", {})
                    if fails:
                        error.msg = str(error.msg).replace('"ignore"', f'"{handler}"')
                        raise

        return run_command


__all__ = ["WITHOUT_BIDI", "UserPrompts"]
