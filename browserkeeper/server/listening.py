"""Where the server listens: ``unix:PATH``, ``HOST:PORT``, and the sockets that systemd gives.

Everything is checked before a socket is opened.  An address that cannot be used raises ConfigError.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import grp
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path

from ..errors import ConfigError
from ..state.permissions import first_untrusted_directory
from ..wire.address import LONGEST_PATH
from .connections import Listener

UNIX = "unix:"
BACKLOG = 128
FIRST_FD = 3
"""``SD_LISTEN_FDS_START`` (sd_listen_fds(3))."""


@dataclasses.dataclass(frozen=True)
class Address:
    """One ``--listen``: ``path`` of a unix socket, or ``host`` and ``port``."""

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises ConfigError for a text that is neither ``unix:PATH`` nor ``HOST:PORT``."""
        if text.startswith(UNIX):
            return cls(path=_checked_path(text[len(UNIX) :]))
        if "@" in text:  # before any message that has the text
            raise ConfigError(
                "--listen takes no token, which everybody could read in the command line: put it into "
                "a file and give --token-file."
            )
        host, colon, port = text.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not colon or not (port.isascii() and port.isdigit() and int(port) < 65536):
            raise ConfigError(
                f"--listen {text!r} is neither unix:PATH nor HOST:PORT. Examples: "
                "unix:/run/user/1000/browserkeeper.sock, 127.0.0.1:4444, [::1]:4444."
            )
        if ":" in bare and bare == host:
            raise ConfigError(
                f"--listen {text!r}: write an IPv6 address in brackets, as [{host}]:{port}."
            )
        return cls(host=bare, port=int(port))

    def __str__(self) -> str:
        if self.path:
            return UNIX + self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _checked_path(path: str) -> str:
    """The absolute path.  Raises ConfigError where no socket can have it."""
    if not path or path.endswith("/") or "\0" in path:
        raise ConfigError(
            f"--listen {UNIX + path!r}: give the path of a file, as unix:/run/app/bk.sock."
        )
    if path.startswith("@"):
        raise ConfigError(
            f"--listen {UNIX + path!r}: an abstract socket has no file mode, so that every user could "
            "use the browsers. Give the path of a file."
        )
    path = os.path.abspath(path)
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ConfigError(
            f"--listen {UNIX + path!r}: the path of a socket may have {LONGEST_PATH} bytes, and this "
            f"one has {len(os.fsencode(path))}. Give a shorter one."
        )
    return path


@dataclasses.dataclass
class Listening:
    """The open sockets.  :meth:`close` also removes the socket files that this server has made."""

    sockets: list[Listener] = dataclasses.field(default_factory=list)
    made: list[tuple[str, os.stat_result]] = dataclasses.field(default_factory=list)

    @property
    def tcp_hosts(self) -> frozenset[str]:
        """The addresses of the TCP sockets, such as 127.0.0.1."""
        return frozenset(s.getsockname()[0] for s in self.sockets if s.family != socket.AF_UNIX)

    def names(self) -> list[str]:
        """The addresses for the log: ``unix:PATH`` or ``http://HOST:PORT``, with the port that the
        system has chosen for port 0."""
        return [_name_of(one) for one in self.sockets]

    def websockets_at(self) -> str:
        """The address on this machine for websockets, ws://HOST:PORT; "" without a TCP socket."""
        for one in self.sockets:
            if one.family != socket.AF_UNIX:
                host, port = one.getsockname()[:2]
                if is_everywhere(host):
                    host = "127.0.0.1" if one.family == socket.AF_INET else "::1"
                return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"
        return ""

    def close(self) -> None:
        for path, facts in self.made:
            with contextlib.suppress(OSError):
                now = os.lstat(path)
                # Remove only our own file, not one that was put in its place.  No other file can have
                # the number of our inode, which is in use until our socket is closed.
                if (now.st_dev, now.st_ino) == (facts.st_dev, facts.st_ino):
                    os.unlink(path)
        self.made.clear()
        for one in self.sockets:
            one.close()
        self.sockets.clear()


