"""The capabilities of a new session: validated, merged and matched as the specification says
(w3.org/TR/webdriver2, "Capabilities"), and split into what a browser is launched with and what is set
for a lease.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from ..config import check_seconds
from ..errors import ConfigError
from ..options.check import flat, switch_of
from ..options.proxy import Proxy
from ..pool.config import ISOLATIONS
from ..wire import words
from .errors import WireError

DEFAULT_BROWSER = "chrome"
BROWSER_NAMES: Mapping[str, str] = {"chrome": "chrome", "chromium": "chromium", "firefox": "firefox"}
"""What ``browserName`` may be, and the name of that browser for ``BrowserPool``."""
PLATFORMS = {"linux": ("linux",), "darwin": ("mac", "macos", "darwin")}.get(sys.platform, ())
PROMPT_HANDLERS = ("dismiss", "accept", "dismiss and notify", "accept and notify", "ignore")
PAGE_LOAD_STRATEGIES = ("none", "eager", "normal")
TIMEOUTS = ("script", "pageLoad", "implicit")
LONGEST_TIMEOUT = 2**53 - 1
"""Milliseconds: the largest whole number that all JSON implementations have."""

VENDOR_OPTIONS = {
    "chrome": "goog:chromeOptions",
    "chromium": "goog:chromeOptions",
    "firefox": "moz:firefoxOptions",
}
CHROME_OPTIONS = frozenset(
    (
        *("args", "prefs", "extensions", "excludeSwitches", "localState", "mobileEmulation"),
        *("perfLoggingPrefs", "windowTypes", "enableExtensionTargets", "w3c"),
    )
)
"""Keys of ``goog:chromeOptions`` that are passed on."""
FIREFOX_OPTIONS = frozenset(("args", "prefs"))
"""Keys of ``moz:firefoxOptions`` that are passed on."""
NOT_THE_CLIENTS = {
    "binary": "the server's operator chooses the browser",
    "debuggerAddress": "a session gets a browser of the server",
    "detach": "the server ends every browser",
    "minidumpPath": "it is a path of the server's machine",
    "env": "the environment is the server's",
    "profile": "each session has a new profile; give single preferences in prefs",
    "log": "the driver's log is the server's",
}
"""Keys of the vendor's options of either engine that a client may not set, and why."""
PROGRAMS = frozenset(
    (
        *("renderer-cmd-prefix", "utility-cmd-prefix", "gpu-launcher", "ppapi-plugin-launcher"),
        *("browser-subprocess-path", "user-data-dir", "profile", "p", "log-file", "crash-dumps-dir"),
    )
)
"""Arguments that name a program or a directory of the server's machine."""
PATHS = ("/", "~", "./", "../", "file:")
"""The beginnings of the values of arguments that name a file."""
DIRECTORIES = ("download.default_directory", "savefile.default_directory", "browser.download.dir")
"""Preferences that name a directory of the server's machine."""


