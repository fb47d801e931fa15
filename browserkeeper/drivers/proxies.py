"""``proxy=``: how a browser is given its proxy, so that no request goes past it.

A browser on this machine gets a route of our relay (``browserkeeper.proxy``): at its launch, or when a
lease's user context is made.  On a Grid it gets the proxy itself, which must need no password.

Measured with Chromium 156 and Firefox 153: neither uses a proxy for the loopback unless it is told to;
a page's WebRTC goes past any proxy by UDP unless the whole process is told not to; and Firefox takes
``failover_direct`` as a permission to go directly where the proxy is dead, for its own requests.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import SessionConfig
from ..errors import BrowserkeeperError, ConfigError
from ..errors import hide_frames as __tracebackhide__  # noqa: F401
from ..options.check import everything_said
from ..options.proxy import Proxy

if TYPE_CHECKING:
    from ..proxy.relay import Route

T = TypeVar("T")

WEBRTC_ARGUMENT = "--webrtc-ip-handling-policy"
CONTEXT_ARGUMENTS = {
    f"{WEBRTC_ARGUMENT}=disable_non_proxied_udp": "WebRTC cannot go past the proxy of a lease",
}
"""What the Chromium of a pool with contexts gets besides the other defaults, since a lease may have a
proxy, and why."""
CONTEXT_PREFERENCES: dict[str, tuple[bool, str]] = {
    "media.peerconnection.ice.proxy_only": (True, "WebRTC cannot go past the proxy of a lease"),
    "network.proxy.allow_hijacking_localhost": (True, "a lease's proxy is used for the loopback, too"),
}
"""The same for Firefox."""

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
"""Firefox takes its proxy from them where it is told nothing else.  Then the loopback is excepted by the
preference that a lease's proxy needs to be otherwise."""


def open_route(config: SessionConfig) -> Route | None:
    """The route for a browser of this machine that is about to start; None where it needs none.

    Raises ConfigError where the relay cannot work here, and OSError where there is no room for it.
    """
    if config.identity.proxy is None or config.for_contexts or config.debugger_address:
        return None
    return route_to(config.identity.proxy)


def route_to(proxy: Proxy) -> Route:
    """A route of the relay; see :func:`open_route` for what it raises.  Imports asyncio and ssl, which
    a session without a proxy does not need."""
    from ..proxy.relay import Route

    return Route(proxy)


# -- at the launch


def chromium_arguments(config: SessionConfig, route: Route | None) -> list[str]:
    """Arguments of the browser's command line."""
    if config.for_contexts:
        return [argument for argument in CONTEXT_ARGUMENTS if _is_used(config, argument)]
    address = _address(config.identity.proxy, route)
    if not address:
        return []
    return [
        f"--proxy-server={address}",
        "--proxy-bypass-list=<-loopback>",
        *CONTEXT_ARGUMENTS,
    ]


def firefox_preferences(config: SessionConfig, route: Route | None) -> dict[str, Any]:
    if config.for_contexts:
        return {
            name: value
            for name, (value, _) in CONTEXT_PREFERENCES.items()
            if _is_used(config, name) and not (name.startswith("network.") and _variable_set(config))
        }
    address = _address(config.identity.proxy, route)
    if not address:
        return {}
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    kinds = ("socks",) if scheme.startswith("socks") else ("http", "ssl")
    preferences: dict[str, Any] = {"network.proxy.type": 1}
    for kind in kinds:
        preferences |= {
            f"network.proxy.{kind}": host.strip("[]"),
            f"network.proxy.{kind}_port": int(port),
        }
    return {
        **preferences,
        "network.proxy.socks_version": 5,
        "network.proxy.socks_remote_dns": True,
        "network.proxy.no_proxies_on": "",
        "network.proxy.failover_direct": False,
        **{name: value for name, (value, _) in CONTEXT_PREFERENCES.items()},
    }


def _address(proxy: Proxy | None, route: Route | None) -> str:
    """The URL of the route; that of the proxy on a Grid; "" without a proxy."""
    if route is not None:
        return f"http://{route.address}"
    if proxy is None:
        return ""
    scheme = "socks5" if proxy.is_socks else proxy.scheme
    return f"{scheme}://{proxy.address}"


