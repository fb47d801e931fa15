"""``browserkeeper serve``: WebDriver's endpoint over warm pools, until SIGTERM or SIGINT."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError
from ..telemetry import logs
from . import output
from .completion import files
from .environment import Command, Words
from .parameters import seconds, seconds_or_zero
from .statuses import ExitStatus

if TYPE_CHECKING:
    from ..server.settings import ServerSettings

OF_AIOHTTP = ("aiohttp", "aiohappyeyeballs", "aiosignal", "frozenlist", "multidict", "propcache", "yarl")
"""Modules that are installed with the extra ``serve``."""
ISOLATE: dict[str, bool | str] = {"auto": "auto", "true": True, "false": False}
"""The values of ``--isolate-driver``, and those of ``isolate_driver=``."""


@click.command("serve", cls=Command)
@click.option(
    "--listen",
    multiple=True,
    type=Words(),
    metavar="ADDRESS",
    help="unix:PATH or HOST:PORT. May be repeated. Default: the sockets that systemd gives, else "
    "serve.sock in the state directory.",
)
@click.option(
    "--group", default="", metavar="GROUP", help="A group whose members may use the unix socket."
)
@click.option(
    "--token-file",
    default="",
    metavar="FILE",
    shell_complete=files,
    help="The token for clients over TCP.",
)
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    type=Words(),
    metavar="NAME",
    help="A name by which clients over TCP call the server. May be repeated.",
)
@click.option("--insecure", is_flag=True, help="Allow to listen on all interfaces, unencrypted.")
@click.option(
    "--max",
    "max_browsers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Browsers at a time. Default: by cores and memory.",
)
@click.option(
    "--min-idle",
    type=click.IntRange(min=0),
    metavar="N",
    help="Browsers kept ready; default 1.",
)
@click.option(
    "--leases-per-browser",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Sessions that share a Chromium.",
)
@click.option(
    "--isolate-driver",
    type=click.Choice(list(ISOLATE)),
    default="auto",
    show_default=True,
    help="Whether other users of this machine are kept from ChromeDriver's port. true: no session "
    "without it, so none of Firefox.",
)
@click.option(
    "--max-pools",
    type=click.IntRange(min=1),
    metavar="N",
    help="Different sets of browser options that may be in use at a time; default 8.",
)
@click.option(
    "--max-per-client",
    type=click.IntRange(min=1),
    metavar="N",
    help="Sessions of one process, or of one IP address; others wait. Default: no limit.",
)
@click.option(
    "--queue-timeout",
    type=float,
    default=30.0,
    show_default=True,
    callback=seconds,
    metavar="SECONDS",
    help="How long a request for a session waits for a browser.",
)
@click.option(
    "--max-lease",
    type=float,
    callback=seconds,
    metavar="SECONDS",
    help="How long a session may last; then it is ended. Default: no limit.",
)
@click.option(
    "--idle-timeout",
    type=float,
    default=300.0,
    show_default=True,
    callback=seconds_or_zero,
    metavar="SECONDS",
    help="How long a session may be without a command; then it is ended, unless its client is known "
    "to live. 0: no limit.",
)
@click.option(
    "--drain-timeout",
    type=float,
    default=30.0,
    show_default=True,
    callback=seconds_or_zero,
    metavar="SECONDS",
    help="How long open sessions may go on after SIGTERM; then they are ended.",
)
@output.json_option
def command(as_json: bool, **given: Any) -> int:
    """Give the browsers of this host to any WebDriver client, and keep some of them ready.

    Over the unix socket the file's mode decides who may use it, and a client's death ends its sessions
    at once. Over TCP each request needs the token (`Authorization: Bearer TOKEN`, or
    http://TOKEN@HOST:PORT), and sessions end when their client has sent nothing for --idle-timeout.

    SIGTERM and SIGINT drain: no new sessions, and --drain-timeout for the open ones. A second signal
    ends at once. Whatever ends this process, its browsers end. /status, /metrics, /healthz, /readyz and
    /pressure answer on the same addresses. The log goes to standard error; with --json (or
    BROWSERKEEPER_LOG=json) each line is a JSON object.

    Needs pip install 'browserkeeper[serve]'.

    Exit status: 0 all browsers have ended and left nothing; 1 something is left; 2 an address, the
    token or another setting cannot be used; 3 the state directory cannot be used.

    \b
    Example:
      browserkeeper serve --listen unix:/run/user/1000/browsers.sock --max 4 --min-idle 2
      browserkeeper serve --listen 127.0.0.1:4444 --token-file ~/.browsers.token
    """
    logs.configure("json" if as_json else None)
    run, settings = _imported(given)
    return ExitStatus.OK if run(settings) == 0 else ExitStatus.FOUND


def _imported(given: dict[str, Any]) -> tuple[Callable[[ServerSettings], int], ServerSettings]:
    """The function that serves, and its settings.  Raises ConfigError."""
    try:
        from ..server.service import run
        from ..server.settings import ServerSettings
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in OF_AIOHTTP:
            raise
        raise ConfigError(
            f"`browserkeeper serve` needs aiohttp ({error}). Install it: "
            "pip install 'browserkeeper[serve]'."
        ) from error
    stated = {name: value for name, value in given.items() if value is not None}
    stated["idle_timeout"] = stated["idle_timeout"] or None
    stated["isolate_driver"] = ISOLATE[stated["isolate_driver"]]
    return run, ServerSettings(**stated)
