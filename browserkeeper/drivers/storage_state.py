"""Loads a storage state into a user context before its first page, and saves the state of a context.

Cookies are sent in one batch.  localStorage and IndexedDB need a page of their origin: a tab of
browserkeeper in the same context, whose requests are answered here, so that none goes to the network.
(Measured with Chromium 156: an intercepted page load still opens connections to its host, since the
browser connects in advance.  It does so for the address with which a load begins, and for no redirect.
So each load begins at DECOY, and is redirected.  The tab's icon is in the page: Chromium would request
``/favicon.ico`` without the interception.  Firefox 153 opens no connection.)
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..errors import IdentityError, StorageStateError
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..options.storage_state import Cookie, OriginStorage, StorageState, origin_of
from .bidi import BidiConnection, ProtocolError
from .storage_script import COLLECT, RESTORE_DATABASE, RESTORE_LOCAL
from .target_overrides import release

DEFAULT_CONTEXT = "default"
ANSWER_TIMEOUT = 20.0
"""Seconds for one answer of the browser; it takes 1 to 300 ms, and some seconds for megabytes."""
SAVE_TIMEOUT = 60.0
"""Seconds for a whole state to be saved.  An origin takes 0.1 s, and one with 5 MB of localStorage more
than 20 s on a very busy machine."""
DECOY = "http://127.0.0.1:1/"
"""The address with which each load of a Chromium begins.  Browsers do not connect to this port
(fetch.spec.whatwg.org, "bad port")."""
PAGE = '<!doctype html><link rel="icon" href="data:,">'
CHUNK = 500_000
"""Characters of localStorage that are sent at once."""
COMMITTED = "browsingContext.navigationCommitted"
BEFORE_REQUEST = "network.beforeRequestSent"
RESPONSE_STARTED = "network.responseStarted"
SITE_LIMIT = 180
"""How many cookies both browsers keep for one site; with more they drop the oldest 30."""
TOTAL_LIMIT = 3000
"""How many cookies Firefox keeps; Chromium keeps 3300."""

logger = logging.getLogger("browserkeeper")


class VisitedOrigins:
    """The origins of all documents that a connection's browser has loaded, in the order of visits."""

    context: str | None = None
    """The user context whose documents are noted; None for all of them."""

    def __init__(self, connection: BidiConnection):
        """Subscribe to page loads.  Raises ProtocolError, or an error of the websocket."""
        self._origins: dict[str, None] = {}
        self.stop = connection.on(COMMITTED, self._note)
        connection.command("session.subscribe", {"events": [COMMITTED]})

    def _note(self, event: Mapping[str, Any]) -> None:
        if self.context is not None and event.get("userContext") != self.context:
            return
        origin = origin_of(str(event.get("url", "")))
        if origin is not None:
            self._origins[origin] = None

    def forget(self) -> None:
        """To be called when a new context has replaced the present one."""
        self._origins = {}

    @property
    def origins(self) -> tuple[str, ...]:
        return tuple(self._origins)


def load(
    connection: BidiConnection,
    engine: str,
    context: str,
    state: StorageState,
    timeout: float | None = None,
) -> None:
    """Load a state into a user context that has had no page yet.

    ``timeout``: seconds for each answer.  Raises IdentityError if the browser refuses a part of the
    state, and errors of the websocket.
    """
    _set_cookies(connection, engine, context, state)
    full = [one for one in state.origins if one.local_storage or one.databases != "[]"]
    if not full:
        return
    with OwnPage(connection, engine, context, timeout or ANSWER_TIMEOUT) as page:
        for one in full:
            try:
                _restore(page, one)
            except ProtocolError as error:
                text = (
                    f"storage_state={state.source}: {one.place} ({one.origin}) cannot be loaded: {error}"
                )
                raise IdentityError(text, "storage_state") from None
            except _StorageError as error:
                what = f"{one.place}{error.where} ({one.origin})"
                raise IdentityError(
                    f"storage_state={state.source}: {what} cannot be loaded: {error.name}{error.hint}",
                    "storage_state",
                ) from None


