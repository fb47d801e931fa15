"""The start of the guard at a git revision against the one in the working tree.

    python -m benchmarks.guard_start [REVISION] [ROUNDS]

Measured from the start of the guard's process to its message that the command runs.  Both guards
start in turn, each first in every second round, since the load of the machine changes while this
runs.  Prints the medians in milliseconds and their ratio.  Their bytecode is cached by a first start
that is not counted.
"""

from __future__ import annotations

import io
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from browserkeeper.process.interpreter import interpreter

ROOT = Path(__file__).resolve().parent.parent
REVISION = "6e3a751"
ROUNDS = 200
IMPORTS = {
    "guard/boot.py": "from guard.boot import main",
    "guard/guard.py": "from guard.guard import main",
    "guard.py": "from guard import main",
}
"""File that makes out a layout of the guard, the newest first: where its ``main`` is."""


def unpack(revision: str, directory: Path) -> None:
    """Put the guard of a revision into a directory."""
    git = ("git", "-C", str(ROOT))
    names = subprocess.run(
        [*git, "ls-tree", "--name-only", revision, "browserkeeper/"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    guard = next(name for name in ("browserkeeper/guard", "browserkeeper/guard.py") if name in names)
    archive = subprocess.run([*git, "archive", revision, guard], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(directory)


def starter(directory: Path) -> Callable[[], float]:
    """A function that starts the guard of a directory once and returns the seconds until it is ready."""
    imported = next(text for name, text in IMPORTS.items() if (directory / name).exists())
    boot = f"import sys;sys.path.append(sys.argv.pop(1));{imported};main()"
    python = interpreter()

    def start() -> float:
        control_read, control = os.pipe()
        status, status_write = os.pipe()
        options = ("--owner", str(os.getpid()), "--control-fd", "0", "--status-fd", str(status_write))
        began = time.perf_counter()
        guard = subprocess.Popen(
            [python, "-I", "-S", "-c", boot, str(directory), *options, "--", "/bin/sleep", "60"],
            stdin=control_read,
            stdout=subprocess.DEVNULL,
            pass_fds=[status_write],
        )
        os.close(control_read)
        os.close(status_write)
        message = os.read(status, 65536)
        seconds = time.perf_counter() - began
        assert b'"spawned"' in message, message
        os.close(control)  # the owner lets go: the session ends
        while os.read(status, 65536):
            pass
        os.close(status)
        guard.wait()
        return seconds

    return start


def main() -> None:
    revision = sys.argv[1] if len(sys.argv) > 1 else REVISION
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    with tempfile.TemporaryDirectory() as temporary:
        unpack(revision, Path(temporary, "before"))
        # A copy, so that both lie on the same file system.
        after = Path(temporary, "after")
        shutil.copytree(
            ROOT / "browserkeeper" / "guard",
            after / "guard",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        starts = {
            revision: starter(Path(temporary, "before", "browserkeeper")),
            "working tree": starter(after),
        }
        for start in starts.values():
            start()
        seconds: dict[str, list[float]] = {name: [] for name in starts}
        for number in range(rounds):
            for name in list(starts)[:: 1 if number % 2 else -1]:
                seconds[name].append(starts[name]())
    medians = [statistics.median(values) * 1000 for values in seconds.values()]
    for name, value in zip(seconds, medians, strict=True):
        print(f"{name:<14} {value:6.2f} ms (median of {rounds})")
    print(f"ratio          {medians[1] / medians[0]:6.3f}")


if __name__ == "__main__":
    main()
