"""The arguments of ``browser()``, checked before anything starts."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from .errors import ConfigError
from .errors import hide_frames as __tracebackhide__  # noqa: F401
from .grid.address import Address
from .options.check import check_options, same_path
from .options.display import check_display
from .options.identity import IDENTITY_WORDS, NO_IDENTITY, Identity, IdentityArguments
from .options.identity_conflicts import check_identity
from .options.labels import check_label
from .options.profiles import check_profiles, named_profiles
from .process.containment import KINDS, Kind
from .wire.address import ServerAddress, choose

BROWSERS = ("chrome", "chromium", "chromium-headless-shell", "edge", "firefox")
OnLeak = Literal["raise", "warn", "ignore"]
Debugging = Literal["pipe", "port"]
Isolate = bool | Literal["auto"]
"""Whether the driver gets a network namespace of its own; "auto": where that is possible."""
GECKODRIVER = "geckodriver must reach Firefox by TCP, and Firefox needs the network of the machine"
"""Why the driver of a Firefox is not isolated."""
Wait = float | Literal["start_timeout"] | None
"""Of ``browser()``: seconds to wait for a slot of the host, None for no limit, or as many seconds as the
argument of that name has."""

START_TIMEOUT = 60.0
"""Seconds for the start of guard, driver and browser.  Firefox needs 5 on two busy cores."""
COMMAND_TIMEOUT = 120.0
"""Seconds for one WebDriver command, as in Selenium."""
CLOSE_TIMEOUT = 10.0
"""Seconds for a browser to end when asked, and as many for the kill, which takes 0.1 to 2.5."""
ATTEMPTS = 2
"""How often a launch is tried, where another one may help."""
OFFLINE_VARIABLES = ("BROWSERKEEPER_OFFLINE", "SE_OFFLINE")
"""Environment variables that stand for ``offline=True``, unless their value is one of ``OFF``."""
OFF = ("", "0", "false")
OFFLINE_ARGUMENT = "offline=True"
"""The argument, as error messages name what has set ``offline``."""
_UNITS = {
    name: base**power
    for power, letter in enumerate(("", "k", "m", "g", "t"))
    for base, name in ((1024, letter), (1000, f"{letter}b"), (1024, f"{letter}ib"))
}
"""The bytes of a unit, by its name in lower case."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?b|b|[kmgt]?)", re.IGNORECASE | re.ASCII)
NOT_ON_A_GRID = {
    "driver_path": "the Grid has drivers of its own",
    "profile": "a directory here is none there; name one of the Grid's machine in arguments=",
    "download_dir": "files arrive at the Grid; set options.enable_downloads, use driver.download_file()",
    "env": "the environment of the Grid's browsers is the Grid's",
    "max_browsers": "it counts browsers of this machine; the operator limits the sessions on Grids with "
    "BROWSERKEEPER_MAX_GRID_SESSIONS=N, or max_grid_sessions in limits.toml",
    "min_memory": "the Grid's browsers take no memory of this machine",
    "max_download": "files arrive at the Grid, whose operator bounds them",
    "display": "the windows are on the displays of the Grid's machines",
}
"""Arguments that are about this machine, and why they cannot be used with a Grid."""
NOT_OF_A_SERVER = {
    "profile": "a lease has a profile of its own, which goes with it; log in again with storage_state=",
    "download_dir": "files arrive at the server; set options.enable_downloads, use "
    "driver.download_file()",
    "binary": "the server starts its own browsers; `browserkeeper serve` decides which",
    "driver_path": "the server has drivers of its own",
    "env": "the environment of the server's browsers is the server's",
    "log": "a driver of the server has the commands of several leases in its log",
    "max_browsers": "the server starts the browsers; use `browserkeeper serve --max N`",
    "min_memory": "the server starts the browsers, and its host's limits hold",
    "max_download": "files arrive at the server",
    "display": "the windows are on the server's display",
    "ignore_default_arguments": "the server has started its browsers, with the default arguments",
}
"""Arguments that need a browser or a driver of the session's own, and why a server cannot give it."""
NOT_AT_A_SERVER = ("chromium-headless-shell", "edge")
"""Browsers that no server has (``server.capabilities.BROWSER_NAMES``)."""
Place = Literal["here", "grid", "server"]
"""Where the browser of a session runs: below a guard of this process, on a Selenium Grid, or as a lease
of a server (`browserkeeper serve`)."""