@dataclasses.dataclass(frozen=True)
class Launch:
    """How a browser is started.  Sessions with equal launches can have the same browser.

    ``name`` is a name for ``BrowserPool``, ``arguments`` and ``preferences`` those of the browser,
    ``options`` the other keys of the vendor's options, ``capabilities`` those that are passed on.
    """

    name: str = DEFAULT_BROWSER
    arguments: tuple[str, ...] = ()
    preferences: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    capabilities: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    isolation: str = ""
    """As for ``BrowserPool``; "" for the isolation that the server was started with."""
    bidi: bool = False
    """True if the session has its browser alone, and the browser is started with BiDi."""

    @property
    def key(self) -> str:
        """A text that is equal for equal launches, and for no others."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @property
    def engine(self) -> str:
        return "firefox" if self.name == "firefox" else "chromium"

    def selenium_options(self) -> Any:
        """Selenium's options for a browser of this launch."""
        from selenium.webdriver.chrome.options import Options as ChromeOptions
        from selenium.webdriver.firefox.options import Options as FirefoxOptions

        options: Any = FirefoxOptions() if self.engine == "firefox" else ChromeOptions()
        for argument in self.arguments:
            options.add_argument(argument)
        if self.engine == "firefox":
            for name, value in self.preferences.items():
                options.set_preference(name, value)
        else:
            for extension in self.options.get("extensions", ()):
                options.add_encoded_extension(extension)
            others = {k: v for k, v in self.options.items() if k != "extensions"}
            if self.preferences:
                others["prefs"] = dict(self.preferences)
            for name, value in others.items():
                options.add_experimental_option(name, value)
        for name, value in self.capabilities.items():
            options.set_capability(name, value)
        if self.bidi:
            options.set_capability("webSocketUrl", True)
        return options


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One session that a client would accept: its launch, and the settings of its lease alone.

    ``version`` is the browser's, or its first numbers, "" for any.  ``timeouts`` are in milliseconds, as
    in WebDriver; ``queue_timeout`` and ``max_lease`` in seconds.
    ``client`` is the version of our own client, "" for others.
    """

    launch: Launch
    version: str = ""
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    label: str | None = None
    queue_timeout: float | None = None
    max_lease: float | None = None
    timeouts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    downloads: bool = False
    bidi: bool = False
    client: str = ""


@dataclasses.dataclass
class Request:
    """A client's request: the sessions that the client would accept, in its order of preference, and why
    its other alternatives cannot be had."""

    accepted: list[Wanted]
    refused: list[str]

    def refusal(self) -> WireError:
        """The error to raise where no alternative can be had."""
        reasons = list(dict.fromkeys(self.refused)) or ["nothing was asked for"]
        return WireError("session not created", "No browser here matches: " + "; ".join(reasons))


def read(body: Mapping[str, Any], *, headless: bool) -> Request:
    """Read the body of ``POST /session``.

    ``headless``: the server's browsers show no windows.  Raises WireError("invalid argument") for
    capabilities that are not valid.
    """
    request = Request([], [])
    for capabilities in _alternatives(body):
        try:
            wanted = _wanted(capabilities, headless)
        except ConfigError as error:
            request.refused.append(str(error))
        else:
            request.accepted += [*_with_proxy_of_the_lease(wanted), wanted]
    return request


# ------------------------------------------------------------------------ validating and merging


def _alternatives(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The merged capabilities, in the client's order."""
    given = body.get("capabilities")
    if not isinstance(given, Mapping):
        hint = (
            " desiredCapabilities alone are not WebDriver's any more."
            if "desiredCapabilities" in body
            else ""
        )
        raise _invalid(f"'capabilities' must be an object.{hint}")
    always = _validated(given.get("alwaysMatch", {}), "alwaysMatch")
    first = given.get("firstMatch", [{}])
    if not isinstance(first, list) or not first:
        raise _invalid("'firstMatch' must be a list with at least one object")
    each = [_validated(one, f"firstMatch[{number}]") for number, one in enumerate(first)]
    for number, one in enumerate(each):
        if twice := sorted(always.keys() & one.keys()):
            raise _invalid(f"{twice[0]!r} is in alwaysMatch and in firstMatch[{number}]")
    return iter([{**always, **one} for one in each])


