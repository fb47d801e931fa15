"""Labels where an operator looks for them: ``ps``, ``top``, ``history`` and ``report``, as text, JSON
and HTML; and records that have none, or a wrong one."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pty
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browserkeeper import ExitReport, browser
from browserkeeper.cli.output import columns_of, shorten
from browserkeeper.html.timeline_page import render
from browserkeeper.process import system
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.pool_state import PoolState, publish
from browserkeeper.state.records import Session
from browserkeeper.status.snapshot import snapshot
from browserkeeper.status.timeline import timeline
from browserkeeper.telemetry.logs import fields
from browserkeeper.watch.sessions import check
from tests.support.cli import CLI, ROOT, cli, cli_json, invoke
from tests.support.ledger import add_ended, add_live, new_session

TASK = "shop.tasks.check[0b5f4e9c-8f6e-4a51-9c1e-6d0a3d1f1c55]"
LONG = "tests/checkout/test_basket.py::TestBasket::test_total[" + "x" * 120 + "-EUR]"

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def ledger(state_dir: Path) -> Iterator[Ledger]:
    found = Ledger.open(state_dir)
    yield found
    for record in found.live.iterdir():
        record.unlink()


def labelled(label: Any, **more: Any) -> Session:
    return dataclasses.replace(new_session(), label=label, **more)


def rows(text: str) -> dict[str, str]:
    """The table rows of a command's output: by session id, the text behind it."""
    lines = (line for line in text.splitlines() if ": " not in line)  # no problems
    found = (re.search(r"\b([0-9a-f]{12})\b(.*)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def in_terminal(columns: int, *arguments: str, term: str = "dumb") -> str:
    """What a command prints on a terminal of this width; a dumb one takes no colours."""
    controller, terminal = pty.openpty()
    env = {**os.environ, "TERM": term, "COLUMNS": str(columns)}
    process = subprocess.Popen([*CLI, *arguments], cwd=ROOT, env=env, stdout=terminal)
    os.close(terminal)
    output = b""
    try:
        while part := os.read(controller, 65536):
            output += part
    except OSError:  # EIO: the process has ended
        pass
    os.close(controller)
    process.wait()
    return output.decode()


# ------------------------------------------------------------------------------------------- shown


def test_ps_and_top_have_a_last_column_for_labels_where_a_session_has_one(ledger: Ledger) -> None:
    plain, named, task = new_session(), labelled("checkout-monitor"), labelled(TASK)
    add_live(ledger, plain)
    without = invoke("ps").output
    assert "LABEL" not in without
    assert "LABEL" not in invoke("top", "--once").output
    for session in (named, task):
        add_live(ledger, session)
    for command in (("ps",), ("top", "--once")):
        text = invoke(*command).output
        assert re.search(r" +LABEL$", text, re.MULTILINE)
        assert rows(text)[named.id].endswith("  checkout-monitor")
        assert rows(text)[task.id].endswith(f"  {TASK}"), "whole, since it goes to no terminal"
        assert "check" not in rows(text)[plain.id]
        labels = {s["id"]: s["label"] for s in cli_json(*command)["sessions"]}
        assert labels == {plain.id: "", named.id: "checkout-monitor", task.id: TASK}
    assert f'session {named.id} "checkout-monitor": ' in invoke("ps", "--tree").output
    first = without.splitlines()[0].split()
    assert invoke("ps").output.splitlines()[0].split() == [*first, "LABEL"]


def test_history_and_report_show_labels(ledger: Ledger) -> None:
    plain, named = new_session(), labelled(TASK)
    add_ended(ledger, plain)
    assert "LABEL" not in invoke("history").output + invoke("report").output
    add_ended(ledger, named)
    for command in ("history", "report"):
        text = invoke(command).output
        assert re.search(r" +LABEL$", text, re.MULTILINE)
        assert rows(text)[named.id].endswith(TASK)
        assert "shop" not in rows(text)[plain.id]
    found = {e["session"]["id"]: e for e in cli_json("history")["ended"]}
    assert (found[named.id]["session"]["label"], found[named.id]["report"]["label"]) == (TASK, TASK)
    assert (found[plain.id]["session"]["label"], found[plain.id]["report"]["label"]) == ("", "")
    spans = {span["id"]: span["label"] for span in cli_json("report")["sessions"]}
    assert spans == {plain.id: "", named.id: TASK}
    assert f'session {named.id} "{TASK}": closed' in invoke("history", "--session", named.id).output


def test_the_page_escapes_labels(ledger: Ledger) -> None:
    hostile = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>&"""
    add_ended(ledger, labelled(hostile))
    add_live(ledger, labelled("\x1b[31m\u202e\ud800 of another program"))
    page = render(timeline(3600))
    assert "<script>alert" not in page
    assert "<img" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&gt;&lt;img") == 2
    assert not {"\x1b", "\u202e", "\ud800"} & set(page)
    assert page.encode()


def test_a_label_of_another_alphabet_is_escaped_where_the_output_has_none_for_it(ledger: Ledger) -> None:
    session = labelled("監視")
    add_live(ledger, session)
    done = cli("ps", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(done.stdout)[session.id].endswith("  \\u76e3\\u8996")
    assert rows(cli("ps").stdout)[session.id].endswith("  監視"), "the control"


# ------------------------------------------------------------------------------------------ filters


def test_ps_top_and_history_take_patterns_of_labels(ledger: Ledger) -> None:
    sessions = {label: labelled(label) for label in ("checkout-a", "checkout-b", "search[1]", "")}
    for session in sessions.values():
        add_live(ledger, session)
        add_ended(ledger, dataclasses.replace(session, id=session.id[::-1]))

    def found(command: str, *patterns: str) -> set[str]:
        words = [word for pattern in patterns for word in ("--label", pattern)]
        document = json.loads(invoke(command, *words, "--json").output)
        text = invoke(command, *words).output
        facts = document.get("sessions", [e["session"] for e in document.get("ended", ())])
        assert set(rows(text)) == {one["id"] for one in facts}
        return {one["label"] for one in facts}

    for command in ("ps", "history"):
        assert found(command, "checkout-a") == {"checkout-a"}
        assert found(command, "*-b", "search[?]") == {"checkout-b", "search[1]"}
        assert found(command, "search") == set()
    assert found("top", "checkout-*") == {"checkout-a", "checkout-b"}
    assert found("history", "*") == {"checkout-a", "checkout-b", "search[1]"}
    for command in ("ps", "history", "top"):
        assert "such a label" in invoke(command, "--label", "search").output
        refused = invoke(command, "--label", "")
        assert refused.exit_code == 2
        assert "--label" in refused.output
    assert len(cli_json("history", "--label", "checkout-*", "--limit", 1)["ended"]) == 1
    both = invoke("history", "--label", "a", "--session", "0123456789ab")
    assert both.exit_code == 2


def test_the_status_of_ps_with_a_label_is_that_of_the_sessions_shown(ledger: Ledger) -> None:
    nobody = system.facts(1)
    assert nobody
    dead = dataclasses.replace(nobody.identity, pid=2**22 - 1)
    add_live(ledger, labelled("dead", owner=dead, lock=""))
    add_live(ledger, labelled("well"))
    assert invoke("ps").exit_code == 1
    assert invoke("ps", "--label", "dead").exit_code == 1
    assert invoke("ps", "--label", "well").exit_code == 0
    assert re.search(r'orphaned: chromium session \w+ "dead", ', invoke("ps").output)


# ---------------------------------------------------------------------------------- pools and leases


def test_a_leased_browser_has_the_label_of_its_lease(ledger: Ledger) -> None:
    leased, idle, apart = labelled("shop"), labelled("shop"), labelled("apart")
    for session in (leased, idle, apart):
        add_live(ledger, session)
    me = system.facts(os.getpid())
    assert me is not None
    states = {leased.id: "leased", idle.id: "idle"}
    stats = {"pool_leased": 1.0, "pool_max": 4.0}
    place = system.host_id(), time.time()
    state = PoolState(1, "chrome", me.identity, "w.py", *place, states, stats, label="shop")
    lock = publish(ledger, dataclasses.replace(state, labels={leased.id: TASK}))
    facts = {one["id"]: (one["label"], one["own_label"]) for one in cli_json("ps")["sessions"]}
    assert facts == {leased.id: (TASK, "shop"), idle.id: ("shop", "shop"), apart.id: ("apart", "apart")}
    text = invoke("ps").output
    assert rows(text)[leased.id].endswith(TASK)
    assert 'Pool "shop" of w.py (' in text
    (pool,) = cli_json("ps")["pools"]
    assert (pool["label"], pool["labels"]) == ("shop", {leased.id: TASK})
    for pattern, ids in (("shop", {leased.id, idle.id}), (TASK, {leased.id}), ("apart", {apart.id})):
        document = cli_json("ps", "--label", pattern)
        assert {one["id"] for one in document["sessions"]} == ids
        assert len(document["pools"]) == (0 if pattern == "apart" else 1)
    spans = {span["id"]: span["label"] for span in cli_json("report")["sessions"]}
    assert spans[leased.id] == TASK
    refused = invoke("end", "--yes", TASK)
    assert refused.exit_code == 1
    assert (
        "is the label of a lease of a pool, which may have given the browser to another"
        in refused.output
    )
    assert refused.output.rstrip().endswith(leased.id)
    lock.close()


# ------------------------------------------------------------------------------------- the watch's log


def test_the_watch_names_a_session_with_its_label(ledger: Ledger) -> None:
    add_live(ledger, labelled("checkout-monitor"))
    add_live(ledger, new_session())
    notices = {notice.label: notice for notice in check(snapshot().sessions)}
    named, plain = notices["checkout-monitor"], notices[""]
    assert f'session {named.session} "checkout-monitor": its guards were killed' in named.text
    assert named.log_fields()["browserkeeper.label"] == "checkout-monitor"
    assert "browserkeeper.label" not in plain.log_fields()


# -------------------------------------------------------------------------------- records on the disk


def test_records_of_older_versions_have_no_label(ledger: Ledger) -> None:
    live, ended = labelled("x"), labelled("x")
    add_live(ledger, live)
    add_ended(ledger, ended)
    for path, keys in (
        (ledger.record_path(live.id), ["session"]),
        (ledger.history_path(ended.id), ["session", "exit"]),
    ):
        document = json.loads(path.read_text())
        for key in keys:
            del document[key]["label"]
        path.write_text(json.dumps(document))
    assert [one["label"] for one in cli_json("ps")["sessions"]] == [""]
    assert [one["report"]["label"] for one in cli_json("history")["ended"]] == [""]
    assert "LABEL" not in invoke("ps").output + invoke("history").output + invoke("report").output


@pytest.mark.parametrize("label", [None, 5, ["x"], {"a": 1}, True], ids=repr)
def test_a_label_of_a_wrong_type_makes_the_record_a_bad_one(ledger: Ledger, label: Any) -> None:
    live, ended = labelled(label), labelled(label)
    add_live(ledger, live)
    add_ended(ledger, dataclasses.replace(ended, label=""))
    path = ledger.history_path(ended.id)
    document = json.loads(path.read_text())
    document["session"]["label"] = label
    path.write_text(json.dumps(document))
    (bad,) = cli_json("ps", status=1)["bad_records"]
    assert (Path(bad["path"]).stem, bad["foreign"]) == (live.id, False)
    assert "bad record: " in invoke("ps").output
    assert cli_json("history")["ended"] == []
    assert invoke("report").exit_code == 0
    assert invoke("history", "--session", ended.id).exit_code == 3


@pytest.mark.parametrize(
    "label",
    ["\x1b[31mred\n\x9b", "\ud800\u202e", "x" * 300_000],
    ids=["an escape sequence", "a half character", "a large one"],
)
def test_a_label_that_no_user_could_give_harms_no_terminal(ledger: Ledger, label: str) -> None:
    add_live(ledger, labelled(label))
    add_ended(ledger, labelled(label))
    for command in (["ps", "--tree"], ["history"], ["report"], ["top", "--once"]):
        done = invoke(*command)
        assert done.exit_code == 0
        assert set(done.output) <= {"\n", *filter(str.isprintable, done.output)}
        assert max(map(len, in_terminal(100, *command).splitlines())) < 400


# ------------------------------------------------------------------------------------------- widths


def test_a_terminal_shortens_labels_to_its_width_and_keeps_both_ends(ledger: Ledger) -> None:
    live, ended = labelled(LONG), labelled(LONG)
    add_live(ledger, live)
    add_ended(ledger, ended)

    def row(columns: int, command: str) -> str:
        lines = in_terminal(columns, command).splitlines()
        session = live.id if command == "ps" else ended.id
        (found,) = (line for line in lines if session in line and ": " not in line)
        return found

    for command in ("ps", "history", "report"):
        shown = row(150, command)
        assert columns_of(shown) <= 150
        assert re.search(r"  tests/\S*…\S*EUR\]$", shown)
        assert row(400, command).endswith(LONG)
    assert re.search(r"  tests/\S*…\S*UR\]$", row(60, "ps")), "a few characters are always shown"
    for columns in (110, 150):
        lines = in_terminal(columns, "ps", term="xterm").splitlines()
        (shown,) = (COLOURS.sub("", line) for line in lines if live.id in line and ": " not in line)
        assert columns_of(shown) <= columns
        assert re.search(r"  tests/\S*…\S*EUR\] *$", shown), "with colours, too"


def test_columns_are_aligned_by_what_a_terminal_shows(ledger: Ledger) -> None:
    """Each of these characters takes two columns of a terminal; the accents take none."""
    assert [columns_of(text) for text in ("abc", "監視", "e\u0301")] == [3, 4, 1]
    add_live(ledger, dataclasses.replace(labelled("監視"), browser="監視"))
    add_live(ledger, labelled("plain"))
    lines = invoke("ps").output.splitlines()[:3]
    begins = {columns_of(line[: line.rindex("  ") + 2]) for line in lines}
    assert len(begins) == 1


@pytest.mark.parametrize("text", ["x" * 50, "監視" * 25, "e\u0301" * 50, "a監" * 20, LONG], ids=ascii)
@pytest.mark.parametrize("width", [1, 2, 3, 16, 17, 31])
def test_a_shortened_text_fits(text: str, width: int) -> None:
    short = shorten(text, width)
    assert columns_of(short) <= width
    assert columns_of(short) >= width - 2
    assert "…" in short


def test_a_text_that_fits_stays_whole() -> None:
    assert shorten("checkout", 8) == "checkout"
    assert shorten("監視", 4) == "監視"


# ------------------------------------------------------------------------------------ a real session


@pytest.mark.chrome
def test_a_sessions_label_is_in_its_record_report_and_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "browserkeeper")
    session = browser("chromium", label="checkout-monitor")
    with session:
        (seen,) = cli_json("ps")["sessions"]
        assert (seen["id"], seen["label"]) == (session.id, "checkout-monitor")
    assert session.report is not None
    assert session.report.label == "checkout-monitor"
    assert ExitReport.from_dict(json.loads(session.report.to_json())) == session.report
    (ended,) = cli_json("history")["ended"]
    assert ended["session"]["label"] == ended["report"]["label"] == "checkout-monitor"
    found = {fields(record).get("event.action"): fields(record) for record in caplog.records}
    for action in ("session-started", "session-ended"):
        assert found[action]["browserkeeper.label"] == "checkout-monitor"
        assert f'{session.id} "checkout-monitor"' in found[action]["message"]
