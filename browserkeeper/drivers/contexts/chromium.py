"""User contexts of a Chromium.

Commands of the DevTools protocol, such as ``Target.createBrowserContext``, go over the BiDi websocket
(chromium-bidi's ``goog:cdp.sendCommand``).  A page refuses these commands ("not allowed"), and a page
that hangs, or shows an alert, would block them.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

from ...config import SessionConfig
from ...errors import ConfigError
from ...errors import hide_frames as __tracebackhide__  # noqa: F401
from ...options.check import switch_of
from ..bidi import BidiConnection, ProtocolError
from ..context_limits import grants_geolocation
from ..paste_keys import NO_MIDDLE_PASTE, PasteKeys
from ..seat_connection import SeatConnection
from ..user_prompts import WITHOUT_BIDI
from .base import Contexts, DownloadFolders, RunCommand

TARGETS_TIMEOUT = 8.0
"""Seconds for the targets of a context to end: Chromium says that it is gone before they have ended."""
PAUSE = 0.02
"""Seconds between two looks at the targets."""
FIRST_PAGE = "data:,"
"""The page of the first window of a session, as ChromeDriver opens it."""

CONTEXT_COMMANDS = frozenset(
    """
    get goBack goForward refresh getCurrentUrl getTitle getPageSource printPage
    addCookie getCookie getCookies deleteCookie deleteAllCookies
    findElement findElements findChildElement findChildElements w3cGetActiveElement
    clearElement clickElement sendKeysToElement submitElement
    getElementText getElementTagName isElementSelected isElementEnabled isElementDisplayed
    getElementRect getElementAttribute getElementProperty getElementValueOfCssProperty
    getElementAriaRole getElementAriaLabel
    getShadowRoot findElementFromShadowRoot findElementsFromShadowRoot
    w3cExecuteScript w3cExecuteScriptAsync executeAsyncScript
    screenshot elementScreenshot fullPageScreenshot
    w3cGetCurrentWindowHandle switchToWindow switchToFrame switchToParentFrame
    setWindowRect getWindowRect w3cMaximizeWindow fullscreenWindow minimizeWindow
    w3cDismissAlert w3cAcceptAlert w3cSetAlertValue w3cGetAlertText
    clearActionState getTimeouts getNetworkConditions
    getAvailableLogTypes
    addVirtualAuthenticator removeVirtualAuthenticator addCredential getCredentials
    removeCredential removeAllCredentials setUserVerified
    getFedcmTitle getFedcmDialogType getFedcmAccountList selectFedcmAccount
    clickFedcmDialogButton cancelFedcmDialog setFedcmDelay resetFedcmCooldown
    """.split()
)
"""WebDriver commands that affect only windows of the current context, or change nothing."""

NAMES = {"devtools": "DevTools (start_devtools(), bidi_connection())"}
"""How messages name a command whose own name users do not know."""

UNDO_COMMANDS: Mapping[str, str] = {
    "setTimeouts": "setTimeouts",
    "setNetworkConditions": "deleteNetworkConditions",
    "deleteNetworkConditions": "deleteNetworkConditions",
    "actions": "clearActionState",  # releases keys and buttons, resets the pointer
}
"""WebDriver commands that change a setting of the session, and the command that restores it."""

DEFAULT_CONTEXT_COMMANDS = frozenset(
    """
    Browser.grantPermissions Browser.resetPermissions Browser.setPermission
    Browser.setDownloadBehavior Storage.getCookies Storage.setCookies Storage.clearCookies
    """.split()
)
"""DevTools commands that act on the default context, unless they are given a ``browserContextId``."""

PAGE_DOMAINS = frozenset(
    """
    Accessibility Animation Audits Autofill CSS CacheStorage Console DOM DOMDebugger DOMSnapshot
    DOMStorage Debugger DeviceOrientation Emulation EventBreakpoints FedCm Fetch HeapProfiler IO
    IndexedDB Input Inspector LayerTree Log Media Memory Network Overlay Page Performance
    PerformanceTimeline Profiler Runtime Schema Security ServiceWorker Storage WebAudio WebAuthn
    """.split()
)
"""Domains of the DevTools protocol whose commands affect only a page and its context."""

BROWSER_COMMANDS = frozenset(
    """
    Autofill.setAddresses
    Emulation.addScreen Emulation.updateScreen Emulation.removeScreen Emulation.setPrimaryScreen
    Memory.setPressureNotificationsSuppressed Memory.simulatePressureNotification
    """.split()
)
"""DevTools commands of those domains that affect the whole browser."""

ACTIVATING_COMMANDS = frozenset(
    """
    clickElement sendKeysToElement actions executeCdpCommand setPermissions
    w3cExecuteScript w3cExecuteScriptAsync executeAsyncScript
    """.split()
)
"""WebDriver commands after which a page may have written to the clipboard.

