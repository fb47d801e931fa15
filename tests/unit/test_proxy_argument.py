"""``proxy=``: what is accepted, what is refused, and that no message shows a password."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException

from browserkeeper import BrowserPool, ConfigError, Identity, ProxyError, browser
from browserkeeper.options.proxy import Proxy

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("given", "scheme", "host", "port", "username", "password"),
    [
        ("http://proxy.example:3128", "http", "proxy.example", 3128, "", ""),
        ("http://proxy.example", "http", "proxy.example", 80, "", ""),
        ("HTTPS://Proxy.Example/", "https", "proxy.example", 443, "", ""),
        ("socks5://10.0.0.1", "socks5", "10.0.0.1", 1080, "", ""),
        ("socks5h://me:pw@proxy:9050", "socks5h", "proxy", 9050, "me", "pw"),
        ("http://me:p%40ss%3Aw%C3%B6rd%25@proxy:1", "http", "proxy", 1, "me", "p@ss:wörd%"),
        ("http://me:p@ss:word@proxy:1", "http", "proxy", 1, "me", "p@ss:word"),
        ("http://me:@proxy:1", "http", "proxy", 1, "me", ""),
        ("http://me@proxy:1", "http", "proxy", 1, "me", ""),
        ("http://me-country-de:pw@proxy_1:65535", "http", "proxy_1", 65535, "me-country-de", "pw"),
        ("http://[::1]:3128", "http", "::1", 3128, "", ""),
        ("socks5://me:pw@[2001:DB8::1]", "socks5", "2001:db8::1", 1080, "me", "pw"),
        ("http://bücher.example:8080", "http", "xn--bcher-kva.example", 8080, "", ""),
        ("  http://proxy:3128  ", "http", "proxy", 3128, "", ""),
        ({"server": "http://proxy:3128"}, "http", "proxy", 3128, "", ""),
        ({"server": "proxy:1", "username": "me", "password": "p%40@:/?#"}, "http", "proxy", 1, "me",
         "p%40@:/?#"),
        ({"server": "socks5://me:pw@proxy"}, "socks5", "proxy", 1080, "me", "pw"),
        ({"server": "[::1]:3128", "username": None, "bypass": None}, "http", "::1", 3128, "", ""),
    ],
)  # fmt: skip
def test_what_is_a_proxy(
    given: Any, scheme: str, host: str, port: int, username: str, password: str
) -> None:
    proxy = Proxy.parse(given)
    assert (proxy.scheme, proxy.host, proxy.port) == (scheme, host, port)
    assert (proxy.username, proxy.password) == (username, password)
    assert Proxy.parse(proxy) is proxy
    assert pickle.loads(pickle.dumps(proxy)) == copy.deepcopy(proxy) == proxy
    if password:
        assert password not in str(proxy) + repr(proxy) + repr(Identity(proxy=given))


REFUSED: list[tuple[Any, str]] = [
    (f"http://me:{SECRET}@proxy:3128/path", "a path"),
    (f"http://me:{SECRET}@proxy:3128/?q", "a path"),
    (f"http://me:{SECRET}@proxy:3128?q=1", "a query"),
    (f"http://me:{SECRET}@proxy:3128#f", "a fragment"),
    (f"http://me:{SECRET}/x@proxy:3128", "%2F"),
    (f"http://proxy/x:{SECRET}@other", "%2F"),
    (f"ftp://me:{SECRET}@proxy", "scheme ftp"),
    (f"{SECRET}!!://proxy", "the scheme of the URL"),
    (f"socks4://me:{SECRET}@proxy", "SOCKS4 has no passwords"),
    ("socks4://proxy", "SOCKS4"),
    ("socks4a://proxy", "SOCKS4"),
    ("pac+http://proxy", "PAC"),
    (f"me:{SECRET}@proxy:3128", "scheme"),
    ("proxy:3128", "scheme"),
    ("", "scheme"),
    (f"http://me:{SECRET}@", "no host"),
    (f"http://me:{SECRET}@:3128", "no host"),
    (f"http://me:{SECRET}@proxy:0", "port"),
    (f"http://me:{SECRET}@proxy:65536", "port"),
    (f"http://me:{SECRET}@proxy:http", "port"),
    (f"http://me:{SECRET}@proxy:", "port"),
    (f"http://me:{SECRET}@proxy:-1", "port"),
    (f"http://me:{SECRET}@proxy:٣١٢٨", "port"),
    (f"http://me:{SECRET}\r\nX: y@proxy:1", "control character"),
    (f"http://me:{SECRET}%0d%0a@proxy:1", "control character"),
    (f"http://me%00:{SECRET}@proxy:1", "control character"),
    (f"http://me:{SECRET} @proxy:1", "space"),
    (f"http://me:{SECRET}%zz@proxy:1", "%25"),
    (f"http://me:{SECRET}%ff@proxy:1", "UTF-8"),
    (f"http://:{SECRET}@proxy:1", "without a user"),
    (f"http://a%3Ab:{SECRET}@proxy:1", "colon"),
    ("socks5://me@proxy:1", "without a password"),
    (f"socks5://me:{SECRET * 50}@proxy:1", "255 bytes"),
    ("http://[::1", "not a URL"),
    ("http://[proxy]:1", "IPv6"),
    ("http://[127.0.0.1]:1", "IPv6"),
    ("http://::1:3128", "host|not a URL|port"),
    ("http://-proxy:1", "name"),
    ("http://pro xy:1", "space"),
    ("http://proxy..example:1", "name"),
    ("http://300.1.1.1:1", "name"),
    ("http://" + "a" * 64 + ":1", "name"),
    (f"http://me:{SECRET}@proxy:1 http://other:2", "space"),
    (3128, "int"),
    (b"http://proxy:1", "bytes"),
    (["http://proxy:1"], "list"),
    ({}, "server="),
    ({"server": None}, "server="),
    ({"server": "http://proxy:1", "user": "me"}, "no key 'user'"),
    ({"server": f"http://a:{SECRET}@proxy:1", "username": "me"}, "Give it once"),
    ({"server": "http://proxy:1", "password": SECRET}, "without a user"),
    ({"server": "http://proxy:1", "username": "me", "password": 1234}, "int"),
    ({"server": "http://proxy:1", "username": "me", "password": f"{SECRET}\n"}, "control character"),
    ({"server": "http://proxy:1", "username": "me", "password": f"{SECRET}\ud800"}, "UTF-8"),
    ({"server": "http://proxy:1", "bypass": 3}, "bypass"),
    ({"server": "http://proxy:1", "bypass": ["a", 3]}, "bypass"),
    ({"server": "http://proxy:1", "bypass": ["http://shop"]}, "scheme"),
    ({"server": "http://proxy:1", "bypass": ["<-loopback>"]}, "leave it out"),
    ({"server": "http://proxy:1", "bypass": ["shop*.example"]}, "pattern"),
    ({"server": "http://proxy:1", "bypass": ["*shop.example"]}, "pattern"),
    ({"server": "http://proxy:1", "bypass": ["shop/path"]}, "network"),
    ({"server": "http://proxy:1", "bypass": ["10.0.0.0/33"]}, "network"),
    ({"server": "http://proxy:1", "bypass": ["shop:0"]}, "port"),
    ({"server": "http://proxy:1", "bypass": [""]}, "pattern"),
    ({"server": "http://proxy:1", "bypass": ["[shop]"]}, "pattern|network"),
]


@pytest.mark.parametrize(("given", "words"), REFUSED)
def test_what_is_refused_by_name_and_without_the_password(given: Any, words: str) -> None:
    for build in (Proxy.parse, lambda proxy: Identity(proxy=proxy), lambda proxy: browser(proxy=proxy)):
        with pytest.raises(ConfigError, match=words) as caught:
            build(given)
        assert "proxy=" in str(caught.value)
        assert SECRET not in str(caught.value)
        cause = caught.value.__cause__ or caught.value.__context__
        assert cause is None or caught.value.__suppress_context__


BYPASS = [
    ("shop.example", ["shop.example:80", "shop.example:443", "SHOP.example:80", "shop.example.:80"],
     ["a.shop.example:80", "myshop.example:80", "shop.example.org:80"]),
    ("*.shop.example", ["a.shop.example:80", "a.b.shop.example:443"],
     ["shop.example:80", "ashop.example:80"]),
    (".shop.example", ["a.shop.example:80"], ["shop.example:80"]),
    ("shop.example:8080", ["shop.example:8080"], ["shop.example:80"]),
    ("*.shop.example:8080", ["a.shop.example:8080"], ["a.shop.example:80"]),
    ("127.0.0.1", ["127.0.0.1:80"], ["127.0.0.2:80", "localhost:80"]),
    ("10.0.0.0/8", ["10.255.0.1:80"], ["11.0.0.1:80", "10.example:80", "::ffff:0:80"]),
    ("10.1.2.3/8:8080", ["10.255.0.1:8080"], ["10.255.0.1:80"]),
    ("[::1]", ["::1:80"], ["::2:80"]),
    ("[::1]:8080", ["::1:8080"], ["::1:80"]),
    ("fd00::/8", ["fd12::1:80"], ["fe80::1:80"]),
    ("<local>", ["intranet:80", "localhost:80"], ["intranet.example:80", "127.0.0.1:80", "::1:80"]),
    ("*", ["shop.example:80", "127.0.0.1:80"], []),
    ("*:8080", ["shop.example:8080"], ["shop.example:80"]),
    ("bücher.example", ["xn--bcher-kva.example:80"], ["bcher.example:80"]),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "covered", "others"), BYPASS)
def test_what_a_bypass_entry_covers(entry: str, covered: list[str], others: list[str]) -> None:
    for bypass in ([entry], f"nothing.example, {entry}"):
        proxy = Proxy.parse({"server": "http://proxy:1", "bypass": bypass})
        for place in covered + others:
            host, _, port = place.rpartition(":")
            assert proxy.bypasses(host, int(port)) == (place in covered), place


def chrome_options(**more: Any) -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    for argument in more.get("arguments", ()):
        options.add_argument(argument)
    return options


def with_proxy(options: Any) -> Any:
    options.proxy = webdriver.Proxy({"proxyType": "manual", "httpProxy": "other:1"})
    return options


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("chrome", {"arguments": [f"--proxy-server=http://a:{SECRET}@other:1"]}, "proxy-server"),
        ("chrome", {"arguments": ["--proxy-bypass-list=*"]}, "proxy-bypass-list"),
        ("chrome", {"arguments": ["--no-proxy-server"]}, "no-proxy-server"),
        ("chrome", {"arguments": ["--proxy-pac-url=http://x"]}, "proxy-pac-url"),
        ("chrome", {"arguments": ["--webrtc-ip-handling-policy=default"]}, "webrtc"),
        ("chrome", {"options": chrome_options(arguments=["--proxy-server=other:1"])}, "proxy-server"),
        ("chrome", {"options": with_proxy(webdriver.ChromeOptions())}, "capability 'proxy'"),
        ("chrome", {"preferences": {"proxy": {"mode": "direct"}}}, "proxy.mode"),
        ("firefox", {"options": with_proxy(webdriver.FirefoxOptions())}, "capability 'proxy'"),
        ("firefox", {"preferences": {"network.proxy.no_proxies_on": "x"}}, "network.proxy"),
        ("firefox", {"preferences": {"media.peerconnection.ice.proxy_only": False}}, "proxy_only"),
        ("firefox", {"profile": "/nowhere"}, "profile="),
        ("chrome", {"remote": "http://grid:4444"}, "with a user"),
        ("firefox", {"remote": "http://grid:4444"}, "with a user"),
    ],
)
def test_what_cannot_be_given_beside_a_proxy(name: Any, arguments: dict[str, Any], words: str) -> None:
    proxy = f"http://me:{SECRET}@proxy:3128"
    with pytest.raises(ConfigError, match=words) as caught:
        browser(name, proxy=proxy, **arguments)
    assert "proxy=" in str(caught.value)
    assert SECRET not in str(caught.value)
    browser(name, **arguments)  # the control
    if name == "chrome" and "remote" not in arguments:
        pool = BrowserPool(name, isolation="context", **arguments)
        with pytest.raises(ConfigError, match=words):
            pool.lease(proxy=proxy)


def test_what_a_grid_can_do() -> None:
    for proxy in ("http://proxy:1", "https://proxy:1", "socks5://proxy"):
        browser("chrome", remote="http://grid:4444", proxy=proxy)
    browser("firefox", remote="http://grid:4444", proxy="socks5://proxy")
    with pytest.raises(ConfigError, match="https:// on Firefox"):
        browser("firefox", remote="http://grid:4444", proxy="https://proxy:1")
    with pytest.raises(ConfigError, match="bypass"):
        browser("chrome", remote="http://grid:4444", proxy={"server": "http://proxy:1", "bypass": ["a"]})


@pytest.mark.parametrize(
    "arguments",
    [
        {"ignore_default_arguments": True},
        {"ignore_default_arguments": ["--webrtc-ip-handling-policy"]},
        {"arguments": ["--force-webrtc-ip-handling-policy=default"]},
    ],
)
def test_leases_have_no_proxy_where_webrtc_could_go_past_it(arguments: dict[str, Any]) -> None:
    pool = BrowserPool("chrome", isolation="context", **arguments)
    with pytest.raises(ConfigError, match=r"proxy= .*webrtc-ip-handling-policy"):
        pool.lease(proxy="http://proxy:1")


@pytest.mark.parametrize("isolation", ["fresh", "none"])
def test_leases_without_a_context_have_no_proxy_of_their_own(isolation: Any) -> None:
    pool = BrowserPool("chrome", isolation=isolation)
    with pytest.raises(ConfigError, match=r"proxy= .*isolation='context'"):
        pool.lease(proxy=f"http://me:{SECRET}@proxy:1")


def test_a_proxy_error_survives_pickling_and_is_one_of_selenium_where_commands_raise_it() -> None:
    from browserkeeper.drivers.proxy_errors import ProxyError as Raised

    error = Raised("proxy http://p:1 is dead", "http://p:1", "me", "unreachable")
    assert isinstance(error, (ProxyError, ConnectionError))
    assert isinstance(error, WebDriverException)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ProxyError
    assert (str(again), again.proxy, again.user, again.reason) == (
        "proxy http://p:1 is dead", "http://p:1", "me", "unreachable"
    )  # fmt: skip
