"""Runs the server in this process until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from ..errors import ConfigError
from ..state.ledger import Ledger
from .access import Access, check_names, names_of_this_machine, read_token
from .app import SERVER, create_app
from .drain import Stop, drain
from .gatekeeper import Gatekeeper, QuietHttpErrors
from .listening import Address, Listening, is_everywhere, open_all, take_from_systemd
from .operations import Operations
from .settings import ServerSettings

logger = logging.getLogger("browserkeeper")

SOCKET = "serve.sock"
"""The file name, in the state directory, of the socket of a server without ``--listen``."""
KEEPALIVE = 1e7
"""Seconds, so many that aiohttp closes no idle connection: a session must not lose the connection of
its living client.  ``gatekeeper.py`` cuts idle connections without a session."""
DISCARD_TIME = 2.0
"""Seconds for which the rest of a refused body is read and dropped.  A client that has sent its whole
body by then can read the answer; the connection of a slower client is closed."""
LAST_ANSWERS = 5.0
"""Seconds for the answers to commands that were cut off."""
QUIET = QuietHttpErrors()
LEAKED = 1
"""Exit status if something is left of a browser."""


def listen(settings: ServerSettings) -> tuple[Listening, Access]:
    """Open the sockets, and read the token.  Raises ConfigError for settings that cannot be used, and
    LedgerError if the state directory cannot be used."""
    check_names(settings.allow_hosts)
    addresses = [Address.parse(text) for text in settings.listen]
    given = take_from_systemd(os.environ)
    _check_tcp(settings, addresses, given)
    if not addresses and not given:
        addresses = [Address.parse(f"unix:{default_socket()}")]
    token = read_token(settings.token_file) if settings.token_file else ""
    listening = open_all(
        addresses,
        group=settings.group,
        has_token=bool(token),
        insecure=settings.insecure,
        given=given,
    )
    hosts = {*settings.allow_hosts, *(one.host for one in addresses if one.host)}
    if any(is_everywhere(host) for host in listening.tcp_hosts):
        hosts |= names_of_this_machine()
    return listening, Access(token, hosts)


def _check_tcp(
    settings: ServerSettings, addresses: Sequence[Address], given: Sequence[socket.socket]
) -> None:
    """Raises ConfigError for an argument about TCP where the server listens on unix sockets only."""
    if any(one.host or not one.path for one in addresses):
        return
    if any(one.family != socket.AF_UNIX for one in given):
        return
    stated = {
        "--token-file": settings.token_file,
        "--allow-host": " ".join(settings.allow_hosts),
        "--insecure": settings.insecure,
    }
    for option, value in stated.items():
        if value:
            said = option if value is True else f"{option} {value}"
            raise ConfigError(
                f"{said} is about TCP, and the server listens on unix sockets only, whose mode decides "
                "who may use it: leave it out, or give --listen HOST:PORT as well."
            )


def default_socket() -> Path:
    """The path of the socket of a server without ``--listen``."""
    return Ledger.open().directory / SOCKET


async def serve(settings: ServerSettings, listening: Listening, access: Access) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status.  Closes the sockets."""
    stop = Stop(asyncio.get_running_loop())
    app = create_app(settings)
    server = app[SERVER]
    gatekeeper = Gatekeeper(access, server)
    gatekeeper.add_to(app)
    Operations(server, gatekeeper).add_to(app)
    runner = make_runner(app)
    try:
        await runner.setup()
        for one in listening.sockets:
            one.connections = server.connections
            await web.SockSite(runner, one).start()
        server.websockets_at = listening.websockets_at()
        for name in listening.names():
            facts = {"event.action": "server-listening", "browserkeeper.address": name}
            logger.info("server: listening on %s", name, extra=facts)
        await stop.asked.wait()
        await drain(server, settings.drain_timeout, stop.at_once)
    finally:
        await runner.cleanup()
        listening.close()
    facts = {"event.action": "server-ended"}
    if server.pools.leaks:
        logger.error("server: ended; something is left of its browsers", extra=facts)
        return LEAKED
    logger.info("server: ended; nothing is left of its browsers", extra=facts)
    return 0


def make_runner(
    app: web.Application, last_answers: float = LAST_ANSWERS, discard_time: float = DISCARD_TIME
) -> web.AppRunner:
    """The aiohttp runner for the application, with the server's limits.

    ``last_answers``: seconds for which the end of the runner waits for answers.  ``discard_time``: see
    DISCARD_TIME.
    """
    errors = logging.getLogger("browserkeeper.http")
    errors.addFilter(QUIET)
    return web.AppRunner(
        app,
        access_log=None,
        logger=errors,
        keepalive_timeout=KEEPALIVE,
        lingering_time=discard_time,
        shutdown_timeout=last_answers,
    )


def run(settings: ServerSettings) -> int:
    """Listen, serve, and return the exit status.  Blocks until SIGTERM or SIGINT, and then for the
    drain.  Raises the same errors as :func:`listen`."""
    listening, access = listen(settings)
    try:
        return asyncio.run(serve(settings, listening, access))
    finally:
        listening.close()


__all__ = ["default_socket", "make_runner", "run"]
