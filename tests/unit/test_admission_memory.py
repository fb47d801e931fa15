"""How much memory is free for one more browser: in a real cgroup where one can be had, else in files."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from browserkeeper import ConfigError
from browserkeeper.admission import memory
from browserkeeper.process import limits
from tests.support.waiting import wait_until

GIB = 1 << 30
PLACES = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
    (Path("/sys/fs/cgroup/unified"), "memory.max"),
)
JOIN = """
echo $$ > "$1/cgroup.procs"
exec unshare --cgroup --mount sh -c 'mount --bind "$0" "${0%/*}" && exec "$@"' "$@"
"""
"""Runs a command in a cgroup, which it sees as the root of all: in a world, cgroups of version 1 are
those of the machine, with other paths."""
LOOK = """
import sys
from browserkeeper.admission import memory
free = memory.free_for_a_start([])
held = bytearray(100 << 20)
held[::4096] = b"x" * len(held[::4096])
print(free, memory.free_for_a_start([]), memory.free_for_a_start([0.0]))
try:
    memory.check_possible(int(sys.argv[1]), "min_memory = 2GiB in limits.toml")
except ValueError as error:
    print(error)
"""


def is_removed(made: Path) -> bool:
    """A process that has ended may hold its cgroup for a moment."""
    with contextlib.suppress(OSError):
        made.rmdir()
    return not made.exists()


@pytest.fixture
def cgroup() -> Iterator[tuple[Path, str]]:
    """A new memory cgroup, of version 2 or 1, and the name of the file that limits it."""
    for place, name in PLACES:
        made = place / f"bk-test-{os.urandom(4).hex()}"
        try:
            made.mkdir()
        except OSError:
            continue
        if (made / name).exists():
            yield made, name
            assert wait_until(functools.partial(is_removed, made))
            return
        made.rmdir()
    pytest.skip("no memory cgroup can be made here")


@pytest.mark.root
@pytest.mark.namespaces
def test_in_a_cgroup_with_a_limit_what_is_left_of_it_is_free(cgroup: tuple[Path, str]) -> None:
    directory, name = cgroup
    (directory / name).write_text(str(GIB // 2))
    join = ["sh", "-c", JOIN, "sh", str(directory)]
    words = [*join, sys.executable, "-c", LOOK, str(2 * GIB)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    numbers, refusal = done.stdout.splitlines()
    free, later, with_a_start = map(int, numbers.split())
    assert GIB // 4 < free < GIB // 2
    assert 90 << 20 < free - later < 200 << 20, "the 100 MiB that were taken meanwhile"
    assert with_a_start - later == pytest.approx(-memory.BROWSER_BYTES, abs=20 << 20)
    assert "min_memory = 2GiB in limits.toml can never be met" in refusal
    assert f"the cgroup {directory.parent} has 512.00 MiB of memory in all" in refusal


@pytest.mark.parametrize(
    ("most", "now"),
    [("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")],
    ids=["v2", "v1"],
)
def test_the_least_of_all_cgroups_above_counts(
    most: str, now: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = made_up_cgroups(tmp_path, monkeypatch)
    for directory, limit, used in ((tmp_path / "fs" / "outer", 600, 250), (inner, 1000, 100)):
        (directory / most).write_text(f"{limit * 1_000_000}\n")
        (directory / now).write_text(f"{used * 1_000_000}\n")
    assert memory.free_for_a_start([]) == 350_000_000


def made_up_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two cgroups, /outer/inner, of a made-up process; returns the inner one."""
    proc, root = tmp_path / "proc", tmp_path / "fs"
    inner = root / "outer" / "inner"
    inner.mkdir(parents=True)
    proc.mkdir()
    (proc / "cgroup").write_text("0::/outer/inner\n")
    (proc / "mounts").write_text(f"cgroup2 {root} cgroup2 rw 0 0\n")
    monkeypatch.setattr(limits, "SELF", str(proc))
    return inner


# ------------------------------------------------------------------ reservations


def test_a_young_slot_reserves_what_its_browser_will_still_take_and_an_old_one_nothing() -> None:
    assert memory.reserved([]) == 0
    assert memory.reserved([0.0]) == memory.BROWSER_BYTES
    assert memory.reserved([0.0, 0.0]) == 2 * memory.BROWSER_BYTES
    assert 0 < memory.reserved([9.0]) < memory.reserved([1.0]) < memory.BROWSER_BYTES
    for age in (memory.RESERVED_SECONDS, 3600.0, float("inf")):
        assert memory.reserved([age]) == 0


def test_a_slot_from_the_future_reserves_nothing() -> None:
    """The machine's clock was set back: else a start could be held back for as long."""
    assert memory.reserved([-0.5, -86400.0]) == 0


# ------------------------------------------------------------------ memory that cannot be looked at


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), ValueError("no number")])
def test_memory_that_cannot_be_looked_at_is_logged_once_and_holds_no_start_back(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> int:
        raise error

    monkeypatch.setattr(limits, "memory_left", fail)
    monkeypatch.setattr(memory, "_warned", set())
    with caplog.at_level(logging.WARNING):
        assert memory.free_for_a_start([]) is None
        assert memory.free_for_a_start([0.0]) is None
    assert [record.getMessage() for record in caplog.records] == [
        f"could not look how much memory is left, so that no start waits for memory: {error}"
    ]


def test_a_cgroups_file_that_cannot_be_read_is_not_taken_for_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inner = made_up_cgroups(tmp_path, monkeypatch)
    monkeypatch.setattr(memory, "_warned", set())
    (inner / "memory.max").mkdir()  # reading a directory fails, also as root
    assert memory.free_for_a_start([]) is None
    assert "Is a directory" in caplog.text


# ------------------------------------------------------------------ bounds that can never be met


def test_more_than_the_machine_has_is_refused_by_name() -> None:
    memory.check_possible(1, "min_memory='1'")
    with pytest.raises(ConfigError, match=r"^min_memory='1TiB' can never be met: .* has .* in all"):
        memory.check_possible(1 << 50, "min_memory='1TiB'")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (1 << 20, "1.00 MiB"), (-(3 << 29), "-1.50 GiB")]
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert memory.size_text(size) == text