A page can do so only after input of the user's, as which some of these commands count, or with a
permission (w3.org/TR/clipboard-apis, "transient activation")."""

EMPTY_CLIPBOARD: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "Runtime.evaluate",
        {
            "expression": "document.body.innerHTML = `<textarea oncopy=\"this.title = 'copied';"
            " event.clipboardData.setData('text/plain', ''); event.preventDefault()\"> </textarea>`;"
            "document.body.firstChild.focus()"
        },
    ),
    ("Input.dispatchKeyEvent", {"type": "rawKeyDown", "commands": ["selectAll", "copy"]}),
    ("Runtime.evaluate", {"expression": "(t => (t.remove(), t.title))(document.body.firstChild)"}),
)
"""DevTools commands, and their parameters, that empty the clipboard from a blank page.

The page selects a space: that replaces the last selected text, which a click with the middle button
would paste (X11's primary selection)."""

IGNORE_DIALOGS = {"default": "ignore", "beforeUnload": "ignore"}
"""A seat's handling of dialogs.  Its own WebDriver session, without BiDi, answers a ``beforeunload``
dialog: if the browser's BiDi answers it first, the command fails with "No dialog is showing"
(ChromeDriver 156).  Other contexts have WITHOUT_BIDI."""


def for_contexts(config: SessionConfig, *, shared: bool = False) -> SessionConfig:
    """The configuration with BiDi turned on, and with Chromium's spare renderer turned off.

    ``shared``: the browser will have several leases at a time.  If it is headless, a click with the
    middle button then does not paste the text that was selected last, since another lease may have
    selected it.  In a visible browser that text belongs to the desktop.

    Chromium starts that renderer in advance for the next site.  A context serves one lease and seldom
    uses it; without it a renewal takes a fifth less time.
    """
    from ..chromium import user_options

    options = user_options(config)
    options.web_socket_url = True
    arguments = (*config.arguments, "--disable-features=SpareRendererForSitePerProcess")
    if shared and config.headless:
        users = [switch_of(each) for each in (*options.arguments, *arguments)]
        settings = [value for name, value in users if name == BLINK_SETTINGS and value]
        arguments += (f"--{BLINK_SETTINGS}={','.join([*settings, NO_MIDDLE_PASTE])}",)
    return dataclasses.replace(config, options=options, arguments=arguments, for_contexts=True)


INTERNAL_SCHEMES = frozenset("about brave devtools edge isolated-app opera vivaldi".split())
"""Schemes of the browser's own pages, beside those that begin with "chrome".  Some pages end the whole
browser, others show what other leases do."""
HARMLESS_PAGES = frozenset("blank crash hang kill shorthang srcdoc".split())
"""The hosts of the browser's own pages that affect only the lease's own tab.  Pages with content, such
as ``chrome://version``, are not among them: their scripts may open all other pages of the browser
(measured with 156)."""

SHARED_REFUSAL = (
    "reaches beyond the context of the lease, and other leases run in this browser "
    "(leases_per_browser). Use a BrowserPool with leases_per_browser=1."
)
"""The end of the sentence that refuses such a command."""
BLINK_SETTINGS = "blink-settings"
"""Chromium's argument for settings of its pages.  The last one on the command line is in effect."""
CLIPBOARD_REFUSAL = (
    "is refused: a browser has one clipboard, and other leases, which may have copied something, run in "
    "this browser (leases_per_browser). Use a BrowserPool with leases_per_browser=1."
)


def is_internal(url: object) -> bool:
    """True for the address of a page of the browser itself that may reach more than its own tab.

    Chromium's parser ignores blanks and control characters, the case of letters, and slashes
    (url.spec.whatwg.org, "URL parsing"); ``about:quit`` is ``chrome://quit``.
    """
    text = "".join(c for c in str(url) if c > " ").lower()
    while text.startswith("view-source:"):
        text = text.removeprefix("view-source:")
    scheme, colon, rest = text.partition(":")
    host = re.split(r"[/\\?#]", rest.lstrip("/\\"))[0]
    is_own = bool(colon) and (scheme in INTERNAL_SCHEMES or scheme.startswith("chrome"))
    return is_own and host not in HARMLESS_PAGES


@dataclasses.dataclass(frozen=True)
class FirstTargets:
    """What a Chromium has before its first context."""

    targets: frozenset[str]
    default: str
    """The id of the default context."""
    placement: Mapping[str, Any]
    """Place, size and state of the first window, as parameters of a new one."""

    @classmethod
    def look(cls, connection: BidiConnection) -> FirstTargets:
        """Raises ProtocolError or an error of the websocket."""
        found = connection.cdp("Target.getTargets")["targetInfos"]
        names = frozenset(str(target["targetId"]) for target in found)
        return cls(names, found[0]["browserContextId"], _first_placement(connection, found))


def _first_placement(
    connection: BidiConnection, targets: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Place, size and state of the browser's first window, as parameters of a new one.

    Chromium gives that window what the options say (``--window-position``, ``--kiosk``,
    ``--start-maximized`` ...), and any later window a place of its own.  Returns {} where the browser
    has no such window.
    """
    try:
        first = next(target for target in targets if target["type"] == "page")
        found = connection.cdp("Browser.getWindowForTarget", targetId=first["targetId"])
    except (StopIteration, ProtocolError):
        return {}
    bounds: dict[str, Any] = found["bounds"]
    return bounds


@dataclasses.dataclass(frozen=True)
class Shared:
    """For the contexts of one seat, in a browser with several leases at a time."""

    connection: SeatConnection
    """The seat's part of the browser's connection."""
    first: FirstTargets
    """As it was before the browser's first context."""


class ChromiumContexts(Contexts):
    """The contexts of one Chromium, or those of one seat of it."""

    engine = "chromium"

    def __init__(
        self,
        capabilities: Mapping[str, Any],
        run: RunCommand,
        folders: DownloadFolders,
        *,
        headless: bool,
        granted: Sequence[str] = (),
        shared: Shared | None = None,
    ):
        """Connect to the browser.

        ``headless``: the clipboard is the browser's own, and has to be emptied between leases; else it
        is the desktop's, and is left alone.  ``granted``: names of permissions that each context starts
        with.  ``shared``: the browser has other leases at the same time.
        """
        super().__init__(capabilities, run, folders, shared.connection if shared else None)
        self._shared = shared
        self._headless, self._granted = headless, granted
        self._may_have_copied = False
        self._keys = PasteKeys()
        self._logs_since = 0.0
        try:
            self._first = shared.first if shared else FirstTargets.look(self.connection)
            self._logs = run("getAvailableLogTypes", {})
        except BaseException:
            self.close()
            raise

    # -- between two leases

    def _renew(self, parameters: Mapping[str, Any]) -> None:
        if self.context:
            self.connection.cdp("Target.disposeBrowserContext", browserContextId=self.context)
        handling = WITHOUT_BIDI if self._shared is None else IGNORE_DIALOGS
        wanted = {"unhandledPromptBehavior": handling, **parameters}
        created = self.connection.command("browser.createUserContext", wanted)
        self.context = created["userContext"]
        downloads = self._folders.next()
        self.connection.cdp(
            "Browser.setDownloadBehavior",
            behavior="allowAndName",  # with "allow", it would replace an existing file of its name
            browserContextId=self.context,
            downloadPath=str(downloads),
            eventsEnabled=True,  # else BiDi tells of no download
        )
        self._grant()
        self.window = self._new_window(FIRST_PAGE, newWindow=True, **self._first.placement)
        if self._shared is not None:
            self._visited.context = self.context
        self._run("switchToWindow", {"handle": self.window})
        self._restore_settings()
        self._check_targets()

    def _grant(self) -> None:
        """Give the current context the permissions that it starts with, for all sites."""
        for name in self._granted:
            self.connection.cdp(
                "Browser.setPermission",
                permission={"name": name},
                setting="granted",
                browserContextId=self.context,
            )

    def _new_window(self, url: str, **params: Any) -> str:
        answer = self.connection.cdp(
            "Target.createTarget", url=url, browserContextId=self.context, **params
        )
        return cast(str, answer["targetId"])

    def _restore_settings(self) -> None:
        """Undo the last lease's effects on the WebDriver session: settings, clipboard, log lines."""
        self._undo_settings()
        if self._may_have_copied and self._headless and self._shared is None:
            self._empty_clipboard()
        self._may_have_copied = False
        self._keys = PasteKeys()
        for kind in self._logs:
            self._run("getLog", {"type": kind})
        self._logs_since = time.time() * 1000

    def _empty_clipboard(self) -> None:
        """All contexts of a headless browser share one clipboard."""
        answer: dict[str, Any] = {}
        for command, params in EMPTY_CLIPBOARD:
            answer = self._run("executeCdpCommand", {"cmd": command, "params": params})
        if answer["result"].get("value") != "copied":
            raise ProtocolError(f"the clipboard cannot be emptied: {answer}")

    def _check_targets(self) -> None:
        """Raises ProtocolError where a page or worker of an earlier lease is still there, also in a look
        that begins after TARGETS_TIMEOUT.

        In a browser with several leases at a time: of the last one of this seat.
        """
        until = time.monotonic() + TARGETS_TIMEOUT
        while True:
            is_last_look = time.monotonic() > until
            left = next(filter(self._is_left, self._targets()), None)
            if left is None:
                return
            if is_last_look:
                raise ProtocolError(f"a {left['type']} of an earlier lease is still there")
            time.sleep(PAUSE)

    def _is_left(self, target: Mapping[str, Any]) -> bool:
        context = target["browserContextId"]
        if self._shared is not None:
            return bool(context in self._shared.connection.ended)
        if context == self.context or target["targetId"] in self._first.targets:
            return False
        return bool(context != self._first.default or target["type"] == "page")

    def _targets(self) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", self.connection.cdp("Target.getTargets")["targetInfos"])

    # -- during a lease

    def _route(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        self._may_have_copied = self._may_have_copied or name in ACTIVATING_COMMANDS
        if self._shared is not None and self._headless and (what := self._keys.refused(name, params)):
            raise ConfigError(f"{what} {CLIPBOARD_REFUSAL}")
        if name in ("switchToWindow", "get"):
            route = self._route_get if name == "get" else self._route_switch
            return route(params, command)
        if name in CONTEXT_COMMANDS:
            return command()
        if name == "webextension":
            raise ConfigError(
                "An extension cannot be installed in a lease with isolation='context': it would be in "
                "the browser, but not in the lease's context. Use isolation='fresh'."
            )
        special = {
            "newWindow": self._route_new_window,
            "w3cGetWindowHandles": self._route_handles,
            "close": self._route_handles,
            "getLog": self._route_log,
            "setPermissions": self._route_permission,
            "executeCdpCommand": self._route_cdp,
        }.get(name)
        if special is not None:
            return special(params, command)
        if name in UNDO_COMMANDS:
            self._undo[UNDO_COMMANDS[name]] = None
        else:
            self.note_beyond(NAMES.get(name, name))
        return command()

    def _own_windows(self) -> set[str]:
        """The ids of all targets in the lease's contexts."""
        contexts = self.bidi_filter.contexts
        return {t["targetId"] for t in self._targets() if t["browserContextId"] in contexts}

    def _route_switch(self, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """Raises NoSuchWindowException for a window of another lease."""
        from selenium.common.exceptions import NoSuchWindowException

        if self._shared is not None and params.get("handle") not in self._own_windows():
            raise NoSuchWindowException("no such window")
        return command()

    def _check_address(self, url: object) -> None:
        """Raises ConfigError for a page of the browser itself, if the browser has other leases."""
        if self._shared is not None and self.refusal and is_internal(url):
            self.note_beyond(f"The page {url!r}")

    def _route_get(self, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        self._check_address(params.get("url"))
        return command()

    def _route_new_window(self, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """Open the window in the lease's context; ChromeDriver would open it in the default context.

        ``getWindowRect`` is run for its errors: it fails as ChromeDriver's own command does, if the
        current window was closed, or with an alert open.
        """
        self._run("getWindowRect", {})
        wanted = params.get("type")
        if wanted is not None and not isinstance(wanted, str):
            return command()  # ChromeDriver refuses it with its own error
        kind = "window" if wanted == "window" else "tab"
        handle = self._new_window("about:blank", newWindow=kind == "window")
        return {"value": {"handle": handle, "type": kind}}

    def _route_handles(self, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """Leave windows of other contexts out of the list."""
        response = command()
        own = self._own_windows()
        response["value"] = [
            handle
            for handle in response["value"]
            if handle in own and handle not in self.connection.own_pages
        ]
        return response

    def _route_log(self, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """Leave lines of earlier leases out of the driver's log.

        Reading a log between leases empties it, but ChromeDriver then writes its answer, with the lines
        that were read, into its own log.
        """
        response = command()
        if params["type"] == "driver":
            lines = response["value"]
            response["value"] = [line for line in lines if line["timestamp"] > self._logs_since]
        return response

    def _route_permission(self, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """Set the permission in the lease's context as well; ChromeDriver sets it in the default
        context.

        ChromeDriver's command comes first, since it refuses wrong parameters.  The permission is set for
        the origin of the current page (w3.org/TR/permissions, "Set Permission").
        """
        response = command()
        url = urlsplit(self._run("getCurrentUrl", {}))
        origin = {"origin": f"{url.scheme}://{url.netloc}"} if url.scheme in ("http", "https") else {}
        self.connection.cdp(
            "Browser.setPermission",
            permission=params["descriptor"],
            setting=params["state"],
            browserContextId=self.context,
            **origin,
        )
        return response

    def _route_cdp(self, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """Send DevTools commands to the current context; note those that affect the whole browser."""
        method, given = params.get("cmd"), params.get("params")
        if not isinstance(method, str) or not isinstance(given, Mapping):
            return command()  # ChromeDriver refuses it with its own error
        if method in DEFAULT_CONTEXT_COMMANDS and "browserContextId" not in given:
            routed = {**given, "browserContextId": self.context}
            if method.startswith("Storage."):  # a page accepts no context for these
                self._run(
                    "getWindowRect", {}
                )  # fails as in ChromeDriver, with an alert open or without a window
                return {"value": self.connection.cdp(method, **routed)}
            value = self._run("executeCdpCommand", {"cmd": method, "params": routed})
            if method == "Browser.resetPermissions":
                self._grant()
            return {"value": value}
        self._note_reach(method, given)
        if (proxied := self._with_proxy(method, given)) is not given:
            return {"value": self._run("executeCdpCommand", {"cmd": method, "params": proxied})}
        return command()

    def _note_reach(self, method: str, given: Mapping[str, Any]) -> None:
        """Note a DevTools command that may affect more than a page of the lease."""
        self._check_address(given.get("url"))
        domain = method.partition(".")[0]
        if domain not in PAGE_DOMAINS or method in BROWSER_COMMANDS or "browserContextId" in given:
            self.note_beyond(method)

    def route_bidi_cdp(self, params: dict[str, Any]) -> dict[str, Any]:
        """As :meth:`_route_cdp`, for a command that goes to the page of its ``session``, or to the
        browser."""
        method, given = params.get("method"), params.get("params")
        given = {} if given is None else given
        if not isinstance(method, str) or not isinstance(given, Mapping):
            return params  # the browser refuses it with its own error
        if method in DEFAULT_CONTEXT_COMMANDS and "browserContextId" not in given:
            return {**params, "params": {**given, "browserContextId": self.context}}
        self._note_reach(method, given)
        return {**params, "params": self._with_proxy(method, given)}

    def _with_proxy(self, method: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The parameters of a DevTools command, completed so that new windows use the lease's proxy."""
        if self.proxy_route is None:
            return given
        if method == "Target.createBrowserContext":
            proxy = f"http://{self.proxy_route.address}"
            return {"proxyServer": proxy, "proxyBypassList": "<-loopback>", **given}
        if method == "Target.createTarget":
            return {"browserContextId": self.context, **given}
        return given

    def note_input(self) -> None:
        self._may_have_copied = True


def open_contexts(
    config: SessionConfig,
    capabilities: Mapping[str, Any],
    run: RunCommand,
    folders: DownloadFolders,
    shared: Shared | None = None,
) -> ChromiumContexts:
    """Connect to the browser, and make its first context, or that of a seat."""
    contexts = ChromiumContexts(
        capabilities,
        run,
        folders,
        headless=config.headless,
        granted=("geolocation",) if grants_geolocation(config) else (),
        shared=shared,
    )
    contexts.own_identity = config.identity
    try:
        contexts.renew()
    except BaseException:
        contexts.close()
        raise
    return contexts
