"""Which addresses a page asks for while a block runs: for the downloads of a Chromium that does not tell
of them.

A script in a world of its own, which the page cannot see, notes the events ``navigate`` (Navigation API)
and ``click``.  So the address is that which the page has asked for; a redirect is not seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

RunCommand = Callable[[str, dict[str, Any]], Any]
"""Runs a classic WebDriver command, given its name and parameters; returns its ``value``."""

SCRIPT = """(() => {
  const found = globalThis.asked = [];
  const note = url => {
    if (url && found.at(-1) !== url && found.length < 1000) found.push(String(url));
  };
  addEventListener('click', event => {
    const link = event.composedPath().find(node => node.href);
    if (link) note(link.href);
  }, true);
  globalThis.navigation?.addEventListener('navigate', event => note(event.destination.url));
})()"""


class PageAddresses:
    """The addresses that the frames of the current page ask for since this object was made.

    Never raises for a page that cannot be asked; then fewer are known.
    """

    def __init__(self, run: RunCommand):
        self._run = run
        self._worlds: list[int] = []
        tree = self._cdp("Page.getFrameTree", {}).get("frameTree", {})
        for frame in _frames(tree):
            params = {"frameId": frame, "worldName": "browserkeeper"}
            if world := self._cdp("Page.createIsolatedWorld", params).get("executionContextId"):
                self._worlds.append(world)
                self._evaluate(world, SCRIPT)

    def asked(self) -> list[str]:
        """In their order, for each frame after the other."""
        found: list[str] = []
        for world in self._worlds:
            answer = self._evaluate(world, "JSON.stringify(globalThis.asked || [])")
            value = answer.get("result", {}).get("value")
            found += json.loads(value) if isinstance(value, str) else []
        return found

    def _evaluate(self, world: int, expression: str) -> dict[str, Any]:
        return self._cdp("Runtime.evaluate", {"contextId": world, "expression": expression})

    def _cdp(self, command: str, params: dict[str, Any]) -> dict[str, Any]:
        from selenium.common.exceptions import WebDriverException

        from ..errors import BrowserkeeperError

        try:
            answer = self._run("executeCdpCommand", {"cmd": command, "params": params})
        except BrowserkeeperError:
            raise
        except WebDriverException:  # an alert is open, the page has gone, or it is a foreign process's
            return {}
        return answer if isinstance(answer, dict) else {}


def _frames(tree: dict[str, Any]) -> list[str]:
    own = [tree["frame"]["id"]] if tree.get("frame") else []
    return own + [frame for child in tree.get("childFrames", ()) for frame in _frames(child)]


__all__ = ["PageAddresses"]
