"""The bystander campaign: sessions die and are swept among processes and files that are not ours.

    python -m tests.system.bystanders [--n 200] [--seed S] [--only NUMBER] [--rules old]

Each trial draws a session, its death, bystanders, and calls of the command line before, at and after the
death: as root and as another user, with the same and with another state directory, in this world and in
other namespaces.  Then nothing of ours may be left, and no bystander may be harmed: killed, stopped, or
a file of it changed.  The witness shares no code with the package (bystander_witness.py).

The seed is printed, and repeats all that is drawn, not the machine's timing; a trial's draws depend on
the seed and its number alone, so ``--only`` repeats one.

Runs in a world of its own (scripts/world.py) and needs root.  ``--rules old`` is the control: with the
old rules of evidence patched in (old_rules.py) some bystanders must be harmed.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import importlib
import os
import pkgutil
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import browserkeeper.cli

from . import bystander_places as places
from . import old_rules as old
from .bystander_kinds import KINDS
from .bystander_trial import DEATHS, SETTLE, Home, Tool, Trial
from .permanent_bystanders import PermanentBystanders

ROOT = Path(__file__).resolve().parent.parent.parent
SESSIONS = {"browser()": 5, "run": 3, "container": 2, "chrome": 0.5, "firefox": 0.2}
WEIGHTS = {"owner and both guards": 4, "both guards": 3, "owner": 2, "closed": 2}
"""How often each death is drawn; 1 for the others."""
TOOLS = {
    ("sweep", "--yes"): 8,
    ("watch", "--once"): 4,
    ("sweep",): 1,
    ("ps", "--json"): 1,
    ("doctor",): 0.3,
}


@dataclasses.dataclass(frozen=True)
class Draw:
    session: str
    containment: str
    death: str
    kinds: tuple[str, ...]
    before: Tool
    during: Tool
    after: tuple[Tool, ...]

    def __str__(self) -> str:
        return f"{self.session:10} {self.containment:10} {self.death:28} among {', '.join(self.kinds)}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    draw: Draw
    tools: tuple[str, ...]
    harmed: tuple[str, ...]
    left: tuple[str, ...]
    failed: tuple[str, ...]
    """What the trial itself could not do, and tools that failed."""
    seconds: float


def one_of(rng: random.Random, weights: dict[str, float]) -> str:
    return rng.choices(list(weights), weights=list(weights.values()))[0]


def draw(rng: random.Random, browsers: bool) -> Draw:
    sessions = {n: w for n, w in SESSIONS.items() if browsers or n not in ("chrome", "firefox")}
    session = one_of(rng, sessions)
    deaths = {name: float(WEIGHTS.get(name, 1)) for name in DEATHS}
    kinds = {name: float(weight) for name, (weight, _) in KINDS.items()}
    chosen: list[str] = []
    for _ in range(rng.choice([1, 2, 2, 3])):
        chosen.append(one_of(rng, kinds))
        del kinds[chosen[-1]]
    containments = ["auto", "subreaper", "subreaper", "portable"]
    containment = "auto" if session == "run" else rng.choice(containments)
    return Draw(
        session,
        "subreaper" if session == "container" else containment,
        one_of(rng, deaths),
        tuple(chosen),
        draw_tool(rng),
        draw_tool(rng),
        tuple(draw_tool(rng) for _ in range(rng.choice([0, 1, 1, 2]))),
    )


def draw_tool(rng: random.Random) -> Tool:
    words = rng.choices(list(TOOLS), weights=list(TOOLS.values()))[0]
    user = rng.choice(["root", "root", "nobody"])
    state = rng.choice(["same", "same", "other"]) if user == "root" else "nobody's"
    place = one_of(rng, {name: float(weight) for name, weight in places.PLACES.items()})
    return Tool(words, user, state, "here" if user == "nobody" and place == "container" else place)


class Campaign:
    """Trials one after another, among bystanders that stay for all of them."""

    def __init__(self, home: Home, seed: int, fixed: dict[str, Any], *, browsers: bool):
        self.home, self.seed, self.browsers = home, seed, browsers
        self.fixed = fixed
        self.permanent = PermanentBystanders(home, browsers=browsers)

    def trial(self, number: int) -> Outcome:
        rng = random.Random(f"{self.seed}-{number}")
        drawn = dataclasses.replace(draw(rng, self.browsers), **self.fixed)
        trial = Trial(self.home, number, rng, drawn.death, portable=drawn.containment == "portable")
        began = time.monotonic()
        harmed: list[str] = []
        left: list[str] = []
        try:
            self._run(trial, drawn, harmed, left)
        except Exception:
            trial.complaints.append(f"{traceback.format_exc()}\n{trial.log()}")
            harmed += trial.harmed()
        finally:
            trial.close()
        harmed += self.permanent.harmed()
        seconds = time.monotonic() - began
        failed = tuple(trial.complaints)
        return Outcome(drawn, tuple(trial.tools), tuple(harmed), tuple(left), failed, seconds)

    def _run(self, trial: Trial, drawn: Draw, harmed: list[str], left: list[str]) -> None:
        bystanders = [KINDS[name][1](trial) for name in drawn.kinds]
        for bystander in bystanders:
            next(bystander)
        is_run = drawn.session == "run"
        session = trial.start(drawn.session, **({} if is_run else {"containment": drawn.containment}))
        for bystander in bystanders:
            next(bystander)
        trial.innocent["the live session"] = trial.ours(session)
        trial.see_out(trial.use(drawn.before), drawn.before)
        harmed += trial.harmed()
        del trial.innocent["the live session"]
        child = trial.use(drawn.during)
        time.sleep(trial.rng.uniform(0, 0.1))
        trial.die(session, drawn.death)
        trial.see_out(child, drawn.during)
        for bystander in bystanders:
            next(bystander)
        for tool in drawn.after:
            trial.see_out(trial.use(tool), tool)
        harmed += [line for line in trial.harmed() if line not in harmed]
        for bystander in bystanders:
            next(bystander)
        last = Tool(("sweep", "--yes"), "root", "same", "here")
        trial.see_out(trial.use(last), last)
        harmed += [line for line in trial.harmed() if line not in harmed]
        # While a bystander with its marker lives, a session's directory may be left alone.
        for bystander in bystanders:
            for _ in bystander:
                pass
        trial.end_bystanders()
        trial.unmount()
        trial.see_out(trial.use(last), last)
        left += trial.left()


def prepare(old_rules: bool) -> None:
    """Import all that the forks need: another user cannot read this checkout, perhaps.

    The campaign itself calls no function of the package, so that no fork finds cached results.
    """
    for module in pkgutil.iter_modules(browserkeeper.cli.__path__, "browserkeeper.cli."):
        importlib.import_module(module.name)
    importlib.import_module("resource")
    importlib.import_module("selenium.webdriver.chrome.options")
    importlib.import_module("browserkeeper.drivers.managed")
    importlib.import_module("browserkeeper.drivers.chromium")
    if old_rules:
        old.patch()


def summarise(outcomes: list[Outcome], seed: int) -> tuple[int, int, int]:
    """Print the tables; (harmed, left, failed) trials."""
    columns = sorted({o.draw.death for o in outcomes})
    rows = collections.Counter((kind, o.draw.death) for o in outcomes for kind in o.draw.kinds)
    hurt = collections.Counter(line.partition(":")[0] for o in outcomes for line in o.harmed)
    print("\nbystanders and deaths (trials)")
    for kind in sorted({kind for kind, _ in rows}):
        cells = [f"{rows[kind, death]:4}" for death in columns]
        print(f"  {kind:32}", *cells)
    print("  columns:", "; ".join(columns))
    tools = collections.Counter(tool for o in outcomes for tool in o.tools)
    print("\ncalls of the command line")
    for tool, number in sorted(tools.items()):
        print(f"  {number:4}  {tool}")
    sums = (
        sum(bool(o.harmed) for o in outcomes),
        sum(bool(o.left) for o in outcomes),
        sum(bool(o.failed) for o in outcomes),
    )
    seconds = sum(o.seconds for o in outcomes)
    for name, number in sorted(hurt.items()):
        print(f"  harmed in {number} trials: {name}")
    print(
        f"\n{len(outcomes)} trials in {seconds:.0f} s, seed {seed}: {sums[0]} with a harmed bystander, "
        f"{sums[1]} with something of ours left, {sums[2]} failed"
    )
    return sums


def run(
    numbers: list[int], seed: int, fixed: dict[str, Any], *, browsers: bool, old_rules: bool
) -> list[Outcome]:
    """``fixed``: parts of each :class:`Draw` that are not drawn."""
    prepare(old_rules)
    place = Path(tempfile.mkdtemp(prefix="tmpbystanders-", dir="/tmp"))
    home = Home(place, 0 if old_rules else SETTLE)  # what the old rules leave is of no interest
    os.environ |= {"BROWSERKEEPER_OFFLINE": "1", "HOME": str(home.directory)}
    campaign = Campaign(home, seed, fixed, browsers=browsers)
    outcomes = []
    try:
        for number in numbers:
            outcome = campaign.trial(number)
            outcomes.append(outcome)
            wrong = [f"HARMED {line}" for line in outcome.harmed]
            wrong += [f"LEFT {line}" for line in outcome.left]
            wrong += [f"FAILED {line}" for line in outcome.failed]
            wrong += [f"tool: {tool}" for tool in outcome.tools] if wrong else []
            verdict = "WRONG" if wrong else "ok"
            line = f"{number:4} {verdict:5} {outcome.seconds:5.1f} s  {outcome.draw}"
            print(line, *wrong, sep="\n      ", flush=True)
    finally:
        campaign.permanent.close()
        shutil.rmtree(home.directory, ignore_errors=True)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", type=int, help="the number of the one trial to run")
    parser.add_argument("--rules", choices=["new", "old"], default="new", help="old: the control")
    parser.add_argument("--session", choices=list(SESSIONS), help="instead of a drawn one")
    parser.add_argument("--containment", choices=["auto", "subreaper", "portable"])
    parser.add_argument("--death", choices=list(DEATHS))
    parser.add_argument("--among", choices=list(KINDS), action="append", help="can be repeated")
    parser.add_argument("--no-browsers", action="store_true", help="small programs only")
    given = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("the bystander campaign needs root")
    if "pid" not in os.environ.get("BROWSERKEEPER_WORLD", "").split():
        world = [sys.executable, str(ROOT / "scripts" / "world.py"), "--require", "--die-with-parent"]
        again = [*world, "--", sys.executable, "-m", "tests.system.bystanders", *sys.argv[1:]]
        sys.exit(subprocess.run([*again, "--seed", str(given.seed)], cwd=ROOT, check=False).returncode)
    print(f"seed {given.seed}", flush=True)
    numbers = [given.only] if given.only else list(range(1, given.n + 1))
    control = given.rules == "old"
    fixed: dict[str, Any] = {
        name: value for name in ("session", "containment", "death") if (value := getattr(given, name))
    }
    if given.among:
        fixed["kinds"] = tuple(given.among)
    outcomes = run(numbers, given.seed, fixed, browsers=not given.no_browsers, old_rules=control)
    harmed, left, failed = summarise(outcomes, given.seed)
    if control:
        print("the control has harmed some" if harmed else "THE CONTROL HAS HARMED NOTHING")
        sys.exit(0 if harmed else 1)
    sys.exit(1 if harmed or left or failed else 0)


if __name__ == "__main__":
    main()
