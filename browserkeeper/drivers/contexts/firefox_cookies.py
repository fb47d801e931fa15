"""The cookies of a lease's context in a Firefox, for the classic commands.

Firefox answers classic commands for cookies from the default context (``marionette/cookie.sys.mjs`` in
its ``omni.ja``).  This module answers them from the lease's context, by the rules of that file.  The
classic command is sent as well: it raises the errors of a plain driver, and finds no cookies in the
default context, whose only page is blank.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ...errors import hide_frames as __tracebackhide__  # noqa: F401
from ..bidi import BidiConnection
from .base import RunCommand

SAME_SITE = {"default": "None", "none": "None", "lax": "Lax", "strict": "Strict"}
"""BiDi's words for the attribute, and those of Firefox's classic commands."""


class FirefoxCookies:
    """The classic commands for cookies.  Each takes the command's parameters and a function that runs
    the command, and returns the response."""

    def __init__(self, connection: BidiConnection, run: RunCommand):
        self._connection, self._run = connection, run
        self._context = ""
        self.may_be_in_frame = False
        """True after a command that switches to a frame: then Firefox is asked for the current frame."""

    def begin(self, context: str) -> None:
        """Answer from this context from now on.  Its first window must be current."""
        self._context, self.may_be_in_frame = context, False

    def get_all(self, params: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        response = run()
        response["value"] = [_as_classic(cookie) for cookie in self._found()]
        return response

    def get_named(self, params: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        """``getCookie``.  Raises NoSuchCookieException, as Firefox's own command."""
        from selenium.common.exceptions import NoSuchCookieException

        try:
            return run()
        except NoSuchCookieException:  # as always: the default context has none
            for cookie in self._found():
                if cookie["name"] == params.get("name"):
                    return {"value": _as_classic(cookie)}
            raise

    def add(self, params: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        """Firefox's command checks the cookie and adds it to the default context; then it is moved."""
        default, own = partition("default"), partition(self._context)
        response = run()
        added = self._connection.command("storage.getCookies", {"partition": default})["cookies"]
        for cookie in added or [self._expired(params["cookie"])]:
            self._connection.commands(
                [
                    ("storage.setCookie", {"cookie": _without_size(cookie), "partition": own}),
                    ("storage.deleteCookies", {"filter": _key(cookie), "partition": default}),
                ]
            )
        return response

    def _expired(self, cookie: Mapping[str, Any]) -> dict[str, Any]:
        """For BiDi, a cookie that Firefox has not added because it has expired.  Setting it removes the
        cookie of this name."""
        host = urlsplit(self._place()[1]).hostname or ""
        domain = str(cookie["domain"]).removeprefix(".") if cookie.get("domain") else ""
        return {
            "name": cookie["name"],
            "value": {"type": "string", "value": cookie["value"]},
            "domain": host if not domain else domain if _is_address(domain) else f".{domain}",
            "path": cookie.get("path") or "/",
            "expiry": cookie.get("expiry", 0),
        }

    def delete(self, params: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        """``deleteCookie`` with a name, and ``deleteAllCookies``: both delete only cookies of the
        page."""
        response = run()
        own, name = partition(self._context), params.get("name")
        self._connection.commands(
            ("storage.deleteCookies", {"filter": _key(cookie), "partition": own})
            for cookie in self._found(of_whole_window=False)  # Firefox does not delete the others
            if name is None or cookie["name"] == name
        )
        return response

    def _found(self, *, of_whole_window: bool = True) -> list[dict[str, Any]]:
        """The cookies of the current frame's page, as Firefox's classic commands choose them.

        They are of the page's host or one above it, and their path is part of the page's path: cookies
        without a partition, those of the page's own, and with ``of_whole_window``, for a frame of
        another site, those of the partition that the site of the whole window has.
        """
        frame, url = self._place()
        parts = urlsplit(url)
        host, origin = parts.hostname or "", f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        if parts.scheme not in ("http", "https") or not host:
            return []
        calls = [{"partition": partition(self._context, origin)}]
        top = self._run("w3cGetCurrentWindowHandle", {}) if self.may_be_in_frame else frame
        if of_whole_window and frame != top:
            outer = urlsplit(self._address(top))
            if outer.scheme in ("http", "https"):
                whole = f"{outer.scheme}://{outer.netloc.rpartition('@')[2]}"
                calls.append({"partition": partition(self._context, whole)})
        if parts.scheme == "http" and (
            of_whole_window or frame == top
        ):  # BiDi leaves these out, a classic command does not
            calls.append({"partition": partition(self._context), "filter": {"secure": True}})
        answers = self._connection.commands(("storage.getCookies", call) for call in calls)
        hosts = set(_hosts_above(host))
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for answer in answers:
            for cookie in answer["cookies"]:
                if cookie["domain"] in hosts and cookie["path"] in (parts.path or "/"):
                    found.setdefault(tuple(_key(cookie).values()), cookie)
        return list(found.values())

    def _place(self) -> tuple[str, str]:
        """The id of the current frame, for BiDi, and its address."""
        if self.may_be_in_frame:
            window = self._run("w3cExecuteScript", {"script": "return window", "args": []})
            frame = str(next(iter(window.values())) if isinstance(window, dict) else window)
        else:
            frame = self._run("w3cGetCurrentWindowHandle", {})
        return frame, self._address(frame)

    def _address(self, frame: str) -> str:
        params = {"root": frame, "maxDepth": 0}
        (found,) = self._connection.command("browsingContext.getTree", params)["contexts"]
        return str(found["url"])


def partition(context: str, origin: str = "") -> dict[str, Any]:
    """BiDi's partition of all cookies of a context, or of those that pages of one origin have there."""
    partition = {"type": "storageKey", "userContext": context}
    return {**partition, "sourceOrigin": origin} if origin else partition


def _key(cookie: Mapping[str, Any]) -> dict[str, Any]:
    return {name: cookie[name] for name in ("name", "domain", "path")}


def _without_size(cookie: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cookie.items() if name != "size"}


def _as_classic(cookie: Mapping[str, Any]) -> dict[str, Any]:
    """A cookie of BiDi's as the classic commands return it."""
    expiry = {"expiry": cookie["expiry"]} if "expiry" in cookie else {}
    return {
        "name": cookie["name"],
        "value": cookie["value"]["value"],
        "path": cookie["path"],
        "domain": cookie["domain"],
        "secure": cookie["secure"],
        "httpOnly": cookie["httpOnly"],
        **expiry,
        "sameSite": SAME_SITE.get(cookie["sameSite"], "None"),
    }


def _hosts_above(host: str) -> list[str]:
    """For ``www.shop.test``: ``www.shop.test`` and ``shop.test``, each without and with a leading
    dot."""
    found = []
    while True:
        found += [host, f".{host}"]
        host = host.partition(".")[2] if "." in host else ""
        if "." not in host:
            return found


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


__all__ = ["FirefoxCookies", "partition"]
