"""A short soak (``make soak N=2000`` is a long one), and negative controls: with a part of the pool
switched off, each check of the soak must complain."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browserkeeper.drivers.contexts.chromium import ChromiumContexts as Contexts
from browserkeeper.pool.browser import PooledBrowser
from browserkeeper.pool.controller import Controller
from browserkeeper.pool.worker import Lost, NotReusable
from tests.pool import soak
from tests.pool.soak import Answer, Failure, Sample, Sampler, Settings, Soak, Task, TaskRunner
from tests.support import witness
from tests.support.faults import FAULTS

ROOT = Path(__file__).resolve().parent.parent.parent
N = 60
SEED = 9
"""A fixed seed, so that a failure can be repeated."""


@pytest.mark.chrome
@pytest.mark.timeout(1200)
def test_a_short_soak_has_no_complaints() -> None:
    """The soak runs in another process, as with ``make soak``."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.pool.soak", "--n", str(N), "--seed", str(SEED), "--batch", "10"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1100,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\n{N} tasks" in done.stdout
    assert "0 complaints" in done.stdout


# ------------------------------------------------------------------ controls, with real browsers


@pytest.mark.chrome
def test_control_contexts_that_are_not_disposed_of_count_as_growth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renew = Contexts.renew

    def renew_without_disposal(self: Contexts) -> None:
        self.context = ""
        renew(self)

    monkeypatch.setattr(Contexts, "renew", renew_without_disposal)
    monkeypatch.setattr(Contexts, "_check_targets", lambda self: None)
    monkeypatch.setattr(soak, "TRANSIENTS", 2.0)  # it does not go
    result = soak.run(Settings(n=30, seed=1, share=0, batch=5))
    grew = [text for text in result.complaints if " grew from " in text]
    assert {text.split()[0] for text in grew} >= {"processes", "memory"}
    assert result.complaints == grew


@pytest.mark.chrome
def test_control_traces_are_found_in_a_context_that_is_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renew = Contexts.renew
    monkeypatch.setattr(Contexts, "renew", lambda self: None if self.context else renew(self))
    result = soak.run(Settings(n=12, seed=1, share=0, batch=2))
    least = 12 - result.stats["browsers_num"]  # the first lease of a browser finds none
    for trace in ("cookies {", "storage {"):
        assert sum(f"found {trace}" in text for text in result.complaints) >= least


def without_losses(on_event: Callable[..., None]) -> Callable[..., None]:
    """``Controller.on_event`` that ignores what workers say of dead and interrupted browsers."""

    def run(self: Controller, member: Any, event: Any, now: float) -> None:
        if not isinstance(event, (Lost, NotReusable)):
            on_event(self, member, event, now)

    return run


@pytest.mark.chrome
def test_control_browsers_are_missing_if_the_pool_ignores_their_death(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(soak, "FAULTS", {"kill browser": FAULTS["kill browser"]})
    monkeypatch.setattr(Controller, "on_exit", lambda self, member, now: None)
    monkeypatch.setattr(Controller, "on_event", without_losses(Controller.on_event))
    monkeypatch.setattr(PooledBrowser, "looks_alive", lambda self: True)
    result = soak.run(Settings(n=2, seed=1, share=1, batch=2, patience=2))
    assert any("browsers are missing" in text for text in result.complaints)
    assert any("failed: PoolTimeout" in text for text in result.complaints)


# ------------------------------------------------------------------ controls without browsers

STEADY = Sample(30, 0, 600 << 20, 30 << 20, 20, 5, 300, 40 << 20)


@pytest.mark.parametrize("measure", [field.name for field in dataclasses.fields(Sample)])
def test_growth_of_each_measure_is_found(measure: str) -> None:
    now = getattr(STEADY, measure)
    step = max(1, now // 20)
    rising = [dataclasses.replace(STEADY, **{measure: now + step * i}) for i in range(20)]
    assert [text.split()[0] for text in soak.what_grew(rising)] == [measure]
    assert not soak.what_grew([*rising[::2], *rising[::-2]]), (
        "a value that comes down again has not grown"
    )
    assert soak.what_grew(rising[:4]) == ["4 samples are too few to tell growth from chance"]


def complaints_about(answers: list[Answer], runner: TaskRunner) -> list[str]:
    settings: Any = Settings(n=2, seed=1)
    sampler: Any = Sampler(Path("/nowhere"))
    soak_of_two = Soak(settings, None, runner, sampler)  # type: ignore[arg-type] # no pool is used
    soak_of_two.answers, soak_of_two.samples = answers, [STEADY] * 5
    soak_of_two.check(TASKS, [])
    return soak_of_two.complaints


TASKS = [Task(0, "", False), Task(1, "raise", True)]
CORRECT = [Answer(TASKS[0], None, 1), Answer(TASKS[1], None, 2)]


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        (CORRECT, ""),
        (CORRECT[:1], "task 1 (raise) was answered 0 times"),
        ([*CORRECT, CORRECT[0]], "task 0 (no fault) was answered 2 times"),
        (
            [Answer(TASKS[0], Failure(OSError, "gone"), 3), CORRECT[1]],
            "task 0 (no fault) failed: OSError: gone",
        ),
        ([Answer(TASKS[0], None, 2), CORRECT[1]], "task 0 (no fault) took 2 attempts"),
    ],
)
def test_wrong_answers_are_complained_about(answers: list[Answer], complaint: str) -> None:
    runner = TaskRunner("")
    runner.errors[1].append(Failure(FAULTS["raise"].raises[0], ""))
    complaints = complaints_about(answers, runner)
    assert bool(complaints) == bool(complaint)
    assert complaint in "\n".join(complaints)


def test_a_fault_without_its_error_is_complained_about() -> None:
    assert complaints_about(CORRECT, TaskRunner("")) == ["task 1 (raise) raised: nothing"]


def test_processes_files_and_descriptors_that_are_left_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "SETTLE", 0.5)  # the process that is left is waited for so long
    place, records = tmp_path / "place", tmp_path / "records"
    (records / "live").mkdir(parents=True)
    place.mkdir()
    before = soak.Before(Sampler(place), records)
    assert list(before.what_is_left()) == []
    (place / "bk-0").mkdir()
    (records / "live" / "0.json").touch()
    descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    with subprocess.Popen(["sleep", "600"]) as process:
        left = "\n".join(before.what_is_left())
        process.kill()
    for descriptor in descriptors:
        os.close(descriptor)
    for expected in ("name='sleep'", "bk-0", "0.json", "descriptors are left"):
        assert expected in left
    assert witness.look(process.pid) is None
