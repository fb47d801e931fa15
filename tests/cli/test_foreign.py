"""``browserkeeper sweep --foreign``: what plain Selenium has left is found and ended, and nothing else.

Each scene (tests/support/foreign_scene.py) is played once, as PID 1 of a pid namespace, with real
drivers and browsers; the tests look at what it has seen.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.utils import free_port

from tests.support.cli import ROOT

pytestmark = [pytest.mark.chrome, pytest.mark.firefox, pytest.mark.root, pytest.mark.namespaces]
LIMIT = 900.0
"""Seconds for a scene, which takes about 15 on a quiet machine."""
Scene = dict[str, Any]


def played(orphan: str, living: str) -> Scene:
    status, printed, errors = play(orphan, living)
    assert status == 0, printed + errors
    scene: Scene = json.loads(printed)
    return scene


@functools.cache
def play(orphan: str, living: str) -> tuple[int, str, str]:
    """Exit status, output and errors of a scene.  One that fails is not played again for each test."""
    directory = Path(tempfile.mkdtemp(prefix="bkstate-"))  # short: Chrome puts a socket below it
    tmpdir = directory / "t"
    tmpdir.mkdir(mode=0o755)
    directory.chmod(0o755)
    env = {
        **os.environ,
        "TMPDIR": str(tmpdir),
        "BROWSERKEEPER_STATE_DIR": str(directory / "s"),
        "PYTHONPATH": str(ROOT),
    }
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable]
    command = [*words, "-m", "tests.support.foreign_scene", orphan, living]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT, check=False
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(params=[("chrome", "firefox"), ("firefox", "chrome")], ids="-and-living-".join)
def scene(request: pytest.FixtureRequest) -> Scene:
    return played(*request.param)


def item(document: dict[str, Any], pid: int) -> dict[str, Any]:
    (found,) = [one for one in document["foreign"] if one["pid"] == pid]
    return dict(found)


def end_of(found: dict[str, Any]) -> tuple[bool, str]:
    """Whether it was removed, and why not."""
    return found["removed"], found["problem"]


def profile(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [one for one in document["foreign"] if one["what"].endswith(f"/{name}")]


def test_a_dry_run_finds_the_orphan_says_why_and_touches_nothing(scene: Scene) -> None:
    """This is the control, too: nothing else ends the orphan or removes a profile."""
    found = item(scene["dry"], scene["orphan"])
    assert (found["kind"], found["verdict"], found["removed"]) == ("driver", "orphan", False)
    assert all(check["holds"] for check in found["evidence"])
    names = [check["name"] for check in found["evidence"]]
    assert {"user", "namespace", "program", "parent", "starter", "browsers", "clients"} <= set(names)
    assert scene["dry"]["status"] == 1
    assert len(found["processes"]) > 5
    alive = scene["alive after the dry run"]
    assert scene["orphan"] in alive
    assert len(alive) > 5
    assert len(scene["profiles before"]) == 11
    young = item(scene["young"], scene["orphan"])
    assert (young["verdict"], young["evidence"][-1]["name"]) == ("listed only", "age")
    assert scene["young"]["status"] == 0


def test_yes_ends_the_orphan_with_its_browser_and_its_profile(scene: Scene) -> None:
    found = item(scene["wet"], scene["orphan"])
    assert (found["verdict"], found["removed"], found["problem"]) == ("orphan", True, "")
    assert found["files"]
    assert not scene["orphans left"]
    assert not {Path(path).name for path in found["files"]} & set(scene["second files"])
    assert scene["wet"]["status"] == 0


REASONS = {
    "background": ("starter", "no pipe"),
    "nobody's": ("user", "another user (uid 65534)"),
    "contained": ("namespace", "another pid namespace"),
    "named only": ("program", "only has another's name"),
    "idle": ("parent", "its parent lives"),
    "living": ("parent", "its parent lives"),
    "fork": ("starter", "still has the other end"),
    "client": ("clients", "a living client: "),
    "daemon": ("parent", "a process session of its own"),
    "debugged": ("debugger", "has attached to"),
    "other mounts": ("namespace", "another mount namespace"),
    "other network": ("clients", "a living client: "),
    "left on purpose": ("port", "it was given no port"),
    "fixed port": ("port", "is not one that the kernel gives"),
    "program": ("tree", "is no part of a browser"),
    "open": ("clients", "it listens for other machines"),
}
"""The check that saves each bystander, and a part of what it says."""


@pytest.mark.parametrize("bystander", REASONS)
def test_what_is_not_plainly_an_orphan_is_listed_only_with_the_reason(
    scene: Scene, bystander: str
) -> None:
    for when in ("dry", "wet"):
        found = item(scene[when], scene["pids"][bystander])
        name, words = REASONS[bystander]
        assert found["verdict"] == "listed only"
        assert words in found["why"]
        assert (found["evidence"][-1]["name"], found["evidence"][-1]["holds"]) == (name, False)
    assert bystander not in scene["bystanders gone"]


def test_a_client_that_connects_anew_for_each_command_is_remembered_for_a_minute(scene: Scene) -> None:
    """Unless ``--older-than 0`` asks for no rest.  That sweep is the control: nothing else saves it."""
    found = item(scene["recent"], scene["pids"]["reconnecting"])
    assert (found["verdict"], found["evidence"][-1]["name"]) == ("listed only", "clients")
    assert "client" in found["why"]
    assert end_of(item(scene["wet"], scene["pids"]["reconnecting"])) == (True, "")


def test_no_bystander_is_harmed(scene: Scene) -> None:
    assert not scene["bystanders gone"]
    assert scene["browser of the running test"]
    marked = scene["pids"]["marked"]
    assert not [one for one in scene["wet"]["foreign"] if one["pid"] == marked], "it is not foreign"


def test_a_persons_chrome_is_left_alone_with_its_profile_and_its_socket() -> None:
    scene = played("chrome", "firefox")
    found = item(scene["wet"], scene["pids"]["person's"])
    assert (found["kind"], found["verdict"]) == ("browser", "listed only")
    assert "was not made by a driver" in found["why"]
    assert scene["person's sockets"] == [True]
    assert "person" in scene["second files"]


def test_profiles_that_no_process_uses_are_removed_and_others_stay(scene: Scene) -> None:
    assert set(scene["profiles left"]) == {
        *("young", "empty", "open", "directory", "strange", "elsewhere", "nobodys"),
        *("person's backup", "person's other"),
    }
    (young,) = profile(scene["wet"], "rust_mozprofileYOUNG1")
    assert young["evidence"][-1]["name"] == "age"
    (strange,) = profile(scene["wet"], "org.chromium.Chromium.OTHER1")
    assert "does not look like a browser's profile" in strange["why"]
    (backup,) = profile(scene["wet"], "com.google.Chrome.backup")
    assert (backup["verdict"], backup["evidence"][-1]["name"]) == ("listed only", "name")
    assert not profile(scene["wet"], "scoped_dir_login"), "no driver gives such a name"
    (empty,) = profile(scene["wet"], "org.chromium.Chromium.scoped_dir.EMPTY1")
    assert empty["evidence"][-1]["holds"] is None
    assert not profile(scene["wet"], "rust_mozprofileOPEN11"), "it is in use"
    assert not profile(scene["wet"], "org.chromium.Chromium.CWD111"), "it is in use"


def test_a_zombie_is_listed_with_the_parent_that_has_to_reap(scene: Scene) -> None:
    zombies = [one for one in scene["dry"]["foreign"] if one["kind"] == "zombie"]
    (found,) = [one for one in zombies if scene["zombie"] in [p["pid"] for p in one["processes"]]]
    assert found["verdict"] == "listed only"
    assert "has to reap" in found["why"]


def test_drivers_whose_client_fork_or_debugger_has_gone_are_orphans_then(scene: Scene) -> None:
    """The control of bystanders: only the client, the fork or the debugger had kept them."""
    assert not scene["second orphans left"]
    for name in ("client", "fork", "debugged", "idle"):
        assert end_of(item(scene["second"], scene["pids"][name])) == (True, "")


def test_a_browser_whose_driver_was_killed_too_is_ended(scene: Scene) -> None:
    assert scene["second tree"] > 5
    assert not scene["second left"]
    (found,) = [
        one
        for one in scene["second"]["foreign"]
        if one["kind"] == "browser" and one["verdict"] == "orphan"
    ]
    assert end_of(found) == (True, "")
    assert {"switches", "profile"} <= {check["name"] for check in found["evidence"]}


IN_CONTAINER = """
import json, os, subprocess, sys
starter = '''
import shutil, signal
from selenium import webdriver
service = webdriver.ChromeService(shutil.which("chromedriver"))
service.start()
print(service.process.pid, flush=True)
signal.pause()
'''
owner = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True)
pid = int(owner.stdout.readline())
owner.kill()
owner.wait()
words = [sys.executable, "-m", "browserkeeper", "sweep", "--foreign", "--older-than", "0", "--json"]
document = json.loads(subprocess.run(words, stdout=subprocess.PIPE).stdout)
print(json.dumps([one for one in document["foreign"] if one["pid"] == pid]))
"""


@pytest.mark.parametrize("init", ["tini", "the program"])
def test_in_one_process_session_only_a_plain_init_as_pid_1_proves_the_adoption(init: str) -> None:
    """As in a container.  A program that is PID 1 may have started the driver itself."""
    tini = shutil.which("tini")
    if init == "tini" and tini is None:
        pytest.skip("no tini (scripts/unpack.sh .tools)")
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    words += [tini, "--"] if tini and init == "tini" else []
    command = [*words, sys.executable, "-"]  # with a driver in its command line it would prove nothing
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=env, input=IN_CONTAINER, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    if init == "tini":
        assert (found["verdict"], found["why"]) == ("orphan", "")
    else:
        assert found["verdict"] == "listed only"
        assert "it may have started it" in found["why"]


AS_COMMAND = """
import json, os, subprocess, sys
from tests.support import witness
from tests.support.waiting import wait_until

