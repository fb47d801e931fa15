"""The plugin's settings: command line options and ini keys, checked and frozen."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

from .base_url import OPTION
from .base_url import read as read_base_url

if TYPE_CHECKING:
    from ..config import SessionConfig

Isolation = Literal["fresh", "context"]
Screenshot = Literal["on", "off", "only-on-failure"]
Capture = Literal["never", "failure", "always"]
Leaks = Literal["auto", "error", "warn", "off"]
TraceMode = Literal["off", "on", "retain-on-failure"]

CHOICES: dict[str, tuple[str, ...]] = {
    "isolation": ("fresh", "context"),
    "screenshot": ("only-on-failure", "on", "off"),
    "capture": ("failure", "never", "always"),
    "leaks": ("auto", "error", "warn", "off"),
    "trace": ("off", "on", "retain-on-failure"),
}
"""The first of each is the default."""
OPTIONS = ("browser", "headed", "display", "output", "timeout", "remote", "server", "base_url", *CHOICES)
"""The names of the options without ``--keeper-``, with underscores, and of the ini keys without
``keeper_``.  An ini key that is not given is None, or before pytest 8 empty."""

DEFAULT_OUTPUT = "keeper-results"
"""Not ``test-results``: pytest-playwright removes that folder at the start of each run, and with
pytest-xdist at the start of each worker."""
REMOTE_TIMEOUT = 10.0
"""Seconds for a Grid to answer."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """``timeout`` is in seconds, None without one; ``output`` is absolute."""

    browsers: tuple[str, ...] = ("chrome",)
    headed: bool = False
    display: str | None = None
    isolation: Isolation = "fresh"
    output: Path = Path(DEFAULT_OUTPUT)
    screenshot: Screenshot = "only-on-failure"
    capture: Capture = "failure"
    leaks: Leaks = "auto"
    trace: TraceMode = "off"
    shared: tuple[str, ...] = ()
    """Patterns for the holders of browsers that outlive tests on purpose."""
    given: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    """The options and ini keys that were given, in words."""
    timeout: float | None = None
    remote: str | None = dataclasses.field(default=None, repr=False)
    """A Grid's URL, which may contain a password."""
    server: str | None = dataclasses.field(default=None, repr=False)
    """A server's address, which may contain a token; None for that of BROWSERKEEPER_SERVER, if set, and
    "" for browsers of this machine, whatever the variable says."""
    base_url: str = ""
    """Relative addresses of ``driver.get`` are resolved against it; "" without one."""

    def wants_screenshot(self, *, failed: bool) -> bool:
        return self.screenshot == "on" or (failed and self.screenshot == "only-on-failure")

    def wants_trace(self, *, failed: bool) -> bool:
        return self.trace == "on" or (failed and self.trace == "retain-on-failure")

    def wants_capture(self, *, failed: bool) -> bool:
        return self.capture == "always" or (failed and self.capture == "failure")


SETTINGS = pytest.StashKey[Settings]()


