"""``ServerSettings``: the arguments of ``browserkeeper serve``, checked before anything starts."""

from __future__ import annotations

import dataclasses

from ..config import (
    START_TIMEOUT,
    Isolate,
    check_choice,
    check_count,
    check_flag,
    check_isolate,
    check_seconds,
)
from ..errors import ConfigError
from ..pool.config import CHECKOUT_TIMEOUT, ISOLATIONS, MAX_WAITING, Isolation, default_size

MAX_POOLS = 8
"""How many different launches may have browsers at a time."""
MAX_UPLOAD = 64 * 2**20
"""Bytes of the body of a file upload, which is a zip file in base64."""
MAX_COMMAND = 16 * 2**20
"""Bytes of the body of any other command: a script may have large arguments."""
MAX_NEW_SESSION = 4 * 2**20
"""Bytes of the capabilities of a new session: they may hold an extension in base64."""
IDLE_TIMEOUT = 300.0
"""Seconds; as Selenium Grid's ``session-timeout``."""
DRAIN_TIMEOUT = 30.0
"""Seconds; Kubernetes' default ``terminationGracePeriodSeconds``."""


@dataclasses.dataclass(frozen=True)
class ServerSettings:
    """The arguments.  Times are in seconds, sizes in bytes; None means no limit.

    ``listen``: addresses, each ``unix:PATH`` or ``HOST:PORT``.  ``group``: the group whose members may
    use the unix sockets.  ``token_file``: the file with the token of clients over TCP.  ``allow_hosts``:
    names by which clients may call the server, besides its addresses.  ``insecure``: the server may
    listen on all interfaces.

    ``max_browsers``: how many browsers there may be at a time, over all launches; 0 for the default of
    ``BrowserPool``.  ``min_idle``: for how many sessions without options browsers are kept ready.
    ``leases_per_browser``: how many sessions share a Chromium.  ``isolation``: as for ``BrowserPool``.
    ``max_pools``: how many different launches may have browsers at a time.  ``headless``: the browsers
    show no windows.  ``start_timeout``: how long the start of one browser may take.
    ``isolate_driver``: as for ``browser()``; True refuses Firefox.

    ``queue_timeout``: how long a new session waits for a browser at most.  ``max_waiting``: how many
    requests may wait.  ``max_per_client``: how many sessions one client may have.  ``max_lease``: how
    long a session may last.  ``idle_timeout``: how long a session may be without a command.
    ``drain_timeout``: how long open sessions may go on after SIGTERM.  ``max_upload``: the largest body
    of an upload.

    The constructor raises ConfigError for arguments that are not valid.
    """

    listen: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    group: str = ""
    token_file: str = ""
    insecure: bool = False
    max_browsers: int = 0
    min_idle: int = 1
    leases_per_browser: int = 1
    isolation: Isolation = "auto"
    queue_timeout: float = CHECKOUT_TIMEOUT
    max_waiting: int = MAX_WAITING
    max_per_client: int | None = None
    max_lease: float | None = None
    idle_timeout: float | None = IDLE_TIMEOUT
    drain_timeout: float = DRAIN_TIMEOUT
    max_pools: int = MAX_POOLS
    max_upload: int = MAX_UPLOAD
    headless: bool = True
    start_timeout: float = START_TIMEOUT
    isolate_driver: Isolate = "auto"

    def __post_init__(self) -> None:
        check_count("max_browsers", self.max_browsers, least=0)
        if not self.max_browsers:
            check_count("leases_per_browser", self.leases_per_browser, least=1)
            object.__setattr__(self, "max_browsers", default_size(self.leases_per_browser))
        check_count("min_idle", self.min_idle, least=0)
        check_count("max_waiting", self.max_waiting, least=0)
        for name in ("leases_per_browser", "max_pools", "max_upload"):
            check_count(name, getattr(self, name), least=1)
        if self.max_per_client is not None:
            check_count("max_per_client", self.max_per_client, least=1)
        check_choice("isolation", self.isolation, ISOLATIONS)
        check_seconds("queue_timeout", self.queue_timeout)
        check_seconds("start_timeout", self.start_timeout)
        check_seconds("drain_timeout", self.drain_timeout, or_zero=True)
        for name in ("max_lease", "idle_timeout"):
            if getattr(self, name) is not None:
                check_seconds(name, getattr(self, name))
        for name in ("headless", "insecure"):
            check_flag(name, getattr(self, name))
        check_isolate(self.isolate_driver)
        if self.isolate_driver is True and self.leases_per_browser > 1:
            raise ConfigError(
                f"leases_per_browser={self.leases_per_browser} cannot be used with isolate_driver=True: "
                "the driver must reach the debugging port that sessions share a browser by."
            )
        if self.min_idle > self.max_sessions:
            raise ConfigError(
                f"min_idle={self.min_idle} is more than the {self.max_sessions} sessions that there may "
                f"be (max_browsers={self.max_browsers} × leases_per_browser={self.leases_per_browser})."
            )

    @property
    def max_sessions(self) -> int:
        """How many sessions there may be at a time."""
        return self.max_browsers * self.leases_per_browser


__all__ = ["ServerSettings"]