class BrowserArguments(IdentityArguments, total=False):
    """The keyword arguments of ``browser()``, for type checkers; its docstring describes them."""

    headless: bool
    options: Any
    arguments: Sequence[str]
    ignore_default_arguments: bool | Sequence[str]
    preferences: Mapping[str, Any] | None
    profile: str | os.PathLike[str] | None
    download_dir: str | os.PathLike[str] | None
    window_size: tuple[int, int] | None
    binary: str | os.PathLike[str] | None
    driver_path: str | os.PathLike[str] | None
    debugging: Debugging
    timeout: float | None
    start_timeout: float
    command_timeout: float
    close_timeout: float
    attempts: int
    containment: Kind
    offline: bool | None
    env: Mapping[str, str | None] | None
    log: str | os.PathLike[str] | None
    on_leak: OnLeak
    remote: str | None
    server: str | os.PathLike[str] | Literal[False] | None
    label: str | None
    wait: Wait
    max_browsers: int | None
    min_memory: int | str | None
    identity: Identity | Mapping[str, Any] | None
    max_download: int | str | None
    display: str | None
    isolate_driver: Isolate


@dataclasses.dataclass(frozen=True)
class SessionConfig:
    """The arguments of one ``browser()``.  Times are in seconds, None means no limit.

    The constructor raises ConfigError for a value that makes no sense.
    """

    name: str = "chrome"
    headless: bool = True
    options: Any = None
    arguments: tuple[str, ...] = ()
    ignore_default_arguments: bool | tuple[str, ...] = ()
    preferences: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    profile: Path | None = None
    download_dir: Path | None = None
    window_size: tuple[int, int] | None = None
    binary: str | None = None
    driver_path: str | None = None
    debugging: Debugging = "pipe"
    timeout: float | None = None
    start_timeout: float = START_TIMEOUT
    command_timeout: float = COMMAND_TIMEOUT
    close_timeout: float = CLOSE_TIMEOUT
    attempts: int = ATTEMPTS
    containment: Kind = "auto"
    offline: bool = False
    offline_because: str = OFFLINE_ARGUMENT
    """What has set ``offline``, for error messages: the argument, or an environment variable."""
    env: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    log: str | None = None
    on_leak: OnLeak = "raise"
    remote: Address | None = None
    server: ServerAddress | None = None
    label: str = ""
    wait: float | None = START_TIMEOUT
    """Seconds to wait for a slot of the host; 0 tries once."""
    max_browsers: int | None = None
    min_memory: int | None = None
    """Bytes."""
    max_download: int | None = None
    """Bytes."""
    display: str = ""
    """``virtual``, the name of an X display, or "" for the one in the environment."""
    isolate_driver: Isolate = "auto"
    identity: Identity = NO_IDENTITY
    lease_isolation: str = ""
    """How a server is to separate the lease from others; "" for the server's own way."""
    for_trace: bool = False
    """True if a BiDi connection besides the session's own is to watch the browser: the session then
    turns BiDi on, where that changes nothing for the user."""
    for_contexts: bool = False
    """True for a pool's browser whose leases have user contexts.  The identity is then set for these,
    and not for the browser's first windows, which no lease gets."""

    def __post_init__(self) -> None:
        _check_browser(self.name)
        for name in ("start_timeout", "command_timeout", "close_timeout"):
            check_seconds(name, getattr(self, name))
        if self.timeout is not None:
            check_seconds("timeout", self.timeout)
        check_choice("containment", self.containment, KINDS)
        check_choice("debugging", self.debugging, ("pipe", "port"))
        self._check_isolation()
        check_choice("on_leak", self.on_leak, ("raise", "warn", "ignore"))
        check_count("attempts", self.attempts, least=1)
        if self.label:
            check_label("label", self.label)
        _check_wait(self.wait)
        if self.max_browsers is not None:
            check_count("max_browsers", self.max_browsers, least=1)
        _check_window_size(self.window_size)
        if self.server is not None:
            self._check_server(self.server)
        elif self.remote is not None:
            self._check_remote()
        elif not self.debugger_address:
            check_display(self)
        check_options(self, pool=self.server is not None)  # the server's browsers are a pool's
        check_profiles(self)
        check_identity(self, self.identity)

    @classmethod
    def build(cls, **given: Any) -> SessionConfig:
        """Make a configuration of the user's arguments, converted to the types of the fields.

        Raises ConfigError for what cannot be converted, and for values that make no sense.
        """
        given["arguments"] = _strings("arguments", given.get("arguments", ()))
        ignored = given.get("ignore_default_arguments", ())
        if not isinstance(ignored, bool):
            given["ignore_default_arguments"] = _strings("ignore_default_arguments", ignored)
        for name in ("preferences", "env"):
            given[name] = _mapping(name, given.get(name))
        _check_variables(given["env"])
        for name in ("profile", "download_dir"):
            given[name] = _path(name, given.get(name))
        given["options"] = _copy_of_options(given.get("name"), given.get("options"))
        _take_binary(given)
        for name in ("driver_path", "log"):
            path = _path(name, given.get(name))
            given[name] = str(path) if path else None
        if given.get("window_size") is not None:
            given["window_size"] = _pair(given["window_size"])
        _take_offline(given)
        _take_place(given)
        given["display"] = _text("display", given.get("display"))
        label = given.get("label")
        given["label"] = "" if label is None else check_label("label", label)
        if given.get("wait", "start_timeout") == "start_timeout":
            given["wait"] = given.get("start_timeout", START_TIMEOUT)
        for name in ("min_memory", "max_download"):
            if given.get(name) is not None:
                given[name] = bytes_of(name, given[name])
        words = {name: given.pop(name) for name in IDENTITY_WORDS if name in given}
        given["identity"] = Identity.build(given.pop("identity", None), **words)
        return cls(**given)

    def _check_remote(self) -> None:
        for name, why in NOT_ON_A_GRID.items():
            if getattr(self, name):
                raise ConfigError(f"{name}= cannot be used with remote=: {why}.")
        if self.name == "chromium-headless-shell":
            raise ConfigError(
                "A Grid knows no chromium-headless-shell: use browser('chrome', remote=…)."
            )

    def _check_isolation(self) -> None:
        """Raises ConfigError for a driver that must be isolated and on no system is, and for one of a
        server, which decides."""
        check_isolate(self.isolate_driver)
        if self.isolate_driver is False and self.server is not None:
            raise ConfigError(
                f"isolate_driver=False cannot be used with {self.server.source}: the server starts the "
                f"drivers; use `browserkeeper serve --isolate-driver false`.{_without(self.server)}"
            )
        if self.isolate_driver is not True:
            return
        why = ""
        if not self.is_here:
            why = f"the driver is not on this machine ({self.elsewhere})"
        elif self.engine == "firefox":
            why = GECKODRIVER
        elif self.debugger_address:
            why = "options.debugger_address is a port that the driver must reach"
        elif self.debugging == "port":
            why = "the driver must reach the browser's port (debugging='port', leases_per_browser=)"
        elif self.containment == "portable":
            why = "containment='portable' cannot do it"
        if why:
            raise ConfigError(f"isolate_driver=True cannot be had: {why}. Leave it out.")

    def _check_server(self, server: ServerAddress) -> None:
        remedy = _without(server)
        for name, why in NOT_OF_A_SERVER.items():
            if getattr(self, name):
                raise ConfigError(f"{name}= cannot be used with {server.source}: {why}.{remedy}")
        if not self.headless:
            raise ConfigError(
                f"headless=False cannot be used with {server.source}: the window would be on the "
                f"server's display, where no user of this program sees it.{remedy}"
            )
        if self.debugging != "pipe":
            raise ConfigError(
                f"debugging={self.debugging!r} cannot be used with {server.source}: through the port of "
                f"a browser a client could reach the other leases in it.{remedy}"
            )
        if self.containment != "auto":
            raise ConfigError(
                f"containment={self.containment!r} cannot be used with {server.source}: the server's "
                f"guards contain its browsers. Leave it out.{remedy}"
            )
        if self.name in NOT_AT_A_SERVER:
            raise ConfigError(
                f"browser({self.name!r}) cannot be used with {server.source}: a server has chrome, "
                f"chromium and firefox. Use browser('chromium').{remedy}"
            )
        if self.offline and self.offline_because == OFFLINE_ARGUMENT:
            raise ConfigError(
                f"offline=True cannot be used with {server.source}: the server finds its own drivers. "
                f"Start it with BROWSERKEEPER_OFFLINE=1, and leave offline= out.{remedy}"
            )
        if not self.disposable:
            raise ConfigError(
                f"A profile of your own cannot be used with {server.source}: "
                f"{NOT_OF_A_SERVER['profile']}.{remedy}"
            )
        if self.debugger_address:
            raise ConfigError(
                f"options.debugger_address cannot be used with {server.source}: a lease has a browser "
                f"of the server.{remedy or ' Leave the one or the other out.'}"
            )

    @property
    def place(self) -> Place:
        """Where the browser runs.  All code that depends on the place reads this property."""
        if self.server is not None:
            return "server"
        return "grid" if self.remote is not None else "here"

    @property
    def is_here(self) -> bool:
        """True if the browser runs below a guard of this process."""
        return self.place == "here"

    @property
    def elsewhere(self) -> str:
        """The argument or variable that has put the browser on a Grid or a server, for messages; "" for
        a browser of this process."""
        if self.server is not None:
            return self.server.source
        return "remote=" if self.remote is not None else ""

    @property
    def engine(self) -> Literal["chromium", "firefox"]:
        return "firefox" if self.name == "firefox" else "chromium"

    @property
    def debugger_address(self) -> str:
        """Where the browser listens that the session is to be attached to; "" to start one."""
        options = self.options
        experimental = getattr(options, "experimental_options", {}).get("debuggerAddress")
        return str(getattr(options, "debugger_address", None) or experimental or "")

    @property
    def disposable(self) -> bool:
        """True if the profile is temporary, so that nothing in it has to be saved at the end.

        A profile that the user names among the browser's arguments is kept, as with ``profile=``.
        """
        return not named_profiles(self)


