"""The relay between browsers and the proxies of ``proxy=``, in the program that owns the sessions.

A browser is given ``http://127.0.0.1:PORT`` as its proxy, without a password.  The relay listens there,
sends each request on to the proxy with the password, or directly where ``bypass`` says so, and knows
why a request has failed.  One daemon thread serves all routes of a process; it ends with the last one.

- ``relay.py``: the thread; :class:`~browserkeeper.proxy.relay.Route`, what a session or a lease holds
- ``client.py``: one connection of a browser, request after request
- ``upstream.py``: connections to the proxy, through it, and past it
- ``messages.py``: where HTTP/1.1 messages begin and end
- ``failures.py``: what failed at the proxy, as a ProxyError
- ``peers.py``: which user has opened a connection
"""
