"""One call of a user's hook, in a thread of its own and with a time limit.

A hook that hangs blocks neither the browser's worker nor the browser's place in the pool.  The hook gets
a driver object of its own, which refuses commands after the hook.  Any failure of a hook is a HookError,
and the browser is replaced.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import BrowserDied, ConfigError, HookError, LaunchError, LeaseEnded, refuse_to_pickle
from ..session import control_of
from .browser import Browser
from .hooks import Hook, HookName, Hooks
from .latch import Latch
from .logs import log
from .threads import start_thread

if TYPE_CHECKING:
    from ..drivers.websockets import Filter
    from ..session import BrowserSession

PAUSE = 0.1
"""Seconds between two checks whether the pool has given up the browser."""
GRACE = 5.0
"""Seconds for a hook to return after its browser has ended; its commands then fail at once."""


class GivenUpError(Exception):
    """The hook was not waited for, since the pool ends its browser.  The hook has not failed."""


def call_hook(hooks: Hooks, name: HookName, browser: Browser, is_given_up: Callable[[], bool]) -> None:
    """Call the hook of this name, if the user has given one, and wait until it has returned.

    ``is_given_up`` returns True if the pool ends the browser: then the hook is not waited for.  Raises
    HookError if the hook fails, hangs, has ended the browser, or leaves a command in flight; BrowserDied
    if the browser died by itself; and GivenUpError if the hook was not waited for.
    """
    if (hook := hooks.named(name)) is not None:
        _HookCall(name, hook, browser).run(hooks.timeout, is_given_up)
        browser.after_hook(name)


class _HookCall:
    """One call of a hook; the command handler of its driver."""

    __reduce_ex__ = refuse_to_pickle

    def __init__(self, name: HookName, hook: Hook, browser: Browser):
        self._name, self._hook, self._browser = name, hook, browser
        self._is_over = False
        self._error: BaseException | None = None
        self._ended = Latch()

    def run(self, timeout: float, is_given_up: Callable[[], bool]) -> None:
        """See :func:`call_hook`."""
        thread = threading.Thread(target=self._call, name=f"browserkeeper-{self._name}", daemon=True)
        try:
            start_thread(thread)
        except LaunchError as error:
            raise HookError(f"The hook {self._name} was not called. {error}", self._name) from None
        deadline = time.monotonic() + timeout
        while not self._ended.wait(PAUSE):
            if is_given_up():
                # If the hook itself has ended the browser, it returns or raises within GRACE.
                if self._browser.looks_alive() or not self._ended.wait(GRACE):
                    self._is_over = True
                    raise GivenUpError(f"{self._what} was cut off: its browser is ended.")
            elif time.monotonic() > deadline and not self._ended.is_set():
                self._is_over = True
                raise HookError(
                    f"{self._what} has not returned after {timeout:g} s (hook_timeout); its browser is "
                    "ended. Python cannot stop its thread, unless that waits for the browser. Give the "
                    "hook's waits a limit, or a larger hook_timeout=.",
                    self._name,
                )
        self._raise_what_went_wrong()

    @property
    def _what(self) -> str:
        named = getattr(self._hook, "__qualname__", None) or type(self._hook).__qualname__
        return f"The hook {self._name}={named}"

    @property
    def bidi_filter(self) -> Filter | None:
        """The filter for BiDi commands of the hook, the same as for a lease."""
        return self._browser.bidi_filter or control_of(self.session).bidi_filter

    def _call(self) -> None:
        """The thread of the hook."""
        driver: Any = None
        try:
            driver = self._browser.driver_for(self)
            result = self._hook(driver)
            if inspect.isawaitable(result) or inspect.isasyncgen(result) or inspect.isgenerator(result):
                with contextlib.suppress(Exception):
                    result.close()  # type: ignore[union-attr]
                raise TypeError(
                    f"it returned {result!r}, which the pool does not run: use no async or yield"
                )
            if self._name == "check" and result is False:
                raise ValueError("it returned False")
        except BaseException as error:  # noqa: BLE001 # SystemExit and the like end no pool either
            self._error = error
        finally:
            self._is_over = True
            if driver is not None:
                with contextlib.suppress(Exception):
                    driver.disconnect()
            self._ended.set()

    def _raise_what_went_wrong(self) -> None:
        error, self._error = self._error, None
        if isinstance(error, BrowserDied):
            raise error
        if error is not None:
            log(
                logging.WARNING,
                "pool: browser %s: %s failed",
                self._browser.id,
                self._what[0].lower() + self._what[1:],
                exc_info=error,
            )
            text = f"{self._what} failed with {type(error).__name__}: {_text_of(error)}"
            # Without its traceback, whose frames have the driver.
            raise HookError(text, self._name) from error.with_traceback(None)
        if not self._browser.looks_alive():
            text = f"{self._what} ended the browser, or the browser died while it ran."
            raise HookError(text, self._name)
        if not self._browser.at_rest:
            text = (
                f"{self._what} returned while a command of its driver was in flight in another thread."
            )
            raise HookError(text, self._name)

    # -- the command handler of the driver

    @property
    def session(self) -> BrowserSession[Any]:
        return self._browser.session

    def run_command(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """Run a command of the hook's driver.  Raises LeaseEnded after the hook."""
        if self._is_over:
            raise LeaseEnded(
                f"The hook {self._name} is over, and its driver with it: the browser {self._browser.id} "
                "is the pool's, or a lease's. Use the driver inside the hook only."
            )
        return self._browser.run(name, params, command)

    def observe_command(
        self, name: str, params: Mapping[str, Any]
    ) -> contextlib.AbstractContextManager[None]:
        """Record a command that the driver sends over a connection of its own (BiDi)."""
        if self._is_over:
            return contextlib.nullcontext()
        return control_of(self.session).observe_command(name, params)

    def expect_download(self, timeout: float | None, count: int) -> NoReturn:
        """Refuse to wait for a download: downloads are counted for sessions and leases.  Raises
        ConfigError."""
        raise ConfigError(
            f"expect_download() cannot be used in the hook {self._name}: downloads belong to a lease. "
            "Use it in the lease."
        )

    @property
    def proxy_route(self) -> Any:
        """The relay's route to the browser's proxy; None without a proxy."""
        return self._browser.proxy_route

    def quit_driver(self) -> None:
        """``driver.quit()`` in a hook ends the browser; this is a failure of the hook."""
        if not self._is_over:
            self.session.close()


def _text_of(error: BaseException) -> str:
    """``str(error)``, also of a class whose own ``__str__`` raises."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 # the error is reported all the same
        return "(no text: its own __str__ raises)"
