"""Makes the ProxyError for each failure of a proxy.  It names the proxy and the user, never the
password."""

from __future__ import annotations

import errno
import os
import socket
import ssl

from ..errors import ProxyError
from ..options.proxy import Proxy

BASIC = b"basic"


def _error(proxy: Proxy, text: str, reason: str) -> ProxyError:
    return ProxyError(f"proxy {proxy}{text}", str(proxy), proxy.username, reason)


def of_connection(proxy: Proxy, error: Exception) -> ProxyError | None:
    """For an error of the connection to the proxy.  Returns None if the proxy is not the cause: this
    process has no file descriptor left."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return None
    if isinstance(error, socket.gaierror):
        return _error(proxy, f": its name cannot be resolved ({error.strerror})", "unresolvable")
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message or error.reason
        text = f": its certificate is not trusted ({why}). SSL_CERT_FILE can name more authorities"
        return _error(proxy, text, "certificate")
    if isinstance(error, ssl.SSLError):
        return _error(proxy, f" does not speak TLS ({error.reason}); is it http://?", "protocol")
    if isinstance(error, TimeoutError):
        return _error(proxy, " cannot be reached: no answer to the connection", "unreachable")
    number = error.errno if isinstance(error, OSError) else None
    why = os.strerror(number) if number else type(error).__name__
    return _error(proxy, f" cannot be reached: {why}", "unreachable")


def of_password(proxy: Proxy, schemes: list[bytes] | None = None) -> ProxyError:
    """For a proxy that requires a password, or refuses the given one.  ``schemes``: the values of the
    proxy's header Proxy-Authenticate."""
    if schemes and BASIC not in [scheme.split()[0].lower() for scheme in schemes if scheme.split()]:
        names = b", ".join(scheme.split()[0] for scheme in schemes if scheme.split())
        shown = "".join(c for c in names.decode("ascii", "replace")[:60] if c.isprintable())
        return _error(proxy, f" asks for {shown} authentication; only Basic is supported", "password")
    if not proxy.username:
        return _error(proxy, " requires a user and a password, and proxy= has none", "password")
    return _error(proxy, f" refuses user {proxy.username!r}: wrong user or password", "password")


def of_refusal(proxy: Proxy, what: str) -> ProxyError:
    """For a proxy that refuses the target, or this client.  ``what``: what it has refused."""
    return _error(proxy, f" does not let the browser through: {what}", "forbidden")


def of_protocol(proxy: Proxy, why: str) -> ProxyError:
    """For an answer that a proxy of this scheme would not give.  ``why``: what is wrong with it."""
    kind = "a SOCKS5" if proxy.is_socks else "an HTTP"
    return _error(proxy, f" does not answer as {kind} proxy: {why}", "protocol")


__all__ = ["of_connection", "of_password", "of_protocol", "of_refusal"]
