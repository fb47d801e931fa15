"""Try the project here: a database, a Redis and a worker of its own, and the fixture site.

    python -m examples.django_project

Exit status: 0 when every page was checked and nothing is left, 1 when not.
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
PATIENCE = 60.0
NOBODY = "http://127.0.0.1:65531/"
"""Where no server listens."""


def main() -> int:
    with (
        redis_server() as redis,
        tempfile.TemporaryDirectory(prefix="tmpdjango") as directory,
        Site() as site,
    ):
        database, state = Path(directory, "db.sqlite3"), Path(directory, "state")
        told = {
            "EXAMPLE_REDIS": redis,
            "EXAMPLE_DATABASE": str(database),
            "BROWSERKEEPER_STATE_DIR": str(state),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        }
        manage("migrate", "--run-syncdb", "--verbosity", "0", told=told)
        pages = [site.url, site.url_for("about"), site.url_for("never"), NOBODY]
        with celery_worker("project", "-c", "2", environment=told, directory=PROJECT):
            manage("check_urls", *pages, told=told)
            found = wait_for_checks(database, len(pages))
        left = [path.name for path in (state / "live").glob("*")]
    for url, title, error in found:
        print(f"{url:36} {title or error}")
    print(f"{'sessions left':36} {', '.join(left) or 'none'}")
    return int(bool(left) or len(found) != len(pages))


def manage(*arguments: str, told: dict[str, str]) -> None:
    subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=PROJECT, env={**os.environ, **told}, check=True
    )


def wait_for_checks(database: Path, number: int) -> list[tuple[str, str, str]]:
    """(url, title, error) of each page that was looked at, when all were, or time is over."""
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
