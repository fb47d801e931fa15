"""The same crash twice, side by side: with plain Selenium and with browserkeeper.

    python -m examples.leak_demo [--svg FILE]

A script opens a browser and is killed with SIGKILL in the middle of a page load.  The kernel does that
when memory is short, and Celery when a task passes its hard limit.  Neither ``finally`` nor ``atexit``
runs.  Two seconds later this program counts what is left: processes, memory, files.  Then it removes it.

It acts as PID 1 for both scripts: as a *child subreaper* it becomes the parent of every orphan below it
(prctl(2)), so it misses none.  At the end it kills only its own descendants, by pid.  Linux only.

Exit status: 0 if browserkeeper left nothing, 1 if it left something, 2 if a browser failed.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich import box
from rich.console import Console
from rich.table import Table

if not __package__:  # run by its path: the checkout is not importable yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fixtures.server import Site

PR_SET_CHILD_SUBREAPER = 36
SETTLE = 2.0
"""Seconds from the crash to the count of what is left, unless the command says otherwise."""
START_PATIENCE = 60.0
"""Seconds for a browser to start and ask for the page."""
GUARD_PATIENCE = 15.0
"""Seconds for a guard to finish; it takes 0.1."""
INTERRUPTS = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}


# ------------------------------------------------------------------- the two scripts that crash


def plain_selenium(url: str) -> None:
    """Plain Selenium with ``finally``, which does not run after a SIGKILL."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    options.add_argument("--headless=new")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to start as root with it
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.get(url)
    finally:
        driver.quit()


def with_browserkeeper(url: str) -> None:
    """The same with browserkeeper: its guard outlives this process and ends the browser."""
    from browserkeeper import browser

    with browser() as driver:
        driver.get(url)


SCRIPTS: dict[str, Callable[[str], None]] = {
    "plain Selenium": plain_selenium,
    "browserkeeper": with_browserkeeper,
}


# --------------------------------------------------------------------------------------- the crash


@dataclass(frozen=True)
class Aftermath:
    """What ran during the page load, and what was left some seconds after the crash.

    ``gone_after``: seconds until the last process had exited, None if some had not.  ``memory`` and
    ``bytes`` are in bytes.  ``zombies``: processes that had exited and were to be reaped by PID 1.
    ``records``: the files of browserkeeper's history, which it keeps on purpose.
    """

    before: Counter[str]
    left: Counter[str]
    gone_after: float | None
    memory: int
    zombies: Counter[str]
    files: int
    bytes: int
    records: int


class ScriptFailed(RuntimeError):
    """The script ended before it could be killed; the message is its output."""


def crash(script: str, settle: float) -> Aftermath:
    """Run a script, kill it while it waits for a page, count what is left so many seconds later, and
    remove that."""
    with playground() as place, Site() as site:
        with (place / "log").open("wb") as log:
            owner = subprocess.Popen(
                [sys.executable, __file__, "--play", script, site.url_for("never")],
                env={**os.environ, **places(place)},
                stdout=log,
                stderr=log,
            )
        try:
            wait_for_page_load(owner, site, place / "log")
            before = names(process for process in descendants() if process.pid != owner.pid)
        finally:
            owner.kill()
            owner.wait()
        return look_at_what_is_left(place, before, settle)


def places(directory: Path) -> dict[str, str]:
    """The environment that keeps every file in one directory.

    Its path is short: Chrome puts a socket below it, and the kernel allows 107 characters for
    the path of one (unix(7)).
    """
    return {
        "TMPDIR": str(directory / "tmp"),
        "XDG_CONFIG_HOME": str(directory / "tmp" / "config"),
        "XDG_CACHE_HOME": str(directory / "tmp" / "cache"),
        "BROWSERKEEPER_TMPDIR": str(directory / "tmp"),
        "BROWSERKEEPER_STATE_DIR": str(directory / "state"),
    }


def wait_for_page_load(owner: subprocess.Popen[bytes], site: Site, log: Path) -> None:
    """Blocks until the site has got the browser's request.  Raises ScriptFailed."""
    until = time.monotonic() + START_PATIENCE
    while time.monotonic() < until and owner.poll() is None:
        with suppress(TimeoutError):
            site.wait_for("/never", timeout=0.1)
            return
    raise ScriptFailed(log.read_text(errors="replace").strip() or "it hung, without any output")


def look_at_what_is_left(place: Path, before: Counter[str], settle: float) -> Aftermath:
    gone_after = watch(settle)
    everyone = descendants()
    left = alive(everyone)
    files, size = measure(place / "tmp")
    return Aftermath(
        before=before,
        left=names(left),
        gone_after=gone_after,
        memory=sum(map(memory_of, left)),
        zombies=names(filter(is_zombie, everyone)),
        files=files,
        bytes=size,
        records=measure(place / "state")[0],
    )


def watch(seconds: float) -> float | None:
    """Watch for so many seconds; how long something was alive, None if something still is."""
    began, gone_after = time.monotonic(), None
    while (now := time.monotonic() - began) < seconds:
        if alive(psutil.Process().children()):  # every living descendant is below a living child
            gone_after = None
        elif gone_after is None:
            gone_after = now
        time.sleep(0.01)
    return gone_after


# ------------------------------------------------------------------------- processes and files


