"""Browsers and their drivers: which binary to use, and how to launch it.

``families.py`` names them, ``resolve.py`` finds them, ``chromium.py`` and ``firefox.py`` turn a
configuration into a launch, ``remote.py`` into one of a Grid, ``seen.py`` knows what can be seen of a
browser, ``kept.py`` is the only module that subclasses Selenium.
"""
