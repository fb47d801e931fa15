"""The command line in tests: run a command to its end, or start ``browserkeeper run`` and let it run."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from browserkeeper.cli import group
from tests.conftest import PidFile
from tests.support import witness
from tests.support.waiting import SECONDS, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
"""The repository."""
CLI = (sys.executable, "-m", "browserkeeper")
PAGES_OF_OPERATORS = ("operations.md", "reference/log-fields.md", "reference/metrics.md")
DOCUMENTED = "".join((ROOT / "docs" / page).read_text() for page in PAGES_OF_OPERATORS)
"""Where each log field, metric and event must be named."""


def cli(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own; ``options`` go to subprocess.run()."""
    words = (*CLI, *map(str, arguments))
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, **options)


def cli_json(*arguments: object, status: int = 0) -> dict[str, Any]:
    """The document that a command prints with ``--json``; asserts its exit status."""
    done = cli(*arguments, "--json")
    assert done.returncode == status, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["schema"] == 1
    return document


def invoke(*arguments: object) -> Result:
    """Run the command line in this process, which is 0.2 s faster; for commands that start nothing."""
    return CliRunner().invoke(group, [str(word) for word in arguments], prog_name="browserkeeper")


def run_shell(script: str, *options: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """``browserkeeper run OPTIONS -- sh -c SCRIPT``."""
    return cli("run", *options, "--", "sh", "-c", script, **more)


@dataclasses.dataclass
class Running:
    """A ``browserkeeper run`` under way; ``members`` are the processes whose pids its program wrote."""

    front: subprocess.Popen[str]
    members: list[witness.Seen]


def start_run(
    started: list[subprocess.Popen[str]], pids: PidFile, number: int, *command: str
) -> Running:
    """Returns when the program has written ``number`` pids to ``pids``; ``started`` is the fixture."""
    words = (*CLI, "run", "--", *command)
    pipe = subprocess.PIPE
    front = subprocess.Popen(words, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    started.append(front)
    assert wait_until(lambda: len(pids.read()) >= number)
    return Running(front, [seen for pid in pids.read() if (seen := witness.look(pid))])
