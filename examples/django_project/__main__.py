"""Try the project with a database, a Redis and a worker of its own, and the fixture site.

    python -m examples.django_project

Exit status: 0 if every page was checked and nothing is left, else 1.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from examples.services import ROOT, celery_worker, redis_server
from fixtures.server import Site

PROJECT = Path(__file__).resolve().parent
PATIENCE = 300.0
"""Seconds for all checks to be done; on a quiet machine they take 10."""
NO_SERVER = "http://127.0.0.1:65531/"
"""A port that no server listens on."""


def main() -> int:
    with (
        redis_server() as redis,
        tempfile.TemporaryDirectory(prefix="tmpdjango") as directory,
        Site() as site,
    ):
        database, state = Path(directory, "db.sqlite3"), Path(directory, "state")
        environment = {
            "EXAMPLE_REDIS": redis,
            "EXAMPLE_DATABASE": str(database),
            "BROWSERKEEPER_STATE_DIR": str(state),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        }
        manage("migrate", "--run-syncdb", "--verbosity", "0", environment=environment)
        pages = [site.url, site.url_for("about"), site.url_for("never"), NO_SERVER]
        with celery_worker("project", "-c", "2", environment=environment, directory=PROJECT):
            manage("check_urls", *pages, environment=environment)
            found = wait_for_checks(database, len(pages))
        left = [path.name for path in (state / "live").glob("*")]
    for url, title, error in found:
        print(f"{url:36} {title or error}")
    print(f"{'sessions left':36} {', '.join(left) or 'none'}")
    return int(bool(left) or len(found) != len(pages))


def manage(*arguments: str, environment: dict[str, str]) -> None:
    subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environment},
        check=True,
    )


def wait_for_checks(database: Path, number: int) -> list[tuple[str, str, str]]:
    """(url, title, error) of each checked page.  Blocks until all are checked, or PATIENCE seconds."""
    until = time.monotonic() + PATIENCE
    while True:
        query = "select url, title, error from checks_pagecheck where title || error <> '' order by id"
        connection = sqlite3.connect(database, timeout=10)
        found = connection.execute(query).fetchall()
        connection.close()
        if len(found) == number or time.monotonic() > until:
            return found
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