def _name_of(one: socket.socket) -> str:
    address = one.getsockname()
    if one.family == socket.AF_UNIX:
        return UNIX + os.fsdecode(address)
    host = f"[{address[0]}]" if one.family == socket.AF_INET6 else address[0]
    return f"http://{host}:{address[1]}"


def open_all(
    addresses: Sequence[Address],
    *,
    group: str = "",
    has_token: bool = False,
    insecure: bool = False,
    given: Sequence[Listener] = (),
) -> Listening:
    """Listen on all addresses, and take over the sockets that systemd has ``given``.

    Raises ConfigError for an address that cannot be used, and for one that users without permission
    could use; then no socket is left open.  A socket file that a dead server has left is replaced.
    """
    gid = _gid_of(group, addresses)
    resolved = [_resolve(one, has_token, insecure) for one in addresses if not one.path]
    for one in given:
        _check_given(one, has_token, insecure)
    listening = Listening()
    try:
        listening.sockets += given
        for address in addresses:
            if address.path:
                listening.sockets.append(_listen_unix(address.path, gid, listening))
        for found in resolved:
            listening.sockets += _listen_tcp(found)
    except BaseException:
        listening.close()
        raise
    return listening


# ------------------------------------------------------------------------------------- unix sockets


def _gid_of(group: str, addresses: Sequence[Address]) -> int | None:
    """The number of the group; None if no group is given.  Raises ConfigError for a group that does not
    exist, or that this user may not give to a file."""
    if not group:
        return None
    if not any(one.path for one in addresses):
        raise ConfigError(
            f"--group {group} is about the file of a unix socket, and there is none: give --listen "
            "unix:PATH. (The group of a socket of systemd's is SocketGroup= of its unit.)"
        )
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        if not (group.isascii() and group.isdigit()):
            raise ConfigError(f"--group {group}: there is no such group on this machine.") from None
        gid = int(group)
    if os.geteuid() and gid not in {os.getegid(), *os.getgroups()}:
        raise ConfigError(
            f"--group {group}: this user is not in that group, and so may not give it a file. Add the "
            "user to it, or have systemd open the socket (SocketGroup=)."
        )
    return gid


def _listen_unix(path: str, gid: int | None, listening: Listening) -> Listener:
    folder = os.path.dirname(path)
    _check_folder(path, folder)
    mode = 0o600 if gid is None else 0o660
    with _locked(folder, path):
        _remove_dead(path)
        one = Listener(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # bind(2) gives the file the mode of the open socket, less the umask: so another user cannot
            # connect in the moment before the chmod.
            os.fchmod(one.fileno(), 0o600)
            one.bind(path)
            facts = os.lstat(path)
            listening.made.append((path, facts))
            if gid is not None:
                os.chown(path, -1, gid, follow_symlinks=False)
            os.chmod(path, mode)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # from the first byte on
            one.listen(BACKLOG)
        except OSError as error:
            one.close()
            raise ConfigError(
                f"Cannot listen on {UNIX}{path}: {error.strerror or error}. Give another path."
            ) from error
    return one


def _check_folder(path: str, folder: str) -> None:
    """Raises ConfigError for a directory in which another user could replace our socket: that user would
    get the clients' commands, passwords and files."""
    try:
        facts = os.stat(folder)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {UNIX}{path}: its directory cannot be used ({error.strerror}). Make it, "
            "or give another path."
        ) from error
    if not stat.S_ISDIR(facts.st_mode):
        raise ConfigError(f"Cannot listen on {UNIX}{path}: {folder} is not a directory.")
    open_to_all = facts.st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH
    if open_to_all or (untrusted := first_untrusted_directory(folder)):
        bad = folder if open_to_all else untrusted
        raise ConfigError(
            f"Cannot listen on {UNIX}{path}: another user could exchange the socket, since {bad} "
            "belongs to another user or can be written by all. Give a path in a directory of your own."
        )


