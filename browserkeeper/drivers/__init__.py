"""Browsers and their drivers: which binaries to use, how to start them, and how to talk to them.

``families.py`` lists the supported browsers, ``resolve.py`` and ``probe.py`` find their binaries,
``chromium.py``, ``firefox.py`` and ``remote.py`` make a ``Launch`` of a configuration,
``profile.py`` and ``profile_holders.py`` say whether a profile may be used,
``browser_handle.py`` watches a browser that is running, ``contexts.py`` has the user contexts of a
Chromium, ``managed.py`` the Selenium driver classes, ``websockets.py`` the websockets that ask no proxy.
"""
