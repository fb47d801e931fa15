"""What a server of ``browserkeeper serve`` and its clients say to each other.

Here is what both sides must agree on, and what a client needs of a server before it has a session.  The
server itself is in ``server/``, the sessions of our own clients are in ``session/``.

    address.py   where a server is: ``server=`` and BROWSERKEEPER_SERVER
    words.py     the names of capabilities and of fields beyond W3C's WebDriver
    errors.py    our exceptions as JSON, and back
    requests.py  single requests to a server, over a unix socket or TCP
"""