def _validated(given: object, where: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise _invalid(f"'{where}' must be an object")
    found = {}
    for name, value in given.items():
        if value is None:
            continue
        check = CHECKS.get(name)
        if check is None and ":" not in name:
            raise _invalid(
                f"{where} has {name!r}, which is no capability of WebDriver; a name of a vendor's "
                "own has a colon"
            )
        if check is not None and (problem := check(value)):
            raise _invalid(f"{where}: {name!r} must be {problem}")
        found[name] = value
    return found


def _is(kind: type, text: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        return "" if isinstance(value, kind) else text

    return check


def _check_strategy(value: Any) -> str:
    return "" if value in PAGE_LOAD_STRATEGIES else f"one of {', '.join(PAGE_LOAD_STRATEGIES)}"


def _check_prompts(value: Any) -> str:
    text = f"one of {', '.join(PROMPT_HANDLERS)}, or an object with such values"
    values = list(value.values()) if isinstance(value, Mapping) else [value]
    return "" if all(isinstance(one, str) and one in PROMPT_HANDLERS for one in values) else text


def _check_timeouts(value: Any) -> str:
    text = f"an object with {', '.join(TIMEOUTS)} in whole milliseconds"
    if not isinstance(value, Mapping) or set(value) - set(TIMEOUTS):
        return text
    for name, one in value.items():
        if one is None and name == "script":
            continue
        is_number = isinstance(one, (int, float)) and not isinstance(one, bool)
        if not is_number or one != one or not 0 <= one <= LONGEST_TIMEOUT or one != int(one):
            return text
    return ""


def _check_proxy(value: Any) -> str:
    kinds = ("pac", "direct", "autodetect", "system", "manual")
    if not isinstance(value, Mapping) or str(value.get("proxyType", "")).lower() not in kinds:
        return f"an object whose proxyType is one of {', '.join(kinds)}"
    return ""


CHECKS: Mapping[str, Callable[[Any], str]] = {
    "acceptInsecureCerts": _is(bool, "true or false"),
    "browserName": _is(str, "a string"),
    "browserVersion": _is(str, "a string"),
    "platformName": _is(str, "a string"),
    "pageLoadStrategy": _check_strategy,
    "proxy": _check_proxy,
    "setWindowRect": _is(bool, "true or false"),
    "strictFileInteractability": _is(bool, "true or false"),
    "timeouts": _check_timeouts,
    "unhandledPromptBehavior": _check_prompts,
    "userAgent": _is(str, "a string"),
    "webSocketUrl": _is(bool, "true or false"),
}
"""The capabilities of the specification.  Each function returns "" for a valid value, else a description
of valid values."""


def _invalid(text: str) -> WireError:
    return WireError("invalid argument", f"invalid argument: {text}")


# --------------------------------------------------------------------------------- matching

PASSED_ON = (
    "acceptInsecureCerts",
    "pageLoadStrategy",
    "proxy",
    "strictFileInteractability",
    "unhandledPromptBehavior",
    "goog:loggingPrefs",
)
"""Capabilities that a browser is launched with."""
DEFAULTS: Mapping[str, Any] = {
    "acceptInsecureCerts": False,
    "pageLoadStrategy": "normal",
    "strictFileInteractability": False,
    "unhandledPromptBehavior": "dismiss and notify",
}
"""The default values of the capabilities above.  A session that asks for a default needs no launch of
its own."""
LOOKED_AT = (
    *("browserName", "browserVersion", "platformName", "setWindowRect"),
    *("se:remoteUrl", "moz:debuggerAddress"),
)
"""Capabilities that are neither passed on nor set for the lease.  They choose the browser, hold for all
of the server's browsers, or are added by Selenium for its own use."""
OF_THE_LEASE = (
    "timeouts",
    "webSocketUrl",
    "se:downloadsEnabled",
    *(words.IDENTITY, words.LABEL, words.TIMEOUT, words.MAX_LEASE, words.ISOLATION, words.CLIENT),
)


def _wanted(capabilities: Mapping[str, Any], headless: bool) -> Wanted:
    """The session of one alternative.  Raises ConfigError, which names the capability that cannot be
    had."""
    name = _browser_of(capabilities)
    platform = capabilities.get("platformName", "any")
    if platform.lower() not in ("any", *PLATFORMS):
        raise ConfigError(f"platformName {platform!r}: this server runs on {sys.platform}")
    known = {*PASSED_ON, *LOOKED_AT, *OF_THE_LEASE, VENDOR_OPTIONS[name]}
    if unknown := [one for one in capabilities if one not in known]:
        raise ConfigError(f"{unknown[0]!r} is not supported by {name} here")
    launch = _launch(name, capabilities, headless)
    return _with_lease_words(Wanted(launch, capabilities.get("browserVersion", "")), capabilities)


def _browser_of(capabilities: Mapping[str, Any]) -> str:
    named = capabilities.get("browserName")
    if named is None:
        return "firefox" if "moz:firefoxOptions" in capabilities else DEFAULT_BROWSER
    if named not in BROWSER_NAMES:
        raise ConfigError(f"browserName {named!r}: this server has {', '.join(BROWSER_NAMES)}")
    return BROWSER_NAMES[named]


def _launch(name: str, capabilities: Mapping[str, Any], headless: bool) -> Launch:
    key = VENDOR_OPTIONS[name]
    given = capabilities.get(key, {})
    if not isinstance(given, Mapping):
        raise _invalid(f"{key!r} must be an object")
    known = FIREFOX_OPTIONS if name == "firefox" else CHROME_OPTIONS
    for option, value in given.items():
        if option not in known and not (option == "detach" and value is False):
            why = NOT_THE_CLIENTS.get(option, "this server does not know it")
            raise ConfigError(f"{key} has {option!r}: {why}")
    if given.get("w3c", True) is not True:
        raise ConfigError(f"{key} has 'w3c': this server speaks WebDriver only, so it must be true")
    extensions = given.get("extensions") or []
    if not isinstance(extensions, list) or not all(isinstance(one, str) for one in extensions):
        raise _invalid(f"'extensions' of {key!r} must be a list of strings in base64")
    passed = {one: capabilities[one] for one in PASSED_ON if one in capabilities}
    return Launch(
        name,
        _arguments(key, given, headless),
        _preferences(key, given),
        {
            k: v
            for k, v in given.items()
            if k not in ("args", "prefs", "detach") and v not in ([], {}, None)
        },
        {one: value for one, value in passed.items() if DEFAULTS.get(one) != value},
        _isolation(capabilities),
    )


def _isolation(capabilities: Mapping[str, Any]) -> str:
    given = capabilities.get(words.ISOLATION, "")
    if given and given not in ISOLATIONS:
        raise ConfigError(f"browserkeeper:isolation {given!r}: give one of {', '.join(ISOLATIONS)}")
    return cast("str", given)


def _arguments(key: str, given: Mapping[str, Any], headless: bool) -> tuple[str, ...]:
    """The browser's arguments, without ``--headless`` where the server's browsers have it already.
    Raises ConfigError for an argument that names a file of the server's machine."""
    arguments = given.get("args", [])
    if not isinstance(arguments, list) or not all(isinstance(one, str) and one for one in arguments):
        raise _invalid(f"'args' of {key!r} must be a list of strings")
    found = []
    for argument in arguments:
        name, value = switch_of(argument)
        if name in PROGRAMS or value.startswith(PATHS):
            raise ConfigError(
                f"{key} has the argument {argument!r}, which names a file of the server's machine"
            )
        if not (headless and name == "headless" and value in ("", "new")):
            found.append(argument)
    return tuple(found)


def _preferences(key: str, given: Mapping[str, Any]) -> dict[str, Any]:
    preferences = given.get("prefs")
    preferences = {} if preferences is None else preferences
    if not isinstance(preferences, Mapping):
        raise _invalid(f"'prefs' of {key!r} must be an object")
    named = flat(preferences)  # Chromium's may be nested
    for name in DIRECTORIES:
        if name in named:
            raise ConfigError(
                f"{key} has the preference {name!r}, a directory of the server's machine: set "
                "se:downloadsEnabled, and fetch the files with download_file()"
            )
    return dict(preferences)


def _with_lease_words(wanted: Wanted, capabilities: Mapping[str, Any]) -> Wanted:
    identity = identity_of(capabilities.get(words.IDENTITY, {}))
    label = capabilities.get(words.LABEL)
    if label is not None and not isinstance(label, str):
        raise _invalid("'browserkeeper:label' must be a string")
    for name in ("se:downloadsEnabled",):
        if not isinstance(capabilities.get(name, False), bool):
            raise _invalid(f"{name!r} must be true or false")
    seconds = {}
    for name in (words.TIMEOUT, words.MAX_LEASE):
        seconds[name] = capabilities.get(name)
        if seconds[name] is not None:
            check_seconds(name, seconds[name])
    return dataclasses.replace(
        wanted,
        identity=identity,
        label=label or None,
        queue_timeout=seconds[words.TIMEOUT],
        max_lease=seconds[words.MAX_LEASE],
        timeouts=capabilities.get("timeouts", {}),
        downloads=capabilities.get("se:downloadsEnabled", False),
        bidi=capabilities.get("webSocketUrl", False),
        client=str(capabilities.get(words.CLIENT, "")),
    )


def identity_of(given: object) -> Mapping[str, Any]:
    """The words of an identity that a client has sent.

    Raises ConfigError for a path, which would be one of the server's machine.
    """
    if not isinstance(given, Mapping):
        raise _invalid("'browserkeeper:identity' must be an object")
    state = given.get("storage_state")
    if state is not None and not isinstance(state, Mapping):
        raise ConfigError(
            "browserkeeper:identity: storage_state must be an object, since a path would be one of the "
            "server's machine. Read the file, and send its content"
        )
    return given


LOOPBACK = ("localhost", "*.localhost", "127.0.0.0/8", "[::1]")
"""Addresses that browsers reach without the proxy of the capability ``proxy``."""


def _with_proxy_of_the_lease(wanted: Wanted) -> Iterator[Wanted]:
    """Yields the same session with its ``proxy`` set for the lease, which needs no launch of its own.
    Yields nothing where a lease cannot have this proxy."""
    proxy = wanted.launch.capabilities.get("proxy")
    if proxy is None or "proxy" in wanted.identity or (server := _server_of(proxy)) is None:
        return
    bypass = [*LOOPBACK, *proxy.get("noProxy", ())]
    try:
        Proxy.parse({"server": server, "bypass": bypass})
    except ConfigError:  # the browser itself may support such a proxy
        return
    left = {name: value for name, value in wanted.launch.capabilities.items() if name != "proxy"}
    launch = dataclasses.replace(wanted.launch, capabilities=left)
    identity = {**wanted.identity, "proxy": {"server": server, "bypass": bypass}}
    yield dataclasses.replace(wanted, launch=launch, identity=identity)


def _server_of(proxy: Mapping[str, Any]) -> str | None:
    """The URL of the proxy, where the capability names one proxy for all requests; else None."""
    given = {k: v for k, v in proxy.items() if v not in (None, "", [])}
    no_proxy = given.pop("noProxy", [])
    if str(given.pop("proxyType")).lower() != "manual" or not isinstance(no_proxy, list):
        return None
    if set(given) == {"httpProxy", "sslProxy"} and given["httpProxy"] == given["sslProxy"]:
        return f"http://{given['httpProxy']}"
    if set(given) == {"socksProxy", "socksVersion"} and given["socksVersion"] == 5:
        return f"socks5://{given['socksProxy']}"
    return None


__all__ = ["Launch", "Request", "Wanted", "identity_of", "read"]
