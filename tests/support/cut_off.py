"""A session whose timeout passes while it waits for a page."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from browserkeeper import BrowserSession, SessionTimeout
from tests.support.clock import limits_after_start


def cut_off_by_timeout(
    name: str, new_session: Callable[[int], BrowserSession[Any]], url: str, patience: float
) -> tuple[BrowserSession[Any], SessionTimeout]:
    """The session and its error.  ``new_session`` gets the timeout, ``url`` is a page that never comes,
    and the session has to be over ``patience`` seconds after its timeout."""
    for limit in limits_after_start(name):
        session = new_session(limit)
        began = time.monotonic()
        with pytest.raises(SessionTimeout) as caught, session as driver:
            driver.get(url)
        assert time.monotonic() - began < limit + patience
        if "did not start within" not in str(caught.value):
            break
    caught.match(f"its timeout of {limit} s")
    return session, caught.value


__all__ = ["cut_off_by_timeout"]