@contextlib.contextmanager
def _locked(folder: str, path: str) -> Iterator[None]:
    """Lock the directory for a block.  Of two servers that start at the same time, the second one checks
    the old file only after the first one listens.  Blocks; raises ConfigError if the directory cannot be
    locked."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:
            raise ConfigError(
                f"Cannot listen on {UNIX}{path}: {folder} cannot be locked ({error.strerror}). Give a "
                "path on a local file system."
            ) from error
        yield
    finally:
        os.close(fd)


def _remove_dead(path: str) -> None:
    """Remove the socket file of a server that is dead.  Raises ConfigError if the file is no such
    socket, if a server uses it, or if that cannot be determined."""
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(facts.st_mode):
        raise ConfigError(f"Cannot listen on {UNIX}{path}: there is a file that is not a socket.")
    if facts.st_uid != os.geteuid():
        raise ConfigError(
            f"Cannot listen on {UNIX}{path}: there is a socket of another user (uid {facts.st_uid}). "
            "Remove it, or give another path."
        )
    if problem := _why_it_may_live(path):
        raise ConfigError(f"Cannot listen on {UNIX}{path}: {problem}.")
    now = os.lstat(path)
    if (now.st_dev, now.st_ino, now.st_ctime_ns) == (facts.st_dev, facts.st_ino, facts.st_ctime_ns):
        os.unlink(path)


def _why_it_may_live(path: str) -> str:
    """Returns why an open socket may belong to the file; "" if none does.

    A datagram socket is used for the question, since its connection reaches no server.  The kernel
    answers EPROTOTYPE if a process has a stream socket bound to this file, whether or not that socket
    accepts connections, and ECONNREFUSED if no process has (unix_find_bsd() in net/unix/af_unix.c).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return ""
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:
                return "another program listens there. End it, or give another path"
            return f"it cannot be told whether a program listens there ({error.strerror})"
    return "another program uses this socket. End it, or give another path"


# ------------------------------------------------------------------------------------------------ TCP

Resolved = list[tuple[socket.AddressFamily, tuple[str, int]]]


def _resolve(address: Address, has_token: bool, insecure: bool) -> Resolved:
    """The addresses of a host name.  Raises ConfigError where the server must not listen there."""
    hint = f"--listen {address}"
    if not has_token:
        raise ConfigError(
            f"{hint}: every user and every web page of this machine could use the browsers over TCP. "
            "Give --token-file, or listen on unix:PATH."
        )
    host = None if address.host in ("", "*") else address.host  # None: all interfaces
    try:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(
            f"{hint}: the address of {host!r} cannot be found ({error.strerror})."
        ) from error
    known = (socket.AF_INET, socket.AF_INET6)
    places = [(family, (str(to[0]), int(to[1]))) for family, *_, to in found if family in known]
    usable: Resolved = list(dict.fromkeys(places))
    for _, (ip, _) in usable:
        _check_interfaces(hint, ip, insecure)
    if not usable:
        raise ConfigError(f"{hint}: {host!r} has no IP address.")
    return usable


def _check_interfaces(hint: str, ip: str, insecure: bool) -> None:
    if is_everywhere(ip) and not insecure:
        raise ConfigError(
            f"{hint} is on all interfaces, without encryption: who sees the traffic, sees the token. "
            "Use 127.0.0.1 or another single address, or give --insecure if the network is yours alone."
        )