def become_subreaper() -> None:
    """From now on every orphan below this process becomes its child, instead of PID 1's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) was refused")


def descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def is_zombie(process: psutil.Process) -> bool:
    """Has it exited?  True as well for one that is gone altogether."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if not is_zombie(process)]


def names(processes: Iterable[psutil.Process]) -> Counter[str]:
    found: Counter[str] = Counter()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found[process.name()] += 1
    return found


def memory_of(process: psutil.Process) -> int:
    """PSS in bytes: a shared page is divided among the processes that share it."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def measure(directory: Path) -> tuple[int, int]:
    """(files, bytes on disk) below a directory; sockets and links count as files."""
    sizes = []
    for path, _, files in os.walk(directory):
        for name in files:
            with suppress(FileNotFoundError):
                sizes.append(Path(path, name).lstat().st_blocks * 512)
    return len(sizes), sum(sizes)


@contextmanager
def playground() -> Iterator[Path]:
    """A directory for one script.  At the end the script's processes and the directory are removed."""
    place = Path(tempfile.mkdtemp(prefix="bkdemo-", dir="/tmp"))
    try:
        (place / "tmp").mkdir()
        yield place
    finally:
        with uninterrupted():
            end_descendants()
            shutil.rmtree(place)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore signals, so that a second Ctrl-C does not stop the clean-up."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def let_guards_finish() -> None:
    """Wait for browserkeeper's own clean-up, which has begun if the demo was interrupted."""
    until = time.monotonic() + GUARD_PATIENCE
    time.sleep(0.1)  # a guard sets its name only after its start
    while time.monotonic() < until and names(alive(descendants()))["bk-guard"]:
        time.sleep(0.01)


def end_descendants() -> None:
    """Kill by pid and reap until there is no child: then a subreaper has no descendant either."""
    let_guards_finish()
    while True:
        for process in descendants():
            with suppress(psutil.NoSuchProcess):
                process.kill()  # psutil compares the start time first, so a reused pid is safe
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


# ---------------------------------------------------------------------------------------- the table


def table_of(results: dict[str, Aftermath], settle: float) -> Table:
    title = f"{settle:g} s after a SIGKILL in the middle of a page load"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for script in results:
        table.add_column(script)
    for label, show in ROWS.items():
        table.add_row(label, *map(show, results.values()))
    return table


def listed(counts: Counter[str]) -> str:
    lines = [f"{count} x {name}" for name, count in counts.most_common()]
    return "\n".join([str(counts.total()), *lines]) if lines else "[green]none[/]"


def left_over(result: Aftermath) -> str:
    return f"[red]{listed(result.left)}[/]" if result.left else "[green]none[/]"


def how_soon(result: Aftermath) -> str:
    return "[red]not gone[/]" if result.gone_after is None else f"{result.gone_after:.2f} s"


def files_left(result: Aftermath) -> str:
    if not result.files:
        return "[green]none[/]"
    return f"[red]{result.files}, {result.bytes / 1e6:.1f} MB[/]"


ROWS: dict[str, Callable[[Aftermath], str]] = {
    "processes before": lambda result: listed(result.before),
    "processes left": left_over,
    "all gone after": how_soon,
    "memory in use": lambda result: f"{result.memory / 1e6:.0f} MB",
    "files left": files_left,
    "zombies for PID 1": lambda result: listed(result.zombies),
    "own records, kept": lambda result: str(result.records or "none"),
}


# ------------------------------------------------------------------------------------------ the rest


def compare(console: Console, picture: Path | None, settle: float) -> int:
    results = {}
    for script in SCRIPTS:
        console.print(f"{script}: opening a page, to be killed in the middle of it …", highlight=False)
        try:
            results[script] = crash(script, settle)
        except ScriptFailed as error:
            console.print(f"[red]{script} failed before the page was requested:[/]")
            console.print(str(error), markup=False)
            return 2
    table = table_of(results, settle)
    console.print(table)
    if picture:
        save_picture(table, picture)
    console.print("What plain Selenium left has been ended by pid, and its files are removed.")
    kept = results["browserkeeper"]
    return 1 if kept.left or kept.files else 0


def save_picture(table: Table, path: Path) -> None:
    """Draws the table as an SVG file that loads nothing from elsewhere, not even its font."""
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(table)
    drawn = console.export_svg(title="python -m examples.leak_demo")
    drawn = re.sub(r"@font-face {.*?}\s*", "", drawn, flags=re.DOTALL)
    path.write_text(drawn.replace("Fira Code", "ui-monospace, DejaVu Sans Mono").replace("\u00a0", " "))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--svg", type=Path, metavar="FILE", help="also draw the table into this file")
    parser.add_argument(
        "--seconds",
        type=float,
        default=SETTLE,
        metavar="N",
        help="from the crash to the count of what is left (%(default)s)",
    )
    parser.add_argument(
        "--play", nargs=2, help=argparse.SUPPRESS
    )  # runs a script, in a process of its own
    given = parser.parse_args()
    if played := given.play:
        script, url = played
        SCRIPTS[script](url)
        return 0
    console = Console()
    if sys.platform != "linux":
        console.print("This demo needs Linux: it counts orphans as a child subreaper.")
        return 2
    become_subreaper()
    for number in INTERRUPTS:
        signal.signal(number, signal.default_int_handler)
    try:
        return compare(console, given.svg, given.seconds)
    except KeyboardInterrupt:
        console.print("interrupted, and cleaned up")
        return 130


if __name__ == "__main__":
    sys.exit(main())
