"""A pool's hooks, the user's functions ``configure``, ``check`` and ``reset``, as a checked value."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, Literal

from ..config import check_seconds
from ..errors import ConfigError

HookName = Literal["configure", "check", "reset"]
HOOKS: tuple[HookName, ...] = ("configure", "check", "reset")
Hook = Callable[[Any], object]
"""Called with the driver.  Its result is ignored, except False from ``check``."""

HOOK_TIMEOUT = 30.0
"""Seconds for one call of a hook.  A login takes some seconds on a busy machine."""


@dataclasses.dataclass(frozen=True)
class Hooks:
    """The hooks of a pool; None for a hook that is not given.  Raises ConfigError for a hook that cannot
    be called, or whose body would not run.  ``timeout``: seconds for one call."""

    configure: Hook | None = None
    check: Hook | None = None
    reset: Hook | None = None
    timeout: float = HOOK_TIMEOUT

    def __post_init__(self) -> None:
        check_seconds("hook_timeout", self.timeout)
        for name in HOOKS:
            hook: Any = self.named(name)
            if hook is None:
                continue
            if not callable(hook):
                raise ConfigError(f"{name}={hook!r}: give a function that takes a driver.")
            bodies = (hook, type(hook).__call__)
            if any(is_kind(body) for is_kind in _NEVER_RUN for body in bodies):
                raise ConfigError(
                    f"{name}={hook!r}: give an ordinary function. The pool calls it in a thread, where "
                    "no coroutine is awaited and no generator is run."
                )

    def named(self, name: HookName) -> Hook | None:
        """The hook of this name; None if it is not given."""
        hook: Hook | None = getattr(self, name)
        return hook


_NEVER_RUN = (
    inspect.iscoroutinefunction,
    inspect.isasyncgenfunction,
    inspect.isgeneratorfunction,
)
"""Tests for functions whose body does not run when they are called."""

__all__ = ["HOOKS", "HOOK_TIMEOUT", "Hook", "HookName", "Hooks"]
