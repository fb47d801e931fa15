"""User contexts of a running Chromium: fresh sessions inside a warm browser.

A context has cookies, storage, cache, permissions and windows of its own (an incognito profile).
WebDriver's classic commands act on the current window, and thereby on its context; those that
act on the browser as a whole are routed to the context here, undone afterwards, or they make the
context unfit to be followed by another (:attr:`Contexts.beyond`).

Chromium's own commands for it (``Target.createBrowserContext`` and its kin, Chrome DevTools
Protocol) go over the BiDi websocket, by chromium-bidi's ``goog:cdp.sendCommand``: through a page
they are "not allowed", and a page that hangs or shows an alert does not hold them up.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

PATIENCE = 20.0
"""Seconds for one answer; it takes 1 to 100 ms."""

OWN_WINDOW = frozenset(
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
"""Commands that reach no further than the windows of the context, or only read."""

UNDONE_BY: Mapping[str, str] = {
    "setTimeouts": "setTimeouts",
    "setNetworkConditions": "deleteNetworkConditions",
    "deleteNetworkConditions": "deleteNetworkConditions",
    "actions": "clearActionState",  # keys and buttons that are still held down, the pointer's place
}
"""Commands that set something of the WebDriver session, and the one that sets it back."""

WANTS_CONTEXT = frozenset(
    """
    Browser.grantPermissions Browser.resetPermissions Browser.setPermission
    Browser.setDownloadBehavior Storage.getCookies Storage.setCookies Storage.clearCookies
    """.split()
)
"""DevTools commands that act on the default context unless told which."""

PAGE_DOMAINS = frozenset(
    """
    Accessibility Animation Audits Autofill CSS CacheStorage Console DOM DOMDebugger DOMSnapshot
    DOMStorage Debugger DeviceOrientation Emulation EventBreakpoints FedCm Fetch HeapProfiler IO
    IndexedDB Input Inspector LayerTree Log Media Memory Network Overlay Page Performance
    PerformanceTimeline Profiler Runtime Schema Security ServiceWorker Storage WebAudio WebAuthn
    """.split()
)
"""Domains of the DevTools protocol that reach no further than a page and its context …"""

BEYOND_PAGE = frozenset(
    """
    Emulation.addScreen Emulation.updateScreen Emulation.removeScreen Emulation.setPrimaryScreen
    Memory.setPressureNotificationsSuppressed Memory.simulatePressureNotification
    """.split()
)
"""… but for these."""

MAY_COPY = frozenset(
    """
    clickElement sendKeysToElement actions executeCdpCommand setPermissions
    w3cExecuteScript w3cExecuteScriptAsync executeAsyncScript
    """.split()
)
"""Commands that count as a user's, or that allow it: without one a page cannot write to the
clipboard (w3.org/TR/clipboard-apis, "transient activation")."""

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
"""DevTools commands to a blank page.  A selected space takes the place of the last selected text,
which a click with the middle button would paste (X11's primary selection)."""

PROMPTS = {"unhandledPromptBehavior": {"default": "ignore", "beforeUnload": "accept"}}
"""What BiDi does about them, as ChromeDriver does without BiDi: an alert stays, until a command asks
for it or runs into it."""

Run = Callable[[str, dict[str, Any]], Any]
"""Runs a classic WebDriver command: its name and parameters; returns its ``value``."""


class ProtocolError(Exception):
    """The browser refused a command of ours, or spoke nonsense."""


class Channel:
    """A BiDi websocket of our own; one command at a time, whoever sends it."""

    def __init__(self, url: str):
        import websocket

        self._socket = websocket.create_connection(
            url, timeout=PATIENCE, sockopt=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        )
        self._number = 0
        self._lock = threading.Lock()

    def bidi(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send one command and wait for its answer; events are passed over."""
        with self._lock:
            self._number += 1
            self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
            answer: dict[str, Any] = {}
            while answer.get("id") != self._number:
                answer = json.loads(self._socket.recv())
        if answer.get("type") != "success":
            raise ProtocolError(f"{method} {params.get('method', '')}: {answer.get('message')}")
        return cast("dict[str, Any]", answer["result"])

    def cdp(self, command: str, **params: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, to the browser rather than to a page."""
        answer = self.bidi("goog:cdp.sendCommand", {"method": command, "params": params})
        return cast("dict[str, Any]", answer["result"])

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._socket.shutdown()  # type: ignore[no-untyped-call]


class Contexts:
    """The contexts of one browser, one at a time.

    :meth:`renew` and :meth:`close` belong to one thread; :meth:`route` to whoever has the present
    context, and never while it is renewed.
    """

    def __init__(
        self, capabilities: Mapping[str, Any], run: Run, downloads: Path, *, keep: bool, headless: bool
    ):
        """``downloads``: the directory for them; a folder of each context's own in it unless
        ``keep``, which is for a directory of the user's.  ``headless``: its clipboard is the
        browser's own, and not the desktop's."""
        self._run, self._headless = run, headless
        self._downloads, self._keep = downloads, keep
        self._timeouts = dict(capabilities.get("timeouts", {}))
        self._undo: dict[str, None] = {}
        self._may_have_copied = False
        self._since = 0.0
        self._count = 0
        self.context = ""
        self.window = ""
        self.beyond = ""
        """What was done that outlasts the context, so that none must follow it in this browser."""
        self._channel = Channel(capabilities["webSocketUrl"])
        try:
            targets = self._targets()
            self._residents = {target["targetId"] for target in targets}
            self._default = targets[0]["browserContextId"]
            self._logs = run("getAvailableLogTypes", {})
        except BaseException:
            self.close()
            raise

    @property
    def downloads(self) -> Path:
        """Where the present context's downloads go."""
        return self._downloads if self._keep else self._downloads / str(self._count)

    # -- between two leases

    def renew(self) -> None:
        """Dispose of the present context with all that is in it, and make the next one current.

        Raises ProtocolError, a websocket's or a WebDriver error where that does not work: then
        the browser is of no use any more.
        """
        if self.context:
            self._channel.cdp("Target.disposeBrowserContext", browserContextId=self.context)
            if not self._keep:
                shutil.rmtree(self.downloads, ignore_errors=True)
        self._count += 1
        self.context = self._channel.bidi("browser.createUserContext", PROMPTS)["userContext"]
        self.downloads.mkdir(parents=True, exist_ok=True)
        self._channel.cdp(
            "Browser.setDownloadBehavior",
            behavior="allow",
            browserContextId=self.context,
            downloadPath=str(self.downloads),
        )
        self.window = self._new_window(of_its_own=True)
        self._run("switchToWindow", {"handle": self.window})
        self._set_back()
        self._look_for_strays()

    def _new_window(self, *, of_its_own: bool) -> str:
        answer = self._channel.cdp(
            "Target.createTarget",
            url="about:blank",
            browserContextId=self.context,
            newWindow=of_its_own,
        )
        return cast(str, answer["targetId"])

    def _set_back(self) -> None:
        """What the WebDriver session remembers of the last lease: settings, and lines of its logs."""
        for name in self._undo:
            self._run(name, self._timeouts if name == "setTimeouts" else {})
        self._undo.clear()
        if self._may_have_copied and self._headless:
            self._empty_clipboard()
        self._may_have_copied = False
        for kind in self._logs:
            self._run("getLog", {"type": kind})
        self._since = time.time() * 1000

    def _empty_clipboard(self) -> None:
        """A headless browser has one of its own, for all contexts."""
        answer: dict[str, Any] = {}
        for command, params in EMPTY_CLIPBOARD:
            answer = self._run("executeCdpCommand", {"cmd": command, "params": params})
        if answer["result"].get("value") != "copied":
            raise ProtocolError(f"the clipboard cannot be emptied: {answer}")

    def _look_for_strays(self) -> None:
        """Nothing may be there but what was there at first, and the new window."""
        for target in self._targets():
            ours = target["browserContextId"] == self.context or target["targetId"] in self._residents
            if not ours and (target["browserContextId"] != self._default or target["type"] == "page"):
                raise ProtocolError(f"a {target['type']} of an earlier lease is still there")

    def _targets(self) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", self._channel.cdp("Target.getTargets")["targetInfos"])

    def close(self) -> None:
        """Close our connection; the browser is not touched."""
        self._channel.close()

    # -- during a lease

    def route(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """Run a lease's command so that it acts on its own context; its response.

        Raises what the command raises, a WebDriverException for what the browser refuses.
        """
        from selenium.common.exceptions import WebDriverException

        try:
            return self._route(name, params, command)
        except ProtocolError as error:
            raise WebDriverException(str(error)) from error

    def _route(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        self._may_have_copied = self._may_have_copied or name in MAY_COPY
        if name in OWN_WINDOW:
            return command()
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
        if name in UNDONE_BY:
            self._undo[UNDONE_BY[name]] = None
        else:
            self.beyond = self.beyond or name
        return command()

    def _route_new_window(self, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """ChromeDriver opens it in the default context."""
        kind = params.get("type") or "tab"
        handle = self._new_window(of_its_own=kind == "window")
        return {"value": {"handle": handle, "type": kind}}

    def _route_handles(self, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        response = command()
        ours = {t["targetId"] for t in self._targets() if t["browserContextId"] == self.context}
        response["value"] = [handle for handle in response["value"] if handle in ours]
        return response

    def _route_log(self, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """ChromeDriver writes into its own log what it answers, and thereby the log that was read
        between two leases."""
        response = command()
        if params["type"] == "driver":
            lines = response["value"]
            response["value"] = [line for line in lines if line["timestamp"] > self._since]
        return response

    def _route_permission(self, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        """ChromeDriver sets it in the default context.  It is for the current page's origin
        (w3.org/TR/permissions, "Set Permission")."""
        url = urlsplit(self._run("getCurrentUrl", {}))
        origin = {"origin": f"{url.scheme}://{url.netloc}"} if url.scheme in ("http", "https") else {}
        self._channel.cdp(
            "Browser.setPermission",
            permission=params["descriptor"],
            setting=params["state"],
            browserContextId=self.context,
            **origin,
        )
        return {"value": None}

    def _route_cdp(self, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        method, given = params["cmd"], params["params"]
        if method in WANTS_CONTEXT and "browserContextId" not in given:
            return {"value": self._channel.cdp(method, **given, browserContextId=self.context)}
        domain = method.partition(".")[0]
        if domain not in PAGE_DOMAINS or method in BEYOND_PAGE or "browserContextId" in given:
            self.beyond = self.beyond or method
        return command()