def save(
    connection: BidiConnection,
    engine: str,
    context: str,
    visited: Iterable[str],
    *,
    indexed_db: bool,
    state: StorageState | None = None,
) -> dict[str, Any]:
    """Returns the state of a user context, in Playwright's format.

    Saves the origins of the open pages, of ``visited``, and of ``state``, the state that was loaded.
    Raises StorageStateError, also if the save takes longer than ``SAVE_TIMEOUT``.
    """
    from websocket import WebSocketTimeoutException

    end = time.monotonic() + SAVE_TIMEOUT
    known = dict.fromkeys(visited)
    if state is not None:
        known |= dict.fromkeys(one.origin for one in state.origins)
    try:
        known |= dict.fromkeys(_open_origins(connection, context))
        cookies = get_cookies(connection, engine, context, known, state)
        origins = []
        if known:
            with OwnPage(connection, engine, context, ANSWER_TIMEOUT) as page:
                for origin in known:
                    page.timeout = max(0.5, end - time.monotonic())
                    storage = _collect(page, origin, indexed_db)
                    if storage["localStorage"] or storage.get("indexedDB"):
                        origins.append({"origin": origin, **storage})
        return {"cookies": cookies, "origins": origins}
    except (ProtocolError, WebSocketTimeoutException) as error:
        raise StorageStateError(f"The storage state cannot be read: {error}.") from None


class _StorageError(Exception):
    """A script has raised a JavaScript exception of this name.  ``where``: the part of the origin's
    state, such as ``.localStorage``."""

    def __init__(self, name: str, where: str = ""):
        super().__init__(name)
        self.name, self.where = name, where

    @property
    def hint(self) -> str:
        if self.name == "QuotaExceededError":
            return ". It is more than a browser stores for one origin: leave out what is not needed."
        return "."


# -- cookies


def live_cookies(state: StorageState) -> list[Cookie]:
    """The cookies that have not expired; logs how many have expired."""
    now = time.time()
    cookies = [one for one in state.cookies if one.expires is None or one.expires > now]
    if expired := len(state.cookies) - len(cookies):
        logger.info("storage_state=%s: %d expired cookies were left out", state.source, expired)
    return cookies


def _set_cookies(connection: BidiConnection, engine: str, context: str, state: StorageState) -> None:
    cookies = live_cookies(state)
    set_them = _set_in_chromium if engine == "chromium" else _set_in_firefox
    if not cookies:
        return
    try:
        set_them(connection, context, cookies)
    except ProtocolError:
        refused = _first_refused(lambda some: set_them(connection, context, some), cookies)
        raise IdentityError(
            f"storage_state={state.source}: the browser refuses {refused.place}, {refused.name!r} of "
            f"{refused.domain}. Leave it out, or save it with the browser that is to load it.",
            "storage_state",
        ) from None
    if len(cookies) > TOTAL_LIMIT or max(_per_site(cookies).values()) > SITE_LIMIT:
        _check_all_kept(connection, engine, context, state.source, cookies)


def _set_in_chromium(connection: BidiConnection, context: str, cookies: Sequence[Cookie]) -> None:
    where = {} if context == DEFAULT_CONTEXT else {"browserContextId": context}
    connection.cdp("Storage.setCookies", cookies=chromium_cookies(cookies), **where)


def chromium_cookies(cookies: Iterable[Cookie]) -> list[dict[str, Any]]:
    """The cookies as parameters of the DevTools command ``Storage.setCookies``."""
    return [_for_chromium(one) for one in cookies]


def _for_chromium(cookie: Cookie) -> dict[str, Any]:
    """Without the values that are Chromium's defaults: ChromeDriver takes a quarter longer with them."""
    given: dict[str, Any] = {"name": cookie.name, "value": cookie.value, "domain": cookie.domain}
    if cookie.path != "/":
        given["path"] = cookie.path
    if cookie.http_only:
        given["httpOnly"] = True
    if cookie.secure:
        given["secure"] = True
    if cookie.expires is not None:
        given["expires"] = cookie.expires
    if cookie.same_site is not None:
        given["sameSite"] = cookie.same_site
    if cookie.partition is not None:
        across = True if cookie.cross_site is None else cookie.cross_site
        given["partitionKey"] = {"topLevelSite": cookie.partition, "hasCrossSiteAncestor": across}
    return given


def _set_in_firefox(connection: BidiConnection, context: str, cookies: Sequence[Cookie]) -> None:
    calls = [("storage.setCookie", _for_firefox(one, context)) for one in cookies]
    connection.commands(calls)


