"""The witness sees what was left, and counts nothing that is another program's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import witness
from tests.support.waiting import wait_until

SESSION = "0123456789ab"
PARENT = """
import subprocess, time
print(subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL).pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that the witness takes for /tmp."""
    with tempfile.TemporaryDirectory(prefix="tmp-witness-") as name:
        yield Path(name)


@pytest.fixture
def places(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(witness, "FILE_PLACES", (str(shared),))
    monkeypatch.setattr(witness, "CGROUP_PLACES", (str(shared),))
    return shared


@contextlib.contextmanager
def bystander(*words: str, **options: Any) -> Iterator[None]:
    """A process; the test then has the witness believe that it is no descendant."""
    command = ["sh", "-c", "read forever", "sh", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, **options) as process:
        try:
            environment = Path(f"/proc/{process.pid}/environ")
            assert wait_until(environment.read_bytes), "it is empty in the middle of the exec"
            yield
        finally:
            process.kill()


def test_an_orphan_is_seen_alive_and_then_as_a_zombie() -> None:
    known = {seen.pid for seen in witness.below(os.getpid())}
    owner = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    orphan = int(owner.stdout.readline())
    owner.kill()
    owner.communicate()
    assert [seen.pid for seen in witness.wait_until_gone(os.getpid(), known, 0.1)] == [orphan]
    os.kill(orphan, signal.SIGKILL)
    assert witness.wait_until_gone(os.getpid(), known, 60) == []
    assert [z.pid for z in witness.zombies(witness.new_below(os.getpid(), known))] == [orphan]
    witness.clean_up(known)
    assert witness.new_below(os.getpid(), known) == []


def test_processes_that_were_there_before_and_their_children_do_not_count() -> None:
    with subprocess.Popen(["sh", "-c", "read go; sleep 600 & wait"], stdin=subprocess.PIPE) as earlier:
        known = {seen.pid for seen in witness.below(os.getpid())}
        assert earlier.stdin is not None
        earlier.stdin.write(b"go\n")
        earlier.stdin.flush()
        assert wait_until(lambda: witness.below(earlier.pid))
        assert witness.new_below(os.getpid(), known) == []
        witness.end_by_pid(witness.below(earlier.pid))


@pytest.mark.parametrize("alone", [True, False])
def test_a_file_of_a_session_of_the_test_counts_everywhere(
    places: Path, state_dir: Path, alone: bool
) -> None:
    baseline = witness.Baseline(state_dir, alone=alone)
    (places / f"bk-{SESSION}").mkdir()
    assert baseline.new_files() == ({f"{places}/bk-{SESSION}"} if alone else set()), "of what session?"
    (state_dir / "live").mkdir(parents=True, exist_ok=True)
    record = state_dir / "live" / f"{SESSION}.json"
    record.touch()
    assert baseline.new_files() == {f"{places}/bk-{SESSION}"}
    record.unlink()


@pytest.mark.parametrize(("alone", "counts"), [(True, True), (False, False)])
def test_any_other_new_file_counts_only_in_a_world_of_the_runs_own(
    places: Path, state_dir: Path, alone: bool, counts: bool
) -> None:
    (places / "earlier").touch()
    baseline = witness.Baseline(state_dir, alone=alone)
    (places / ".org.chromium.Chromium.abcdef").touch()
    (places / "pytest-of-somebody").touch()
    found = {f"{places}/.org.chromium.Chromium.abcdef"}
    assert baseline.new_files() == (found if counts else set())


@pytest.mark.parametrize("how", ["named", "open", "working directory", "environment"])
def test_a_bystanders_file_does_not_count(
    places: Path, state_dir: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = witness.Baseline(state_dir, alone=True)
    theirs = places / "profile"
    theirs.mkdir()
    (places / "ours").touch()
    with contextlib.ExitStack() as stack:
        if how == "named":
            stack.enter_context(bystander(f"--user-data-dir={theirs}"))
        elif how == "open":
            file = stack.enter_context((theirs / "file").open("w"))
            stack.enter_context(bystander(stdout=file))
        elif how == "working directory":
            stack.enter_context(bystander(cwd=theirs))
        else:
            stack.enter_context(bystander(env={**os.environ, "PROFILE": str(theirs)}))
        monkeypatch.setattr(witness, "below", lambda _: [])
        assert baseline.new_files() == {f"{places}/ours"}
    assert baseline.new_files() == {f"{places}/ours", str(theirs)}, "no process uses it any more"


@pytest.mark.root
def test_another_users_file_does_not_count(places: Path, state_dir: Path) -> None:
    baseline = witness.Baseline(state_dir, alone=True)
    (places / "theirs").touch()
    os.chown(places / "theirs", 12345, 12345)
    assert baseline.new_files() == set()


@pytest.mark.parametrize(("alone", "expected"), [(True, {"a", "b"}), (False, {"a"})])
def test_cgroups_count_alike(places: Path, state_dir: Path, alone: bool, expected: set[str]) -> None:
    baseline = witness.Baseline(state_dir, alone=alone)
    (places / f"browserkeeper-{SESSION}").mkdir()
    (places / "browserkeeper-ba9876543210").mkdir()
    (places / "system.slice").mkdir()
    (state_dir / "history").mkdir(exist_ok=True)
    record = state_dir / "history" / f"{SESSION}.json"
    record.touch()
    names = {"a": f"{places}/browserkeeper-{SESSION}", "b": f"{places}/browserkeeper-ba9876543210"}
    assert baseline.new_cgroups() == {names[key] for key in expected}
    record.unlink()


def test_a_leaf_lists_its_members() -> None:
    with witness.leaf(f"witness-{os.getpid()}") as leaf:
        if leaf is None:
            pytest.skip("no cgroup v2 can be made here")
        with subprocess.Popen(["sh", "-c", "read forever"], stdin=subprocess.PIPE) as process:
            (leaf / "cgroup.procs").write_text(str(process.pid))
            assert witness.members(leaf) == {process.pid}
            process.kill()
        assert witness.members(leaf) == set()
    assert not leaf.exists()
