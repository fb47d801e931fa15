"""Who uses a process: living TCP clients, the writers of its standard input, a debugger.

The first two answers are the kernel's and cover processes that ``/proc`` hides, and those of other
users and other containers.  Only the name of a client, for people, needs a process that can be seen.
Linux only.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import select
import sys
from collections.abc import Collection, Iterable
from typing import Literal

from ..guard.procfs import read_bytes
from . import system

CLOSE_WAIT, LISTEN, TIME_WAIT = 0x08, 0x0A, 0x06
CLOSED_BY_PEER = (TIME_WAIT, 0x07, CLOSE_WAIT, 0x09, LISTEN, 0x0B)
"""States in which the other end has closed the connection, or there is none (include/net/tcp_states.h):
TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING.  All others count as a living client."""

Writer = Literal["none", "some", "no pipe", "unknown"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
End = tuple[Address, int]
"""Address and port of one end of a connection."""


@dataclasses.dataclass(frozen=True)
class _Socket:
    """A line of ``/proc/PID/net/tcp`` (proc(5)).  ``inode`` is 0 where no process has the socket."""

    local: End
    peer: End
    state: int
    inode: int


@dataclasses.dataclass
class Connections:
    """Of processes that belong together.

    ``listening``: the pids of those that listen, each with an address and port.  ``clients``:
    descriptions of the living ones.  ``was_closed``: a connection to one of the ports was closed within
    the last minute, for which the kernel remembers it (TIME_WAIT).
    """

    listening: list[tuple[int, End]] = dataclasses.field(default_factory=list)
    clients: list[str] = dataclasses.field(default_factory=list)
    was_closed: bool = False


def stdin_writer(pid: int) -> Writer:
    """Whether some process has the other end of a process's standard input open.

    ``no pipe``: it is something else than a pipe; ``unknown``: it cannot be looked at.  Nothing is read
    from the pipe.  poll(2) has POLLHUP for the reading end of a pipe that nobody can write to.
    """
    path = f"/proc/{pid}/fd/0"
    try:
        if not os.readlink(path).startswith("pipe:"):
            return "no pipe"
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return "unknown"
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return "none" if any(events & select.POLLHUP for _, events in poll.poll(0)) else "some"
    finally:
        os.close(fd)


def stdin_of(pid: int) -> str:
    """What the standard input of a process is: a path, or ``pipe:[INODE]``; "" where it is not known."""
    try:
        return os.readlink(f"/proc/{pid}/fd/0")
    except OSError:
        return ""


def tracer_of(pid: int) -> int | None:
    """The pid of the debugger that has attached to a process (ptrace(2)), 0 for none; None where that
    cannot be read."""
    for line in (read_bytes(f"/proc/{pid}/status") or b"").splitlines():
        if line.startswith(b"TracerPid:"):
            return int(line.split()[1])
    return None


def connections_of(required: Iterable[int], others: Iterable[int]) -> Connections | None:
    """The connections of some processes that belong together.

    A client is the other end of a connection to a port on which one of the processes listens, unless one
    of the processes has that end as well.  A connection counts that was not accepted yet.  None where
    the sockets of one of the ``required`` processes cannot be looked at; of ``others`` those that can
    count.
    """
    tables: dict[str, list[_Socket]] = {}
    held: dict[str, dict[int, int]] = {}
    for pid, must in [*((pid, True) for pid in required), *((pid, False) for pid in others)]:
        inodes, network = _inodes(pid), _network(pid)
        if (
            inodes is not None
            and network
            and network not in tables
            and (table := _table(pid)) is not None
        ):
            tables[network] = table
        if must and (inodes is None or network not in tables):
            return None
        for inode in inodes or ():
            held.setdefault(network, {}).setdefault(inode, pid)
    found = Connections()
    for network, table in tables.items():
        _add(found, table, held.get(network, {}))
    return found


def _add(found: Connections, table: list[_Socket], held: dict[int, int]) -> None:
    """Add what one network namespace has.  ``held``: the processes that have the sockets, by inode."""
    listening = [one for one in table if one.state == LISTEN and one.inode in held]
    found.listening += [(held[one.inode], one.local) for one in listening]
    ports = {one.local[1] for one in listening}
    inner = {(one.local, one.peer) for one in table if one.inode in held}
    alive = {(one.local, one.peer) for one in table if one.inode}
    for one in table:
        other_end = one.peer, one.local
        if one.state == TIME_WAIT:
            found.was_closed = found.was_closed or not ports.isdisjoint((one.local[1], one.peer[1]))
        elif one.local[1] in ports and other_end not in inner:
            # A client may close one direction only, and read on (shutdown(2)): it has its socket.
            is_half_closed = one.state == CLOSE_WAIT and other_end in alive
            if one.state not in CLOSED_BY_PEER or is_half_closed:
                found.clients.append(_describe(one, table))


def _describe(client: _Socket, table: Collection[_Socket]) -> str:
    """``python3 (pid 7), connected to port 9515``; the address where no process can be seen."""
    ends = {one.inode for one in table if (one.local, one.peer) == (client.peer, client.local)} - {0}
    holder = next((pid for pid in system.pids() if (_inodes(pid) or set()) & ends), 0) if ends else 0
    found = system.facts(holder) if holder else None
    who = (
        f"{found.name} (pid {holder})"
        if found
        else f"a process that cannot be seen, at {client.peer[0]}"
    )
    return f"{who}, connected to port {client.local[1]}"


def _table(pid: int) -> list[_Socket] | None:
    """The TCP sockets of a process's network namespace; None where they cannot be read."""
    four = read_bytes(f"/proc/{pid}/net/tcp")
    six = read_bytes(f"/proc/{pid}/net/tcp6")
    if four is None or (six is None and os.path.exists(f"/proc/{pid}/net/tcp6")):
        return None
    lines = [*four.splitlines()[1:], *(six or b"").splitlines()[1:]]
    return [_parse(line.decode("ascii", "replace").split()) for line in lines]


def _parse(fields: list[str]) -> _Socket:
    return _Socket(_end(fields[1]), _end(fields[2]), int(fields[3], 16), int(fields[9]))


def _end(text: str) -> End:
    """Of ``0100007F:1F90``: an address is in words of 32 bits in the byte order of the machine.

    The two ends of one connection may stand as IPv4 and as IPv6 with the same IPv4 address in it.
    """
    digits, _, port = text.rpartition(":")
    raw = bytes.fromhex(digits)
    if sys.byteorder == "little":
        raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    address = ipaddress.ip_address(raw)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address, int(port, 16)


def _inodes(pid: int) -> set[int] | None:
    """The inodes of a process's sockets; None where its descriptors cannot be read."""
    found = set()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
            except FileNotFoundError:  # closed meanwhile
                continue
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    except OSError:
        return None
    return found


def _network(pid: int) -> str:
    """The network namespace of a process; "" where it cannot be read."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


__all__ = ["Connections", "Writer", "connections_of", "stdin_of", "stdin_writer", "tracer_of"]
