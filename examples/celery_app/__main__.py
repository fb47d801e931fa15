"""Try the app with a Redis and a worker of its own, and the fixture site.

    python -m examples.celery_app [--firefox]

Exit status: 0 if every task returned what it should and nothing is left, else 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from examples.services import celery_worker, redis_server
from fixtures.server import Site

PATIENCE = 120
"""Seconds for a task to be done; on a quiet machine it takes 2."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.celery_app")
    parser.add_argument("--firefox", action="store_true", help="try the task with Firefox too")
    arguments = parser.parse_args()
    with (
        redis_server() as redis,
        tempfile.TemporaryDirectory(prefix="tmpstate") as state,
        Site() as site,
    ):
        environment = {"EXAMPLE_REDIS": redis, "BROWSERKEEPER_STATE_DIR": state}
        os.environ.update(environment)
        with celery_worker("examples.celery_app.app", "-c", "2", environment=environment):
            results = send(site, firefox=arguments.firefox)
        left = [path.name for path in Path(state, "live").glob("*")]
    for name, (got, wanted) in results.items():
        print(f"{name:28} {got}{'' if got == wanted else f'   (should be {wanted})'}")
    print(f"{'sessions left':28} {', '.join(left) or 'none'}")
    return int(bool(left) or any(got != wanted for got, wanted in results.values()))


def send(site: Site, *, firefox: bool) -> dict[str, tuple[str, str]]:
    """(returned, expected) of each task."""
    from .app import impatient, title, with_firefox  # importing them reads EXAMPLE_REDIS

    sent = {
        "title": (title.delay(site.url), "The Leaky Shelf"),
        "title, a second time": (title.delay(site.url_for("about")), "About · The Leaky Shelf"),
        "a page that never loads": (impatient.delay(site.url_for("never")), "did not load in time"),
    }
    if firefox:
        sent["with Firefox"] = (with_firefox.delay(site.url), "The Leaky Shelf")
    return {name: (result.get(timeout=PATIENCE), wanted) for name, (result, wanted) in sent.items()}


if __name__ == "__main__":
    sys.exit(main())
