"""``browserkeeper end`` and ``end_sessions()``: live sessions ended by hand, verified."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import browserkeeper
from browserkeeper import end_sessions, errors
from browserkeeper.guard import files
from browserkeeper.process import guard_process, system
from browserkeeper.process.identity import ProcessIdentity
from browserkeeper.report import EXPECTED_REASONS, REASONS, ExitReport
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.records import Record, new_id
from tests.process.test_exec import STOPPED
from tests.support import witness
from tests.support.cli import cli, cli_json, invoke, start_run
from tests.support.guards import altered_guard, program
from tests.support.ledger import add_free_lock, add_live, dead_record, new_session, write_record
from tests.support.sessions import Sessions
from tests.support.waiting import SECONDS, deadline_in, wait_until


def states(*names: str, **more: object) -> dict[str, str]:
    return {end.session: end.state for end in end_sessions(*names, **more)}  # type: ignore[arg-type]


# ------------------------------------------------------------------ one end


def test_an_end_by_hand_is_verified_and_names_the_operator(sessions: Sessions) -> None:
    id, other = sessions.start("nightly"), sessions.start("daily")
    (ended,) = end_sessions("nightly", reason="deploy of 12.3")
    assert (ended.session, ended.state, ended.label) == (id, "ended", "nightly")
    assert ended.verified
    report = sessions.report_of(id)
    assert ended.report == report
    assert (report.reason, report.certificate, report.problems) == ("operator", "ECHILD", ())
    assert report.operator is not None
    assert (report.operator.pid, report.operator.reason) == (os.getpid(), "deploy of 12.3")
    assert "ended by " in str(report)
    assert "deploy of 12.3" in str(report)
    event = sessions.guards[id].wait_for("ended", deadline=deadline_in())
    assert event is not None
    told = ExitReport.from_guard(event["report"], session=id, browser="sleep", label="nightly")
    assert told == report
    assert ExitReport.from_dict(json.loads(report.to_json())) == report
    assert sessions.is_live(other)
    assert not sessions.ledger.end_request_path(id).exists()


def test_a_plain_sigterm_to_the_guard_still_reads_terminated(sessions: Sessions) -> None:
    """The control."""
    id = sessions.start()
    os.kill(sessions.guards[id].primary_pid, signal.SIGTERM)
    report = sessions.report_of(id)
    assert (report.reason, report.operator) == ("terminated", None)


def test_the_reason_is_known_and_is_no_error_of_the_library() -> None:
    assert "operator" in REASONS
    assert "operator" in EXPECTED_REASONS
    with pytest.raises(errors.ConfigError, match="the name of another end"):
        browserkeeper.browser().set_deadline(5, "operator")


@pytest.mark.parametrize("victims", ["primary", "standby", "both"])
def test_stopped_guards_are_continued(sessions: Sessions, victims: str) -> None:
    id = sessions.start()
    guard = sessions.guards[id]
    primary = guard.primary_pid
    # The standby guard first: it would continue the primary one.
    for pid in {"primary": [primary], "standby": [guard.pid], "both": [guard.pid, primary]}[victims]:
        os.kill(pid, signal.SIGSTOP)
        assert wait_until(lambda pid=pid: witness.look(pid).state == "T" or victims == "primary")  # type: ignore[misc,union-attr]
    (ended,) = end_sessions(id)
    assert ended.verified
    assert ended.report is not None
    assert ended.report.reason == "operator"


def test_a_portable_guard_finds_the_request_by_itself(sessions: Sessions) -> None:
    pytest.importorskip("psutil")
    id = sessions.start(containment="portable")
    (ended,) = end_sessions(id, wait=60)
    assert ended.verified
    assert ended.report is not None
    assert ended.report.reason == "operator"


def test_a_guard_that_gets_no_signal_finds_the_request_by_itself(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the operator is in another pid namespace, or the kernel has no pidfd."""
    id = sessions.start()
    monkeypatch.setattr(system, "exit_fd", lambda _: -1)
    (ended,) = end_sessions(id, wait=60)
    assert ended.verified
    assert ended.report is not None
    assert ended.report.reason == "operator"


