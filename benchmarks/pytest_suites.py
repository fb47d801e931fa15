"""The pytest plugin against pytest-selenium and pytest-playwright: tests per second.

    python -m benchmarks.pytest_suites [--tests N] [--rounds N]

N tests visit the same pages with the same Chromium.  Rivals have virtual environments of their own below
``.venv-bench`` (made on demand, from PyPI; no browser is downloaded).  Whole runs are timed, with the
start of the interpreter; rivals take turns.  Writes ``RESULTS-pytest.md``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fixtures.server import Site

from .measures import ROOT, median

SUITES = ROOT / "benchmarks" / "suites"
VENVS = Path(os.environ.get("BENCH_VENVS", ROOT / ".venv-bench"))
RESULTS = ROOT / "benchmarks" / "RESULTS-pytest.md"


@dataclass(frozen=True)
class Rival:
    """``packages`` are installed in its environment; without any it uses this interpreter."""

    name: str
    suite: str
    words: tuple[str, ...]
    packages: tuple[str, ...] = ()

    @property
    def python(self) -> str:
        return str(VENVS / self.suite / "bin" / "python") if self.packages else sys.executable


CONTEXT = "browserkeeper, --keeper-isolation context"
FRESH = "browserkeeper, --keeper-isolation fresh"
CONTEXT_OF_FIREFOX = "browserkeeper, Firefox, --keeper-isolation context"
FRESH_OF_FIREFOX = "browserkeeper, Firefox, --keeper-isolation fresh"
SELENIUM = "pytest-selenium, a browser per test"
PLAYWRIGHT = "pytest-playwright, a context per test"
OURS = ("--disable-plugin-autoload", "-pbrowserkeeper.pytest_plugin")
RIVALS = (
    Rival(CONTEXT, "browserkeeper", (*OURS, "--keeper-isolation=context")),
    Rival(FRESH, "browserkeeper", OURS),
    Rival(
        CONTEXT_OF_FIREFOX,
        "browserkeeper",
        (*OURS, "--keeper-browser=firefox", "--keeper-isolation=context"),
    ),
    Rival(FRESH_OF_FIREFOX, "browserkeeper", (*OURS, "--keeper-browser=firefox")),
    Rival(
        SELENIUM,
        "selenium",
        ("--driver=Chrome", f"--driver-path={shutil.which('chromedriver')}"),
        ("pytest", "pytest-selenium", "selenium"),
    ),
    Rival(PLAYWRIGHT, "playwright", (), ("pytest", "pytest-playwright", "playwright")),
)


def prepare(rival: Rival) -> None:
    if rival.packages and not Path(rival.python).exists():
        print(f"installing {', '.join(rival.packages)} …")
        subprocess.run([sys.executable, "-m", "venv", str(VENVS / rival.suite)], check=True)
        subprocess.run([rival.python, "-m", "pip", "install", "-q", *rival.packages], check=True)


def run(rival: Rival, site: Site, tests: int) -> float:
    """Seconds for the suite.  Raises RuntimeError if a test failed: a failure may be fast."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or ""
    env = {**os.environ, "SITE": site.url, "TESTS": str(tests), "CHROMIUM": chromium}
    suite = SUITES / rival.suite
    words = ("-q", "-pno:cacheprovider", f"--rootdir={suite}", "-c", os.devnull, *rival.words)
    began = time.perf_counter()
    done = subprocess.run(
        [rival.python, "-m", "pytest", *words, str(suite)],
        env=env,
        check=False,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - began
    if done.returncode != 0 or f"{tests} passed" not in done.stdout:
        raise RuntimeError(f"{rival.name}:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    return seconds


def versions(rival: Rival) -> str:
    names = (*rival.packages, *(() if rival.packages else ("pytest", "selenium")))
    script = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    done = subprocess.run(
        [rival.python, "-c", script, *names], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def measure(rivals: Sequence[Rival], tests: int, rounds: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    with Site() as site:
        for number in range(rounds):
            for rival in rivals:
                seconds = run(rival, site, tests)
                rates[rival.name].append(tests / seconds)
                print(f"round {number + 1}: {rival.name}: {tests / seconds:.2f} tests/s", flush=True)
    return rates


def table(rates: dict[str, list[float]], tests: int, rounds: int) -> str:
    bounds = {SELENIUM: 5.0, PLAYWRIGHT: 0.9, FRESH_OF_FIREFOX: 3.0}
    lines = [
        "# Results of `python -m benchmarks.pytest_suites`",
        "",
        f"{tests} tests, median of {rounds} rounds in turn, whole runs timed; {os.cpu_count()} cores.",
        "",
        "| suite | tests/s | ours is | bound | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, values in rates.items():
        ours = CONTEXT_OF_FIREFOX if "Firefox" in name else CONTEXT
        ratio, bound = median(rates[ours]) / median(values), bounds.get(name)
        verdict = "" if bound is None else "met" if ratio >= bound else "MISSED"
        limit = f"≥ {bound:g} ×" if bound else ""
        lines.append(f"| {name} | {median(values):.2f} | {ratio:.2f} × | {limit} | {verdict} |")
    return "\n".join(
        [
            *lines,
            "",
            *(f"- {rival.name}: {versions(rival)}" for rival in RIVALS if rival.name in rates),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tests", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--firefox", action="store_true", help="only Firefox; prints, and writes nothing"
    )
    given = parser.parse_args()
    rivals = [rival for rival in RIVALS if not given.firefox or "Firefox" in rival.name]
    for rival in rivals:
        prepare(rival)
    text = table(measure(rivals, given.tests, given.rounds), given.tests, given.rounds)
    if not given.firefox:
        RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
