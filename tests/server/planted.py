"""``browserkeeper serve`` with a fault of its own, which the soak must find.  ``PLANTED`` names it."""

from __future__ import annotations

import os
from typing import Any

from browserkeeper.cli import main
from browserkeeper.server.app import Server


def leases_are_mixed_up() -> None:
    """A client gets the session of another one, if there is one."""
    open_new = Server._open

    async def find_or_open(self: Server, request: Any, client: Any) -> Any:
        return next(iter(self.sessions), None) or await open_new(self, request, client)

    Server._open = find_or_open  # type: ignore[method-assign]


def dead_clients_keep_their_leases() -> None:
    Server._end_for_client = lambda self, session, reason: None  # type: ignore[method-assign]


PLANTED = {plant.__name__: plant for plant in (leases_are_mixed_up, dead_clients_keep_their_leases)}

if __name__ == "__main__":
    PLANTED[os.environ["PLANTED"]]()
    main()
