"""Which options a context of Chromium does not hold, and what a pool does about it.  No browser."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from browserkeeper import BrowserPool, ConfigError, LaunchError
from browserkeeper.config import SessionConfig
from browserkeeper.drivers import contexts
from browserkeeper.drivers.bidi import ProtocolError
from browserkeeper.drivers.contexts import firefox as firefox_contexts

SETTINGS = "profile.default_content_setting_values"


def with_prefs(prefs: dict[str, Any]) -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    options.add_experimental_option("prefs", prefs)
    return options


def with_argument(argument: str) -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    options.add_argument(argument)
    return options


def with_extension_file(tmp_path: Path) -> webdriver.ChromeOptions:
    (tmp_path / "proxy.crx").write_bytes(b"Cr24")
    options = webdriver.ChromeOptions()
    options.add_extension(str(tmp_path / "proxy.crx"))
    return options


def with_encoded_extension() -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    options.add_encoded_extension("Q3IyNA==")
    return options


def with_web_extensions() -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    options.enable_webextensions = True
    return options


LOST: dict[str, tuple[dict[str, Any], str]] = {
    "encoded extension": ({"options": with_encoded_extension()}, "add_encoded_extension"),
    "extensions by BiDi": ({"options": with_web_extensions()}, "--enable-unsafe-extension-debugging"),
    "argument": ({"arguments": ["--load-extension=/proxy"]}, "--load-extension=/proxy"),
    "argument of options": ({"options": with_argument("--load-extension=/proxy")}, "--load-extension"),
    "argument without dashes": ({"arguments": ["load-extension=/proxy"]}, "load-extension=/proxy"),
    "extensions but one": ({"arguments": ["--disable-extensions-except=/proxy"]}, "except=/proxy"),
    "guest": ({"options": with_argument("--guest")}, "--guest"),
    "application window": ({"arguments": ["--app=http://localhost/"]}, "--app=http"),
    "notifications": ({"options": with_prefs({f"{SETTINGS}.notifications": 1})}, "notifications': 1"),
    "camera": ({"preferences": {f"{SETTINGS}.media_stream_camera": 1}}, "media_stream_camera': 1"),
    "nested": (
        {"options": with_prefs({"profile": {"default_content_setting_values": {"clipboard": 1}}})},
        "default_content_setting_values.clipboard': 1",
    ),
    "half nested": ({"preferences": {SETTINGS: {"midi_sysex": 1}}}, "midi_sysex': 1"),
    "languages": (
        {"preferences": {"intl.accept_languages": "de,fr"}},
        "intl.accept_languages': 'de,fr'",
    ),
    "no scripts": ({"preferences": {f"{SETTINGS}.javascript": 2}}, "javascript': 2"),
    "no scripts, managed": (
        {"preferences": {"profile.managed_default_content_settings.javascript": 2}},
        "javascript': 2",
    ),
    "one site": (
        {"preferences": {"profile.content_settings.exceptions.images": {"a.example,*": {"setting": 2}}}},
        "exceptions.images",
    ),
    "downloads forbidden": ({"preferences": {"download_restrictions": 3}}, "download_restrictions': 3"),
    "question before a download": (
        {"preferences": {"download.prompt_for_download": True}},
        "prompt_for_download",
    ),
}
"""Arguments of a pool with something that a context does not hold, and words of the error."""

HELD: dict[str, dict[str, Any]] = {
    "nothing": {},
    "images off": {"preferences": {f"{SETTINGS}.images": 2}},
    "images off, managed": {"preferences": {"profile.managed_default_content_settings.images": 2}},
    "notifications blocked": {"preferences": {f"{SETTINGS}.notifications": 2}},
    "scripts allowed": {"preferences": {f"{SETTINGS}.javascript": 1}},
    "no saved passwords": {
        "options": with_prefs(
            {"credentials_enable_service": False, "profile": {"password_manager_enabled": False}}
        )
    },
    "downloads": {
        "preferences": {
            "download.default_directory": "/data",
            "download.prompt_for_download": False,
            "download.directory_upgrade": True,
            "plugins.always_open_pdf_externally": True,
            "safebrowsing.enabled": True,
        }
    },
    "arguments": {"arguments": ["--lang=de", "--user-agent=Me/1", "--proxy-server=localhost:3128"]},
    "empty group": {"preferences": {"profile": {}}},
}


@pytest.mark.parametrize("name", LOST)
def test_auto_takes_fresh_where_a_context_would_lose_an_option(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    arguments, words = LOST[name]
    pool = BrowserPool("chrome", **arguments)
    assert pool.isolation == "fresh"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert words in record.getMessage()
    assert pool.config.limits.max_uses == 1


@pytest.mark.parametrize("name", LOST)
def test_a_context_that_is_asked_for_is_refused_with_the_option_and_the_remedy(name: str) -> None:
    arguments, words = LOST[name]
    with pytest.raises(ConfigError) as caught:
        BrowserPool("chrome", isolation="context", **arguments)
    assert words in str(caught.value)
    assert "isolation='fresh'" in str(caught.value)


@pytest.mark.parametrize("name", HELD)
def test_what_a_context_holds_changes_nothing(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert BrowserPool("chrome", **HELD[name]).isolation == "context"
    assert not caplog.records
    BrowserPool("chrome", isolation="context", **HELD[name])


def test_an_extension_file_is_named(tmp_path: Path) -> None:
    options = with_extension_file(tmp_path)
    assert BrowserPool("chrome", options=options).isolation == "fresh"
    with pytest.raises(ConfigError, match=r"proxy\.crx.*runs no extensions.*isolation='fresh'"):
        BrowserPool("chrome", options=options, isolation="context")


def test_a_preference_that_was_never_measured_takes_fresh_but_is_not_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unknown = {"some.future.preference": {"deep": 1}}
    assert BrowserPool("chrome", preferences=unknown).isolation == "fresh"
    assert BrowserPool("chrome", preferences=unknown, isolation="context").isolation == "context"
    first, second = (record.getMessage() for record in caplog.records)
    assert "takes 'fresh'" in first
    assert "some.future.preference.deep" in first
    assert "may not hold" in second
    assert "never measured" in second


@pytest.mark.parametrize("isolation", ["fresh", "none"])
@pytest.mark.parametrize("name", LOST)
def test_other_isolations_hold_every_option(
    name: str, isolation: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert BrowserPool("chrome", isolation=isolation, **LOST[name][0]).isolation == isolation
    assert not caplog.records


def test_a_preference_of_firefox_holds_in_its_contexts(caplog: pytest.LogCaptureFixture) -> None:
    assert BrowserPool("firefox", preferences={"intl.accept_languages": "de"}).isolation == "context"
    assert not caplog.records


def firefox(*arguments: str, **preferences: Any) -> dict[str, Any]:
    return {"arguments": arguments, "preferences": preferences}


LOST_ON_FIREFOX: dict[str, tuple[dict[str, Any], str]] = {
    "home page": (firefox(**{"browser.startup.page": 1}), "first window's page"),
    "old session": (firefox(**{"browser.startup.page": 3}), "first window's page"),
    "private": (firefox("-private"), "no containers in private windows"),
    "private window": (firefox("--private-window"), "no containers in private windows"),
    "always private": (firefox(**{"browser.privatebrowsing.autostart": True}), "no containers"),
    "page": (firefox("--kiosk", "https://example.com/"), "argument 'https://example.com/'"),
    "page by name": (firefox("-url", "https://example.com/"), "argument '-url'"),
    "permissions": (firefox(**{"permissions.isolateBy.userContext": False}), "permissions of one"),
    "history": (firefox(**{"places.history.enabled": True}), "earlier leases have visited"),
    "forms": (firefox(**{"browser.formfill.enable": True}), "earlier leases have typed"),
    "question": (firefox(**{"browser.download.useDownloadDir": False}), "without a question"),
    "desktop": (firefox(**{"browser.download.folderList": 0}), "a folder of its own"),
}
HELD_ON_FIREFOX = {
    "size": firefox("--width", "500", "--height=400", "--kiosk"),
    "languages": firefox(**{"intl.accept_languages": "de", "permissions.default.geo": 1}),
    "scripts": firefox(**{"javascript.enabled": False}),
    "the same": firefox(**{"places.history.enabled": False, "browser.startup.page": 0}),
    "proxy": firefox(**{"network.proxy.type": 1, "network.proxy.http": "127.0.0.1"}),
}


@pytest.mark.parametrize("name", LOST_ON_FIREFOX)
def test_what_a_context_of_firefox_loses_takes_fresh_or_is_refused_by_name(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    given, why = LOST_ON_FIREFOX[name]
    assert BrowserPool("firefox", **given).isolation == "fresh"
    assert why in caplog.text
    with pytest.raises(ConfigError, match=re.escape(why)):
        BrowserPool("firefox", isolation="context", **given)


@pytest.mark.parametrize("name", HELD_ON_FIREFOX)
def test_what_a_context_of_firefox_holds_is_not_mentioned(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert BrowserPool("firefox", **HELD_ON_FIREFOX[name]).isolation == "context"
    assert not caplog.records


@pytest.mark.parametrize("code", ["unknown command", "unknown method", "invalid argument"])
def test_a_browser_that_is_too_old_for_contexts_is_an_error_that_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str
) -> None:
    """Any other error is passed on as it is."""
    config = SessionConfig.build(name="firefox")

    def refuse(*given: object) -> None:
        raise ProtocolError("browser.setDownloadBehavior: no", code)

    monkeypatch.setattr(firefox_contexts, "open_contexts", refuse)
    folders = contexts.DownloadFolders(tmp_path, False)
    capabilities = {"browserName": "firefox", "browserVersion": "128.0"}
    with pytest.raises(LaunchError, match=r"firefox 128.0 has no user.*isolation='fresh'") as caught:
        contexts.open_contexts(config, capabilities, lambda name, params: None, folders)
    assert not caught.value.retryable
    code = "no such frame"
    with pytest.raises(ProtocolError):
        contexts.open_contexts(config, capabilities, lambda name, params: None, folders)
