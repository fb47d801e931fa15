"""The witness of the bystander campaign: who lives, and which files are as they were.

Without any code of browserkeeper.  A process counts as unharmed while its connection to the campaign is
open and it answers, so neither its end nor a SIGSTOP is missed, whatever its number, parent, user or pid
namespace.  Files are compared by content, mode, owner and link target.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import select
import signal
import socket
import stat
import struct
from pathlib import Path

from tests.support.waiting import wait_until

PATIENCE = 60.0
"""Seconds for which a process may owe an answer; it takes less than a millisecond."""


@dataclasses.dataclass(frozen=True)
class Process:
    """A connected process; ``pid`` is its number in the campaign's pid namespace."""

    label: str
    pid: int
    link: socket.socket

    def is_alive(self) -> bool:
        """True while the kernel keeps its end of the connection open."""
        poller = select.poll()
        poller.register(self.link, select.POLLIN)
        return not poller.poll(0) or bool(self.link.recv(1, socket.MSG_PEEK))

    def answers(self) -> bool:
        """True if it lives and is not stopped."""
        try:
            self.link.sendall(b"?")
            return self.link.recv(1) == b"?"
        except OSError:  # EPIPE and ECONNRESET: it is dead; EAGAIN: the patience is over
            return False


class Witness:
    """Accepts the connections of the campaign's processes at ``path``."""

    def __init__(self, path: Path):
        self.path = path
        self.processes: list[Process] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        path.chmod(0o777)
        self._server.listen(128)
        self._server.setblocking(False)

    def labelled(self, label: str) -> list[Process]:
        self._accept()
        return [process for process in self.processes if process.label == label]

    def wait_for(self, label: str, number: int) -> list[Process]:
        """Block until so many processes with this label have connected.  Raises AssertionError."""
        there = wait_until(lambda: len(self.labelled(label)) >= number)
        found = self.labelled(label)
        assert there, f"only {len(found)} of {number} processes {label!r} have come"
        return found

    def forget(self, label: str) -> None:
        """Close the connections of this label, upon which its processes end; stopped ones are killed."""
        for process in self.labelled(label):
            self.processes.remove(process)
            if process.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)
            process.link.close()

    def in_child(self) -> None:
        """In a fork of the campaign: close its copies, which would keep connections open."""
        self._server.close()
        for process in self.processes:
            process.link.close()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._server.accept()
            except BlockingIOError:
                return
            link.settimeout(PATIENCE)
            credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            pid, _, _ = struct.unpack("3i", credentials)
            label = b""
            with contextlib.suppress(OSError):
                while not label.endswith(b"\n") and (byte := link.recv(1)):
                    label += byte
            self.processes.append(Process(label.decode().strip(), pid, link))


def picture(top: Path) -> dict[str, str]:
    """What is at a path and below it, each entry as a line of text; directories' times are left out."""
    found = {}
    inner = sorted(top.rglob("*")) if top.is_dir() and not top.is_symlink() else []
    for path in (top, *inner):
        try:
            facts = path.lstat()
        except OSError:
            continue
        content = ""
        if stat.S_ISREG(facts.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(facts.st_mode):
            content = str(path.readlink())
        found[str(path)] = f"{facts.st_mode:o} {facts.st_uid} {facts.st_ino} {content}"
    return found


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The entries that are gone or not as they were."""
    return sorted(path for path, line in before.items() if after.get(path) != line)
