"""The protocol between a server of ``browserkeeper serve`` and our own clients.

This package has the names and formats that both sides use, and the requests that a client sends before
it has a session.  The server itself is in ``server/``, the sessions of our own clients in ``session/``.

    address.py      where a server is: ``server=`` and BROWSERKEEPER_SERVER
    credentials.py  environment variables that may hold a password or a token
    words.py        the names of capabilities and of fields beyond W3C's WebDriver
    errors.py       our exceptions as JSON, and back
    http.py         single requests over HTTP, for servers and Grids
    requests.py     single requests to a server, over a unix socket or TCP
"""
