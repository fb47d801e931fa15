"""What a user sets in Firefox's options holds in its containers, as it does in a plain Firefox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from selenium import webdriver

from fixtures.server import Site
from tests.pool.pools import patient_pool
from tests.pool.test_options_in_leases import PIXEL, plain_driver, plain_leaves_zombies

pytestmark = [pytest.mark.firefox, plain_leaves_zombies]

LOOK = """
const [pixel, done] = arguments;
(async () => {
  const image = new Image();
  const loaded = new Promise(resolve => { image.onload = image.onerror = event => resolve(event.type) });
  setTimeout(() => image.onload({type: "not loaded"}), 5000);
  image.src = pixel;
  const notifications = await navigator.permissions.query({name: "notifications"});
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  localStorage.setItem("here", "1");
  done({
    image: await loaded, notifications: notifications.state, zone,
    languages: navigator.languages, agent: navigator.userAgent, tracking: navigator.doNotTrack,
    privacy: navigator.globalPrivacyControl, cookies: navigator.cookieEnabled,
    font: getComputedStyle(document.body).fontSize, zoom: devicePixelRatio,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    calm: matchMedia("(prefers-reduced-motion)").matches,
    webrtc: "RTCPeerConnection" in window, wasm: "WebAssembly" in window,
    popup: window.open("about:blank") !== null, outer: [outerWidth, outerHeight],
    cores: navigator.hardwareConcurrency,
  });
})().catch(error => done(String(error)));
"""


def options_with(prefs: dict[str, Any], *arguments: str) -> webdriver.FirefoxOptions:
    options = webdriver.FirefoxOptions()
    for name, value in prefs.items():
        options.set_preference(name, value)
    for argument in arguments:
        options.add_argument(argument)
    return options


OPTIONS: dict[str, Callable[[], webdriver.FirefoxOptions]] = {
    "what a page looks like": lambda: options_with(
        {
            "intl.accept_languages": "fr, de",
            "general.useragent.override": "Me/1",
            "permissions.default.image": 2,
            "permissions.default.desktop-notification": 2,
            "font.size.variable.x-western": 23,
            "layout.css.devPixelsPerPx": "1.5",
            "ui.systemUsesDarkTheme": 1,
            "ui.prefersReducedMotion": 1,
            "dom.disable_open_during_load": True,
        },
        "--width=777",
        "--height=555",
    ),
    "privacy": lambda: options_with(
        {
            "privacy.donottrackheader.enabled": True,
            "privacy.globalprivacycontrol.enabled": True,
            "privacy.resistFingerprinting": True,
            "media.peerconnection.enabled": False,
            "javascript.options.wasm": False,
            "network.cookie.cookieBehavior": 5,
            "dom.disable_open_during_load": False,
        }
    ),
}


def look(driver: Any, site: Site) -> Any:
    driver.get(site.url)
    return driver.execute_async_script(LOOK, PIXEL)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_container_sees_what_a_plain_firefox_sees(name: str, site: Site) -> None:
    with plain_driver(webdriver.FirefoxOptions()) as driver:
        unset = look(driver, site)
    with plain_driver(OPTIONS[name]()) as driver:
        expected = look(driver, site)
    changed = [key for key in unset if unset[key] != expected[key]]
    assert len(changed) > 5, "the control: a page sees the options"
    with patient_pool("firefox", max_size=1, options=OPTIONS[name]()) as pool:
        assert pool.isolation == "context"
        for _ in range(2):
            with pool.driver() as driver:
                assert look(driver, site) == expected
