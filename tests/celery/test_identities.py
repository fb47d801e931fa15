"""The words of an identity that were given to ``install``, in a child that prefork has made.

The relay of a proxy with a password is a thread of its process, and a fork has no threads.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.celery.workers import START_TIMEOUT, Redis, running_worker
from tests.support.proxies import RecordingProxy
from tests.support.recording_site import RecordingSite

pytestmark = [pytest.mark.chrome, pytest.mark.redis]
PASSWORD = "correct-horse-battery"


@pytest.mark.parametrize(
    "pool", [None, {"max_size": 1, "min_idle": 0, "checkout_timeout": START_TIMEOUT}]
)
@pytest.mark.leaves_zombies(12, "the worker's children")
def test_children_of_prefork_have_the_identity_and_its_proxy(
    pool: dict[str, float] | None, redis: Redis
) -> None:
    site = RecordingSite({"/": ("text/html", b"<title>seen</title>")})
    with site, RecordingProxy(user="u", password=PASSWORD) as proxy:
        install = {"proxy": proxy.url, "locale": "de-DE", "timezone": "Asia/Tokyo", "pool": pool}
        with running_worker(redis, "prefork", install=install, concurrency=2) as worker:
            for _ in range(3):
                assert worker.run("installed.title", site.url)["title"] == "seen"
            assert {headers["accept-language"].partition(",")[0] for _, headers in site.headers} == {
                "de-DE"
            }
            assert len(proxy.served) >= 3, "none has gone past the proxy"
            assert all(asked.admitted for asked in proxy.asked if asked.user)
            said = [worker.lines(), *map(text_of, filter(Path.is_file, worker.state.rglob("*")))]
            said += [text_of(Path(f"/proc/{process.pid}/cmdline")) for process in worker.new_below()]
            assert PASSWORD not in "".join(said)


def text_of(path: Path) -> str:
    """ "" for a directory, and for what is gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
