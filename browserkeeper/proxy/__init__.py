"""The relay between browsers and the proxies of ``proxy=``, in the program that owns the sessions.

A browser is given ``http://127.0.0.1:PORT`` as its proxy, without a password.  The relay listens there,
sends each request on to the proxy with the password, or directly to the host if ``bypass`` covers it,
and notes why a request has failed.  One daemon thread serves all routes of a process; it ends with the
last route.

- ``relay.py``: the thread; :class:`~browserkeeper.proxy.relay.Route`, which a session or a lease holds
- ``client.py``: one connection of a browser, request after request
- ``upstream.py``: connections to the proxy, through the proxy, and past it (``bypass``)
- ``messages.py``: where HTTP/1.1 messages begin and end
- ``failures.py``: the ProxyError for each failure of a proxy
- ``peers.py``: which user has opened a connection
"""
