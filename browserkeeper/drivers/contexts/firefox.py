"""User contexts of a Firefox ("containers"), by BiDi alone.

A context's tab is opened in Firefox's first window, beside the blank tab of the default context, since a
window of its own takes three times as long.  What a lease does to that window is undone at renewal.

Firefox's classic commands for cookies (:mod:`.firefox_cookies`) and for new windows act on the default
context (``marionette/driver.sys.mjs`` in its ``omni.ja``).  Commands cannot use Firefox's own pages
(``about:config``) and menus, unless it was started with ``-remote-allow-system-access``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ...config import SessionConfig
from ...errors import ConfigError
from ...errors import hide_frames as __tracebackhide__  # noqa: F401
from ..bidi import ProtocolError
from ..firefox_limits import PREFERENCES
from ..user_prompts import WITHOUT_BIDI, UserPrompts
from .base import Contexts, DownloadFolders, RunCommand
from .firefox_cookies import FirefoxCookies, partition

CONTEXT_COMMANDS = frozenset(
    """
    goBack goForward refresh getCurrentUrl getTitle getPageSource printPage
    findElement findElements findChildElement findChildElements w3cGetActiveElement
    clearElement clickElement sendKeysToElement submitElement
    getElementText getElementTagName isElementSelected isElementEnabled isElementDisplayed
    getElementRect getElementAttribute getElementProperty getElementValueOfCssProperty
    getElementAriaRole getElementAriaLabel
    getShadowRoot findElementFromShadowRoot findElementsFromShadowRoot
    w3cExecuteScript w3cExecuteScriptAsync executeAsyncScript
    screenshot elementScreenshot FULL_PAGE_SCREENSHOT
    w3cGetCurrentWindowHandle
    getWindowRect
    w3cDismissAlert w3cAcceptAlert w3cSetAlertValue w3cGetAlertText
    getTimeouts GET_CONTEXT
    getCredentials addCredential removeCredential removeAllCredentials setUserVerified
    """.split()
)
"""WebDriver commands that affect only windows of the current context, or change nothing.  (The commands
for credentials affect an authenticator, which is removed at the end of the lease.)"""

WINDOW_COMMANDS = frozenset(["setWindowRect", "w3cMaximizeWindow", "minimizeWindow", "fullscreenWindow"])
"""WebDriver commands that change the window of the current tab, which a later lease may have too."""

UNDO_COMMANDS: Mapping[str, str] = {
    "setTimeouts": "setTimeouts",
    "actions": "clearActionState",  # releases keys and buttons, resets the pointer
    "clearActionState": "clearActionState",
}
"""WebDriver commands that change a setting of the session, and the command that restores it."""

NO_PLACE: Mapping[str, bool | int | str] = {
    "geo.provider.network.url": "",
    "geo.provider.use_geoclue": False,
}
"""Preferences with which Firefox cannot find out the machine's own place.  In a lease with
``geolocation=``, BiDi does not set the place for frames of other sites (measured with 153), and these
would get the machine's own."""

EMPTY_CLIPBOARD = """(() => {
    document.body.innerHTML = "<textarea> </textarea>";
    const area = document.body.firstChild;
    area.addEventListener("copy", event => {
        event.clipboardData.setData("text/plain", "");
        event.preventDefault();
    });
    area.focus();
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
})()"""
"""A script that replaces the clipboard's text by an empty one, or by a space if pages run no scripts."""


def for_contexts(config: SessionConfig) -> SessionConfig:
    """The configuration with BiDi turned on, and with ``PREFERENCES``."""
    from ..firefox import user_options

    options = user_options(config)
    options.web_socket_url = True
    options.set_capability("unhandledPromptBehavior", dict(WITHOUT_BIDI))
    ours: dict[str, bool | int | str] = {name: value for name, (value, _) in PREFERENCES.items()}
    if config.identity.geolocation is None:  # else the identity sets these preferences
        ours = {**NO_PLACE, **ours}
    of_user = {**getattr(options, "preferences", {}), **config.preferences}
    ours = {name: value for name, value in ours.items() if name not in NO_PLACE or name not in of_user}
    preferences = {**config.preferences, **ours}
    return dataclasses.replace(config, options=options, preferences=preferences, for_contexts=True)


