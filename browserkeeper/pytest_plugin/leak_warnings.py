"""The warnings of the leak check, importable for warning filters."""

from __future__ import annotations

import pytest


class LeakedBrowserWarning(pytest.PytestWarning):
    """A test left a browser running (``--keeper-leaks=warn``)."""


class SharedBrowserWarning(pytest.PytestWarning):
    """A browser outlives a test, and it is not plainly that test's own."""


for _warning in (LeakedBrowserWarning, SharedBrowserWarning):
    _warning.__module__ = __package__ or ""  # where filters find them
