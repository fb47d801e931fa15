"""Who is connected to a process: living TCP clients, and the writers of its standard input.

Both answers are the kernel's and cover processes that ``/proc`` hides, and those of other users and
other containers.  Only the name of a client, for people, needs a process that can be seen.  Linux only.
"""

from __future__ import annotations

import dataclasses
import os
import select
from collections.abc import Collection, Iterable, Iterator
from typing import Literal

from ..guard.procfs import read_bytes
from . import system

LISTEN = 0x0A
CLOSED_BY_PEER = (0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B)
"""States in which the other end has closed the connection, or there is none (include/net/tcp_states.h):
TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING.  All others count as a living client."""

Writer = Literal["none", "some", "no pipe", "unknown"]


@dataclasses.dataclass(frozen=True)
class _Socket:
    """A line of ``/proc/PID/net/tcp`` (proc(5)); the addresses as they stand there."""

    address: str
    port: int
    peer_address: str
    peer_port: int
    state: int
    inode: int


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


def clients_of(required: Iterable[int], others: Iterable[int]) -> list[str] | None:
    """Descriptions of the living TCP clients of some processes that belong together.

    A client is the other end of a connection to a port on which one of the processes listens, unless one
    of the processes has that end as well.  A connection counts that was not accepted yet.  None where
    the sockets of one of the ``required`` processes cannot be looked at; of ``others`` those that can
    count.
    """
    tables: dict[str, list[_Socket]] = {}
    held: dict[str, set[int]] = {}
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
        held.setdefault(network, set()).update(inodes or ())
    return [
        _describe(client, table)
        for network, table in tables.items()
        for client in _clients(table, held.get(network, set()))
    ]


def _clients(table: list[_Socket], held: Collection[int]) -> Iterator[_Socket]:
    """The servers' ends of the clients' connections.  A socket that was not accepted has inode 0."""
    ports = {one.port for one in table if one.state == LISTEN and one.inode in held}
    inner = {(one.port, one.peer_port) for one in table if one.inode in held}
    for one in table:
        is_served = one.port in ports and one.state not in CLOSED_BY_PEER
        if is_served and (one.peer_port, one.port) not in inner:
            yield one


def _describe(client: _Socket, table: list[_Socket]) -> str:
    """``python3 (pid 7), connected to port 9515``; the address where no process can be seen."""
    ends = [one.inode for one in table if (one.port, one.peer_port) == (client.peer_port, client.port)]
    holder = next((pid for pid in system.pids() if (_inodes(pid) or set()) & set(filter(None, ends))), 0)
    found = system.facts(holder) if holder else None
    who = f"{found.name} (pid {holder})" if found else "a process that cannot be seen"
    return f"{who}, connected to port {client.port}"


def _table(pid: int) -> list[_Socket] | None:
    """The TCP sockets of a process's network namespace; None where they cannot be read."""
    four = read_bytes(f"/proc/{pid}/net/tcp")
    six = read_bytes(f"/proc/{pid}/net/tcp6")
    if four is None or (six is None and os.path.exists(f"/proc/{pid}/net/tcp6")):
        return None
    lines = [*four.splitlines()[1:], *(six or b"").splitlines()[1:]]
    return [_parse(line.decode("ascii", "replace").split()) for line in lines]


def _parse(fields: list[str]) -> _Socket:
    address, _, port = fields[1].rpartition(":")
    peer, _, peer_port = fields[2].rpartition(":")
    return _Socket(address, int(port, 16), peer, int(peer_port, 16), int(fields[3], 16), int(fields[9]))


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


__all__ = ["Writer", "clients_of", "stdin_of", "stdin_writer"]