def add_options(parser: pytest.Parser) -> None:
    """Each option is also an ini key, with underscores.  The command line wins."""
    group = parser.getgroup("browserkeeper", "browsers that cannot leak (browserkeeper)")
    group.addoption(
        "--keeper-browser",
        action="append",
        metavar="NAME",
        help="chrome (default), firefox, chromium, chromium-headless-shell or edge; give it "
        "twice to run every test on both",
    )
    group.addoption("--keeper-headed", action="store_true", default=None, help="show the windows")
    group.addoption(
        "--keeper-display",
        metavar="NAME",
        help="where --keeper-headed shows them: an X display such as :7, or 'virtual' for an Xvfb of "
        "each browser's own (default: the environment's DISPLAY or WAYLAND_DISPLAY)",
    )
    group.addoption(
        "--keeper-output",
        metavar="DIR",
        help=f"the folder for captures of failed tests (default: {DEFAULT_OUTPUT})",
    )
    group.addoption(
        "--keeper-timeout",
        metavar="S",
        help="seconds that a test's browser may live (default: no limit)",
    )
    group.addoption(
        "--keeper-remote",
        metavar="URL",
        help="the Selenium Grid that runs the browsers (default: this machine)",
    )
    group.addoption(
        "--keeper-server",
        metavar="ADDRESS",
        help="the server (browserkeeper serve) to lease the browsers from, as unix:/PATH or "
        "http://TOKEN@HOST:PORT; empty for none (default: BROWSERKEEPER_SERVER, or none)",
    )
    group.addoption(
        OPTION,
        metavar="URL",
        help="what relative addresses are relative to, as in driver.get('/cart') (default: that of "
        "pytest-base-url, where it is installed)",
    )
    for name, text in {
        "isolation": "a new browser for each test, or one warm browser with a new context for each test",
        "screenshot": "which tests get a screenshot",
        "capture": "which tests get page source, URL, console, logs and process report",
        "leaks": "what happens to a test that leaves a browser running",
        "trace": "which tests get a trace.html: their commands, screenshots, console messages and "
        "requests on one page",
    }.items():
        first, *others = CHOICES[name]
        metavar = "|".join((first, *others))
        group.addoption(f"--keeper-{name}", metavar=metavar, help=f"{text} (default: {first})")
    parser.addini(
        "keeper_browser", "as --keeper-browser, several with spaces", type="args", default=None
    )
    parser.addini("keeper_headed", "as --keeper-headed", type="bool", default=None)
    for name in ("display", "output", "timeout", "remote", "server", "base_url", *CHOICES):
        parser.addini(f"keeper_{name}", f"as {_option(name)}", default=None)
    parser.addini(
        "keeper_shared",
        "what holds browsers that outlive tests on purpose, as the leak check's warning names it",
        type="args",
        default=None,
    )


def read(config: pytest.Config) -> Settings:
    """The settings of a run.  Raises pytest.UsageError for a value that is not valid."""
    browsers = tuple(
        dict.fromkeys(config.getoption("keeper_browser") or config.getini("keeper_browser") or ())
    )
    headed = bool(config.getoption("keeper_headed") or config.getini("keeper_headed"))
    chosen = {name: _choice(config, name) for name in CHOICES}
    settings = Settings(
        browsers=browsers or ("chrome",),
        headed=headed,
        display=_given(config, "display")[0] or None,
        output=_output(config),
        timeout=_seconds(*_given(config, "timeout")),
        remote=_given(config, "remote")[0] or None,
        server=_server(config),
        base_url=read_base_url(config, *_given(config, "base_url")),
        shared=tuple(config.getini("keeper_shared") or ()),
        given=tuple(_all_given(config)),
        **cast("dict[str, Any]", chosen),
    )
    if settings.trace != "off":
        _check_trace(_given(config, "trace")[1])
    if settings.remote is not None and settings.server:
        places = " and ".join(_given(config, name)[1] for name in ("remote", "server"))
        raise pytest.UsageError(f"{places} are two places for the browsers: give the one or the other.")
    if settings.remote is not None:
        _check_remote(config, settings)
    elif settings.server:
        _check_server(config, settings)
    elif browsers or headed or settings.display:
        _check_browsers(settings)
    return settings


def _given(config: pytest.Config, name: str) -> tuple[str, str]:
    """(value, where it was given); the command line wins over the ini file."""
    value = config.getoption(f"keeper_{name}")
    if value is not None:
        return str(value), _option(name)
    return str(
        config.getini(f"keeper_{name}") or ""
    ), f"keeper_{name} in {config.inipath or 'the ini file'}"


def _option(name: str) -> str:
    """``--keeper-base-url`` for ``base_url``."""
    return f"--keeper-{name.replace('_', '-')}"


def _server(config: pytest.Config) -> str | None:
    """The server's address; "" if the command line says that there is none."""
    given = _given(config, "server")[0]
    return given if given or config.getoption("keeper_server") is not None else None


def _all_given(config: pytest.Config) -> Iterator[str]:
    for name in OPTIONS:
        if config.getoption(f"keeper_{name}") is not None:
            yield f"the option {_option(name)}"
    for name in (*OPTIONS, "shared"):
        if config.getini(f"keeper_{name}") not in (None, "", []):
            yield f"the ini key keeper_{name}"


