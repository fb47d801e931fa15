"""Which command a request means: method and path, looked up in Selenium's own tables of commands."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import unquote

from selenium.webdriver.chromium.remote_connection import ChromiumRemoteConnection
from selenium.webdriver.firefox.remote_connection import FirefoxRemoteConnection
from selenium.webdriver.remote.remote_connection import remote_commands

from .errors import WireError

Engine = Literal["chromium", "firefox"]

OTHER_COMMANDS: Mapping[str, tuple[str, str]] = {
    "isElementDisplayed": ("GET", "/session/$sessionId/element/$id/displayed"),
}
"""Commands of the drivers that Selenium for Python does not send, but other clients do."""

VENDORS = ("goog", "ms")
"""Vendors that have a path of their own for DevTools commands (``/session/ID/goog/cdp/execute``)."""

SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


class Match(NamedTuple):
    """A command: its name in Selenium, and the values of the path's parameters, without %-encoding."""

    name: str
    params: dict[str, str]


@dataclasses.dataclass
class _Node:
    """A node of the tree of paths: the parts that may follow one part of a path."""

    literals: dict[str, _Node] = dataclasses.field(default_factory=dict)
    parameter: str = ""
    after_parameter: _Node | None = None
    methods: dict[str, str] = dataclasses.field(default_factory=dict)
    """The names of the commands whose paths end at this node, by their HTTP methods."""


class CommandTable:
    """The commands of a session of one engine, by method and path."""

    def __init__(self, engine: Engine):
        self._root = _Node()
        for name, method, path in _commands_of(engine):
            self._add(name, method, path.split("/")[3:])

    def _add(self, name: str, method: str, parts: list[str]) -> None:
        node = self._root
        for part in parts:
            if not part.startswith("$"):
                node = node.literals.setdefault(part, _Node())
                continue
            node.parameter = part[1:]
            node.after_parameter = node = node.after_parameter or _Node()
        node.methods[method] = name

    def find(self, method: str, parts: list[str]) -> Match:
        """The command of this method and path.  ``parts``: the parts of the path after ``/session/ID/``,
        as they were sent.

        Raises WireError: "unknown method" where the path has commands of other methods only, else
        "unknown command".
        """
        known: set[str] = set()
        for node, params in _walk(self._root, parts, {}):
            if (name := node.methods.get(method)) is not None:
                return Match(name, params)
            known.update(node.methods)
        path = "/".join(parts)[:200]
        if known:
            methods = " or ".join(sorted(known))
            raise WireError("unknown method", f"/{path} takes {methods}, not {method}.")
        raise WireError("unknown command", f"Unrecognized command: {method} /session/ID/{path}")


def _walk(
    node: _Node, parts: list[str], params: dict[str, str]
) -> Iterator[tuple[_Node, dict[str, str]]]:
    """The nodes at which the path may end, with the values of its parameters.  Nodes of a literal part
    come before those of a parameter."""
    if not parts:
        if node.methods:
            yield node, params
        return
    first, rest = parts[0], parts[1:]
    if first in node.literals:
        yield from _walk(node.literals[first], rest, params)
    if node.after_parameter is not None and (value := _value(first)):
        yield from _walk(node.after_parameter, rest, {**params, node.parameter: value})


def _value(part: str) -> str:
    """The value of a parameter in a path.  Returns "" for a value that is refused, such as "..", by
    which the driver would find another path."""
    value = unquote(part)
    return "" if value in (".", "..") or not value.isprintable() else value


def _commands_of(engine: Engine) -> Iterator[tuple[str, str, str]]:
    """Name, method and path of each command that begins with ``/session/$sessionId``."""
    tables: list[Mapping[str, tuple[str, str]]] = [OTHER_COMMANDS]
    of_chromium = [_of_chromium(vendor) for vendor in VENDORS]
    # These tables are added to the common one whenever a driver is made (RemoteConnection.add_command).
    with_firefox = FirefoxRemoteConnection("http://127.0.0.1:1", ignore_proxy=True)._commands  # noqa: SLF001
    firefox = {name: entry for name, entry in with_firefox.items() if "/moz/" in entry[1]}
    vendor = {name for table in of_chromium for name in table} | set(firefox)
    tables.append({name: entry for name, entry in remote_commands.items() if name not in vendor})
    tables += [firefox] if engine == "firefox" else of_chromium
    for table in tables:
        for name, (method, path) in table.items():
            if path.startswith("/session/$sessionId/"):
                yield name, method, path


def _of_chromium(vendor: str) -> Mapping[str, tuple[str, str]]:
    table_for: Any = ChromiumRemoteConnection._remote_commands  # noqa: SLF001
    return cast("Mapping[str, tuple[str, str]]", table_for(None, vendor))


__all__ = ["SESSION_ID", "CommandTable", "Engine", "Match"]
