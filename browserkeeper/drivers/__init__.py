"""Browsers and their drivers: which binary to use, and how to launch it.

``families.py`` names them, ``resolve.py`` finds them, ``chromium.py`` and ``firefox.py`` turn a
configuration into a launch, ``kept.py`` is the only module that subclasses Selenium.
"""
