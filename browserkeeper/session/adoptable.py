"""Which processes a driver that other code has started consists of, by two witnesses each.

A number in the driver's capabilities is no witness: a browser in another pid namespace (a container)
gives its number there, which names another process here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..process import identity_of, is_alive, system
from ..process.identity import ProcessFacts, ProcessIdentity

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_ELSEWHERE = "Adopt it where it runs, or use browser()."


def roots_of(driver: Any) -> tuple[ProcessIdentity, ...]:
    """The processes of the driver and the browser.  Raises ConfigError for what cannot be adopted.

    The driver is a child of this process; for a browser there have to be two witnesses, see
    :func:`browser_of`.
    """
    if hasattr(driver, "command_handler"):
        raise ConfigError("This driver is browserkeeper's own: it has a guard already.")
    process = getattr(getattr(driver, "service", None), "process", None)
    pid = getattr(process, "pid", None)
    if pid is None or not _is_pid(pid) or not hasattr(driver, "caps"):
        raise ConfigError(
            f"{type(driver).__name__} has no driver process on this machine, or has quit. For a Grid, "
            "use browser(remote=...)."
        )
    # With a returncode it was reaped, and another child of this process may have its pid.
    found = system.facts(pid) if getattr(process, "returncode", None) is None else None
    if found is None or found.is_zombie:
        raise ConfigError("The driver's process is gone: adopt it before it quits.")
    if found.parent != os.getpid():  # while it is our child and not reaped, no other process has its pid
        raise ConfigError(
            f"The driver's process {_named(found)} was not started by this process, {os.getpid()}. Call "
            "adopt() in the process that has started the driver."
        )
    return (found.identity, *browser_of(driver, found))


def browser_of(driver: Any, root: ProcessFacts) -> tuple[ProcessIdentity, ...]:
    """The browser's process, where the driver's capabilities, or its attribute, name another one than
    the driver's, ``root``.

    The number alone is no witness: the browser may be in another pid namespace (a container), where
    numbers mean other processes.  It has to be a descendant of the driver, or, for libraries that start
    the browser themselves (undetected-chromedriver), a process of this user that listens on the
    session's debugging port.  Raises ConfigError where it is neither.
    """
    capabilities = driver.caps
    names = (capabilities.get("goog:processID"), capabilities.get("moz:processID"))
    numbers = {number for number in (*names, getattr(driver, "browser_pid", None)) if number is not None}
    browsers = []
    for pid in numbers - {root.pid}:
        found = system.facts(pid) if _is_pid(pid) else None
        if found is None or found.is_zombie:
            raise ConfigError(
                f"By its capabilities the driver's browser is process {pid!r}, but there is no such "
                f"process here. It has ended, or runs in a container. {_ELSEWHERE}"
            )
        line = _ancestors(found)
        is_below = root.pid in line and is_alive(root.identity)
        if not is_below and not _is_on_its_port(found, capabilities):
            raise ConfigError(
                f"By its capabilities the driver's browser is process {pid}, but that is "
                f"{_named(found)}, which is not below the driver {_named(root)} and does not listen on "
                f"the browser's debugging port. The browser may run in a container. {_ELSEWHERE}"
            )
        if not is_alive(found.identity):
            raise ConfigError(f"The driver's browser, process {pid}, has ended.")
        browsers.append(found.identity)
    return tuple(browsers)


def _is_pid(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _named(process: ProcessFacts) -> str:
    return f"{process.pid} ({process.name})"


def _ancestors(process: ProcessFacts) -> list[int]:
    """The pids of the process's ancestors, its parent first."""
    line: list[int] = []
    parent: ProcessFacts | None = process
    while parent is not None and parent.parent > 0 and parent.parent not in line:
        line.append(parent.parent)
        parent = system.facts(parent.parent)
    return line


def _is_on_its_port(process: ProcessFacts, capabilities: Mapping[str, Any]) -> bool:
    """True if the process listens on the browser's debugging port, or that of its BiDi websocket.

    Never for this process, its ancestors, or a process of another user.
    """
    own = [os.getpid(), *_ancestors(ProcessFacts(identity_of(os.getpid()), os.getppid(), 0, "", ""))]
    if process.pid in own or system.users(process.pid) != {os.geteuid()}:
        return False
    options = [value for value in capabilities.values() if isinstance(value, Mapping)]
    addresses = [value.get("debuggerAddress") for value in options]
    socket = capabilities.get("webSocketUrl")
    addresses.append(urlsplit(socket).netloc if isinstance(socket, str) else None)
    for address in filter(None, addresses):
        host, _, port = str(address).rpartition(":")
        if host in LOOPBACK and port.isdigit() and system.listens_on(process.pid, int(port)):
            return True
    return False


__all__ = ["roots_of"]