def is_everywhere(ip: str) -> bool:
    """True for 0.0.0.0, ::, and 0.0.0.0 as an IPv6 address."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_unspecified


def _listen_tcp(where: Resolved) -> list[Listener]:
    """Open one socket for each address of a name.  Raises ConfigError if that fails.

    An address that this machine does not have is left out if another one can be used: ``localhost`` has
    an IPv6 address also on machines without IPv6.
    """
    opened: list[Listener] = []
    failure: OSError | None = None
    for family, (ip, port) in where:
        one = Listener(family, socket.SOCK_STREAM)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # With port 0 the system chooses one, which is then that of all addresses of the name.
            one.bind((ip, port or (opened[0].getsockname()[1] if opened else 0)))
            one.listen(BACKLOG)
        except OSError as error:
            one.close()
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and len(where) > 1:
                failure = error
                continue
            for other in opened:
                other.close()
            raise ConfigError(_cannot_listen(ip, port, error)) from error
        opened.append(one)
    if not opened:
        assert failure is not None
        raise ConfigError(_cannot_listen(*where[0][1], failure)) from failure
    return opened


def _cannot_listen(ip: str, port: int, error: OSError) -> str:
    host = f"[{ip}]" if ":" in ip else ip
    return f"Cannot listen on {host}:{port}: {error.strerror or error}. Choose another address."


# -------------------------------------------------------------------------------------------- systemd


def take_from_systemd(environ: MutableMapping[str, str]) -> list[Listener]:
    """The listening sockets that systemd has opened for this process (sd_listen_fds(3)), [] if none.

    The variables are removed, since they are not meant for the programs that the server starts.  Raises
    ConfigError for a socket that is no listening stream socket.
    """
    pid, count, names = (environ.pop(f"LISTEN_{word}", "") for word in ("PID", "FDS", "FDNAMES"))
    environ.pop("LISTEN_PIDFDID", None)
    if pid != str(os.getpid()):
        return []
    if not (count.isascii() and count.isdigit()):
        raise ConfigError(f"LISTEN_FDS={count!r} is not a number.")
    labels = names.split(":")
    sockets = []
    for index in range(int(count)):
        fd = FIRST_FD + index
        name = labels[index] if index < len(labels) else str(fd)
        sockets.append(_given_socket(fd, name))
    return sockets


def _given_socket(fd: int, name: str) -> Listener:
    families = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
    try:
        os.set_inheritable(fd, False)
        one = Listener(fileno=fd)
        listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"LISTEN_FDS: descriptor {fd} is not a socket ({error.strerror}).") from error
    if not listens or one.type != socket.SOCK_STREAM or one.family not in families:
        one.detach()  # leave the descriptor open: it may be meant for another purpose
        raise ConfigError(
            f"LISTEN_FDS: descriptor {fd} ({name}) does not listen for connections. Use ListenStream= "
            "in the socket unit, without Accept=yes."
        )
    return one


def _check_given(one: Listener, has_token: bool, insecure: bool) -> None:
    """Raises ConfigError for a socket of systemd's that users without permission could use."""
    name = _name_of(one)
    if one.family != socket.AF_UNIX:
        host, port = one.getsockname()[:2]
        if not has_token:
            raise ConfigError(
                f"{name}, from systemd: every user of this machine could use the browsers over TCP. "
                "Give --token-file, or use ListenStream= with the path of a unix socket."
            )
        _check_interfaces(f"ListenStream={host}:{port}", host, insecure)
        return
    path = os.fsdecode(one.getsockname())
    if not path or path.startswith("\0"):
        raise ConfigError(
            "An abstract socket, from systemd, has no file mode, so that every user could use the "
            "browsers. Use ListenStream= with the path of a file."
        )
    try:
        mode = stat.S_IMODE(Path(path).stat().st_mode)
    except OSError as error:
        raise ConfigError(
            f"{name}, from systemd: who may use it is not known, since its mode cannot be read "
            f"({error.strerror})."
        ) from error
    if mode & 0o007:
        raise ConfigError(
            f"{name}, from systemd, has mode {mode:04o}: every user of this machine could use the "
            "browsers. Set SocketMode=0600 in the socket unit, or 0660 with SocketGroup=."
        )
    one.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


__all__ = ["Address", "Listening", "is_everywhere", "open_all", "take_from_systemd"]
