"""Libraries that replace blocking functions of the standard library with ones of their own event loop.

gevent works where all that sessions use is replaced (``gevent.monkey.patch_all()``).  eventlet removes
``select.poll``, and raises an error where two of its threads use one descriptor, so it does not work.
A part of the replacements leaves real threads that wait for an event loop, or an event loop that waits
for a real lock: measured with gevent 26.9 and eventlet 0.41, such sessions and pools fail or hang.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Callable

from ..errors import ConfigError

ALL_OF_GEVENT = ("select", "socket", "subprocess", "thread")
"""The modules that gevent has to replace for a pool."""


def require_usable(*, pool: bool = False) -> None:
    """Raises ConfigError, which names the library and the remedy, where a session, or with ``pool`` a
    pool, cannot work in this process.  Costs microseconds."""
    if obstacle := obstacle_to(pool=pool):
        raise ConfigError(obstacle)


def obstacle_to(*, pool: bool = False) -> str:
    """Why a session, or a pool, cannot work in this process; "" where it can."""
    if why := _eventlet(pool=pool):
        return (
            f"browserkeeper does not work under eventlet, {why}. Use gevent, or threads (Celery: "
            "--pool prefork, threads or gevent), or use browsers in a process of their own."
        )
    if why := _gevent(pool=pool):
        return f"{why}: call gevent.monkey.patch_all() before all other imports, and leave out no part."
    if sys.platform != "win32" and not hasattr(select, "poll"):
        return (
            "A library has removed select.poll from Python's standard library; browserkeeper needs it. "
            "Use browsers in a process where it does not do so."
        )
    return ""


def is_eventlet() -> bool:
    """Has eventlet replaced ``select`` in this process, as its ``monkey_patch()`` does?"""
    return "select" in _patched_by_eventlet()


def _patched_by_eventlet() -> set[str]:
    patcher = sys.modules.get("eventlet.patcher")
    return set(getattr(patcher, "already_patched", ()))


def _eventlet(*, pool: bool) -> str:
    patched = _patched_by_eventlet()
    if "select" in patched:
        return "which has removed select.poll"
    parts = sorted(patched & {"os", "socket", "thread"}) if pool else ()
    return f"which has replaced {', '.join(parts)}: a pool would hang" if parts else ""


def _gevent(*, pool: bool) -> str:
    monkey = sys.modules.get("gevent.monkey")
    is_patched: Callable[[str], bool] | None = getattr(monkey, "is_module_patched", None)
    if is_patched is None:
        return ""
    modules = {"thread": "_thread"}  # by the names of patch_all()'s arguments
    patched = {name for name in (*ALL_OF_GEVENT, "os") if is_patched(modules.get(name, name))}
    missing = sorted(set(ALL_OF_GEVENT) - patched)
    if not patched or not missing:
        return ""
    breaks = "socket" in patched and "thread" in missing
    breaks |= {"os", "thread"} <= patched and "subprocess" in missing
    if not pool and not breaks:
        return ""
    return f"gevent has replaced {', '.join(sorted(patched))}, but not {', '.join(missing)}"


__all__ = ["is_eventlet", "obstacle_to", "require_usable"]