words = [sys.executable, "-m", "browserkeeper", "sweep", "--foreign", "--older-than", "0", "--json"]
(driver,) = [one for one in witness.below(1) if one.parent == 1 and one.pid != os.getpid()]
assert wait_until(lambda: witness.look(driver.pid).name == "chromedriver")
document = json.loads(subprocess.run(words, stdout=subprocess.PIPE).stdout)
print(json.dumps([one for one in document["foreign"] if one["pid"] == driver.pid]), flush=True)
witness.end_by_pid([driver])
"""


def test_the_command_of_a_container_is_no_orphan_whatever_script_has_become_it() -> None:
    """Its standard input is a pipe without a writer, its session that of tini, its parent PID 1."""
    tini, driver = shutil.which("tini"), shutil.which("chromedriver")
    if tini is None:
        pytest.skip("no tini (scripts/unpack.sh .tools)")
    script = '("$0" -c "$1" &); exec "$2" "$3" >/dev/null'
    words = [
        "unshare",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        tini,
        "--",
        "sh",
        "-c",
        script,
    ]
    command = [*words, sys.executable, AS_COMMAND, str(driver), f"--port={free_port()}"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=env, input="", capture_output=True, text=True, timeout=LIMIT
    )
    assert done.stdout, done.stderr
    (found,) = json.loads(done.stdout)
    assert (found["verdict"], found["evidence"][-1]["name"]) == ("listed only", "parent")
    assert "it is the command that tini" in found["why"]
