"""Finds out which user has opened a connection on the loopback.

Without this check, every local user could use the proxy through the relay, with the password.  The
kernel tells the owner of a socket by netlink (sock_diag(7)), which takes O(1), and in ``/proc/net/tcp``,
which takes O(all sockets) and is used only if there is no netlink (gVisor, seccomp).
"""

from __future__ import annotations

import os
import socket
import struct
import sys

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 1
ERROR = 2
"""The type of netlink's error message (netlink(7), NLMSG_ERROR)."""
PATIENCE = 1.0
"""Seconds for the kernel's answer, which takes microseconds."""


class UnknownPeerError(Exception):
    """This system does not tell which user owns a connection."""


def is_ours(connection: socket.socket) -> bool:
    """True if the other end of this connection belongs to this process's user.

    False if its process has closed the socket already.  Raises UnknownPeerError, and OSError for a
    connection that is closed.
    """
    peer, own = connection.getpeername(), connection.getsockname()
    if sys.platform != "linux":
        raise UnknownPeerError
    try:
        uid, inode = _by_netlink(peer, own)
    except (OSError, struct.error):
        uid, inode = _by_proc(peer, own)
    return uid == os.geteuid() and inode != 0  # a socket without an owner is shown as root's


def can_tell() -> bool:
    """True if :func:`is_ours` works in this process."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        try:
            return is_ours(connection)
        except UnknownPeerError:
            return False


def _by_netlink(peer: tuple[str, int], own: tuple[str, int]) -> tuple[int, int]:
    """The uid and the inode of the peer's socket; (-1, 0) if there is none.  Raises OSError or
    struct.error."""
    header = struct.Struct("=IHHII")
    where = struct.pack("!HH4s12x4s12x", peer[1], own[1], *map(socket.inet_aton, (peer[0], own[0])))
    request = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
    request += where + struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
    size = header.size + len(request)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as link:
        link.settimeout(PATIENCE)
        link.send(header.pack(size, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0) + request)
        answer = link.recv(8192)
    _, kind, _, _, _ = header.unpack_from(answer)
    if kind == ERROR:
        (code,) = struct.unpack_from("=i", answer, header.size)
        if code == -2:  # ENOENT: no such socket
            return -1, 0
        raise OSError(-code, "sock_diag")
    if kind != SOCK_DIAG_BY_FAMILY:
        raise OSError("sock_diag: an unknown answer")
    uid, inode = struct.unpack_from("=II", answer, header.size + 64)
    return int(uid), int(inode)


def _by_proc(peer: tuple[str, int], own: tuple[str, int]) -> tuple[int, int]:
    """The same from ``/proc``.  Raises UnknownPeerError if the file cannot be read."""
    wanted = [_as_in_proc(peer), _as_in_proc(own)]
    try:
        with open("/proc/self/net/tcp") as file:
            for line in file:
                fields = line.split()
                if fields[1:3] == wanted:
                    return int(fields[7]), int(fields[9])
    except (OSError, ValueError, IndexError):
        raise UnknownPeerError from None
    return -1, 0


def _as_in_proc(address: tuple[str, int]) -> str:
    """The address as in /proc, such as ``0100007F:1F90``, in the machine's byte order (proc(5))."""
    (number,) = struct.unpack("=I", socket.inet_aton(address[0]))
    return f"{number:08X}:{address[1]:04X}"


__all__ = ["UnknownPeerError", "can_tell", "is_ours"]
