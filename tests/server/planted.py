"""``browserkeeper serve`` with a fault of its own, which the soak must find.  ``PLANTED`` names it."""

from __future__ import annotations

import collections
import os
from typing import Any

from browserkeeper.cli import main
from browserkeeper.server.app import Server


def leases_are_mixed_up() -> None:
    """A client gets the session of another one, if there is one.  It ends with its last client, since
    one that is cut off finds no trace of the other."""
    open_new, end = Server._open, Server._end
    clients: collections.Counter[str] = collections.Counter()

    async def find_or_open(self: Server, request: Any, client: Any) -> Any:
        session = next(iter(self.sessions), None) or await open_new(self, request, client)
        clients[session.id] += 1
        return session

    async def end_with_the_last(self: Server, session: Any, why: str) -> Any:
        clients[session.id] -= 1
        return await end(self, session, why) if clients[session.id] <= 0 else None

    Server._open = find_or_open  # type: ignore[method-assign]
    Server._end = end_with_the_last  # type: ignore[method-assign]


def dead_clients_keep_their_leases() -> None:
    Server._end_for_client = lambda self, session, reason: None  # type: ignore[method-assign]


PLANTED = {plant.__name__: plant for plant in (leases_are_mixed_up, dead_clients_keep_their_leases)}

if __name__ == "__main__":
    PLANTED[os.environ["PLANTED"]]()
    main()
