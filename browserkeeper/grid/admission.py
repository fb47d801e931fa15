"""Which requests the relay accepts: those of the session's owner only.

The relay listens on the loopback, where every program of this machine can connect, and every web page
too: by a form or ``fetch(…, {mode: "no-cors"})``, and by a name that resolves to 127.0.0.1 (DNS
rebinding).  The owner's requests have a secret in their path that nothing else knows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from email.message import Message

HOST = "127.0.0.1"
FROM_PAGES = ("origin", "sec-fetch-site", "sec-fetch-mode")
"""Headers that browsers send with the requests of a page, and that a page cannot remove (Fetch Standard,
3.1; Fetch Metadata).  Selenium sends none of them."""


class RefusedError(Exception):
    """The request is not the owner's.  The text quotes nothing of it."""


def digest_of(secret: str) -> str:
    """What the relay is told of the secret.  It is in the relay's command line, which other users can
    read; the secret has 256 random bits, so it cannot be found from its SHA-256."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


@dataclasses.dataclass(frozen=True)
class Admission:
    """``port``: where the relay listens; ``digest``: of the secret, see :func:`digest_of`."""

    port: int
    digest: str

    def path_of(self, target: str, headers: Message) -> str:
        """The path for the Grid: the request's target without the secret.  Raises RefusedError."""
        if [name.strip() for name in headers.get_all("Host") or ()] != [f"{HOST}:{self.port}"]:
            raise RefusedError(f"its Host header is not {HOST} with the port of the relay")
        if found := [name for name in FROM_PAGES if name in headers]:
            raise RefusedError(f"it is one of a web page, by its header {found[0].title()}")
        empty, _, rest = target.partition("/")
        secret, _, path = rest.partition("/")
        if empty or not hmac.compare_digest(digest_of(secret), self.digest):
            raise RefusedError("its path does not begin with the secret of this session")
        if not path.isascii() or not path.isprintable() or " " in path:
            raise RefusedError("its path is not a valid one")
        return f"/{path}"


__all__ = ["HOST", "Admission", "RefusedError", "digest_of"]
