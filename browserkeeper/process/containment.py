"""Which containment a session gets: chosen at its start by what the machine allows."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Literal

from ..errors import ConfigError, ContainmentError
from . import require_own_proc
from .monkey_patches import require_usable

Kind = Literal["auto", "subreaper", "cgroup", "portable"]
KINDS: tuple[Kind, ...] = ("auto", "subreaper", "cgroup", "portable")


@dataclasses.dataclass(frozen=True)
class Containment:
    """A kind of containment, the reason for it, and for ``cgroup`` the directory to make leaves in.

    ``adopted`` is the kind of a driver that other code has started; :func:`choose` never returns it.
    """

    kind: Literal["subreaper", "cgroup", "portable", "adopted"]
    why: str
    cgroup_parent: str = ""

    def leaf(self, session: str) -> str:
        """The path of the session's own cgroup, "" for other kinds."""
        return f"{self.cgroup_parent}/{leaf_name(session)}" if self.cgroup_parent else ""


def leaf_name(session: str) -> str:
    """The name of a session's own cgroup."""
    return f"browserkeeper-{session}"


def choose(asked: Kind = "auto") -> Containment:
    """The strongest containment that this machine allows, or the kind that was asked for.

    Raises ConfigError for an unknown kind, or in a process where no session can work
    (``monkey_patches.py``), and ContainmentError where the machine does not allow it, as
    with a ``/proc`` of another pid namespace.
    """
    if asked not in KINDS:
        raise ConfigError(f"containment={asked!r} is not known; choose one of {', '.join(KINDS)}.")
    require_usable()
    require_own_proc()
    if asked == "portable":
        return Containment("portable", "asked for")
    if sys.platform != "linux":
        if asked == "auto":
            return Containment("portable", f"{sys.platform} has neither subreapers nor cgroups")
        raise ContainmentError(
            f"containment={asked!r} needs Linux; use 'auto' or 'portable' on {sys.platform}."
        )
    if asked == "subreaper":
        return Containment("subreaper", "asked for")
    parent, obstacle = writable_cgroup()
    if parent:
        return Containment("cgroup", f"{parent} is writable", parent)
    if asked == "cgroup":
        raise ContainmentError(
            f"containment='cgroup' is not possible here: {obstacle}. Delegate a cgroup to this process "
            "(systemd: Delegate=yes), or use 'auto'."
        )
    return Containment("subreaper", obstacle)


def writable_cgroup() -> tuple[str, str]:
    """(the directory of our own cgroup v2, "") where leaves with ``cgroup.kill`` can be made in it.

    Else ("", the obstacle).  Only below our own cgroup, since a leaf elsewhere would escape this
    process's limits.
    """
    mount = _cgroup2_mount()
    if not mount:
        return "", "no cgroup v2 is mounted"
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError as error:
        return "", f"/proc/self/cgroup: {error.strerror}"
    ours = next((line[3:] for line in lines if line.startswith("0::")), None)
    if ours is None:
        return "", "this process is in no cgroup v2"
    directory = os.path.join(mount, ours.lstrip("/")).rstrip("/")
    if not os.access(directory, os.W_OK) or not os.access(f"{directory}/cgroup.procs", os.W_OK):
        return "", f"{directory} is not writable"
    return _probe(directory)


def _probe(directory: str) -> tuple[str, str]:
    """Make a leaf and remove it: only this shows a read-only mount or a kernel before 5.14."""
    leaf = f"{directory}/browserkeeper-probe-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        os.mkdir(leaf)
    except OSError as error:
        return "", f"{directory}: {error.strerror}"
    try:
        if Path(leaf, "cgroup.type").read_text().strip() != "domain":
            return "", f"{directory} is threaded"
        if os.path.exists(f"{leaf}/cgroup.kill"):
            return directory, ""
        return "", "this kernel has no cgroup.kill (it came with Linux 5.14)"
    finally:
        os.rmdir(leaf)


def _cgroup2_mount() -> str:
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    fields = (line.split() for line in mounts)
    return next((field[1] for field in fields if len(field) > 2 and field[2] == "cgroup2"), "")