def _copy_of_options(name: object, options: Any) -> Any:
    """A copy, so that what was checked is what is used, whatever becomes of the user's object."""
    if options is None:
        return None
    if not callable(getattr(options, "to_capabilities", None)):
        wanted = {"firefox": "FirefoxOptions", "edge": "EdgeOptions"}.get(str(name), "ChromeOptions")
        kind = type(options)
        raise ConfigError(
            f"browser({name!r}) needs {wanted}, not {kind.__module__}.{kind.__name__}: options= takes "
            "Selenium's options."
        )
    return copy.deepcopy(options)


def _take_place(given: dict[str, Any]) -> None:
    """Decide where the browser runs, by ``remote=``, ``server=`` and BROWSERKEEPER_SERVER.

    An argument wins over the variable.  Raises ConfigError for two places at once.
    """
    server, remote = given.get("server"), given.get("remote")
    if remote is not None:
        if isinstance(server, (str, os.PathLike, ServerAddress)) and server != "":
            raise ConfigError(
                "remote= and server= are two places for one browser: give the one or the other."
            )
        given["remote"] = Address.parse(remote).completed()
        server = False
    given["server"] = choose(server)


def _take_binary(given: dict[str, Any]) -> None:
    """Make one path of ``binary=`` and ``options.binary_location``.

    With ``remote=`` it is a path of the Grid's machine, which is passed on as it is.  Raises ConfigError
    where they lead to different files.
    """
    options, is_local = given.get("options"), given.get("remote") is None
    experimental = getattr(options, "experimental_options", {})
    location = getattr(options, "binary_location", "") or experimental.get("binary") or None
    paths = {"binary": given.get("binary"), "options.binary_location": location}
    found = [(name, path, _path(name, path)) for name, path in paths.items() if path is not None]
    for name, path, _ in found[1:]:
        if not same_path(os.fspath(path), os.fspath(found[0][1])):
            raise ConfigError(
                f"binary={os.fspath(found[0][1])!r} and {name}={os.fspath(path)!r} are different "
                "browsers. Give only one of the two."
            )
    chosen = found[0][2 if is_local else 1] if found else None
    given["binary"] = os.fspath(chosen) if chosen is not None else None


