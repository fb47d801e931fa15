"""The server of ``browserkeeper serve``: W3C WebDriver over HTTP.  Its sessions are leases of pools.

    settings.py      ServerSettings: the arguments, checked
    app.py           create_app(): the aiohttp application, and which handler answers which request
    protocol.py      which of Selenium's commands a method and a path mean
    capabilities.py  the capabilities of a new session: merged, matched, and what they mean for a lease
    browsers.py      which browsers this machine has, and their versions
    pools.py         one pool for each distinct launch
    sessions.py      the table of sessions: id, lease, client, how it ended
    commands.py      one command of a session, in the session's thread
    files.py         uploads, and downloads that are fetched
    bidi.py          a client's BiDi websocket, joined to the browser's through the lease's filter
    errors.py        exceptions as W3C error answers
    listening.py     unix:PATH, HOST:PORT, and the sockets that systemd gives
    connections.py   the connections of clients: which process has sent bytes, limits for slow clients
    clients.py       who a client is, how its death is noticed, and when its sessions then end
    access.py        the token; Host and Origin of requests
    queue.py         first come first served, with a deadline and a share per client
    gatekeeper.py    the middleware before all handlers: access, and slow clients
    operations.py    /metrics, /healthz, /readyz, /pressure
    drain.py         what SIGTERM and SIGINT do
    worker.py        the thread of a session
    documents.py     JSON of clients, read in bounded time and memory
    bodies.py        the bodies of requests, and the memory that they may take
    service.py       run(): listen, serve, drain; for the command line

Needs ``browserkeeper[serve]`` (aiohttp).  The server has no browsers of its own: its pools lease them,
and the guards of the browsers end them, whatever happens to the server.  This package is a layer below
the command line, which runs the server as a service.
"""

from __future__ import annotations
