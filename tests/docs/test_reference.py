"""The reference pages have what the code has, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from browserkeeper.admission.limits import VARIABLES
from browserkeeper.cleanup.evidence import Scope, State
from browserkeeper.cli import SUMMARIES
from browserkeeper.process.containment import KINDS
from browserkeeper.report import REASONS
from browserkeeper.session.seat import CONTEXT_CLOSED
from browserkeeper.state.pool_state import STATES
from browserkeeper.status.pressure import BLOCKS, Pressure, Slots
from browserkeeper.status.snapshot import Snapshot
from browserkeeper.telemetry import collector
from browserkeeper.telemetry.tally import DRIVER_DIED, OTHER, UNKNOWN, ContainerState, Tally
from scripts.reference import REFERENCE, with_parts
from tests.support.pages import ROOT

PACKAGE = sorted((ROOT / "browserkeeper").rglob("*.py"))
VARIABLE = re.compile(r"(?<![A-Z_])BROWSERKEEPER(?:_[A-Z]+)+")
CELL = re.compile(r"^\| ([^|]*) \|", re.MULTILINE)
OF_COMMANDS = tuple(f"BROWSERKEEPER_{name.upper()}_" for name in SUMMARIES)
"""How the variables of options begin; their rule is on the page."""
SPANS = {"browserkeeper.session", "browserkeeper.seconds.slot_wait"}


def page(name: str) -> str:
    return (REFERENCE / name).read_text()


def constants() -> Iterator[str]:
    """Every string of the package, docstrings included."""
    for path in PACKAGE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("*.md")), ids=lambda path: path.name)
def test_the_generated_parts_are_up_to_date(path: Path) -> None:
    text = path.read_text()
    assert text == with_parts(text), "run `python -m scripts.reference`"


def test_control_a_part_that_is_out_of_date_is_found() -> None:
    text = page("browser.md")
    assert with_parts(text.replace("| `headless` |", "| `headles` |")) == text


def test_every_variable_of_the_code_is_on_the_page_and_no_other() -> None:
    of_code = {name for text in constants() for name in VARIABLE.findall(text)} | set(VARIABLES.values())
    of_options = {name for name in of_code if name.startswith(OF_COMMANDS)}
    assert set(VARIABLE.findall(page("environment.md"))) == of_code - of_options


def families() -> set[str]:
    """The names of all metrics, as they are exported."""
    tally = Tally()
    tally.containers["worker"] = ContainerState(running=True)
    now = Pressure(0.0, Slots(limit=1), Slots(limit=1), memory_left=1, memory_bound=1)
    found = [
        *collector.LedgerCollector(tally)._metrics(Snapshot((), (), (), ())),
        *collector.gate_metrics(now, {}),
    ]
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in found}


def test_every_metric_is_on_the_page_and_no_other() -> None:
    cells = " ".join(CELL.findall(page("metrics.md")))
    assert set(re.findall(r"`(browserkeeper_\w+)`", cells)) == families()


def log_keys() -> Iterator[tuple[str, str]]:
    """The fields that the code gives to log records and spans, each with its value if that is text."""
    for path in PACKAGE:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Dict):
                continue
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and re.match(
                    r"(browserkeeper|event)\.", str(key.value)
                ):
                    text = value.value if isinstance(value, ast.Constant) else ""
                    yield str(key.value), text if isinstance(text, str) else ""


def test_every_log_field_and_action_is_on_the_page() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    known = set(re.findall(r"`([a-z@][\w.@-]+)`", page("log-fields.md") + operations))
    found = list(log_keys())
    assert len(found) > 25
    assert {field for field, _ in found} - known - SPANS - set(moved_modules()) == set()
    assert {text for field, text in found if field == "event.action"} - {""} - known == set()


def moved_modules() -> list[str]:
    from browserkeeper import _MOVED

    return list(_MOVED)


def test_the_page_of_words_has_every_reason_state_kind_and_certificate() -> None:
    text = page("states.md")
    words = {name for cell in CELL.findall(text) for name in re.findall(r"`([\w-]+)`", cell)}
    reasons = {*REASONS, DRIVER_DIED, OTHER, UNKNOWN}
    certificates = {scope for scope in get_args(Scope) if scope.startswith("ended-")}
    certificates |= {"ECHILD", "two-scans", "server-answer", CONTEXT_CLOSED}
    assert certificates <= set(constants())
    wanted = {*REASONS, *get_args(State), *STATES, *KINDS, *BLOCKS, *certificates}
    assert wanted - words == set()
    assert words - wanted == {"clean"}
    assert {f"`{name}`" for name in reasons - set(REASONS)} <= set(
        re.findall(r"`[\w-]+`", page("metrics.md"))
    )
