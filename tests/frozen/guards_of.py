"""What a program does in these tests: notes that it was started, starts a guard, and says which program
the guard is, and how its session ended.  Its imports follow what the tests change."""
# ruff: noqa: E402

import json
import os
import sys

with open(os.environ["COPIES"], "a") as file:
    file.write(f"{os.getpid()}\n")
sys.path.insert(0, os.environ["PACKAGE"])
for name, value in json.loads(os.environ.get("SYS", "{}")).items():
    setattr(sys, name, value)

import time

import browserkeeper
from browserkeeper.process.containment import choose
from browserkeeper.process.guard_process import GuardPlan, GuardProcess

if os.environ.get("BEGIN"):
    import browserkeeper.frozen

    browserkeeper.frozen.begin()


def say() -> None:
    command = (
        "/bin/sh",
        "-c",
        "echo ${BROWSERKEEPER_STARTS-removed} >$COPIES.of-command; exec sleep 60",
    )
    until = time.monotonic() + 60
    try:
        plan = GuardPlan("0123456789ab", command, dict(os.environ), choose("subreaper"))
        guard = GuardProcess(plan)
        spawned = guard.wait_for("spawned", "failed", deadline=until)
        written = os.environ["COPIES"] + ".of-command"
        while spawned and not (os.path.exists(written) and os.path.getsize(written)):
            time.sleep(0.01)
        program = os.readlink(f"/proc/{guard.pid}/exe") if spawned else ""
        report = guard.end("closed", until)
        guard.check_first_event()
        facts = {"guard": program, "certificate": report["certificate"] if report else ""}
    except browserkeeper.LaunchError as error:
        facts = {"error": str(error), "retryable": error.retryable}
    print(json.dumps({"executable": sys.executable, **facts}), flush=True)


say()