def test_a_session_whose_command_has_not_yet_started_can_be_ended(
    sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is there, and the exec of the driver hangs, as on a dead NFS mount."""
    monkeypatch.setattr(guard_process, "GUARD_DIRECTORY", altered_guard(tmp_path / "stopped", STOPPED))
    id = sessions.start(once_spawned=False)
    (ended,) = end_sessions(id, wait=60)
    assert ended.verified
    assert ended.report is not None
    assert ended.report.reason == "operator"


# ------------------------------------------------------------------ request files


def request_for(id: str, **more: object) -> str:
    document = {"schema": 1, "session": id, "operator": {"user": "eve", "pid": 1, **more}}
    return json.dumps(document) + "\n"


@pytest.mark.parametrize(
    "kind",
    [
        *("group-writable", "rubbish", "empty", "cut off", "another session's", "a directory"),
        *("a link", "a pipe", "too long"),
        pytest.param("another user's", marks=pytest.mark.root),
    ],
)
def test_a_request_that_is_not_whole_or_not_ours_is_ignored(sessions: Sessions, kind: str) -> None:
    id = sessions.start()
    path = sessions.ledger.end_request_path(id)
    text = request_for(id)
    if kind == "a directory":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path, 0o600)
    elif kind == "a link":
        target = path.with_suffix(".target")
        target.write_text(text)
        target.chmod(0o600)
        path.symlink_to(target)
    else:
        texts = {"rubbish": "end it", "empty": "", "cut off": text[:-9]}
        texts |= {
            "another session's": request_for(new_id()),
            "too long": request_for(id, x="y" * 40_000),
        }
        draft = path.with_suffix(".draft")  # the guard may look at any moment: never at a half-made one
        draft.write_text(texts.get(kind, text))
        draft.chmod(0o660 if kind == "group-writable" else 0o600)
        if kind == "another user's":
            os.chown(draft, 65534, 65534)
        draft.replace(path)
    os.kill(sessions.guards[id].primary_pid, signal.SIGTERM)
    report = sessions.report_of(id)
    assert (report.reason, report.operator) == ("terminated", None)
    assert wait_until(lambda: not sessions.is_live(id))
    if kind == "a directory":
        path.rmdir()
    path.with_suffix(".target").unlink(missing_ok=True)
    assert wait_until(lambda: not os.path.lexists(path))  # the guard removes it after the record


def test_a_request_for_an_earlier_session_never_ends_a_later_one(sessions: Sessions) -> None:
    id = new_id()
    path = sessions.ledger.end_request_path(id)
    path.write_text(request_for(id))
    path.chmod(0o600)
    sessions.start(id=id)
    assert not path.exists()
    assert sessions.guards[id].wait_for("ending", deadline=deadline_in(1.5)) is None
    assert sessions.is_live(id)


def test_a_request_that_comes_after_the_end_is_removed(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    from browserkeeper.cleanup import end_sessions as module

    id = sessions.start()
    write = files.write_atomically

    def end_first(path: str, text: str) -> None:
        sessions.guards[id].end("closed", deadline_in())
        write(path, text)

    monkeypatch.setattr(module, "write_atomically", end_first)
    (ended,) = end_sessions(id)
    assert ended.state == "ended"
    assert ended.report is not None
    assert ended.report.reason == "closed"
    assert not sessions.ledger.end_request_path(id).exists()


def test_a_sweep_removes_the_request_for_a_session_without_a_record(state_dir: Path) -> None:
    path = Ledger.open().end_request_path(new_id())
    path.write_text("{}")
    os.utime(path, (1, 1))
    (finding,) = browserkeeper.sweep(dry_run=False)
    assert "a request to end a session" in finding.what
    assert not path.exists()


def test_a_request_that_cannot_be_written_leaves_the_session_alone(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    from browserkeeper.cleanup import end_sessions as module

    def full(path: str, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_atomically", full)
    id = sessions.start()
    (left,) = end_sessions(id)
    assert left.state == "left-alone"
    assert "No space left on device" in left.why
    assert sessions.is_live(id)


# ------------------------------------------------------------------ which sessions


def test_names_are_ids_their_beginnings_labels_or_patterns(sessions: Sessions) -> None:
    one = sessions.start("shop/checkout", id="aaaa00000000")
    two = sessions.start("shop/search", id="aaab00000000")
    pinned = sessions.start("tests/test_a.py::test_x[chrome]", id="bbbb00000000")
    plain = sessions.start(id="cccc00000000")
    would = {"dry_run": True}
    assert states("aaaa", **would) == {one: "would-end"}
    assert states("aaaa", "cccc00000000", **would) == {one: "would-end", plain: "would-end"}
    assert states("shop/search", **would) == {two: "would-end"}
    assert states("shop/*", **would) == {one: "would-end", two: "would-end"}
    assert states("tests/test_a.py::test_x[chrome]", **would) == {pinned: "would-end"}
    assert states("*", **would) == {one: "would-end", two: "would-end", pinned: "would-end"}
    assert len(states(all=True, **would)) == len(states(owner=os.getpid(), **would)) == 4
    assert states(owner=os.getpid() + 1, **would) == {}
    assert states(older_than=3600, **would) == {}
    assert states("shop/*", older_than=0.001, owner=os.getpid(), **would).keys() == {one, two}
    with pytest.raises(errors.NoSuchSession, match="ids of 2 live sessions begin with it") as caught:
        end_sessions("aaa")
    assert set(caught.value.candidates) == {one, two}
    assert one in str(caught.value)
    for unknown in ("dddd", "shop/chec", "nothing-*", "AAAA"):
        with pytest.raises(errors.NoSuchSession, match="No live session has the id or the label"):
            end_sessions(one, unknown)
    assert all(map(sessions.is_live, (one, two, pinned, plain)))


def test_a_name_that_is_a_label_and_begins_an_id_is_refused(sessions: Sessions) -> None:
    one = sessions.start("cafe", id="aaaa00000000")
    two = sessions.start(id="cafe00000000")
    with pytest.raises(errors.NoSuchSession, match="and it is the label of 1") as caught:
        end_sessions("cafe")
    assert set(caught.value.candidates) == {one, two}


def test_a_short_label_is_not_taken_for_the_beginning_of_an_id(sessions: Sessions) -> None:
    one, two = sessions.start("db", id="aaaa00000000"), sessions.start(id="dbdb00000000")
    assert states("db", dry_run=True) == {one: "would-end"}
    assert states("db") == {one: "ended"}
    with pytest.raises(errors.NoSuchSession, match=f"'db' is no label, and too short.*\n  {two}"):
        end_sessions("db")
    assert sessions.is_live(two)
    assert states("dbdb") == {two: "ended"}


@pytest.mark.parametrize(
    ("names", "more", "named"),
    [
        ((), {}, "Say which sessions"),
        (("x",), {"all": True}, "all=True"),
        (("",), {}, "is no id or label"),
        ((7,), {}, "is no id or label"),
        ((), {"owner": 0}, "owner=0"),
        ((), {"owner": True}, "owner=True"),
        ((), {"older_than": -1}, "older_than=-1"),
        ((), {"older_than": float("nan")}, "older_than=nan"),
        ((), {"older_than": 10**400}, "older_than=1000"),
        ((), {"all": True, "wait": -1}, "wait=-1"),
        ((), {"all": True, "wait": False}, "wait=False"),
        ((), {"all": "no"}, "all='no'"),
        ((), {"all": True, "dry_run": "no"}, "dry_run='no'"),
        ((), {"all": True, "reason": "two\nlines"}, "reason="),
    ],
)
def test_nonsense_is_refused_by_name(
    names: tuple[str, ...], more: dict[str, object], named: str
) -> None:
    with pytest.raises(errors.ConfigError, match=named):
        end_sessions(*names, **more)  # type: ignore[arg-type]


def test_an_ended_session_and_a_bad_record_are_said_to_be_that(
    sessions: Sessions, state_dir: Path
) -> None:
    id = sessions.start()
    sessions.guards[id].end("closed", deadline_in())
    with pytest.raises(errors.NoSuchSession, match=r"has ended already \(closed\)"):
        end_sessions(id)
    record = write_record(state_dir, "{")
    with pytest.raises(errors.NoSuchSession, match="is not valid"):
        end_sessions(record.stem)
    record.unlink()


# ------------------------------------------------------------------ what is not ours to end


def test_sessions_without_a_guard_are_left_to_a_sweep_or_to_their_owner(
    state_dir: Path, tmp_path: Path
) -> None:
    ledger = Ledger.open()
    orphan = write_record(state_dir, json.dumps(dead_record("0123456789ab", tmp_path)))
    add_free_lock(state_dir, "0123456789ab")
    unguarded = dataclasses.replace(new_session(), lock="there is one")
    add_live(ledger, unguarded)
    add_free_lock(state_dir, unguarded.id)
    found = {end.session: end for end in end_sessions(all=True)}
    assert {end.state for end in found.values()} == {"left-alone"}
    assert "browserkeeper sweep" in found["0123456789ab"].why
    assert f"test (pid {os.getpid()}) ends it" in found[unguarded.id].why
    assert not list(ledger.live.glob("*.end"))
    for path in (orphan, ledger.record_path(unguarded.id)):
        path.unlink()


def test_a_session_of_another_user_is_not_asked(sessions: Sessions) -> None:
    id = sessions.start(uid=os.geteuid() + 1)
    (left,) = end_sessions(id)
    assert left.state == "left-alone"
    assert "of another user" in left.why
    assert sessions.is_live(id)


@pytest.mark.parametrize(
    "part", ["another pid namespace", "another boot", "another PID 1", "a reused pid"]
)
def test_a_guard_whose_identity_does_not_fit_is_asked_by_the_file_alone(
    sessions: Sessions, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = system.host()
    facts: dict[str, object] = {
        "another pid namespace": {"host": f"{host.machine}/{host.boot}/pid:[1]"},
        "another boot": {"host": f"{host.machine}/another/{host.namespace}"},
        "another PID 1": {"init_start": 12345.0},
        "a reused pid": {},
    }[part]  # type: ignore[assignment]
    id = sessions.start(**facts)  # type: ignore[arg-type]
    if part == "a reused pid":
        read = Ledger.records
        reused = (ProcessIdentity(os.getpid(), 1.0),)  # this process: it would die of SIGTERM

        def with_reused_pid(ledger: Ledger) -> Iterator[Record]:
            """The guard writes the file anew from time to time, so it is not changed there."""
            for record in read(ledger):
                assert isinstance(record, Record)
                yield dataclasses.replace(record, guards=reused)

        monkeypatch.setattr(Ledger, "records", with_reused_pid)
    signalled: list[object] = []
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *given: signalled.append(given))
    (ended,) = end_sessions(id, wait=60)
    assert not signalled
    assert ended.verified
    assert sessions.report_of(id).reason == "operator"


@pytest.mark.namespaces
def test_an_operator_in_another_pid_namespace_ends_a_session(sessions: Sessions) -> None:
    """As in a sidecar container that shares the state directory."""
    id = sessions.start("nightly")
    apart = ["unshare", "--pid", "--mount", "--fork", "--mount-proc"]
    words = [*apart, *cli_words(), "end", "nightly", "--yes", "--wait", str(SECONDS)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=2 * SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'sleep session {id} "nightly": operator, clean, ECHILD' in done.stdout


def stop_guards(sessions: Sessions, id: str) -> tuple[int, int]:
    """The standby guard first, which would continue the primary one; their pids in this order."""
    pair = sessions.guards[id].pid, sessions.guards[id].primary_pid
    for pid in pair:
        os.kill(pid, signal.SIGSTOP)
        assert wait_until(functools.partial(witness.is_stopped, pid))
    return pair


@pytest.mark.leaves_zombies(3, "both guards were killed")
@pytest.mark.parametrize("owner_lives", [True, False])
def test_guards_that_are_killed_meanwhile_leave_the_end_to_others(
    sessions: Sessions, owner_lives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from browserkeeper.cleanup import end_sessions as module

    facts = {} if owner_lives else {"owner": ProcessIdentity(2**22 - 1, 1.0)}
    id = sessions.start(**facts)  # type: ignore[arg-type]
    # Stopped before the request is there, so that they do not find it; and neither sees the other die.
    pair = stop_guards(sessions, id)

    def kill(record: object) -> None:
        for pid in reversed(pair):  # the death of the standby would continue the primary
            os.kill(pid, signal.SIGKILL)
        # Until then they have their locks.
        assert wait_until(lambda: not any((seen := witness.look(p)) and seen.state != "Z" for p in pair))

    monkeypatch.setattr(module, "_wake", kill)
    (left,) = end_sessions(id, wait=0.5)
    assert left.state == "left-alone"
    assert ("its guards were killed" if owner_lives else "browserkeeper sweep --yes") in left.why
    sessions.ledger.record_path(id).unlink()
    sessions.ledger.end_request_path(id).unlink()


def test_all_names_a_session_whose_record_is_not_valid(sessions: Sessions) -> None:
    id = sessions.start()
    path = sessions.ledger.record_path(id)
    pair = stop_guards(sessions, id)  # the primary one writes the record anew from time to time
    path.write_text("{")
    (left,) = end_sessions(all=True)
    assert (left.session, left.state) == (id, "left-alone")
    assert "its record is not valid" in left.why
    for pid in pair:
        os.kill(pid, signal.SIGCONT)


def test_the_session_in_which_the_operator_works_is_left_alone(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = sessions.start(), sessions.start()
    monkeypatch.setenv("BROWSERKEEPER_SESSION", own)
    assert states(all=True) == {own: "left-alone", other: "ended"}


def test_a_guard_that_does_not_finish_in_time_goes_on(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped here, and the signals that would continue it are not sent."""
    from browserkeeper.cleanup import end_sessions as module

    monkeypatch.setattr(module, "_wake", lambda record: None)
    id = sessions.start()
    pair = stop_guards(sessions, id)
    assert states(id, wait=0) == {id: "ending"}
    for pid in pair:
        os.kill(pid, signal.SIGCONT)
    assert sessions.report_of(id).reason == "operator"


# ------------------------------------------------------------------ the command line


def test_the_command_asks_only_on_a_terminal(sessions: Sessions) -> None:
    id = sessions.start("nightly")
    done = invoke("end", "nightly")
    assert done.exit_code == 2
    assert "--yes" in done.output
    assert sessions.is_live(id)
    shown = invoke("end", "nightly", "--dry-run")
    assert (shown.exit_code, id in shown.stdout) == (0, True)
    assert "Nothing was touched" in shown.stdout
    assert sessions.is_live(id)
    ended = cli("end", "nightly", "--yes", "--reason", "deploy")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f'sleep session {id} "nightly": operator, clean, ECHILD' in ended.stdout
    assert "deploy" in ended.stdout
    assert "browserkeeper end, pid" in ended.stdout


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 1), ("", 1)])
def test_on_a_terminal_the_question_shows_what_would_end(
    sessions: Sessions, answer: str, status: int
) -> None:
    id = sessions.start("nightly")
    leader, follower = os.openpty()
    words = [*cli_words(), "end", "--all"]
    with subprocess.Popen(words, stdin=follower, stdout=follower, stderr=follower) as process:
        os.close(follower)
        shown = read_until(leader, "[y/N]")
        assert id in shown
        assert "nightly" in shown
        os.write(leader, f"{answer}\n".encode() if answer else b"\x04")
        read_until(leader, "")
        assert process.wait() == status
    os.close(leader)
    assert sessions.is_live(id) == bool(status)


