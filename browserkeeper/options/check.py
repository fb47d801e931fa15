"""Checks the options of one configuration against the policy."""

from __future__ import annotations

import copy
import fnmatch
import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from ..errors import ConfigError
from .policy import (
    ATTACHED,
    ATTACHED_CAPABILITIES,
    ATTACHED_OPTIONS,
    RULES,
    SELENIUM_ARGUMENTS,
    SELENIUM_PREFERENCES,
    SELENIUM_VARIABLES,
    Place,
    Rule,
)

VENDOR_KEYS = ("goog:chromeOptions", "ms:edgeOptions", "moz:firefoxOptions")
"""Capabilities that Selenium makes of the other fields of its options."""


_UNSET = object()


class Arguments(Protocol):
    """The arguments of ``browser()``: what the check reads of a SessionConfig."""

    @property
    def name(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def headless(self) -> bool: ...
    @property
    def display(self) -> str: ...
    @property
    def options(self) -> Any: ...
    @property
    def arguments(self) -> tuple[str, ...]: ...
    @property
    def preferences(self) -> Mapping[str, Any]: ...
    @property
    def profile(self) -> Any: ...
    @property
    def download_dir(self) -> Any: ...
    @property
    def window_size(self) -> tuple[int, int] | None: ...
    @property
    def env(self) -> Mapping[str, str | None]: ...
    @property
    def debugging(self) -> str: ...
    @property
    def remote(self) -> Any: ...
    @property
    def debugger_address(self) -> str: ...


class Said(NamedTuple):
    """One thing that a user has said: ``text`` as it was written, ``source`` where."""

    place: Place
    name: str
    value: Any
    text: str
    source: str


def check_options(config: Arguments, *, pool: bool = False) -> None:
    """Raises ConfigError for what the policy refuses, and for two statements that contradict each other.

    ``pool``: the options are those of a pool's browsers.
    """
    for said in everything_said(config):
        for rule in RULES:
            if _applies(rule, said, config, pool):
                raise ConfigError(
                    f"{said.source}: the {said.place} {said.text!r} cannot be used: {rule.why}. "
                    f"{rule.instead}."
                )
    _check_vendor_capability(config.options)
    _check_preferences(config)
    _check_extensions(config)
    if config.debugger_address:
        _check_attached(config)


def switch_of(argument: str) -> tuple[str, str]:
    """The name of an argument without dashes, in lower case, and its value: "" where it has none."""
    name, _, value = argument.partition("=")
    return name.strip().lstrip("-").casefold(), value.strip()


def everything_said(config: Arguments) -> Iterator[Said]:
    """All that the user has put into the arguments of ``browser()`` and into Selenium's options."""
    options = config.options
    yield from _arguments(config.arguments, config.engine, "arguments=")
    yield from _arguments(getattr(options, "arguments", ()), config.engine, "options")
    experimental = {
        **(getattr(options, "mobile_options", None) or {}),
        **getattr(options, "experimental_options", {}),
    }
    if config.debugger_address:
        experimental["debuggerAddress"] = config.debugger_address
    for name, value in experimental.items():
        yield Said("experimental option", name, value, name, "options")
    of_profile = ("options.profile", preferences_of_profile(options))
    for source, preferences in (*preferences_of(config), of_profile):
        for name, value in preferences.items():
            yield Said("preference", name, value, name, source)
    for name, value in getattr(options, "capabilities", {}).items():
        yield Said("capability", name, value, name, "options")
    if getattr(options, "use_webview", False):
        yield Said("capability", "browserName", "webview2", "webview2", "options")
    for name, value in config.env.items():
        if value is not None:
            yield Said("env= variable", name, value, name, "env=")


def _arguments(given: Any, engine: str, source: str) -> Iterator[Said]:
    """For Firefox, a value may be the next argument, as in ``["-profile", "/path"]``."""
    given = list(map(str, given))
    for argument, after in itertools.pairwise([*given, "-"]):
        name, value = switch_of(argument)
        if engine == "firefox" and "=" not in argument and not after.startswith("-"):
            value = after
        yield Said("argument", name, value, argument, source)


def preferences_of(config: Arguments) -> list[tuple[str, Mapping[str, Any]]]:
    """The preferences of ``preferences=`` and of Selenium's options, with where they were given.

    Chromium's may be nested, ``{"download": {"default_directory": …}}``; here each has its full name.
    """
    options = config.options
    if config.engine == "firefox":
        of_options = getattr(options, "preferences", {})
    else:
        of_options = getattr(options, "experimental_options", {}).get("prefs") or {}
    if not isinstance(of_options, Mapping):  # ChromeDriver says what is wrong with it
        of_options = {}
    return [("preferences=", flat(config.preferences)), ("options", flat(of_options))]


def preferences_of_profile(options: Any) -> dict[str, Any]:
    """What the user has set in ``options.profile``, a FirefoxProfile, beyond its defaults."""
    profile = getattr(options, "profile", None)
    if profile is None:
        return {}
    from ..selenium_internals.private import profile_defaults, profile_preferences

    defaults, chosen = profile_defaults(profile), profile_preferences(profile)
    return {name: value for name, value in chosen.items() if defaults.get(name, _UNSET) != value}


def flat(preferences: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The preferences by their full names, with dots."""
    found: dict[str, Any] = {}
    for name, value in preferences.items():
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[prefix + str(name)] = value
    return found


def _applies(rule: Rule, said: Said, config: Arguments, pool: bool) -> bool:
    if rule.place != said.place or (rule.engine and rule.engine != config.engine):
        return False
    if not any(fnmatch.fnmatchcase(said.name.casefold(), name.casefold()) for name in rule.names):
        return False
    places = {"local": config.remote is None, "grid": config.remote is not None, "pool": pool}
    if not places.get(rule.where, True):
        return False
    if rule.not_for == config.name:
        return False
    value = str(said.value).strip().casefold()
    if rule.values is not None and value not in rule.values:
        return False
    if value in rule.unless_port and (config.debugging == "port" or config.remote is not None):
        return False
    return not rule.beside or _contradicts(rule.beside, said, config)


def _contradicts(field: str, said: Said, config: Arguments) -> bool:
    """True if the argument ``field`` of ``browser()`` is given, and says another thing than ``said``."""
    value = str(said.value).strip()
    if field == "headless":
        return not config.headless
    if field == "display":
        return bool(config.display) and value not in (config.display, "x11")
    if field == "debugging":
        return config.debugging == "port"
    if field == "window_size":
        if config.window_size is None:
            return False
        width, height = map(str, config.window_size)
        same = {"window-size": f"{width},{height}", "width": width, "height": height}
        last = said.name.casefold().removeprefix("moz_headless_")
        return value.replace(" ", "") != same.get(last)
    named = getattr(config, field)
    if named is None or said.name == "browser.download.folderList":
        return named is not None
    return not value or not same_path(value, str(named))


def same_path(one: str, other: str) -> bool:
    """True if both lead to the same file or directory, which need not exist."""
    return os.path.realpath(os.path.expanduser(one)) == os.path.realpath(os.path.expanduser(other))


def _check_preferences(config: Arguments) -> None:
    (_, given), (_, of_options) = preferences_of(config)
    for name in given.keys() & of_options.keys() - set(SELENIUM_PREFERENCES):
        if given[name] != of_options[name]:
            raise ConfigError(
                f"preferences= says {name}={given[name]!r}, and options say {of_options[name]!r}. "
                "Give it once."
            )


def _check_extensions(config: Arguments) -> None:
    """Raises ConfigError for an extension in a browser that would ignore it without an error."""
    if config.name != "chromium-headless-shell":
        return
    given: list[str] = []
    if (options := config.options) is not None:
        from ..selenium_internals.private import extension_files, has_encoded_extensions

        given = [f"extension {str(file)!r}" for file in extension_files(options)]
        given += ["extension of add_encoded_extension()"] * has_encoded_extensions(options)
    arguments = (one for one in everything_said(config) if one.place == "argument")
    given += [f"argument {one.text!r}" for one in arguments if one.name == "load-extension"]
    if given:
        raise ConfigError(
            f"The {given[0]} cannot be used: chromium-headless-shell has no extensions. Use "
            "browser('chromium')."
        )


def _check_vendor_capability(options: Any) -> None:
    """Raises ConfigError for a vendor's capability that was set by hand: Selenium replaces it.

    ``to_capabilities()`` of options that were used before has left its own result there.
    """
    capabilities = getattr(options, "capabilities", {})
    for key in VENDOR_KEYS:
        given = capabilities.get(key)
        if not isinstance(given, Mapping):
            continue
        fresh = copy.deepcopy(options)
        del fresh.capabilities[key]
        made = fresh.to_capabilities().get(key, {})
        lost = [name for name in given if given[name] and name not in made]
        if set(given.get("args", [])) - set(made.get("args", [])):
            lost.append("args")
        if lost:
            raise ConfigError(
                f"options: the capability {key!r} cannot be used: Selenium replaces it, so that "
                f"{', '.join(map(repr, lost))} would be lost. Use options.add_argument(), "
                "add_experimental_option(), set_preference(), or env= of browser()."
            )


def _check_attached(config: Arguments) -> None:
    """Raises ConfigError for what is about the start of a browser that has been started already."""
    address, options = config.debugger_address, config.options
    given = [f"{name}=" for name in ATTACHED if getattr(config, name)]
    given += ["options.arguments"] * bool(options.arguments)
    given += ["options.extensions"] * bool(options.extensions)
    given += [
        f"the capability {name!r}" for name in ATTACHED_CAPABILITIES if name in options.capabilities
    ]
    given += [
        f"the experimental option {name!r}"
        for name in options.experimental_options
        if name not in ATTACHED_OPTIONS
    ]
    if given:
        named = given[0].rstrip("=").rpartition(" ")[2].strip("'")
        reasons = {**ATTACHED, **ATTACHED_CAPABILITIES}
        reason = reasons.get(named, "the browser was started without it")
        raise ConfigError(
            f"{given[0]} cannot be used with options.debugger_address: the session is attached to the "
            f"browser at {address}, and {reason}. Leave it out, or start that browser with it."
        )


def refuse_unknown(names: set[str], function: str) -> None:
    """Raises ConfigError if there are any: these are no arguments of that function."""
    for name in sorted(names):
        instead = SELENIUM_ARGUMENTS.get(name)
        hint = f" Instead of Selenium's {name}: {instead}." if instead else ""
        raise ConfigError(f"{function} has no argument {name!r}.{hint}")


def check_environment(config: object) -> None:
    """Raises ConfigError for a variable by which Selenium would choose another browser or driver.

    ``config``: the arguments of a session that is about to start on this machine.
    """
    for variable in SELENIUM_VARIABLES:
        value = os.environ.get(variable.name, "")
        if value.casefold() not in ("", "0", "false") and not getattr(config, variable.field):
            raise ConfigError(
                f"{variable.name}={value} is set, which browserkeeper does not follow: {variable.why}. "
                f"Unset it, or {variable.instead}."
            )


__all__ = [
    "Arguments",
    "Said",
    "check_environment",
    "check_options",
    "everything_said",
    "flat",
    "preferences_of",
    "preferences_of_profile",
    "refuse_unknown",
    "same_path",
    "switch_of",
]
