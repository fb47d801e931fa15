"""Storage states of a Chromium without BiDi, by DevTools commands that ChromeDriver sends to windows.

ChromeDriver passes on no events, and waits for each page load, so that requests of an own tab cannot be
answered here.  So only the storage of open pages can be read.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from ..errors import IdentityError, StorageStateError
from ..options.storage_state import StorageState, origin_of
from .storage_script import COLLECT
from .storage_state import chromium_cookies, from_chromium, live_cookies
from .stored_origins import on_disk

logger = logging.getLogger("browserkeeper")


def save_by_driver(driver: Any, indexed_db: bool) -> dict[str, Any]:
    """Returns the cookies of all sites, and the storage of the origins of open windows and their frames.

    Logs a warning that names other origins that were visited, or have stored something.  If there are
    several windows, the driver switches to each and back, so that the selected frame is lost.  Raises
    StorageStateError if a dialog is open, and Selenium's errors.
    """
    from selenium.common.exceptions import NoAlertPresentException, WebDriverException

    def run(name: str, **params: Any) -> Any:
        return driver.execute(name, params)["value"]

    try:
        run("w3cGetAlertText")
    except NoAlertPresentException:
        pass
    else:
        raise StorageStateError(
            "A dialog is open in the browser, so that its storage state cannot be read: handle it "
            "first, or start the session with storage_state={}, which needs no window."
        )
    cookies = _cdp(run, "Storage.getCookies")["cookies"]
    origins: dict[str, dict[str, Any]] = {}
    current = run("w3cGetCurrentWindowHandle")
    others = [handle for handle in run("w3cGetWindowHandles") if handle != current]
    visited = dict.fromkeys(on_disk("chromium", driver.caps))
    visited |= dict.fromkeys(_history(run))
    _collect(run, indexed_db, origins)
    try:
        for handle in others:
            try:
                run("switchToWindow", handle=handle)
                visited |= dict.fromkeys(_history(run))
                _collect(run, indexed_db, origins)
            except WebDriverException as error:
                logger.warning("a window was left out of the storage state: %s", error.msg)
    finally:
        if others:
            run("switchToWindow", handle=current)
    if left_out := [one for one in visited if one not in origins]:
        logger.warning(
            "the storage state has cookies, but nothing of localStorage and IndexedDB of %s, which no "
            "window shows; start the session with storage_state={} to have them saved, too",
            ", ".join(left_out),
        )
    full = {name: one for name, one in origins.items() if one["localStorage"] or one.get("indexedDB")}
    return {
        "cookies": [from_chromium(one) for one in cookies],
        "origins": [{"origin": name, **one} for name, one in full.items()],
    }


def load_cookies_by_driver(driver: Any, state: StorageState) -> None:
    """Set the cookies of a state that has only cookies.  Raises IdentityError, and Selenium's errors."""
    from selenium.common.exceptions import WebDriverException

    def run(name: str, **params: Any) -> Any:
        return driver.execute(name, params)["value"]

    cookies = chromium_cookies(live_cookies(state))
    try:
        if cookies:
            _cdp(run, "Storage.setCookies", cookies=cookies)
    except WebDriverException:
        for one, given in zip(live_cookies(state), cookies, strict=True):
            try:
                _cdp(run, "Storage.setCookies", cookies=[given])
            except WebDriverException:
                text = f"the browser refuses {one.place}, {one.name!r} of {one.domain}. Leave it out."
                raise IdentityError(f"storage_state={state.source}: {text}", "storage_state") from None
        raise


def _cdp(run: Any, command: str, **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = run("executeCdpCommand", cmd=command, params=params)
    return found


def _history(run: Any) -> list[str]:
    """The origins that the current window has shown."""
    entries = _cdp(run, "Page.getNavigationHistory")["entries"]
    return [origin for one in entries if (origin := origin_of(one["url"])) is not None]


def _collect(run: Any, indexed_db: bool, origins: dict[str, dict[str, Any]]) -> None:
    """Add the storage of the frames of the current window.

    The answer does not have frames of other sites, which are in processes of their own; their storage is
    not the one that the same site has in a window.
    """
    left = [_cdp(run, "Page.getFrameTree")["frameTree"]]
    while left:
        tree = left.pop()
        left += tree.get("childFrames", [])
        origin = origin_of(tree["frame"]["url"])
        if origin is None or origin in origins:
            continue
        world = _cdp(run, "Page.createIsolatedWorld", frameId=tree["frame"]["id"])
        answer = _cdp(
            run,
            "Runtime.evaluate",
            expression=f"({COLLECT})({json.dumps(indexed_db)})",
            contextId=world["executionContextId"],
            awaitPromise=True,
            returnByValue=True,
        )
        found = json.loads(answer["result"].get("value") or '{"error": "no answer"}')
        if found.get("error") or found["origin"] != origin:  # such as a page that may store nothing
            logger.info("%s stores nothing: %s", origin, found.get("error") or found["origin"])
            continue
        origins[origin] = found["storage"]
        for kind, count in found["lost"].items():
            logger.warning("values of the type %s are saved without content: %d", kind, count)


__all__ = ["load_cookies_by_driver", "save_by_driver"]
