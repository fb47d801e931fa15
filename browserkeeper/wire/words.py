"""The names of our capabilities and fields, which are not in W3C's WebDriver."""

from __future__ import annotations

# -- capabilities of a request for a session

IDENTITY = "browserkeeper:identity"
"""The words of an Identity, as JSON."""
LABEL = "browserkeeper:label"
TIMEOUT = "browserkeeper:timeout"
"""Seconds to wait in the server's queue."""
MAX_LEASE = "browserkeeper:maxLease"
"""Seconds after which the server ends the lease."""
ISOLATION = "browserkeeper:isolation"
CLIENT = "browserkeeper:client"
"""The version of a client of ours, and the id of its session.  Such a client reads reports in
answers."""

# -- a capability of the new session

SERVER = "browserkeeper:server"
"""An object: the server's ``version`` and ``pid``, and the id of the lease's ``browser``."""

# -- requests beyond WebDriver's

BEGIN_LEASE = "browserkeeper/lease"
"""``POST /session/ID/browserkeeper/lease``, with ``identity``, ``label`` and ``maxLease``.  A session
gets these before its first command; for clients whose sessions begin before their leases."""

# -- fields of answers

ERROR = "browserkeeper:error"
"""In the ``data`` of an error: the name of its class in ``browserkeeper.errors``."""
FIELDS = "browserkeeper:fields"
"""In the ``data`` of an error: the other attributes of the exception."""
REPORT = "browserkeeper:report"
"""In the ``data`` of an error, and in the answer to DELETE: an ExitReport, or null."""
