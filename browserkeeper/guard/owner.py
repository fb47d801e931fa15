"""The session's owner: its death, its messages to the guard, and the guard's events to it."""

from __future__ import annotations

import os
import select
import time

from .options import Failure, Options
from .procfs import is_exiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SEND_TIMEOUT = 5.0  # seconds that an owner may take to read an event


class Owner:
    """The process that started the guard; pid 0 where there is none and the guard is an init."""

    def __init__(self, options: Options):
        self.pid = options.owner
        self.control_fd = options.control_fd
        self.pidfd = -1
        self.is_parent = True  # False in the primary guard, whose parent is the standby guard
        self._status_fd = options.status_fd
        self._network_fd = options.network_fd
        self._closed_unseen = False  # EOF came, and whether the owner was exiting could not be read

    def watch(self) -> None:
        """Take the owner's pidfd.  Raises Failure where the owner is dead already.

        The control pipe alone is not enough: any fork of the owner holds a copy of its other end.
        """
        for fd in (self.control_fd, self._status_fd, self._network_fd):
            if fd >= 0:
                os.set_inheritable(fd, False)
        if not self.pid:
            return
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except (
            OSError,  # the owner is gone, or the kernel is older than 5.3
            AttributeError,  # Python was built on such a kernel
        ):  # ``is_dead`` asks getppid() then
            pass
        if os.getppid() != self.pid:  # gone, and the pidfd may name the next process of that pid
            raise Failure("owner", ProcessLookupError(3, "the owner died during the launch"))

    def is_dead(self) -> bool:
        """By the pidfd.  Without one, by the parent's pid, which only a direct child can ask for."""
        if self.pidfd >= 0:
            return _is_readable(self.pidfd)
        return bool(self.pid) and self.is_parent and os.getppid() != self.pid

    def read(self) -> list[list[str]]:
        """The messages that have come in, each as a list of words; without waiting for any.

        Messages are whole: each is one write below PIPE_BUF, which is atomic (pipe(7)).  At EOF
        returns one message: ``owner-died`` or, where the owner lives on, ``abandoned``.
        """
        if self.control_fd < 0 or not _is_readable(self.control_fd):
            return []
        text = os.read(self.control_fd, 65536).decode("ascii", "replace")
        if text:
            return [words for words in map(str.split, text.splitlines()) if words]
        # A dying process closes its files before its pidfd becomes readable: on a busy machine, or with
        # files that are slow to close, long before.
        exiting = is_exiting(self.pid)
        self._closed_unseen = exiting is None
        return [["owner-died" if exiting or self.is_dead() else "abandoned"]]

    def settled(self, reason: str) -> str:
        """The reason for the report, asked once more at the end of the teardown.

        Where ``/proc`` could not tell whether the owner was exiting when it closed the pipe, an owner
        that is dead by now counts as having died.
        """
        unsure = self._closed_unseen and reason == "abandoned"
        return "owner-died" if unsure and self.is_dead() else reason

    def send(self, event: str, **facts: Any) -> None:
        """Write one event; gives up after SEND_TIMEOUT, or when the owner is dead."""
        if self._status_fd < 0:
            return
        data = (to_json({"event": event, **facts}) + "\n").encode()
        os.set_blocking(self._status_fd, False)
        poller = select.poll()
        poller.register(self._status_fd, select.POLLOUT)
        until = time.monotonic() + SEND_TIMEOUT
        while data and time.monotonic() < until and not self.is_dead():
            try:
                data = data[os.write(self._status_fd, data) :]
            except BlockingIOError:
                poller.poll(100)
            except OSError:  # EPIPE: the owner has closed its end
                return


def _is_readable(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def to_json(value: Any) -> str:
    """JSON of None, bool, int, float, str, list and dict.  Importing ``json`` would take 5 ms."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(round(value, 6))
    if isinstance(value, str):
        return f'"{"".join(map(_json_character, value))}"'
    if isinstance(value, dict):
        return "{" + ",".join(f"{to_json(str(k))}:{to_json(v)}" for k, v in value.items()) + "}"
    return "[" + ",".join(map(to_json, value)) + "]"


def _json_character(character: str) -> str:
    if " " <= character <= "~" and character not in '"\\':
        return character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))
