"""docs/how-to/cron.md: its line in cron's environment, and under a real cron daemon.

The daemon runs in a mount namespace with crontabs, /run and a mail program of its own.  Its job is due
"at reboot", which is when the daemon starts, so that the test waits for no minute to begin.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.support import witness
from tests.support.clock import start_seconds
from tests.support.howto import BIN, Program, environment
from tests.support.pages import ROOT, write_files
from tests.support.proxies import dead_port
from tests.support.waiting import SECONDS, wait_until

pytestmark = [pytest.mark.chrome, pytest.mark.slow]
PAGE = "docs/how-to/cron.md"
DAEMON = """
mount -t tmpfs none /var/spool && mkdir -p /var/spool/cron/crontabs &&
cp crontab /var/spool/cron/crontabs/root && chmod 600 /var/spool/cron/crontabs/root &&
mount -t tmpfs none /run && mount --bind sbin /usr/sbin && exec "$1" -f
"""
SENDMAIL = """#!/bin/sh
cat > {directory}/mail.new.$$ && mv {directory}/mail.new.$$ {directory}/mail.$$
"""
PLAIN = """
import sys
from selenium import webdriver
options = webdriver.ChromeOptions()
for argument in ("--headless", "--no-sandbox", "--disable-dev-shm-usage"):
    options.add_argument(argument)
driver = webdriver.Chrome(options)
try:
    driver.get(sys.argv[1])
finally:
    driver.quit()
"""


@pytest.fixture
def job(tmp_path: Path, state_dir: Path) -> Path:
    """The page's files, for this directory, virtual environment, checkout and state directory."""
    write_files(PAGE, tmp_path)
    crontab = tmp_path / "crontab"
    text = crontab.read_text().replace("/opt/scraper/venv/bin", str(BIN))
    own = f"PYTHONPATH={ROOT}\nBROWSERKEEPER_STATE_DIR={state_dir}\nBROWSERKEEPER_OFFLINE=1\n"
    crontab.write_text(own + text.replace("/opt/scraper", str(tmp_path)))
    return tmp_path


def parts_of(crontab: Path) -> tuple[dict[str, str], str]:
    """The environment that cron gives to the job, and the job's command."""
    lines = crontab.read_text().splitlines()
    cron = {"HOME": os.environ["HOME"], "LOGNAME": "root", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    variables = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    (command,) = (line.split(None, 5)[5] for line in lines if line.startswith("*"))
    return {**cron, **variables}, command


def run(job: Path, address: str, *replaced: tuple[str, str]) -> Program:
    """Start the job as cron does: by /bin/sh, with cron's environment."""
    env, command = parts_of(job / "crontab")
    command = command.replace("https://example.com/", address)
    for old, new in replaced:
        assert old in command
        command = command.replace(old, new)
    return Program(["/bin/sh", "-c", command], job, env)


def test_a_job_that_hangs_keeps_the_next_from_starting_until_it_is_ended(site: Site, job: Path) -> None:
    with run(job, site.url) as first:
        assert first.wait() == 0, first.output
    assert (job / "titles.txt").read_text().endswith(" The Leaky Shelf\n")

    limit = math.ceil(30 + 4 * start_seconds("chrome"))
    with run(job, site.url_for("never"), ("--timeout 540", f"--timeout {limit}")) as hanging:
        site.wait_for("/never")
        with run(job, site.url) as second:
            assert second.wait() == 1
        assert hanging.wait() == 124
    assert len((job / "titles.txt").read_text().splitlines()) == 1
    with run(job, site.url) as third:
        assert third.wait() == 0, third.output


@pytest.mark.leaves_zombies(2, "a guard that is killed cannot wait for the other guard")
def test_a_killed_job_leaves_nothing(site: Site, job: Path) -> None:
    known = {seen.pid for seen in witness.below(os.getpid())}
    with run(job, site.url_for("never")) as hanging:
        site.wait_for("/never")
        flock = next(s for s in witness.below(hanging.pid) if s.name != "sh")
        guard = next(s for s in witness.below(hanging.pid) if s.parent == flock.pid)
        os.kill(guard.pid, signal.SIGKILL)
        hanging.wait()
    assert not witness.wait_until_gone(os.getpid(), known, SECONDS)
    with run(job, site.url) as next_one:  # the lock is free
        assert next_one.wait() == 0, next_one.output


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address that refuses connections."""
    with dead_port() as port:
        yield f"http://127.0.0.1:{port}/"


def add_mail_program(directory: Path) -> None:
    """A sendmail that keeps each mail in a file."""
    sendmail = directory / "sbin" / "sendmail"
    sendmail.parent.mkdir()
    sendmail.write_text(SENDMAIL.format(directory=directory))
    sendmail.chmod(0o755)


@pytest.mark.cron
@pytest.mark.namespaces
@pytest.mark.root
@pytest.mark.leaves_zombies(4, "the daemon's own children, where it is ended before it has reaped them")
def test_a_real_cron_runs_the_job_and_mails_its_error(site: Site, job: Path, nowhere: str) -> None:
    add_mail_program(job)
    crontab = job / "crontab"
    line = (
        crontab.read_text().replace("*/10 * * * *", "@reboot").replace("https://example.com/", site.url)
    )
    other = line.splitlines()[-1].replace(site.url, nowhere).replace("job.lock", "other.lock")
    crontab.write_text(f"{line}{other}\n")
    cron = shutil.which("cron")
    assert cron
    words = ["unshare", "--mount", "sh", "-c", DAEMON, "sh", cron]
    with Program(words, job, {"PATH": "/usr/bin:/bin"}) as daemon:

        def mails() -> str:
            return "".join(mail.read_text() for mail in job.glob("mail.[0-9]*"))

        assert wait_until(lambda: "ERR_CONNECTION_REFUSED" in mails(), 5 * SECONDS)
        assert wait_until((job / "titles.txt").exists, 5 * SECONDS)
        assert not witness.wait_until_gone(daemon.pid, set(), SECONDS)  # its children for the jobs
        daemon.signal(signal.SIGTERM)
        daemon.wait()
    assert (job / "titles.txt").read_text().endswith(" The Leaky Shelf\n")
    assert "To: you@example.com" in mails()


def test_control_plain_selenium_leaves_its_browser_in_a_killed_job(site: Site, job: Path) -> None:
    (job / "plain.py").write_text(PLAIN)
    known = {seen.pid for seen in witness.below(os.getpid())}
    words = [sys.executable, "plain.py", site.url_for("never")]
    with Program(words, job, environment(TMPDIR=str(job))) as plain:
        site.wait_for("/never")
        plain.signal(signal.SIGKILL)
        plain.wait()
    left = witness.wait_until_gone(os.getpid(), known, 1)
    witness.clean_up(known)
    assert any(seen.name.startswith("chrom") for seen in left)
