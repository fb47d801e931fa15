"""The browser that fixtures, markers and settings ask for: put together, and checked.

Imported when the first test asks for a browser, since it imports Selenium.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import BrowserkeeperError, ConfigError
from ..options.identity import Identity
from ..session import browser
from .failing import fail
from .markers import browser_arguments
from .settings import Settings

CONSOLE_PREFERENCE = "devtools.console.stdout.content"
"""Makes Firefox write pages' ``console`` messages to its output, and so into the driver's log."""


@dataclasses.dataclass(frozen=True)
class BrowserSpec:
    """The name and the arguments for ``browserkeeper.browser()``."""

    name: str
    arguments: Mapping[str, Any] = dataclasses.field(repr=False)
    """Not in the repr, which pytest prints in tracebacks: a proxy's URL may contain a password."""

    @property
    def fingerprint(self) -> tuple[Any, ...]:
        """Equal for two specs that the same warm browser can serve."""
        plain = {k: v for k, v in self.arguments.items() if k not in ("options", "identity")}
        words = Identity.build(self.arguments.get("identity")).words  # whose repr has no secrets
        options = self.arguments.get("options")
        capabilities = options and copy.deepcopy(options).to_capabilities()  # which changes its options
        known = repr(sorted(plain.items())), pickle.dumps(words)
        return self.name, known, capabilities and repr(capabilities)


def make_spec(
    name: Any, arguments: Any, options: Any, settings: Settings, /, **more: Any
) -> BrowserSpec:
    """Put together what the fixtures returned; ``more`` wins over ``arguments``.

    Fails the test, with one line and no traceback, if a fixture returned something that is not valid.
    """
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        fail(f"the fixture keeper_browser_args must return a dict, not {arguments!r}.")
    if not isinstance(name, str):
        fail(f"the fixture keeper_browser_name must return a name, not {name!r}.")
    unknown = sorted(set(arguments) - browser_arguments())
    if unknown:
        fail(
            f"keeper_browser_args: browser() has no argument {', '.join(map(repr, unknown))}. "
            f"It has: {', '.join(sorted(browser_arguments()))}."
        )
    given = {**arguments, **({"options": options} if options is not None else {}), **more}
    spec = BrowserSpec(name, given)
    with one_line_errors("keeper_browser_args or keeper_options: "):
        browser(name, **given)  # checks its arguments; starts nothing
        return _with_console(spec) if settings.capture != "never" else spec


def _with_console(spec: BrowserSpec) -> BrowserSpec:
    """The same browser, set to record pages' ``console`` messages."""
    config = browser(spec.name, **spec.arguments).config
    if config.engine == "firefox":
        preferences = {CONSOLE_PREFERENCE: True, **config.preferences}
        return BrowserSpec(spec.name, {**spec.arguments, "preferences": preferences})
    from ..drivers.chromium import user_options

    options = user_options(config)
    capability = f"{'ms' if spec.name == 'edge' else 'goog'}:loggingPrefs"
    theirs = options.to_capabilities().get(capability) or {}
    options.set_capability(capability, {"browser": "ALL", **theirs})
    return BrowserSpec(spec.name, {**spec.arguments, "options": options})


@contextlib.contextmanager
def one_line_errors(prefix: str = "") -> Iterator[None]:
    """Errors of browserkeeper fail the test with one line: a traceback through this package would not
    help with a wrong argument or a missing browser."""
    try:
        yield
    except ConfigError as error:
        fail(f"{prefix}{error}")
    except BrowserkeeperError as error:
        fail(f"{type(error).__name__}: {error}")
