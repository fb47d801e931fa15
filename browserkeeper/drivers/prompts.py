"""Dialogs (alert, confirm, prompt) in a session that has BiDi for us, and not for its user.

With BiDi, ChromeDriver and geckodriver handle a dialog as soon as it opens, by the capability
``unhandledPromptBehavior``; without BiDi, when the next command comes, so that the program can answer
the dialog first (measured with ChromeDriver 156 and geckodriver 0.37).  So that a session is the same
with an identity as without, its driver is told to leave dialogs open, and they are handled here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

CAPABILITY = "unhandledPromptBehavior"
DEFAULT = "dismiss and notify"
"""Of a session without that capability (w3.org/TR/webdriver2)."""
LEAVE_OPEN = {"default": "ignore", "beforeUnload": "accept"}


class Prompts:
    """Handles open dialogs as ``behaviour`` says: "dismiss", "accept", either with " and notify", or
    "ignore"."""

    def __init__(self, behaviour: str):
        self.behaviour = behaviour

    @classmethod
    def take_over(cls, options: Any) -> Prompts | None:
        """Turn BiDi on in these Selenium options, and have dialogs left open.

        None where the user has turned BiDi on, or says what to do with each kind of dialog: then the
        driver does that.
        """
        if options.capabilities.get("webSocketUrl"):
            return None
        options.set_capability("webSocketUrl", True)
        behaviour = options.capabilities.get(CAPABILITY, DEFAULT)
        if not isinstance(behaviour, str):
            return None
        options.set_capability(CAPABILITY, LEAVE_OPEN)
        return cls(behaviour)

    def show_in(self, capabilities: dict[str, Any]) -> None:
        """Have the driver's capabilities say what happens to dialogs."""
        capabilities[CAPABILITY] = self.behaviour

    def run(self, command: Callable[[], Any], answer: Callable[[str], Any]) -> Any:
        """Run a WebDriver command.  ``answer`` sends the command of that name to the driver.

        Where an open dialog stops the command, handles the dialog, and raises the command's error or
        runs it again, as the driver would (w3.org/TR/webdriver2, "Handle any user prompts").
        """
        from selenium.common.exceptions import UnexpectedAlertPresentException, WebDriverException

        try:
            return command()
        except UnexpectedAlertPresentException:
            what, _, notify = self.behaviour.partition(" ")
            if what == "ignore":
                raise
            with contextlib.suppress(WebDriverException):  # the dialog is gone by itself
                answer("w3cAcceptAlert" if what == "accept" else "w3cDismissAlert")
            if notify:
                raise
        return command()


__all__ = ["Prompts"]