def _take_offline(given: dict[str, Any]) -> None:
    """Where ``offline`` is not given, have the environment decide."""
    if given.get("offline") is None:
        set_by = [name for name in OFFLINE_VARIABLES if os.environ.get(name, "").casefold() not in OFF]
        given["offline"] = bool(set_by)
        if set_by:
            given["offline_because"] = f"{set_by[0]}={os.environ[set_by[0]]} is set"


def _check_browser(name: object) -> None:
    if name in BROWSERS:
        return
    near = difflib.get_close_matches(str(name).lower(), BROWSERS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"Unknown browser {name!r}.{hint} Known: {', '.join(BROWSERS)}.")


def check_seconds(name: str, value: object, *, or_zero: bool = False) -> None:
    """Raises ConfigError unless ``value`` is a positive, finite number, or 0 where that is allowed."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name}={value!r}: give a number of seconds.")
    if not _is_finite(value) or value < 0 or (value == 0 and not or_zero):
        raise ConfigError(f"{name}={value!r}: give a positive, finite number of seconds.")


def _is_finite(value: float) -> bool:
    """False also for a whole number that no float holds, which no clock counts to."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def check_flag(name: str, value: object) -> None:
    """Raises ConfigError unless ``value`` is True or False: the text "no" would count as True."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r}: give True or False.")


def _without(server: ServerAddress) -> str:
    """How to do without a server that the arguments do not name, for the end of an error's text."""
    return "" if server.source == "server=" else " server=False starts this one browser here."


