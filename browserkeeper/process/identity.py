"""The identity of a process: its pid and start time, and the host in which the two mean something."""

from __future__ import annotations

import dataclasses

ROUNDING = 0.005
"""Seconds: two start times that differ by less are one, since JSON rounds a float."""
UNKNOWN = 0.0
"""As a start time: it could not be read.  Equals no other, not even another unknown one."""
ALWAYS = -1.0
"""As the start time of a namespace's PID 1: the namespace lives for as long as the boot."""


def is_same_start(one: float, other: float) -> bool:
    """True if both are known and equal."""
    return one != UNKNOWN and other != UNKNOWN and abs(one - other) < ROUNDING


@dataclasses.dataclass(frozen=True)
class ProcessIdentity:
    """A pid and the process's start time, in the platform's own unit (``system.facts``).

    No two processes of one :class:`Host` share both.
    """

    pid: int
    start: float

    def is_same_as(self, other: ProcessIdentity | None) -> bool:
        """True if both are known and equal."""
        return other is not None and self.pid == other.pid and is_same_start(self.start, other.start)


@dataclasses.dataclass(frozen=True)
class Host:
    """Within which pids and start times are unique: machine, boot, pid namespace, and the user.

    The inode number of a namespace is used again after its end, so the start time of its PID 1
    (``init_start``) belongs to it.  A part that could not be read is "" or UNKNOWN, and then this host
    equals no other, itself included: ``/proc`` with ``subset=pid`` has no boot id, for one.
    """

    machine: str
    boot: str
    namespace: str
    init_start: float
    uid: int

    @classmethod
    def parse(cls, text: str, init_start: float | None, uid: int | None) -> Host:
        """From the parts that a record has (``state.records.Session``); None for those of an older
        version, which knew neither."""
        machine, boot, namespace = f"{text}//".split("/")[:3]
        if init_start is None:
            init_start = ALWAYS if namespace in _ONE_PER_BOOT else UNKNOWN
        return cls(machine, boot, namespace, init_start, -1 if uid is None else uid)

    @property
    def id(self) -> str:
        """Machine, boot and namespace in one string, as records and pool states have it."""
        return f"{self.machine}/{self.boot}/{self.namespace}"

    def is_same_machine_as(self, other: Host) -> bool:
        return bool(self.machine) and self.machine == other.machine

    def is_same_boot_as(self, other: Host) -> bool:
        return self.is_same_machine_as(other) and bool(self.boot) and self.boot == other.boot

    def is_same_as(self, other: Host) -> bool:
        """True if a pid means the same process on both.

        A uid of -1 is that of an older version, whose files belong to the user who reads them.
        """
        return (
            self.is_same_boot_as(other)
            and bool(self.namespace)
            and self.namespace == other.namespace
            and is_same_start(self.init_start, other.init_start)
            and (self.uid == other.uid or -1 in (self.uid, other.uid))
        )

    @property
    def is_machine_unnamed(self) -> bool:
        """True where the machine has no name of its own, and the boot stands for it."""
        return self.machine == NAMED_BY_BOOT + self.boot

    def missing_parts(self) -> list[str]:
        """Names of the parts that could not be read."""
        parts = {"machine id": self.machine, "boot id": self.boot, "pid namespace": self.namespace}
        missing = [name for name, value in parts.items() if not value]
        return missing + ["start time of PID 1"] * (self.init_start == UNKNOWN)


NAMED_BY_BOOT = "boot:"
"""Begins the name of a machine that has no machine id."""
INITIAL_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO (include/linux/proc_ns.h): the namespace of the machine's own PID 1."""
NO_NAMESPACES = "-"
"""The namespace on systems that have none."""
_ONE_PER_BOOT = (INITIAL_NAMESPACE, NO_NAMESPACES)


@dataclasses.dataclass(frozen=True)
class ProcessFacts:
    """What was known of a process at one moment.

    ``session`` is the pid of its session's leader (setsid(2)); ``state`` is the letter of ps(1): R, S,
    D, T, Z and more.
    """

    identity: ProcessIdentity
    parent: int
    session: int
    name: str
    state: str

    @property
    def pid(self) -> int:
        return self.identity.pid

    @property
    def is_zombie(self) -> bool:
        return self.state == "Z"
