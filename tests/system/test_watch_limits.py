"""What the cgroups of either version still allow, and that the watch says it before it is used up."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from browserkeeper.process import limits
from browserkeeper.status.doctor_limits import PROCESSES_NEEDED
from browserkeeper.watch import host
from tests.support.cli import ROOT

GIB = 1024**3
UNLIMITED_V1 = 2**63 - 4096
"""PAGE_COUNTER_MAX in bytes: what version 1 shows where no limit is set."""


def processes_left() -> int | None:
    return limits.cgroup_left("pids", limits.PIDS_FILES)


def memory_left() -> int | None:
    return limits.cgroup_left("memory", *limits.MEMORY_FILES)


class Cgroups:
    """A tree of cgroups made of files, in place of the kernel's."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        self.root = root
        (root / "self").mkdir()
        monkeypatch.setattr(limits, "SELF", str(root / "self"))
        self.mounts: list[str] = []
        self.ours: list[str] = []

    def mount(self, version: int, ours: str, controller: str = "") -> None:
        """Mount a hierarchy, and put this process into the cgroup ``ours`` of it."""
        place = self.root / (controller or "unified")
        kind = "cgroup2" if version == 2 else "cgroup"
        self.mounts.append(f"cgroup {place} {kind} rw,relatime,{controller} 0 0")
        self.ours.append(f"{len(self.ours)}:{controller}:{ours}")
        (self.root / "self" / "mounts").write_text("\n".join(self.mounts))
        (self.root / "self" / "cgroup").write_text("\n".join(self.ours))

    def write(self, path: str, **files: object) -> None:
        directory = self.root / path
        directory.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (directory / name.replace("__", ".")).write_text(f"{value}\n")


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cgroups:
    return Cgroups(tmp_path, monkeypatch)


STAT = f"anon 1000\ninactive_file {5 * GIB}\nactive_file 7"


def test_the_page_cache_of_a_cgroup_is_no_number_of_processes(cgroups: Cgroups) -> None:
    """The case of version 2, where one directory has the files of all controllers: 5 GiB of page cache
    were added to 40 processes, so nobody was warned."""
    cgroups.mount(2, "/worker")
    cgroups.write("unified/worker", pids__max=100, pids__current=60, memory__stat=STAT)
    assert processes_left() == 40
    notices = [notice for notice in host.processes() if "cgroup" in notice.subject]
    assert [notice.kind for notice in notices] == ["processes-low"]
    assert "Only 40 more processes" in notices[0].message
    by_the_old_rule = 100 - 60 + limits._cache(cgroups.root / "unified/worker")
    assert by_the_old_rule > PROCESSES_NEEDED, "the control: nothing would be said"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("limit_inner", "used_inner", "limit_outer", "used_outer", "left"),
    [
        ("max", 5, 100, 60, 40),
        (50, 5, 100, 60, 40),
        (10, 5, 100, 60, 5),
        ("max", 5, "max", 60, None),
        (10, 12, "max", 60, 0),
        (0, 0, "max", 0, 0),
        ("", 5, "max", 60, None),
    ],
)
def test_the_least_of_nested_limits_of_processes(
    cgroups: Cgroups,
    version: int,
    limit_inner: object,
    used_inner: int,
    limit_outer: object,
    used_outer: int,
    left: int | None,
) -> None:
    top = "unified" if version == 2 else "pids"
    cgroups.mount(version, "/outer/inner", "" if version == 2 else "pids")
    cgroups.write(
        f"{top}/outer/inner", pids__max=limit_inner, pids__current=used_inner, memory__stat=STAT
    )
    cgroups.write(f"{top}/outer", pids__max=limit_outer, pids__current=used_outer, memory__stat=STAT)
    cgroups.write(top)
    assert processes_left() == left


def test_memory_of_version_2(cgroups: Cgroups) -> None:
    """The least of both; what is page cache counts as free."""
    cgroups.mount(2, "/outer/inner")
    cgroups.write("unified/outer/inner", memory__max="max", memory__current=GIB, memory__stat=STAT)
    assert memory_left() is None
    stat = f"inactive_file {GIB}"
    cgroups.write("unified/outer", memory__max=8 * GIB, memory__current=7 * GIB, memory__stat=stat)
    assert memory_left() == 2 * GIB
    cgroups.write("unified/outer/inner", memory__max=2 * GIB, memory__current=2 * GIB, memory__stat="")
    assert memory_left() == 0
    assert [notice.kind for notice in host.memory()] == ["memory-low"]


def test_memory_of_version_1(cgroups: Cgroups) -> None:
    """There ``inactive_file`` leaves out the cgroups below, whose use is counted: with that alone a
    cgroup whose children hold page cache seems full."""
    cgroups.mount(1, "/outer/inner", "memory")
    cgroups.write(
        "memory/outer/inner",
        memory__limit_in_bytes=UNLIMITED_V1,
        memory__usage_in_bytes=3 * GIB,
        memory__stat=f"inactive_file {2 * GIB}\ntotal_inactive_file {2 * GIB}",
    )
    cgroups.write(
        "memory/outer",
        memory__limit_in_bytes=4 * GIB,
        memory__usage_in_bytes=4 * GIB,
        memory__stat=f"inactive_file 0\ntotal_inactive_file {2 * GIB}",
    )
    assert memory_left() == 2 * GIB


def test_both_versions_side_by_side(cgroups: Cgroups) -> None:
    """As systemd's hybrid mode mounts them: version 2 has no controllers there."""
    cgroups.mount(1, "/a", "pids")
    cgroups.mount(1, "/b", "cpu,cpuacct")
    cgroups.mount(2, "/c")
    cgroups.write("pids/a", pids__max=100, pids__current=60)
    cgroups.write("unified/c", memory__stat=STAT)
    assert processes_left() == 40
    assert memory_left() is None


@pytest.mark.parametrize("rubbish", ["", "x", "-1", "12 13", "1e9"])
def test_files_that_have_no_number_are_no_limit(cgroups: Cgroups, rubbish: str) -> None:
    cgroups.mount(2, "/a")
    cgroups.write("unified/a", pids__max=100, pids__current=rubbish, memory__max=rubbish)
    found = processes_left()
    assert found in (None, 100 - 12), "12 13: the first word counts"
    assert memory_left() is None


ASK = "from browserkeeper.process import limits; print(limits.cgroup_left('pids', limits.PIDS_FILES))"


@contextlib.contextmanager
def real_cgroup() -> Iterator[Path]:
    """A cgroup of the kernel with the controller ``pids``, of the version that this machine has."""
    for top in map(Path, ("/sys/fs/cgroup/pids", "/sys/fs/cgroup", "/sys/fs/cgroup/unified")):
        leaf = top / f"bk-test-limits-{os.getpid()}"
        try:
            leaf.mkdir()
        except OSError:
            continue
        try:
            if (leaf / "pids.max").exists():
                yield leaf
                return
        finally:
            leaf.rmdir()
    pytest.skip("no cgroup with the controller pids can be made here")


@pytest.mark.root
def test_the_kernels_own_cgroups() -> None:
    with real_cgroup() as leaf:
        (leaf / "pids.max").write_text("50")
        enter = f'echo $$ > {leaf}/cgroup.procs && exec {sys.executable} -c "{ASK}"'
        done = subprocess.run(["sh", "-c", enter], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "49\n", done.stderr