def cli_words() -> tuple[str, ...]:
    from tests.support.cli import CLI

    return CLI


def read_until(fd: int, word: str) -> str:
    """What is printed on the terminal until the word comes, or with "" until the end."""
    text = ""
    while not word or word not in text:
        try:
            block = os.read(fd, 4096)
        except OSError:  # EIO: no process has the terminal open any more
            break
        if not block:
            break
        text += block.decode()
    return text


def test_exit_statuses_and_json(sessions: Sessions, state_dir: Path, tmp_path: Path) -> None:
    one, two = sessions.start("shop"), sessions.start("shop")
    document = cli_json("end", "nobody", "--yes", status=1)
    assert document["error"]["type"] == "NoSuchSession"
    assert invoke("end", "--yes").exit_code == 2
    assert invoke("end", "shop", "--all", "--yes").exit_code == 2
    nothing = invoke("end", "--older-than", "9h", "--yes")
    assert (nothing.exit_code, nothing.stdout) == (0, "No live session is meant.\n")
    document = cli_json("end", "shop", "--yes", "--reason", "deploy")
    assert {found["session"] for found in document["sessions"]} == {one, two}
    assert all(found["verified"] and found["state"] == "ended" for found in document["sessions"])
    assert all(found["report"]["operator"]["reason"] == "deploy" for found in document["sessions"])
    orphan = write_record(state_dir, json.dumps(dead_record("0123456789ab", tmp_path)))
    add_free_lock(state_dir, "0123456789ab")
    left = invoke("end", "0123456789ab", "--yes")
    assert left.exit_code == 4
    assert "browserkeeper sweep --yes" in left.stdout
    orphan.unlink()


def test_a_run_is_ended_with_all_that_it_has_started(
    started: list[subprocess.Popen[str]], pids_of: object
) -> None:
    running = start_run(started, pids_of, 3, *program("tree", pids_of, 2, 1))  # type: ignore[arg-type]
    document = cli_json("end", "--owner", running.front.pid, "--yes")
    (session,) = document["sessions"]
    assert (session["kind"], session["state"]) == ("run", "ended")
    assert session["report"]["reason"] == "operator"
    _, told = running.front.communicate()
    assert running.front.returncode == 128 + signal.SIGTERM  # asked first, as at every end of a run
    assert "an operator has ended it" in told
    assert not [seen for seen in running.members if witness.is_same(seen)]
