"""A network namespace for the driver, whose port then exists for no other user of the machine.

A TCP socket belongs to the network namespace in which it was made, whoever uses it later
(network_namespaces(7)).  So the owner, which stays outside, gets sockets that were made inside: it can
connect these to the driver.  Nothing relays bytes.

Imported only where a session has such a namespace.  The owner imports :func:`disconnect`.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import sys

from .libc import call, refusal

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
UNSPECIFIED = bytes(16)
"""A ``sockaddr`` of AF_UNSPEC."""
LOOPBACK = "127.0.0.1"
VARIABLE = "BROWSERKEEPER_STAND_IN"
"""The environment variable of the driver that has the numbers of its ends of the two pipes to the guard
(``outside.py``)."""
SECCOMP = "a seccomp filter, such as Docker's default profile, forbids namespaces"
PAIRS = 2
"""Pairs of a listening socket and a client socket that the owner gets.  Each new connection uses one for
a moment, so that two threads can connect at the same time."""


def leave_the_network() -> None:
    """Move this process into a new network namespace, whose loopback is up.

    Needs CAP_SYS_ADMIN and CAP_NET_ADMIN, or else makes a user namespace as well, in which this user
    keeps its number.  Raises OSError where the system forbids that; the process must not go on then.
    """
    if call("unshare", CLONE_NEWNET) == 0:
        try:
            _raise_loopback()
            return
        except PermissionError:  # no CAP_NET_ADMIN
            pass
    uid, gid = os.geteuid(), os.getegid()
    flags = CLONE_NEWUSER | CLONE_NEWNET
    if call("unshare", flags) != 0 and (why := refusal("unshare", flags)):
        raise why
    for name, text in (
        ("setgroups", "deny"),  # without it no group may be mapped (user_namespaces(7))
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    _raise_loopback()


def _raise_loopback() -> None:
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    lo = b"lo".ljust(16, b"\0") + (IFF_UP | IFF_RUNNING).to_bytes(2, sys.byteorder) + bytes(14)
    try:
        fcntl.ioctl(control.fileno(), SIOCSIFFLAGS, lo)
    finally:
        control.close()


def send_sockets(handover: int) -> None:
    """Make sockets in the namespace of this process, and send them over a unix socket, in one message:
    PAIRS listening sockets, and then a client socket for each.  Raises OSError."""
    listeners = [_socket.socket(_socket.AF_INET, _socket.SOCK_STREAM) for _ in range(PAIRS)]
    clients = [_socket.socket(_socket.AF_INET, _socket.SOCK_STREAM) for _ in range(PAIRS)]
    for listener in listeners:
        listener.bind((LOOPBACK, 0))
        listener.listen(1)
    _check(listeners[0], clients[0])
    fds = [one.fileno().to_bytes(4, sys.byteorder) for one in (*listeners, *clients)]
    channel = _socket.socket(fileno=os.dup(handover))
    channel.sendmsg([b"!"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, b"".join(fds))])
    for one in (channel, *listeners, *clients):
        one.close()


def _check(listener: _socket.socket, client: _socket.socket) -> None:
    """Make a socket as the owner will, so that a system that cannot is known before the driver runs."""
    client.connect(listener.getsockname())
    fd, _ = listener._accept()  # type: ignore[attr-defined] # the C half of socket.accept()
    made = _socket.socket(fileno=fd)
    try:
        disconnect(made)
        disconnect(client)
    finally:
        made.close()


def disconnect(connected: _socket.socket) -> None:
    """Dissolve the connection of a TCP socket, which can then be connected anew (connect(2)).

    Raises OSError where the system cannot do that.
    """
    arguments = (connected.fileno(), UNSPECIFIED, len(UNSPECIFIED))
    if call("connect", *arguments) != 0 and (why := refusal("connect", *arguments)):
        raise why
    # The kernel notes ECONNRESET (tcp_disconnect()), which gevent's connect() would take for its own.
    connected.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)


def explain(number: int) -> str:
    """Why the system refuses a network namespace (:func:`leave_the_network`), by the error's number and
    the system's settings."""
    if number == 28:  # ENOSPC
        return "user.max_user_namespaces or user.max_net_namespaces is reached (see sysctl)"
    if number in (22, 38):  # EINVAL, ENOSYS
        return "the kernel has no user or no network namespaces"
    if number in (1, 13):  # EPERM, EACCES
        return _who_forbids()
    return os.strerror(number)


def _who_forbids() -> str:
    if call("unshare", 0) != 0:  # which asks for nothing, so that only a filter refuses it
        return SECCOMP
    if os.geteuid() != 0 and _reads("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor forbids user namespaces to programs without a profile "
            "(sysctl kernel.apparmor_restrict_unprivileged_userns)"
        )
    if os.geteuid() != 0 and _reads("kernel/unprivileged_userns_clone") == "0":
        return "user namespaces are forbidden (sysctl kernel.unprivileged_userns_clone)"
    try:
        with open("/proc/self/status", "rb") as file:
            if b"\nSeccomp:\t2\n" in file.read():
                return SECCOMP  # one that looks at the flags, such as systemd's RestrictNamespaces=
    except OSError:
        pass
    return "namespaces are forbidden here (no CAP_SYS_ADMIN, and no user namespaces)"


def _reads(name: str) -> str:
    try:
        with open(f"/proc/sys/{name}", "rb") as file:
            return file.read().decode().strip()
    except OSError:
        return ""


__all__ = ["disconnect", "explain", "leave_the_network", "send_sockets"]