def _choice(config: pytest.Config, name: str) -> str:
    value, place = _given(config, name)
    choices = CHOICES[name]
    if value in ("", *choices):
        return value or choices[0]
    raise pytest.UsageError(f"{place}: {value!r} is not known.{_hint(value, choices)}")


def _hint(value: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(value, choices, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    return f"{meant} Choose from {', '.join(choices)}."


def _seconds(value: str, place: str) -> float | None:
    if value == "":
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise pytest.UsageError(f"{place}: {value!r} is no number of seconds; give one above 0.")
    return seconds


def _output(config: pytest.Config) -> Path:
    """The output folder, absolute.  The option is relative to the working directory, the ini key to
    the ini file's directory."""
    typed = config.getoption("keeper_output")
    if typed is not None:
        path = config.invocation_params.dir / typed
    else:
        path = config.rootpath / (config.getini("keeper_output") or DEFAULT_OUTPUT)
    path = Path(os.path.abspath(path))
    if path.exists() and not path.is_dir():
        raise pytest.UsageError(f"--keeper-output: {path} is not a directory.")
    return path


def _check_trace(place: str) -> None:
    """Raises pytest.UsageError without Jinja2, which makes the pages."""
    from ..errors import ConfigError
    from ..html.page import require_jinja2

    try:
        require_jinja2(place)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None


def _first_config(settings: Settings, place: str, **elsewhere: str | None) -> SessionConfig:
    """The configuration of the first browser that was asked for, once those of all are checked.

    ``elsewhere``: the argument ``remote`` or ``server``, which was given at ``place``.  Raises
    pytest.UsageError where the arguments do not go together.
    """
    from ..config import SessionConfig
    from ..errors import ConfigError

    shown: Any = {"headless": not settings.headed, "display": settings.display, **elsewhere}
    try:
        configs = [SessionConfig.build(name=name, **shown) for name in settings.browsers]
    except ConfigError as error:
        raise pytest.UsageError(f"{place}: {error}") from None
    return configs[0]


def _check_remote(config: pytest.Config, settings: Settings) -> None:
    """Raises pytest.UsageError unless a Grid answers there.

    The Grid is asked once: not by xdist's workers, and not if tests are only collected.
    """
    from ..grid.hub import FAILURES, Hub

    place = _given(config, "remote")[1]
    config_there = _first_config(settings, place, remote=settings.remote)
    if settings.isolation == "context":
        raise pytest.UsageError(f"{place}: --keeper-isolation=context needs browsers of this machine.")
    grid = config_there.remote
    if grid is None or hasattr(config, "workerinput") or config.option.collectonly:
        return
    try:
        known = Hub(grid).status(REMOTE_TIMEOUT)
    except FAILURES as error:
        why = getattr(error, "strerror", None) or error or type(error).__name__
        raise pytest.UsageError(
            f"{place}: {grid} cannot be reached: {why}. Start the Grid, or leave the option out."
        ) from None
    if known is None:
        raise pytest.UsageError(f"{place}: {grid} does not answer as a Selenium Grid does.")


def _check_server(config: pytest.Config, settings: Settings) -> None:
    """Raises pytest.UsageError unless a server answers there, which this client may use.

    The server is asked once: not by xdist's workers, and not if tests are only collected.
    """
    from ..errors import ServerError
    from ..wire.requests import status

    place = _given(config, "server")[1]
    config_there = _first_config(settings, place, server=settings.server)
    server = config_there.server
    if server is None or hasattr(config, "workerinput") or config.option.collectonly:
        return
    try:
        status(server, REMOTE_TIMEOUT)
    except ServerError as error:
        raise pytest.UsageError(f"{place}: {error}") from None


def _check_browsers(settings: Settings) -> None:
    """Called only if an option was given, since it imports more of the package."""
    from ..config import SessionConfig
    from ..errors import ConfigError

    option = "--keeper-browser"
    try:
        for name in settings.browsers:
            SessionConfig.build(name=name)
        option = "--keeper-display" if settings.display else "--keeper-headed"
        SessionConfig.build(headless=not settings.headed, display=settings.display)
    except ConfigError as error:
        raise pytest.UsageError(f"{option}: {error}") from error