def _for_firefox(cookie: Cookie, context: str) -> dict[str, Any]:
    given: dict[str, Any] = {
        "name": cookie.name,
        "value": {"type": "string", "value": cookie.value},
        "domain": cookie.domain,
        "path": cookie.path,
        "httpOnly": cookie.http_only,
        "secure": cookie.secure,
    }
    if cookie.expires is not None:
        given["expiry"] = round(cookie.expires)
    if cookie.same_site is not None:
        given["sameSite"] = cookie.same_site.lower()
    partition = {"type": "storageKey", "userContext": context}
    if cookie.partition is not None:
        partition["sourceOrigin"] = cookie.partition
    return {"cookie": given, "partition": partition}


def _first_refused(set_them: Callable[[Sequence[Cookie]], None], cookies: Sequence[Cookie]) -> Cookie:
    """The first cookie that the browser refuses, by bisection: it has refused all of them together."""
    while len(cookies) > 1:
        half = cookies[: len(cookies) // 2]
        try:
            set_them(half)
        except ProtocolError:
            cookies = half
        else:
            cookies = cookies[len(half) :]
    return cookies[0]


def _per_site(cookies: Sequence[Cookie]) -> Counter[str]:
    """The number of cookies for each site.  It can be too large: see :func:`_site`."""
    return Counter(_site(one.domain) for one in cookies)


def _site(domain: str) -> str:
    """The last two labels of a host, or its address.  For ``example.co.uk`` this is the suffix, not the
    site."""
    host = domain.strip(".[]").lower()
    is_address = ":" in host or host.replace(".", "").isdigit()
    return host if is_address else ".".join(host.rsplit(".", 2)[-2:])


def _key(name: str, domain: str, path: str, partition: object) -> tuple[str, str, str, bool]:
    return name, domain.lstrip("."), path, bool(partition)


def _check_all_kept(
    connection: BidiConnection, engine: str, context: str, source: str, cookies: Sequence[Cookie]
) -> None:
    """Raises IdentityError if the browser has dropped cookies because there are too many."""
    found = get_cookies(connection, engine, context, (), None)
    kept = {_key(one["name"], one["domain"], one["path"], one.get("partitionKey")) for one in found}
    if engine == "firefox":  # its answer does not show partitions
        kept |= {(name, domain, path, True) for name, domain, path, _ in kept}
    given = {_key(one.name, one.domain, one.path, one.partition): one for one in cookies}
    if lost := [one for key, one in given.items() if key not in kept]:
        sites = ", ".join(site for site, _ in _per_site(lost).most_common(3))
        raise IdentityError(
            f"storage_state={source}: the browser has kept {len(given) - len(lost)} of {len(given)} "
            f"cookies; lost are some of {sites}. It keeps at most {SITE_LIMIT} for one site, and about "
            f"{TOTAL_LIMIT} in all: leave out what the login does not need.",
            "storage_state",
        )


def get_cookies(
    connection: BidiConnection,
    engine: str,
    context: str,
    top_level: Iterable[str],
    state: StorageState | None,
) -> list[dict[str, Any]]:
    """All cookies of the context, in Playwright's format.

    ``top_level``: origins of top-level pages.  Firefox is asked for each of their partitions, since its
    answer does not tell partitioned cookies from others.
    """
    if engine == "chromium":
        where = {} if context == DEFAULT_CONTEXT else {"browserContextId": context}
        answer = connection.cdp("Storage.getCookies", **where)
        return [from_chromium(one) for one in answer["cookies"]]
    partitions = dict.fromkeys(top_level)
    if state is not None:
        partitions |= dict.fromkeys(one.partition for one in state.cookies if one.partition)
    whole = {"type": "storageKey", "userContext": context}
    calls = [("storage.getCookies", {"partition": whole})]
    calls += [
        ("storage.getCookies", {"partition": {**whole, "sourceOrigin": one}}) for one in partitions
    ]
    first, *others = connection.commands(calls)
    cookies = [_from_firefox(one) for one in first["cookies"]]
    left_out: Counter[str] = Counter()
    for partition, answer in zip(partitions, others, strict=True):
        for one in map(_from_firefox, answer["cookies"]):
            if one not in cookies or _site(one["domain"]) == _site(urlsplit(partition).hostname or ""):
                continue  # an answer for a site also has the unpartitioned cookies of its own pages
            cookies.remove(one)
            if one["secure"]:
                cookies.append({**one, "partitionKey": partition})
            else:
                left_out[one["domain"]] += 1
    if left_out:
        logger.warning(
            "the storage state has no cookies that Firefox keeps for frames of other sites without "
            "'Secure', since the format cannot have such cookies: %s",
            ", ".join(left_out),
        )
    return cookies


def from_chromium(found: Mapping[str, Any]) -> dict[str, Any]:
    """A cookie of the DevTools protocol in Playwright's format, which calls "unspecified" Lax."""
    cookie = {
        **{key: found[key] for key in ("name", "value", "domain", "path", "expires")},
        **{key: found[key] for key in ("httpOnly", "secure")},
        "sameSite": found.get("sameSite", "Lax"),
    }
    if partition := found.get("partitionKey"):
        cookie["partitionKey"] = partition["topLevelSite"]
        cookie["_crHasCrossSiteAncestor"] = partition["hasCrossSiteAncestor"]
    return cookie


def _from_firefox(found: Mapping[str, Any]) -> dict[str, Any]:
    """A BiDi cookie in Playwright's format.

    Where a cookie does not say SameSite, Firefox treats it as None, which Playwright writes, too.
    Without Secure no browser loads that, and so it is Lax.
    """
    same_site = {"strict": "Strict", "lax": "Lax"}.get(found.get("sameSite", ""))
    return {
        "name": _text(found["name"]),
        "value": _bytes_value(found["value"]),
        "domain": found["domain"],
        "path": found["path"],
        "expires": found.get("expiry", -1),
        "httpOnly": found["httpOnly"],
        "secure": found["secure"],
        "sameSite": same_site or ("None" if found["secure"] else "Lax"),
    }


def _bytes_value(value: Mapping[str, str]) -> str:
    if value["type"] == "base64":
        return base64.b64decode(value["value"]).decode("utf-8", "replace")
    return _text(value["value"])


def _text(value: str) -> str:
    """Firefox 153 gives each byte of a cookie as one character; what is stored is UTF-8."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


# -- localStorage and IndexedDB


class OwnPage:
    """A tab of browserkeeper in a user context; its requests are answered here.  A context manager.

    The user's handlers get no events of it (``own_pages.py``), and ``block=`` does not apply to it.
    """

    def __init__(self, connection: BidiConnection, engine: str, context: str, timeout: float):
        self._connection, self._engine, self._context = connection, engine, context
        self.timeout = self._close_timeout = timeout
        """Seconds for one answer of the browser.  A change of it does not apply to the closing."""
        self._target = self._page = ""
        self._undo: list[tuple[str, dict[str, Any]]] = []
        self._removers: list[Callable[[], None]] = []

    def __enter__(self) -> OwnPage:
        where = {"type": "tab", "background": True, "userContext": self._context}
        with self._connection.own_pages.opening() as opened:
            created = self._connection.command("browsingContext.create", where, self.timeout)
            self._page = created["context"]
            opened(self._page)
        self._undo.append(("browsingContext.close", {"context": self._page}))
        try:
            if self._engine == "chromium":
                release(self._connection, self._page)
            only_here = {"contexts": [self._page]}
            self._removers = [
                self._connection.on(BEFORE_REQUEST, self._answer),
                self._connection.on(RESPONSE_STARTED, self._continue),
            ]
            subscription, intercept = self._connection.commands(
                [
                    ("session.subscribe", {"events": [BEFORE_REQUEST, RESPONSE_STARTED], **only_here}),
                    ("network.addIntercept", {"phases": ["beforeRequestSent"], **only_here}),
                ],
                self.timeout,
            )
        except BaseException:
            self._close()
            raise
        subscriptions = {"subscriptions": [subscription["subscription"]]}
        self._undo.insert(0, ("session.unsubscribe", subscriptions))
        self._undo.insert(0, ("network.removeIntercept", {"intercept": intercept["intercept"]}))
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def _close(self) -> None:
        """Close the tab, and then remove the intercept: no request of the page may reach the network."""
        try:
            with contextlib.suppress(ProtocolError):
                self._connection.commands(self._undo[-1:] + self._undo[:-1], self._close_timeout)
        finally:
            for remove in self._removers:
                remove()

    def _answer(self, event: Mapping[str, Any]) -> None:
        """Answer a request of the tab.  Called in the connection's thread."""
        if event.get("context") != self._page or not event.get("isBlocked"):
            return
        request = event["request"]
        answer: dict[str, Any] = {"request": request["request"]}
        if request["url"] == DECOY:
            answer |= {"statusCode": 302, "headers": [_header("Location", f"{self._target}/")]}
        elif request["url"] == f"{self._target}/":
            answer |= {
                "statusCode": 200,
                "headers": [_header("Content-Type", "text/html"), _header("Cache-Control", "no-store")],
                "body": {"type": "string", "value": PAGE},
            }
        else:
            self._connection.post("network.failRequest", {"request": request["request"]})
            return
        self._connection.post("network.provideResponse", answer)

    def _continue(self, event: Mapping[str, Any]) -> None:
        """Continue an answer of this tab that an intercept of the user holds.  Called in the same
        thread."""
        if event.get("context") == self._page and event.get("isBlocked"):
            self._connection.post("network.continueResponse", {"request": event["request"]["request"]})

    def open(self, origin: str) -> None:
        """Load a blank page of this origin."""
        self._target = origin
        url = DECOY if self._engine == "chromium" else f"{origin}/"
        self._connection.command(
            "browsingContext.navigate",
            {"context": self._page, "url": url, "wait": "complete"},
            self.timeout,
        )

    def call(self, function: str, *given: str | bool) -> dict[str, Any]:
        """Call a function of :mod:`.storage_script` in the page, and return its JSON.

        Raises _StorageError if the JSON has an error, or if the page has another origin.
        """
        arguments = [
            {"type": "boolean" if isinstance(one, bool) else "string", "value": one} for one in given
        ]
        answer = self._connection.command(
            "script.callFunction",
            {
                "functionDeclaration": function,
                "awaitPromise": True,
                "target": {"context": self._page},
                "arguments": arguments,
            },
            self.timeout,
        )
        if answer["type"] != "success":
            raise _StorageError(str(answer["exceptionDetails"].get("text", ""))[:100])
        found: dict[str, Any] = json.loads(answer["result"]["value"])
        if found["origin"] != self._target:  # the browser opens this host by HTTPS only (HSTS)
            raise _StorageError(f"the browser loads {found['origin']} in its place")
        if found.get("error"):
            raise _StorageError(found["error"])
        return found


def _header(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "value": {"type": "string", "value": value}}


def _restore(page: OwnPage, given: OriginStorage) -> None:
    page.open(given.origin)
    is_first = True
    for chunk in _chunks(given.local_storage):
        try:
            page.call(RESTORE_LOCAL, json.dumps(chunk), is_first)
        except _StorageError as error:
            error.where = ".localStorage"
            raise
        is_first = False
    for number, database in enumerate(json.loads(given.databases)):
        try:
            page.call(RESTORE_DATABASE, json.dumps(database))
        except _StorageError as error:
            error.where = f".indexedDB[{number}]"
            raise


def _chunks(entries: Sequence[tuple[str, str]]) -> Iterable[list[tuple[str, str]]]:
    """Lists of entries with about CHUNK characters, or of a single longer one."""
    chunk: list[tuple[str, str]] = []
    size = 0
    for entry in entries:
        length = len(entry[0]) + len(entry[1])
        if chunk and size + length > CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += length
    if chunk:
        yield chunk


def _collect(page: OwnPage, origin: str, indexed_db: bool) -> dict[str, Any]:
    """The storage of the origin, in Playwright's format.  Raises StorageStateError."""
    try:
        page.open(origin)
        found = page.call(COLLECT, indexed_db)
    except (_StorageError, ProtocolError) as error:
        raise StorageStateError(f"The storage of {origin} cannot be read: {error}.") from None
    for kind, count in found["lost"].items():
        logger.warning(
            "the storage state of %s has %d values of the type %s without their content: Playwright's "
            "format cannot hold them",
            *(origin, count, kind),
        )
    storage: dict[str, Any] = found["storage"]
    return storage


def _open_origins(connection: BidiConnection, context: str) -> list[str]:
    """The origins of all pages and frames that are open in the context."""
    found = []
    pages = connection.command("browsingContext.getTree", {})["contexts"]
    left = [one for one in pages if one["userContext"] == context]
    while left:
        page = left.pop()
        left += page["children"] or []
        if (origin := origin_of(page["url"])) is not None:
            found.append(origin)
    return found


__all__ = [
    "OwnPage",
    "VisitedOrigins",
    "chromium_cookies",
    "from_chromium",
    "get_cookies",
    "live_cookies",
    "load",
    "save",
]
