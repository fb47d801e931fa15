"""Bystanders of a whole campaign: a plain Chrome with its driver, and a person's browser."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

from tests.support import witness as processes
from tests.support.waiting import wait_until

from .bystander_trial import Home
from .bystander_witness import changes, picture


class PermanentBystanders:
    """Started by programs other than ours; ``harmed`` names each harm once."""

    def __init__(self, home: Home, *, browsers: bool):
        self.started: list[subprocess.Popen[bytes]] = []
        self.seen: dict[str, list[processes.Seen]] = {}
        self.profile = home.directory / "persons-profile"
        self._known: set[str] = set()
        if browsers:
            self._start_person()
            self._start_selenium(home)
        (self.profile / "Default").mkdir(parents=True, exist_ok=True)
        (self.profile / "Default" / "Letters").write_text("a person's")
        self.files = picture(self.profile / "Default" / "Letters")

    def _start_person(self) -> None:
        shell = shutil.which("chromium-headless-shell") or shutil.which("chromium")
        assert shell, "no Chromium for the person's browser"
        words = [shell, "--headless", "--no-sandbox", f"--user-data-dir={self.profile}", "about:blank"]
        quiet = subprocess.DEVNULL
        child = subprocess.Popen(words, stdout=quiet, stderr=quiet, start_new_session=True)
        self.started.append(child)
        wait_until(lambda: len(processes.below(child.pid)) >= 3)
        self._remember("a person's browser", child.pid)

    def _start_selenium(self, home: Home) -> None:
        """chromedriver makes a temporary profile for it, as under plain Selenium."""
        log = home.directory / "chromedriver.log"
        words = [shutil.which("chromedriver") or "", "--port=0"]
        with log.open("wb") as output:
            self.started.append(
                subprocess.Popen(words, stdout=output, stderr=output, start_new_session=True)
            )
        pattern = re.compile(r"on port (\d+)\.")
        assert wait_until(lambda: log.exists() and pattern.search(log.read_text()))
        match = pattern.search(log.read_text())
        assert match
        port = int(match.group(1)) or _listening_port(self.started[-1].pid)
        arguments = ["--headless=new", "--no-sandbox"]
        options = {"browserName": "chrome", "goog:chromeOptions": {"args": arguments}}
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        link.request("POST", "/session", json.dumps({"capabilities": {"alwaysMatch": options}}))
        answer = json.loads(link.getresponse().read())
        link.close()
        assert "sessionId" in answer["value"], answer
        time.sleep(0.5)
        self._remember("a plain Chrome with its driver", self.started[-1].pid)

    def _remember(self, name: str, pid: int) -> None:
        """The main processes; a browser's others come and go."""
        own = processes.look(pid)
        direct = [seen for seen in processes.below(pid) if seen.parent == pid]
        self.seen[name] = [seen for seen in (own, *direct) if seen and seen.state not in "ZX"]

    def harmed(self) -> list[str]:
        found = []
        for name, there in self.seen.items():
            for process in there:
                now = processes.look(process.pid)
                if now is None or now.start != process.start or now.state in "ZXT":
                    found.append(f"{name}: {process.name} ({process.pid})")
        if changes(self.files, picture(self.profile / "Default" / "Letters")):
            found.append("a person's profile: a file is gone")
        fresh = [line for line in found if line not in self._known]
        self._known.update(fresh)
        return fresh

    def close(self) -> None:
        for child in self.started:
            tree = processes.below(child.pid)
            processes.end_by_pid([*tree])
            child.kill()
            child.wait()


def _listening_port(pid: int) -> int:
    """ChromeDriver prints port 0 where it gets 127.0.0.1 but not ::1."""
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in links:
            return int(fields[1].rpartition(":")[2], 16)
    raise AssertionError("the driver listens nowhere")