def _is_used(config: SessionConfig, default: str) -> bool:
    """False for a default that the user has switched off, or has set."""
    ignored, name = config.ignore_default_arguments, default.partition("=")[0]
    if ignored is True or (ignored and {default, name} & set(ignored)):
        return False
    own = {name.lstrip("-"), f"force-{name.lstrip('-')}"}
    return not any(said.name in own for said in everything_said(config))


def _variable_set(config: SessionConfig) -> str:
    """The first of VARIABLES that the browser's environment has; "" if none."""
    of_user = config.env
    found = (n for n in VARIABLES if (of_user[n] if n in of_user else os.environ.get(n)))
    return next(found, "")


def check_lease_proxy(config: SessionConfig) -> None:
    """Raises ConfigError where a lease of a pool with these browsers cannot have a proxy: requests of
    its pages could go past it."""
    defaults = CONTEXT_PREFERENCES if config.engine == "firefox" else CONTEXT_ARGUMENTS
    for default in defaults:
        if not _is_used(config, default):
            raise ConfigError(
                f"proxy= cannot be given to a lease of this pool: {default.partition('=')[0]} is "
                "switched off or set otherwise, so that WebRTC or requests to this machine would go "
                "past the proxy. Leave it as it is by default, or give proxy= to browser()."
            )
    if config.engine == "firefox" and (named := _variable_set(config)):
        raise ConfigError(
            f"proxy= cannot be given to a lease of Firefox while {named} is set: requests to this "
            f"machine would go past the lease's proxy. Unset it, or give env={{{named!r}: None}} to "
            "BrowserPool()."
        )


# -- while it runs


def new_context(engine: str, route: Route | None) -> dict[str, Any]:
    """Parameters of ``browser.createUserContext``: they hold from the context's first request on."""
    if route is None:
        return {}
    proxy: dict[str, Any] = {
        "proxyType": "manual",
        "httpProxy": route.address,
        "sslProxy": route.address,
    }
    if engine == "chromium":
        proxy["noProxy"] = ["<-loopback>"]
    return {"proxy": proxy}


def send_through(context: Any, route: Route) -> None:
    """Have a request context of Selenium's (``driver.request``), and those that are made of it, send
    through the route: they have pools of connections of their own, which know no proxy."""
    from urllib3 import PoolManager, ProxyManager

    if isinstance(context._pool, ProxyManager):
        return
    make = type(context).__dict__.get("new_context")

    def new_context(*given: Any, **words: Any) -> Any:
        assert make is not None
        another = make(context, *given, **words)
        send_through(another, route)
        return another

    earlier: PoolManager = context._pool
    context._pool = ProxyManager(f"http://{route.address}")
    earlier.clear()
    if make is not None:
        context.new_context = new_context


QUIET_COMMANDS = ("refresh", "goBack", "goForward")
"""Commands that load a page, and return although it could not be loaded (measured with ChromeDriver)."""

OF_ONE_TARGET = frozenset({"forbidden", "protocol"})
"""Reasons of a ProxyError that may be for one host alone, such as an advertiser's: pages go on."""
OF_A_LOAD = frozenset({"unknown error", "timeout"})
"""The codes of WebDriver's errors for a page that could not be loaded, in both browsers."""


def run_explained(route: Route | None, name: str, command: Callable[[], T]) -> T:
    """Run the WebDriver command of this name.

    Where it fails while the proxy cannot be used, raises ProxyError in place of the browser's error,
    which is the cause.  Also where a command that would hide the failure returns.  Where the proxy may
    have refused one host alone, only the errors of page loads are replaced.
    """
    if route is None:
        return command()
    from selenium.common.exceptions import WebDriverException

    from .error_codes import error_code
    from .proxy_errors import ProxyError

    earlier = route.last_failure
    try:
        answer = command()
        hidden = route.last_failure if name in QUIET_COMMANDS else None
        if hidden is not None and hidden is not earlier and hidden.reason not in OF_ONE_TARGET:
            raise ProxyError.of(hidden)
        return answer
    except BrowserkeeperError:  # the session is over
        raise
    except WebDriverException as error:
        failure = route.failure()
        if failure is None or (failure.reason in OF_ONE_TARGET and error_code(error) not in OF_A_LOAD):
            raise
        raise ProxyError.of(failure) from error


__all__ = [
    "CONTEXT_ARGUMENTS",
    "CONTEXT_PREFERENCES",
    "check_lease_proxy",
    "chromium_arguments",
    "firefox_preferences",
    "new_context",
    "open_route",
    "route_to",
    "run_explained",
    "send_through",
]
