"""A short soak; ``make soak N=2000`` is the long one.  And what happens to it with a part of the
protection taken out: each of its detectors has to speak up."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browserkeeper.drivers.contexts import Contexts
from browserkeeper.pool.browser import PooledBrowser
from browserkeeper.pool.controller import Controller
from browserkeeper.pool.worker import Lost, NotReusable
from tests.pool import soak
from tests.pool.soak import Answer, Failure, Sample, Sampler, Settings, Soak, Task, Workshop
from tests.support import witness
from tests.support.faults import FAULTS

ROOT = Path(__file__).resolve().parent.parent.parent
N = 50
SEED = 9
"""Any would do; one that stays makes a failure easy to repeat."""


@pytest.mark.chrome
@pytest.mark.timeout(400)
def test_a_short_soak_has_no_complaints() -> None:
    """In a process of its own, as ``make soak`` runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.pool.soak", "--n", str(N), "--seed", str(SEED), "--batch", "10"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=380,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\n{N} tasks" in done.stdout
    assert "0 complaints" in done.stdout


# ------------------------------------------------------------------ controls, with real browsers


@pytest.mark.chrome
def test_control_contexts_that_stay_are_seen_to_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    renew = Contexts.renew

    def renew_without_disposal(self: Contexts) -> None:
        self.context = ""
        renew(self)

    monkeypatch.setattr(Contexts, "renew", renew_without_disposal)
    monkeypatch.setattr(Contexts, "_look_for_strays", lambda self: None)
    result = soak.run(Settings(n=30, seed=1, share=0, batch=5))
    grew = [text for text in result.complaints if " grew from " in text]
    assert {text.split()[0] for text in grew} >= {"processes", "memory"}
    assert result.complaints == grew


@pytest.mark.chrome
def test_control_a_context_that_is_used_again_is_not_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    renew = Contexts.renew
    monkeypatch.setattr(Contexts, "renew", lambda self: None if self.context else renew(self))
    result = soak.run(Settings(n=12, seed=1, share=0, batch=2))
    for trace in ("cookies {", "storage {"):
        assert sum(f"found {trace}" in text for text in result.complaints) >= 10


def only_launches_and_ends(on_event: Callable[..., None]) -> Callable[..., None]:
    def run(self: Controller, member: Any, event: Any, now: float) -> None:
        if not isinstance(event, (Lost, NotReusable)):
            on_event(self, member, event, now)

    return run


@pytest.mark.chrome
def test_control_browsers_whose_death_nobody_notices_are_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(soak, "FAULTS", {"kill browser": FAULTS["kill browser"]})
    monkeypatch.setattr(Controller, "on_exit", lambda self, member, now: None)
    monkeypatch.setattr(Controller, "on_event", only_launches_and_ends(Controller.on_event))
    monkeypatch.setattr(PooledBrowser, "looks_alive", lambda self: True)
    result = soak.run(Settings(n=2, seed=1, share=1, batch=2, patience=2))
    assert any("short of members" in text for text in result.complaints)
    assert any("failed: PoolTimeout" in text for text in result.complaints)


# ------------------------------------------------------------------ controls, without

CALM = Sample(30, 0, 600 << 20, 30 << 20, 20, 5, 300, 40 << 20)


@pytest.mark.parametrize("measure", [field.name for field in dataclasses.fields(Sample)])
def test_growth_of_anything_is_seen(measure: str) -> None:
    now = getattr(CALM, measure)
    step = max(1, now // 20)
    rising = [dataclasses.replace(CALM, **{measure: now + step * i}) for i in range(20)]
    assert [text.split()[0] for text in soak.what_grew(rising)] == [measure]
    assert not soak.what_grew([*rising[::2], *rising[::-2]]), "up and down again is no growth"
    assert soak.what_grew(rising[:4]) == ["4 samples are too few to tell growth from chance"]


def complaints_about(answers: list[Answer], shop: Workshop) -> list[str]:
    settings: Any = Settings(n=2, seed=1)
    sampler: Any = Sampler(Path("/nowhere"))
    judged = Soak(settings, None, shop, sampler)  # type: ignore[arg-type] # it is not asked
    judged.answers, judged.samples = answers, [CALM] * 5
    judged.judge(TASKS, [])
    return judged.complaints


TASKS = [Task(0, "", False), Task(1, "raise", True)]
FINE = [Answer(TASKS[0], None, 1), Answer(TASKS[1], None, 2)]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (FINE, ""),
        (FINE[:1], "task 1 (raise) was answered 0 times"),
        ([*FINE, FINE[0]], "task 0 (no fault) was answered 2 times"),
        (
            [Answer(TASKS[0], Failure(OSError, "gone"), 3), FINE[1]],
            "task 0 (no fault) failed: OSError: gone",
        ),
        ([Answer(TASKS[0], None, 2), FINE[1]], "task 0 (no fault) took 2 attempts"),
    ],
)
def test_answers_are_judged(answers: list[Answer], said: str) -> None:
    shop = Workshop("")
    shop.errors[1].append(Failure(FAULTS["raise"].raises[0], ""))
    complaints = complaints_about(answers, shop)
    assert bool(complaints) == bool(said)
    assert said in "\n".join(complaints)


def test_a_fault_that_came_to_nothing_is_seen() -> None:
    assert complaints_about(FINE, Workshop("")) == ["task 1 (raise) raised: nothing"]


def test_what_is_left_is_seen(tmp_path: Path) -> None:
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
    for said in ("name='sleep'", "bk-0", "0.json", "descriptors are left"):
        assert said in left
    assert witness.look(process.pid) is None
