"""A browser on a Selenium Grid: the launch of a relay to it, and the capabilities to ask the Grid for.

None of the default arguments of local browsers is sent: sandbox, shared memory and directories are up
to the Grid's machines and their administrator.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

from ..config import SessionConfig
from ..grid.admission import digest_of
from ..grid.hub import MARKER
from ..process.guard_process import isolated_command
from . import chromium, firefox
from .browser_handle import RemoteBrowserHandle
from .identity import launch_words
from .launch import Launch

STOP_SHARE = 0.9
"""Share of the close timeout for the Grid to end its part; the relay then writes its status file."""


def check(config: SessionConfig) -> None:
    """Raises ConfigError for options of another browser."""
    if config.options is not None:
        _user_options(config)


def prepare(config: SessionConfig, session: str, tmpdir: str) -> Launch:
    """How to start the relay."""
    assert config.remote is not None
    status_file = os.path.join(tmpdir, "grid")
    secret = secrets.token_urlsafe(32)  # kept in this process only; the relay is told its digest
    options = {
        "--url": str(config.remote),
        "--marker": session,
        "--status-file": status_file,
        "--secret-sha256": digest_of(secret),
        "--patience": f"{config.close_timeout * STOP_SHARE:g}",
    }
    words = (word for pair in options.items() for word in pair)
    return Launch(
        command=tuple(isolated_command("browserkeeper.grid.relay", *words)),
        env={},
        build_options=lambda: build_options(config, session),
        url_path=f"/{secret}",
        port_pattern=rb"listening on port (\d+)\s",
        note="",
        stop_grace_period=config.close_timeout,
        status_file=status_file,
        find_browser=lambda capabilities, tree: RemoteBrowserHandle(),
    )


def _user_options(config: SessionConfig) -> Any:
    engine = firefox if config.engine == "firefox" else chromium
    return engine.user_options(config)


def build_options(config: SessionConfig, session: str) -> Any:
    """The user's options and arguments, with a capability by which the session is found on the Grid."""
    options = _user_options(config)
    options.set_capability(MARKER, session)
    if config.binary:
        options.binary_location = config.binary
    if config.engine == "firefox":
        _for_firefox(options, config)
    else:
        _for_chromium(options, config)
    return options


def _for_chromium(options: Any, config: SessionConfig) -> None:
    if config.debugger_address:
        return  # the browser runs already
    from ..selenium_internals.private import set_arguments

    arguments = ["--headless=new"] * config.headless
    if config.window_size:
        arguments.append("--window-size={},{}".format(*config.window_size))
    arguments += [*options.arguments, *config.arguments, *launch_words(config).arguments]
    set_arguments(options, chromium.merge_features(arguments))
    if config.preferences:
        prefs = options.experimental_options.get("prefs", {})
        options.add_experimental_option("prefs", {**prefs, **config.preferences})


def _for_firefox(options: Any, config: SessionConfig) -> None:
    options.web_socket_url = True  # only BiDi can stop a page load that a command waits for
    words = launch_words(config)
    for name, value in {**config.preferences, **words.preferences}.items():
        options.set_preference(name, value)
    arguments = ["-headless"] * config.headless
    if config.window_size:
        arguments += [f"--width={config.window_size[0]}", f"--height={config.window_size[1]}"]
    for argument in (*arguments, *config.arguments):
        options.add_argument(argument)