class FirefoxContexts(Contexts):
    """The contexts of one Firefox."""

    engine = "firefox"

    def __init__(
        self,
        capabilities: Mapping[str, Any],
        run: RunCommand,
        folders: DownloadFolders,
        *,
        headless: bool,
        prompts: UserPrompts,
    ):
        """Connect to the browser.

        ``headless``: the clipboard is the browser's own, and is emptied between leases; else it is the
        desktop's, and is left alone.
        """
        super().__init__(capabilities, run, folders)
        self._headless, self._prompts = headless, prompts
        self._authenticators: dict[str, None] = {}
        self._touched_window = False
        self._cookies = FirefoxCookies(self.connection, run)
        self._unfinished: dict[str, None] = {}
        """The ids of the navigations of downloads that have begun and not ended."""
        try:
            self._first_tabs = [tab["context"] for tab in self._tabs()]
            self._first_windows = self._windows()
            self._normal_place = self._measure_window()
            self._first_contexts = _ids(self.connection.command("browser.getUserContexts"))
            self._follow_downloads()
        except BaseException:
            self.close()
            raise

    def _follow_downloads(self) -> None:
        def begun(event: dict[str, Any]) -> None:
            self._unfinished[str(event.get("navigation"))] = None

        def ended(event: dict[str, Any]) -> None:
            self._unfinished.pop(str(event.get("navigation")), None)

        events = ["browsingContext.downloadWillBegin", "browsingContext.downloadEnd"]
        for event, listener in zip(events, (begun, ended), strict=True):
            self.connection.on(event, listener)
        self.connection.command("session.subscribe", {"events": events})

    # -- between two leases

    def _renew(self, parameters: Mapping[str, Any]) -> None:
        if self.context:
            self.connection.command("browser.removeUserContext", {"userContext": self.context})
        if self._unfinished:
            raise ProtocolError("a download of an earlier lease is not finished")
        if self._touched_window:
            self._restore_window()
        self.context = self.connection.command("browser.createUserContext", parameters)["userContext"]
        behavior = {"type": "allowed", "destinationFolder": str(self._folders.next())}
        _, tab = self.connection.commands(
            [
                (
                    "browser.setDownloadBehavior",
                    {"downloadBehavior": behavior, "userContexts": [self.context]},
                ),
                ("browsingContext.create", self._tab_beside(self._first_tabs[0])),
            ]
        )
        self.window = tab["context"]
        self._run("switchToWindow", {"handle": self.window})
        self._cookies.begin(self.context)
        self._restore_settings()
        self._check_clean()

    def _tab_beside(self, tab: str) -> dict[str, Any]:
        return {"type": "tab", "referenceContext": tab, "userContext": self.context}

    def _restore_window(self) -> None:
        """Give the first window its old state, place and size.  Other windows end with their tabs.

        Firefox saves a size when it changes, and new windows get the size that was saved last: so the
        width is changed, and changed back.
        """
        (first, *_) = self._first_windows
        if first["state"] != "fullscreen":
            place = self._normal_place
            self._set_window(state="normal", **{**place, "width": place["width"] - 1})
            self._set_window(state="normal", **place)
        if first["state"] != "normal":
            self._set_window(state=first["state"])
        self._touched_window = False

    def _measure_window(self) -> dict[str, int]:
        """The place and size that the first window has when it is neither maximized nor minimized."""
        (first, *_) = self._first_windows
        if first["state"] in ("maximized", "minimized"):
            found = self._set_window(state="normal")
            self._set_window(state=first["state"])
        else:
            found = first
        return {name: found[name] for name in ("x", "y", "width", "height")}

    def _set_window(self, **state: Any) -> dict[str, Any]:
        wanted = {"clientWindow": self._first_windows[0]["clientWindow"], **state}
        return self.connection.command("browser.setClientWindowState", wanted)

    def _restore_settings(self) -> None:
        """Undo the last lease's effects on the WebDriver session: settings, devices, clipboard."""
        self._undo_settings()
        for authenticator in self._authenticators:
            self._run("removeVirtualAuthenticator", {"authenticatorId": authenticator})
        self._authenticators.clear()
        if self._headless:
            self._empty_clipboard()

    def _empty_clipboard(self) -> None:
        """Empty the clipboard, which all contexts of a headless browser share.  The tab must be
        visible."""
        answer = self.connection.command(
            "script.evaluate",
            {
                "expression": EMPTY_CLIPBOARD,
                "target": {"context": self.window, "sandbox": "browserkeeper"},
                "awaitPromise": False,
                "userActivation": True,
            },
        )
        if answer.get("result", {}).get("value") is not True:
            raise ProtocolError(f"the clipboard cannot be emptied: {answer}")

    def _check_clean(self) -> None:
        """Raises ProtocolError if a context, a window or a cookie of an earlier lease is still there."""
        contexts, tree, windows, cookies = self.connection.commands(
            [
                ("browser.getUserContexts", {}),
                ("browsingContext.getTree", {"maxDepth": 0}),
                ("browser.getClientWindows", {}),
                ("storage.getCookies", {"partition": partition("default")}),
            ]
        )
        if _ids(contexts) != {*self._first_contexts, self.context}:
            raise ProtocolError("a user context of an earlier lease is still there")
        if {tab["context"] for tab in tree["contexts"]} != {*self._first_tabs, self.window}:
            raise ProtocolError("a window of an earlier lease is still there")
        if _places(windows["clientWindows"]) != self._first_windows:
            raise ProtocolError("the window has not the place and size that it had at the start")
        if cookies["cookies"]:
            raise ProtocolError("a cookie of an earlier lease is in the default context")

    def _tabs(self, root: str = "") -> list[dict[str, Any]]:
        """All tabs, or the one tab or frame ``root``, without the frames in them."""
        params = {"maxDepth": 0, **({"root": root} if root else {})}
        tabs: list[dict[str, Any]] = self.connection.command("browsingContext.getTree", params)[
            "contexts"
        ]
        return tabs

    def _windows(self) -> list[dict[str, Any]]:
        return _places(self.connection.command("browser.getClientWindows")["clientWindows"])

    # -- during a lease

    def _route(self, name: str, params: Mapping[str, Any], command: Callable[[], Any]) -> Any:
        run = self._prompts.around(command, self._run)
        if name in CONTEXT_COMMANDS:
            return run()
        if name in ("webextension", "INSTALL_ADDON"):
            raise ConfigError(
                "An extension cannot be installed in a lease with isolation='context': it would stay in "
                "the browser for later leases. Use isolation='fresh'."
            )
        special = {
            "getCookies": self._cookies.get_all,
            "getCookie": self._cookies.get_named,
            "addCookie": self._cookies.add,
            "deleteCookie": self._cookies.delete,
            "deleteAllCookies": self._cookies.delete,
            "newWindow": self._route_new_window,
            "w3cGetWindowHandles": self._route_handles,
            "close": self._route_handles,
            "switchToWindow": self._route_switch,
            "get": self._route_get,
            "SET_CONTEXT": self._route_set_context,
            "addVirtualAuthenticator": self._route_add_authenticator,
            "removeVirtualAuthenticator": self._route_remove_authenticator,
        }.get(name)
        if special is not None:
            return special(params, run)
        if name in ("switchToFrame", "switchToParentFrame"):
            self._cookies.may_be_in_frame = True
        elif name in WINDOW_COMMANDS:
            self._touched_window = True
        elif name in UNDO_COMMANDS:
            self._undo[UNDO_COMMANDS[name]] = None
        else:
            return self._run_unknown(name, run)
        return run()

    def _run_unknown(self, name: str, run: Callable[[], Any]) -> Any:
        """Run a command that is in no table.  Unless geckodriver or Selenium refuses it, the browser
        must not have another lease."""
        from selenium.common.exceptions import WebDriverException

        from ..error_codes import error_code

        before, self.beyond = self.beyond, self.beyond or name
        try:
            return run()
        except AssertionError:  # of Selenium
            self.beyond = before
            raise
        except WebDriverException as error:
            # geckodriver's answer to an unknown path is this text, without a code
            unknown = error.msg == "HTTP method not allowed"
            if unknown or error_code(error) in ("unknown command", "unknown method"):
                self.beyond = before
            raise

    def note_window(self) -> None:
        self._touched_window = True

    # -- windows

    def _route_new_window(self, params: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        """Open the window in the lease's context; Firefox would open it in the default context.

        ``getWindowRect`` is run for its errors: it fails as Firefox's own command does, if the current
        window was closed, or with an alert open.
        """
        wanted = params.get("type")
        if wanted is not None and not isinstance(wanted, str):
            return run()  # geckodriver refuses it with its own error
        self._prompts.around(lambda: self._run("getWindowRect", {}), self._run)()
        current = self._run("w3cGetCurrentWindowHandle", {})
        kind = "window" if wanted == "window" else "tab"
        new = {**self._tab_beside(current), "type": kind, "background": True}
        handle = self.connection.command("browsingContext.create", new)["context"]
        return {"value": {"handle": handle, "type": kind}}

    def _route_handles(self, params: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        """Leave windows of other contexts out of the list."""
        response = run()
        contexts = self.bidi_filter.contexts
        own = {tab["context"] for tab in self._tabs() if tab["userContext"] in contexts}
        response["value"] = [
            handle
            for handle in response["value"]
            if handle in own and handle not in self.connection.own_pages
        ]
        return response

    def _route_switch(self, params: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        """Refuse windows of other contexts, with Firefox's error for a window that does not exist."""
        from selenium.common.exceptions import NoSuchWindowException

        handle, contexts = params.get("handle"), self.bidi_filter.contexts
        if isinstance(handle, str) and any(
            tab["context"] == handle and tab["userContext"] not in contexts for tab in self._tabs()
        ):
            raise NoSuchWindowException(f"Unable to locate window: {handle}")
        response = run()
        self._cookies.may_be_in_frame = False
        return response

    def _route_get(self, params: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        response = run()
        self._cookies.may_be_in_frame = False
        scheme = str(params.get("url")).strip().lower().partition(":")[0]
        blank = str(params.get("url")).strip().lower().startswith("about:blank")
        if scheme not in ("http", "https", "data", "file", "blob", "javascript") and not blank:
            # With -remote-allow-system-access, Firefox's own pages can be opened, which change it.
            self.beyond = self.beyond or f"get {scheme}:"
        return response

    def _route_set_context(self, params: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        """Firefox allows "chrome" only with ``-remote-allow-system-access``.  Scripts can then change
        the whole browser."""
        response = run()
        if params.get("context") != "content":
            self.beyond = self.beyond or "context chrome"
        return response

    # -- devices

    def _route_add_authenticator(self, params: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        response = run()
        self._authenticators[response["value"]] = None
        return response

    def _route_remove_authenticator(self, params: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        response = run()
        self._authenticators.pop(str(params.get("authenticatorId")), None)
        return response


def _ids(answer: Mapping[str, Any]) -> set[str]:
    """The ids in an answer of ``browser.getUserContexts``.  A new profile has "default" and four
    others."""
    return {context["userContext"] for context in answer["userContexts"]}


def _places(windows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The windows without the field that changes by itself: ``active``, for the focus."""
    names = ("clientWindow", "state", "x", "y", "width", "height")
    return [{name: window[name] for name in names} for window in windows]


def open_contexts(
    config: SessionConfig, capabilities: Mapping[str, Any], run: RunCommand, folders: DownloadFolders
) -> FirefoxContexts:
    """Connect to the browser, and make its first context."""
    prompts = UserPrompts.of(config.options)
    contexts = FirefoxContexts(capabilities, run, folders, headless=config.headless, prompts=prompts)
    contexts.own_identity = config.identity
    try:
        contexts.renew()
    except BaseException:
        contexts.close()
        raise
    if isinstance(capabilities, dict):  # those of the driver, which users read
        capabilities["unhandledPromptBehavior"] = prompts.capability
    return contexts
