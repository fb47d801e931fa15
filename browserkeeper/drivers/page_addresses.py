"""The addresses that a page requests while a block runs: for downloads of a Chromium without BiDi.

A script in an isolated world, which the page cannot see, notes the events ``navigate`` (Navigation API)
and ``click``.  So the address is the one that the page has requested, before redirects.
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
    """The addresses that the frames of the current page have requested since this object was made.

    If a frame cannot be asked, its addresses are missing; no error is raised.
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
        """The addresses, frame by frame, each frame's in the order of the requests."""
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
        except WebDriverException:  # an alert is open, the page is gone, or it is in another process
            return {}
        return answer if isinstance(answer, dict) else {}


def _frames(tree: dict[str, Any]) -> list[str]:
    own = [tree["frame"]["id"]] if tree.get("frame") else []
    return own + [frame for child in tree.get("childFrames", ()) for frame in _frames(child)]


__all__ = ["PageAddresses"]
