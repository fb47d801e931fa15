"""What happens in a session with BiDi when a dialog is in the way of a classic command.

With BiDi on, browsers answer a dialog as soon as it opens, unless the session's capability says
``ignore``; a driver without BiDi has it stay open until a command finds it (measured with ChromeDriver
156 and geckodriver 0.37).  Where BiDi is on for browserkeeper, and not for the user, the session ignores
dialogs, and what the user wants done with them is done here, by the command that finds one.
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
"""The session's ``unhandledPromptBehavior``.  A page that asks before it is left, is left as without."""

FOUND = re.compile(r'Unexpected (\w+) dialog detected\. Performed handler "ignore"')
"""Firefox's error for a command that found a dialog; the group is the kind of dialog."""
FOUND_BY_CHROMEDRIVER = "unexpected alert open"
"""ChromeDriver's error, which does not tell the kind."""


class UserPrompts:
    """What the user wants done with a dialog that is in the way (w3.org/TR/webdriver2, user prompts)."""

    def __init__(self, wanted: Any = None):
        """``wanted``: the capability ``unhandledPromptBehavior``, a word or words by kind of dialog."""
        self._wanted = wanted

    @classmethod
    def of(cls, options: Any) -> UserPrompts:
        """What the user's options say."""
        return cls((getattr(options, "capabilities", None) or {}).get("unhandledPromptBehavior"))

    @classmethod
    def take_over(cls, options: Any, of_user: Any, engine: str) -> UserPrompts | None:
        """Have the session leave dialogs to this class: ``options`` are those that it starts with.

        None where BiDi is off, or was turned on by the user, whose program then has the dialogs that
        Selenium's BiDi has.  None also for a Chromium of whose dialogs the user speaks kind by kind.
        """
        theirs = (getattr(of_user, "capabilities", None) or {}).get("webSocketUrl")
        prompts = cls.of(options)
        by_kind = isinstance(prompts.capability, Mapping) and engine == "chromium"
        if theirs or by_kind or not options.capabilities.get("webSocketUrl"):
            return None
        options.set_capability("unhandledPromptBehavior", dict(WITHOUT_BIDI))
        return prompts

    @property
    def capability(self) -> Any:
        """What a plain driver has in its capabilities."""
        return self._wanted or "dismiss and notify"

    def handler(self, kind: str) -> tuple[str, bool]:
        """For a kind such as "alert": "accept", "dismiss" or "ignore"; and whether the command fails."""
        wanted = self._wanted
        if isinstance(wanted, Mapping):
            wanted = wanted.get(kind) or wanted.get("default")
        word, _, notify = str(wanted or "dismiss and notify").partition(" and ")
        return word, bool(notify) or word == "ignore"

    def around(self, command: Callable[[], Any], run: RunCommand) -> Callable[[], Any]:
        """The command as a driver without BiDi has it: with a dialog in the way, the dialog is answered
        as the user wants, and the command fails or is run again."""
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
