"""Try supervisord.conf: a worker is killed in the middle of a task, restarted, and stopped.

    python -m examples.supervisor

Needs supervisor (``pip install supervisor``).  Exit status: 0 if all went well and nothing is left,
else 1.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from examples.services import PATIENCE, ROOT, ended, redis_server
from fixtures.server import Site

CONFIGURATION = Path(__file__).resolve().parent / "supervisord.conf"


def main() -> int:
    supervisord = shutil.which("supervisord") or str(Path(sys.executable).with_name("supervisord"))
    if not Path(supervisord).exists():
        print("This example needs supervisor: pip install supervisor", file=sys.stderr)
        return 1
    with redis_server() as redis, tempfile.TemporaryDirectory(prefix="tmpsupervisor") as name:
        directory = Path(name)
        environment = {
            "EXAMPLE_REDIS": redis,
            "EXAMPLE_ROOT": str(ROOT),
            "EXAMPLE_PYTHON": sys.executable,
            "EXAMPLE_DIRECTORY": name,
            "BROWSERKEEPER_STATE_DIR": f"{name}/state",
            "TMPDIR": name,  # Celery's prefork pool leaves a directory there if its worker is killed
        }
        os.environ.update(environment)
        command = [supervisord, "-c", str(CONFIGURATION)]
        with Site() as site, ended(subprocess.Popen(command, stdout=subprocess.DEVNULL)):
            went_well = story(site, directory)
        left = live(directory)
    print(f"sessions left: {', '.join(left) or 'none'}")
    return int(not went_well or bool(left))


def story(site: Site, directory: Path) -> bool:
    """Kill and restart a worker; prints the result of each step.  True if all went well."""
    from examples.celery_app.app import title  # importing it reads EXAMPLE_REDIS

    log = directory / "worker.log"
    wait_until(lambda: log.exists() and ready(log) == 1)
    result = title.delay(site.url_for("slow", seconds=3))
    site.wait_for("/slow", PATIENCE)
    os.kill(worker_pid(directory), signal.SIGKILL)
    killed = time.monotonic()
    wait_until(lambda: not live(directory))
    print(f"worker killed in mid-task: no session left after {time.monotonic() - killed:.2f} s")
    wait_until(lambda: ready(log) == 2)
    print("supervisord has started another one")
    answer = title.delay(site.url).get(timeout=PATIENCE)
    print(f"which does the next task: {answer}")
    print(
        f"the task that was killed is {result.state}: it comes back when its visibility timeout passes"
    )
    watch = directory / "watch.log"
    wait_until(lambda: watch.exists() and "watch-started" in watch.read_text())
    print("a watch runs beside it")
    return bool(answer == "The Leaky Shelf")


def worker_pid(directory: Path) -> int:
    command = [
        sys.executable,
        "-m",
        "supervisor.supervisorctl",
        "-c",
        str(CONFIGURATION),
        "pid",
        "worker",
    ]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def ready(log: Path) -> int:
    """How many workers have logged that they are ready."""
    return log.read_text().count(" ready.")


def live(directory: Path) -> list[str]:
    return [path.name for path in (directory / "state" / "live").glob("*")]


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll; ends the program with a message where that takes longer than PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {PATIENCE:g} s")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
