"""``proxy=``: how a browser gets its proxy, so that no request goes past it.

A browser on this machine uses a route of the relay (``browserkeeper.proxy``) as its proxy: from its
launch, or from the creation of a lease's user context.  On a Grid the browser gets the proxy itself,
which must need no password.

Measured with Chromium 156 and Firefox 153: neither uses a proxy for the loopback unless it is told to;
WebRTC of a page goes past any proxy by UDP unless the whole process is told not to do so; and with
``failover_direct`` Firefox sends requests of its own directly if the proxy is dead.
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
"""Default arguments of a Chromium whose leases have contexts, each with its reason: a lease may have a
proxy."""
CONTEXT_PREFERENCES: dict[str, tuple[bool, str]] = {
    "media.peerconnection.ice.proxy_only": (True, "WebRTC cannot go past the proxy of a lease"),
    "network.proxy.allow_hijacking_localhost": (True, "a lease's proxy is used for the loopback, too"),
}
"""The same for Firefox: preferences, each with value and reason."""

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
"""Firefox takes its proxy from these variables if no preference sets one.  The preference that a lease's
proxy needs, ``allow_hijacking_localhost``, would then send requests to the loopback to that proxy, too;
so it is not set then."""


def open_route(config: SessionConfig) -> Route | None:
    """Open the route for a browser that is about to start on this machine; None if it needs none.

    Raises ConfigError if the relay cannot work in this process, and OSError if no port or descriptor is
    left.
    """
    if config.identity.proxy is None or config.for_contexts or config.debugger_address:
        return None
    return route_to(config.identity.proxy)


def route_to(proxy: Proxy) -> Route:
    """Open a route of the relay; raises the same errors as :func:`open_route`.  Imports asyncio and ssl,
    which a session without a proxy does not need."""
    from ..proxy.relay import Route

    return Route(proxy)


# -- at the launch


def chromium_arguments(config: SessionConfig, route: Route | None) -> list[str]:
    """The arguments of Chromium's command line for its proxy."""
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
    """Firefox's preferences for its proxy."""
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
    """The URL of the route, or on a Grid the URL of the proxy; "" without a proxy."""
    if route is not None:
        return f"http://{route.address}"
    if proxy is None:
        return ""
    scheme = "socks5" if proxy.is_socks else proxy.scheme
    return f"{scheme}://{proxy.address}"


def _is_used(config: SessionConfig, default: str) -> bool:
    """False for a default that the user has switched off, or has set otherwise."""
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
    """Raises ConfigError if requests of a lease's pages could go past the lease's proxy, in a pool whose
    browsers have this configuration."""
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
    """The parameters of ``browser.createUserContext`` that set a proxy from the first request on."""
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
    """Make Selenium's ``driver.request``, and the request contexts that are made from it, send through
    the route.  They have connection pools of their own, without a proxy."""
    from urllib3 import PoolManager, ProxyManager

    from ..selenium_internals.private import connection_pool, set_connection_pool

    earlier: PoolManager = connection_pool(context)
    if isinstance(earlier, ProxyManager):
        return
    make = type(context).__dict__.get("new_context")

    def new_context(*given: Any, **words: Any) -> Any:
        assert make is not None
        another = make(context, *given, **words)
        send_through(another, route)
        return another

    set_connection_pool(context, ProxyManager(f"http://{route.address}"))
    earlier.clear()
    if make is not None:
        context.new_context = new_context


QUIET_COMMANDS = ("refresh", "goBack", "goForward")
"""Commands that return without an error even if the page could not be loaded (measured with
ChromeDriver)."""

OF_ONE_TARGET = frozenset({"forbidden", "protocol"})
"""Reasons of a ProxyError that may concern one host only, such as an advertiser's, while pages still
work."""
OF_A_LOAD = frozenset({"unknown error", "timeout"})
"""WebDriver's error codes for a page that could not be loaded, in both browsers."""


def run_explained(route: Route | None, name: str, command: Callable[[], T]) -> T:
    """Run a WebDriver command, and return its answer.  ``name`` is the command's name.

    If the command fails while the proxy cannot be used, raises ProxyError; the browser's error is its
    cause.  Raises ProxyError also after a command of QUIET_COMMANDS that returns.  For the reasons in
    OF_ONE_TARGET, only the errors of page loads (OF_A_LOAD) are replaced.
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