def check_isolate(value: object) -> None:
    """Raises ConfigError unless ``value`` is one of those of ``isolate_driver=``."""
    if not isinstance(value, bool) and value != "auto":
        raise ConfigError(f"isolate_driver={value!r}: give 'auto', True or False.")


def _check_wait(value: object) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and (not number or not _is_finite(value) or value < 0):  # type: ignore[arg-type, operator]
        raise ConfigError(
            f"wait={value!r}: give a number of seconds, 0 to try once, or None to wait without a limit."
        )


def check_count(name: str, value: object, *, least: int) -> None:
    """Raises ConfigError unless ``value`` is a whole number, ``least`` or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name}={value!r}: give a whole number, {least} or more.")


def bytes_of(name: str, value: object) -> int:
    """A size in bytes, of a whole number or of text such as ``"1GiB"`` and ``"512 MB"``.

    Raises ConfigError for anything else, and for sizes below one byte.
    """
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is not None and len(match[1]) < 20:  # as many digits as no memory has
        size: object = int(float(match[1]) * _UNITS[match[2].lower()])
    else:
        size = value
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ConfigError(
            f"{name}={value!r}: give a size such as '1GiB', '512MB', or a number of bytes."
        )
    return size


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raises ConfigError unless ``value`` is one of the choices; the error names the nearest one."""
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{name}={value!r} is not known.{hint} Choose from {', '.join(choices)}.")


def _strings(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{name}={value!r}: give a list of strings, such as ['--lang=de'].")
    for item in value:
        if not isinstance(item, str) or not item:
            raise ConfigError(f"{name} holds {item!r}: each one must be a non-empty string.")
    return tuple(value)


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{name}={value!r}: give a dict with string keys.")
    return dict(value)


def _check_variables(env: Mapping[str, Any]) -> None:
    """Raises ConfigError for what no environment can hold (environ(7))."""
    for name, value in env.items():
        if not name or "=" in name or "\0" in name:
            raise ConfigError(f"env= holds the name {name!r}: give one without '=' and NUL.")
        if "\0" in str(value):
            raise ConfigError(f"env= holds {name}={value!r}: a value cannot have a NUL.")


def _text(name: str, value: Any) -> str:
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigError(f"{name}={value!r}: give a non-empty string, or None.")
    return value or ""


def _path(name: str, value: Any) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ConfigError(f"{name}={value!r}: give a path.")
    return Path(value).expanduser().absolute()


def _pair(value: Any) -> tuple[int, int]:
    try:
        width, height = value
        return int(width), int(height)
    except (TypeError, ValueError):
        raise ConfigError(f"window_size={value!r}: give (width, height) in pixels.") from None


def _check_window_size(size: tuple[int, int] | None) -> None:
    if size is not None and not all(1 <= side <= 32767 for side in size):
        raise ConfigError(f"window_size={size!r}: both sides must be from 1 to 32767 pixels.")
