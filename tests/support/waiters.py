"""Programs that ask the gate of a host for slots, for tests that kill, stop and continue them.

A program prints ``waits`` when it has its ticket, ``got PATH`` when it has its slot, and otherwise
``refused TEXT`` in the end.  It gives the slot back when it reads a line, and ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from browserkeeper.admission.gate import Gate, GateState
from browserkeeper.state.ledger import Ledger
from tests.support.owners import ROOT
from tests.support.waiting import SECONDS, wait_until

SCRIPT = """
import os, sys, threading, time
sys.path.insert(0, {root!r})
from browserkeeper.admission import tickets
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.errors import BrowserkeeperError
from browserkeeper.state.ledger import Ledger
label, wait, most, priority, fork, late = sys.argv[1:]
if late:
    tickets.LATE = float(late)
gate = Gate(Ledger.open())
request = SlotRequest(label=label, priority=priority, max_browsers=int(most) if most else None)
def tell():
    while request.bell is None and not done:
        time.sleep(0.002)
    if not done:
        waited.append(1)
        print("waits", flush=True)
        if fork and os.fork() == 0:
            time.sleep(600)
        for line in sys.stdin:
            if line.startswith("promote"):
                request.promote()
            elif line.startswith("end"):
                break
done, waited = [], []
thread = threading.Thread(target=tell, daemon=True)
thread.start()
try:
    slot = gate.acquire(request, float(wait) if wait else None)
except BrowserkeeperError as error:
    done.append(1)
    print("refused", type(error).__name__, str(error), flush=True)
    sys.exit(1)
done.append(1)
print("got", slot.path, flush=True)
if fork and os.fork() == 0:
    time.sleep(600)
thread.join()  # until the line that ends this program, where it has waited
if not waited:
    sys.stdin.readline()
slot.release()
"""


class Program:
    """One such program, which was started."""

    def __init__(
        self,
        label: str = "",
        *,
        wait: float | None = 300,
        most: int | None = None,
        priority: str = "work",
        fork: bool = False,
        late: float | None = SECONDS,
        before: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ):
        """``late``: seconds after which it passes over one that does not go, as a busy machine's may not
        for a while; None: the product's.  ``before``: words of a command that runs the program, such as
        ``unshare``.
        """
        numbers = ["" if number is None else f"{number}" for number in (wait, most, late)]
        words = (label, *numbers[:2], priority, "1" * fork, numbers[2])
        self.label = label
        self.process = subprocess.Popen(
            [*before, python, "-c", SCRIPT.format(root=str(ROOT)), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.pid = self.process.pid

    def line(self) -> str:
        """The next line that it prints, "" when it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def waits(self) -> Program:
        """Block until it has its ticket."""
        assert (line := self.line()) == "waits", line
        return self

    def got(self) -> Path:
        """Block until it has its slot, and return its path."""
        while (line := self.line()) == "waits":
            pass
        assert line.startswith("got /"), line
        return Path(line.removeprefix("got "))

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Have it give its slot back and end."""
        self.tell("end")
        assert self.process.wait() == 0

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Reaped when this returns, if the signal ends it."""
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.close()

    def close(self) -> None:
        """End it in any way."""
        self.process.kill()
        self.process.communicate()


def gate() -> Gate:
    """The gate of the state directory of the test."""
    return Gate(Ledger.open())


def state() -> GateState:
    return gate().state()


def labels(claimants: Sequence[object]) -> list[str]:
    return [str(getattr(one, "label", "")) for one in claimants]


def held() -> int:
    """How many slots are held, looked at from outside: by the locks alone."""
    return len(state().held)


def wait_for_held(number: int) -> bool:
    return wait_until(lambda: held() == number)


def set_limits(text: str) -> None:
    """Write ``limits.toml``, old enough to count at once."""
    path = Ledger.open().directory / "limits.toml"
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)
    time.sleep(0.35)  # it must be at rest for 0.3 s
