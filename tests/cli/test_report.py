"""``browserkeeper report``: the timeline, its text, and its page, also in a real browser."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import hashlib
import json
import os
import re
import shutil
import stat
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browserkeeper import LaunchError, browser
from browserkeeper.cli import report as report_command
from browserkeeper.html import timeline_axis, timeline_page
from browserkeeper.html.timeline_page import render
from browserkeeper.process import guard_process, system
from browserkeeper.process.identity import ProcessIdentity
from browserkeeper.report import REASONS, ExitReport, ProcessExit, Survivor
from browserkeeper.session import control_of
from browserkeeper.state.documents import BadRecord
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.records import EndedSession, Record, Session
from browserkeeper.status.snapshot import snapshot
from browserkeeper.status.timeline import Percentiles, SessionSpan, Timeline, timeline, timeline_of
from tests.conftest import PROGRAMS
from tests.support.cli import ROOT, cli, cli_json, invoke, run_shell
from tests.support.guards import SLEEP_FOREVER, altered_guard, start
from tests.support.ledger import dead_record, write_record
from tests.support.waiting import deadline_in, wait_until

NOW = 1_800_000_000.0
UTC = datetime.timezone.utc
HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>&\x1b[31m"""


def ended(
    number: int = 0, *, ago: float = 100, lasted: float = 10, session: Any = None, **more: Any
) -> EndedSession:
    """A session of the history.  Its guard started half a second after the session was created."""
    created = NOW - ago
    facts = Session(
        f"{number:012x}",
        "session",
        "chromium",
        ProcessIdentity(7, 1.0),
        "owner.py",
        "host",
        "subreaper",
        created,
    )
    facts = dataclasses.replace(facts, **(session or {}))
    seconds = {"lifetime": lasted - 0.5, "killing": 0.04, "files": 0.01, "start": 0.6}
    given = {"reason": "closed", "seconds": seconds, "ended_at": created + lasted, **more}
    browser_name = facts.browser
    report = ExitReport(facts.id, browser_name, containment="subreaper", certificate="ECHILD", **given)
    return EndedSession(facts, report)


def timeline_with(*found: EndedSession, seconds: float = 3600, unreadable: int = 0) -> Timeline:
    return timeline_of((), found, unreadable, now=NOW, seconds=seconds)


# --------------------------------------------------------------------------------------- timeline


def test_process_times_are_converted_to_epoch_seconds() -> None:
    processes = (
        ProcessExit(10, 5000.0, "chromedriver", "killed", ended=9.4),
        ProcessExit(11, 5002.5, "chromium", "exited", code=0, ended=6.0, adopted=True),
        ProcessExit(12, 5003.0, "helper", "gone"),
    )
    (span,) = timeline_with(ended(processes=processes)).sessions
    assert (span.began, span.ended) == (NOW - 100, NOW - 90)
    driver, adopted, unseen = span.processes
    assert driver.began == pytest.approx(NOW - 99.5)
    assert driver.ended == pytest.approx(NOW - 90.1)
    assert adopted.began == pytest.approx(NOW - 97)
    assert adopted.ended == pytest.approx(NOW - 93.5)
    assert adopted.adopted
    assert unseen.ended is None


def test_a_timeline_has_the_sessions_of_its_window_newest_first() -> None:
    found = timeline_with(ended(1, ago=9000), ended(2, ago=3605), ended(3, ago=50), seconds=3600)
    assert [span.id[-1] for span in found.sessions] == ["3", "2"]
    assert not found.truncated
    many = [ended(n, ago=100 + n) for n in range(500)]
    assert timeline_with(*many).truncated, "500 sessions within the hour: earlier ones may be lost"
    assert not timeline_with(*many, seconds=200).truncated


def test_a_timeline_sums_up_outcomes_durations_and_bytes() -> None:
    found = timeline_with(
        ended(1, bytes_freed=10, lasted=5),
        ended(2, bytes_freed=20, lasted=50),
        ended(3, reason="timeout", survivors=(Survivor(9, "stuck", "D", "nfs_wait"),)),
    )
    assert [(reason, len(spans)) for reason, spans in found.outcomes] == [("closed", 2), ("timeout", 1)]
    assert [span.id[-1] for span in found.longest] == ["2", "3", "1"]
    assert [span.survivors for span in found.unclean] == [("stuck (pid 9, D, nfs_wait)",)]
    assert found.bytes_freed == 30
    assert found.teardown
    assert dataclasses.astuple(found.teardown) == pytest.approx((3, 0.05, 0.05, 0.05, 0.05))
    assert json.loads(json.dumps(found.to_dict()))["outcomes"]["timeout"]["not_clean"] == 1


def test_percentiles_are_measured_values() -> None:
    assert Percentiles.of(map(float, range(1, 101))) == Percentiles(100, 50, 90, 99, 100)
    assert Percentiles.of([None, 3.0]) == Percentiles(1, 3, 3, 3, 3)
    assert Percentiles.of([None]) is None


def test_memory_is_summed_over_the_sessions_alive_at_a_time() -> None:
    one = ended(1, ago=100, lasted=20, memory=((1.0, 100), (5.0, 300)))
    other = ended(2, ago=90, lasted=30, memory=((2.0, 50),))
    found = timeline_with(one, other)
    assert [(round(when - NOW, 1), size) for when, size in found.memory_over_time()] == [
        (-98.5, 100),
        (-94.5, 300),
        (-87.5, 350),
        (-80.0, 50),
        (-60.0, 0),
    ]
    assert [level for _, level in found.alive_over_time()] == [1, 2, 1, 0]


def test_a_swept_session_is_dated_by_its_end() -> None:
    one = ended(seconds={"killing": 0.1}, reason="swept", memory=((500.0, 7),))
    (span,) = timeline_with(one).sessions
    assert span.teardown_seconds == 0.1
    assert span.memory == ((NOW - 90, 7),)


def test_a_live_session_is_shown_with_its_memory(state_dir: Path) -> None:
    running = start(SLEEP_FOREVER, session="a" * 12, **in_ledger(state_dir, "a" * 12))
    assert wait_until(lambda: [p.name for s in snapshot().sessions for p in s.processes] == ["sleep"])
    (span,) = timeline(60).sessions
    assert (span.state, span.ending, span.ended, span.clean) == ("live", "live", None, None)
    (life,) = span.processes
    assert (life.name, life.outcome) == ("sleep", "lives")
    assert 0 <= timeline(60).until - life.began < 60
    assert wait_until(lambda: timeline(60).sessions[0].peak)
    assert "only what is alive" in render(timeline(60))
    running.end("closed", deadline_in())
    (span,) = timeline(60).sessions
    assert (span.state, span.reason, span.clean) == ("ended", "closed", True)


def in_ledger(state_dir: Path, session: str) -> dict[str, str]:
    ledger = Ledger.open(state_dir)
    facts = dataclasses.replace(ended(session={}).session, id=session, host=host(), created=NOW)
    place = system.host()
    facts = dataclasses.replace(facts, owner=me(), init_start=place.init_start, uid=place.uid)
    facts = dataclasses.replace(facts, created=timeline(60).until)
    return {
        "document": facts.to_json(),
        "record": str(ledger.record_path(session)),
        "history": str(ledger.history_path(session)),
    }


def me() -> ProcessIdentity:
    found = system.facts(os.getpid())
    assert found is not None
    return found.identity


def host() -> str:
    return system.host_id()


@pytest.mark.parametrize(
    "change",
    [
        {"ended_at": "soon"},
        {"ended_at": 1e300},
        {"ended_at": float("nan")},
        {"seconds": {"lifetime": "x"}},
    ],
    ids=repr,
)
def test_an_invalid_history_entry_is_counted_as_unreadable(change: dict[str, Any]) -> None:
    found = timeline_with(ended(1), ended(2, **change))
    assert [span.id[-1] for span in found.sessions] == ["1"]
    assert found.unreadable == 1
    assert "Invalid: 1 record;" in render(found, UTC)


@pytest.mark.parametrize("memory", [[[1, float("inf")]], [["x", 1]], [[1]], 7])
def test_invalid_memory_makes_a_record_corrupt(state_dir: Path, memory: Any) -> None:
    facts = dead_record("a" * 12, state_dir)
    write_record(state_dir, json.dumps({**facts, "memory": memory}), "a" * 12)
    (record,) = Ledger.open(state_dir).records()
    assert isinstance(record, BadRecord)
    assert record.corrupt
    record.path.unlink()


# ------------------------------------------------------------------------- the guard's memory samples


def test_a_guard_keeps_a_bounded_number_of_memory_samples(
    tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = (
        ("SAMPLES = (0.25, 1.0, 2.0, 5.0)", "SAMPLES = (0.01,)"),
        ("WEIGHINGS = 120", "WEIGHINGS = 8"),
    )
    monkeypatch.setattr(guard_process, "GUARD_DIRECTORY", altered_guard(tmp_path / "guard", *quick))
    running = start(SLEEP_FOREVER, session="b" * 12, **in_ledger(state_dir, "b" * 12))

    def is_thinned_out() -> bool:
        """A guard that gets no processor for a while has few samples, or none of the beginning."""
        ages = [age for age, _ in samples_in_record(state_dir)]
        return len(ages) >= 4 and ages[-1] > 0.5 and 2 * ages[0] < ages[-1]

    assert wait_until(is_thinned_out)
    report = running.end("closed", deadline_in())
    assert report is not None
    found = ExitReport.from_guard(report, session="b" * 12, browser="sleep").memory
    assert 4 <= len(found) < 8
    assert 2 * found[0][0] < found[-1][0], "thinned out evenly: the beginning is still there"
    assert all(0 < size < 10e6 for _, size in found)


def samples_in_record(state_dir: Path) -> tuple[tuple[float, int], ...]:
    found = [record for record in Ledger.open(state_dir).records() if isinstance(record, Record)]
    return found[0].memory if found else ()


def test_a_portable_guard_samples_memory(state_dir: Path) -> None:
    running = start(SLEEP_FOREVER, "portable", session="c" * 12, **in_ledger(state_dir, "c" * 12))
    assert wait_until(lambda: samples_in_record(state_dir))
    report = running.end("closed", deadline_in())
    assert report is not None
    assert report["memory"][0][1] > 0


# ------------------------------------------------------------------------------------------ the page


class Reader(HTMLParser):
    """The elements of a page, their attributes, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def hostile() -> str:
    life = ProcessExit(1, 1.0, HOSTILE, HOSTILE, ended=1.0)
    one = ended(
        reason=HOSTILE,
        processes=(life,),
        survivors=(Survivor(1, HOSTILE, "D", HOSTILE),),
        problems=(HOSTILE,),
        notes=(HOSTILE,),
    )
    names: Any = dict.fromkeys(("id", "browser", "owner_name", "label", "containment"), HOSTILE)
    session = dataclasses.replace(one.session, **names)
    session = dataclasses.replace(session, command=("curl", "https://me:secret@example.com"))
    return render(timeline_with(EndedSession(session, one.report)), UTC)


def test_hostile_names_stay_text(hostile: str) -> None:
    read = Reader(hostile)
    tags = {tag for tag, _ in read.elements}
    assert not tags & {"script", "img", "iframe", "link", "object", "a"}
    attributes = {name for _, given in read.elements for name in given}
    assert not {name for name in attributes if name.startswith("on") or name in ("src", "href", "style")}
    assert "".join(read.words).count("<script>alert(1)</script>") >= 11
    assert "\x1b" not in hostile


def test_the_page_holds_no_command_line_and_no_address(hostile: str) -> None:
    assert "secret" not in hostile
    assert "example.com" not in hostile


def test_the_policy_allows_only_the_pages_style_sheet(hostile: str) -> None:
    style = re.search(r"<style>(.*?)</style>", hostile, re.DOTALL)
    (policy,) = (e["content"] for _, e in Reader(hostile).elements if "http-equiv" in e)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "url(" not in style[1]
    assert "@import" not in style[1]


@pytest.mark.slow
def test_a_page_of_five_hundred_sessions_stays_below_2_mb() -> None:
    def processes(number: int) -> tuple[ProcessExit, ...]:
        facts = [(p, 1.0 + p, "chrome_crashpad", "killed") for p in range(number)]
        return tuple(ProcessExit(*fact, ended=5.0, adopted=True) for fact in facts)

    notes = ("Firefox is not bound to its driver: setpriv is missing.",) * 2
    for each in (14, 300):
        found = [
            ended(n, ago=20_000 - n * 30, processes=processes(each), notes=notes) for n in range(500)
        ]
        text = render(timeline_with(*found, seconds=21_600), UTC)
        assert text.count("<details") == 500
        assert len(text.encode()) < 2_000_000
    assert "286 more: " in text
    assert "browserkeeper history --session" in text


def test_survivors_and_adopted_processes_are_shown_first() -> None:
    ordinary = [ProcessExit(n, float(n), "chromium", "killed") for n in range(20)]
    special = [ProcessExit(98, 98.0, "adopted", "killed", adopted=True), ProcessExit(99, 99.0, "left")]
    (span,) = timeline_with(ended(processes=(*ordinary, *special))).sessions
    shown = timeline_page.most_relevant(span.processes, 4)
    assert [life.name for life in shown] == ["chromium", "chromium", "adopted", "left"]


@pytest.mark.parametrize("seconds", [1, 59, 3600, 86_400, 40 * 86_400])
def test_the_axis_has_few_and_round_ticks(seconds: float) -> None:
    window = timeline_axis.Window(Timeline(NOW - seconds, NOW, (a_span(NOW - 90 * 86_400),)), UTC)
    ticks = [tick.when for tick in window.ticks]
    assert 1 <= len(ticks) <= 7
    assert all(window.since <= tick <= window.until for tick in ticks)


def a_span(began: float) -> SessionSpan:
    return SessionSpan("0" * 12, "session", "chromium", "owner.py", 7, "subreaper", began)


def test_a_page_without_sessions() -> None:
    text = render(timeline_with(), UTC)
    assert "There was no session in this time." in text
    assert "NaN" not in text


# ------------------------------------------------------------------------------------ the command


def test_report_prints_outcomes_and_percentiles(state_dir: Path) -> None:
    assert run_shell("exit 3").returncode == 3
    assert run_shell("sleep 9", "--timeout", "0.2").returncode == 124
    text = cli("report", "--since", "10m").stdout
    assert ": 2 sessions, 0 alive, 0 not clean\n" in text
    assert re.search(r"^exited +1 +0 ", text, re.MULTILINE)
    timeout = re.search(r"^timeout +1 +0 .*", text, re.MULTILINE)
    assert timeout
    assert timeout.group().endswith(REASONS["timeout"])  # what the reason means
    assert re.search(r"^teardown +2 ", text, re.MULTILINE)
    document = cli_json("report")
    assert [session["reason"] for session in document["sessions"]] == ["timeout", "exited"]
    assert document["teardown_seconds"]["number"] == 2
    assert "not clean  " not in text.split("longest", 2)[-1], "there is none"


def test_report_prints_survivors_and_problems_with_their_session(
    capsys: pytest.CaptureFixture[str],
) -> None:
    left = ended(3, survivors=(Survivor(9, "stuck", "D", "nfs_wait"),), problems=("TMPDIR not removed",))
    report_command.show(timeline_with(ended(1), left))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith(": 2 sessions, 0 alive, 1 not clean")
    assert "000000000003: stuck (pid 9, D, nfs_wait)" in printed
    assert "000000000003: TMPDIR not removed" in printed


def test_the_page_replaces_the_file_that_a_link_points_to(state_dir: Path, tmp_path: Path) -> None:
    target, link = tmp_path / "page.html", tmp_path / "link.html"
    link.symlink_to(target)
    target.write_text("old")
    done = invoke("report", "--html", link)
    assert done.exit_code == 0
    assert re.fullmatch(rf"{link}: \d+ kB\n", done.output)
    assert link.is_symlink()
    assert target.read_text().endswith("</html>\n")
    assert os.listdir(tmp_path) == ["page.html", "link.html"] or len(os.listdir(tmp_path)) == 2
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask()
    assert cli("report", "--html", "-").stdout.startswith("<!doctype html>")


def umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--html", "."), "is a directory; name a file"),
        (("--html", ""), "is empty; name a file, or use -"),
        (("--html", "/nowhere/at/all.html"), "there is no directory /nowhere/at; create it first"),
        (("--html", "/dev/null"), "for standard output use --html -"),
        (("--html", "/proc/page.html"), "cannot be written: "),
        (("--html", "-", "--json"), "both write to standard output"),
        (("--since", "soon"), "'soon' is not a duration. Examples: 90s, 30m, 6h, 2d."),
        (("--since", "-1h"), "is not a duration"),
        (("--since", "0"), "is not a duration"),
        (("--since", "nan"), "is not a duration"),
        (("--since", "5y"), "is not a duration"),
    ],
)
def test_bad_input_is_a_usage_error_with_its_remedy(arguments: tuple[str, ...], says: str) -> None:
    done = invoke("report", *arguments)
    assert done.exit_code == 2
    assert says in " ".join(done.output.split())


# ------------------------------------------------------------------------------- in a real browser


@pytest.fixture
def real_page(state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a page with a Chromium that ran into its deadline, a driver that failed to start,
    a program whose name is markup, and a session that was not clean, with a label that is markup."""
    add_unclean_session(Ledger.open(state_dir))
    monkeypatch.setenv("FAKE_DRIVER", "http-500")
    bad = tmp_path / "<b>x<i>&quot;"
    shutil.copy("/bin/sleep", bad)
    assert cli("run", "--", str(bad), "0.1").returncode == 0
    with pytest.raises(LaunchError):
        browser("chromium", driver_path=PROGRAMS / "fake_driver.py", attempts=1).start()
    session = browser("chromium")
    with session:
        session.set_deadline(4, "<i>late</i>")
        assert wait_until(control_of(session).failure)
    assert session.report is not None
    target = tmp_path / "page.html"
    assert invoke("report", "--html", target).exit_code == 0
    return target.as_uri()


def add_unclean_session(ledger: Ledger) -> None:
    """Writes a session that was not clean into the history, since real ones are clean."""
    reason = "a-reason-of-another-program-that-goes-on-and-on-and-on"
    note = f"cookies of https://shop.example/?q={HOSTILE} and of javascript:alert(3)"
    one = ended(reason=reason, survivors=(Survivor(9, "stuck", "D", "nfs_wait"),), notes=(note,))
    session = dataclasses.replace(one.session, created=time.time() - 0.2, label=HOSTILE)
    report = dataclasses.replace(one.report, ended_at=time.time(), seconds={})
    ledger.retire(Record(ledger.record_path(session.id), session, (), ()), report)


BOXES = """
const box = e => { const r = e.getBoundingClientRect();
                   return {left: r.left, right: r.right, width: r.width, height: r.height}; };
return [...document.querySelectorAll('details')].map(d => ({
  words: d.querySelector('summary').innerText, bar: box(d.querySelector('summary rect')),
  track: box(d.querySelector('summary .track')), colour: getComputedStyle(
    d.querySelector('summary rect')).fill}));
"""
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


def resize(driver: webdriver.Chrome, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def is_whole(driver: webdriver.Chrome, selector: str) -> bool:
    """Is the element as a whole inside its parent?"""
    inner = driver.find_element(By.CSS_SELECTOR, selector).rect
    outer = driver.find_element(By.CSS_SELECTOR, f":has(> {selector})").rect
    inside = inner["x"] >= outer["x"] and inner["x"] + inner["width"] <= outer["x"] + outer["width"]
    return bool(inside and inner["y"] + inner["height"] <= outer["y"] + outer["height"] + 1)


@pytest.mark.chrome
def test_the_page_in_a_real_browser(real_page: str) -> None:
    options = webdriver.ChromeOptions()
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with browser("chromium", options=options) as driver:
        resize(driver, 1280)
        driver.get(real_page)
        # what is outside the window, and all before the first frame, has neither words nor boxes
        assert wait_until(lambda: all(seen["words"] for seen in driver.execute_script(BOXES)))
        sessions = driver.execute_script(BOXES)
        late, failed, run, left = sessions  # newest first
        assert "NOT CLEAN" in left["words"]
        assert "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&" in left["words"]
        assert not driver.find_elements(By.CSS_SELECTOR, "script, img, a, [onerror], [href], [src]")
        assert "<i>late</i>" in late["words"]
        assert "failed" in failed["words"]
        assert "<b>x" in run["words"]
        assert len({session["colour"] for session in sessions}) == 3
        for session in sessions:
            assert session["bar"]["width"] > 0 < session["bar"]["height"]
            assert session["track"]["left"] <= session["bar"]["left"]
            assert session["bar"]["right"] <= session["track"]["right"] <= 1280
        assert run["bar"]["left"] < failed["bar"]["left"] < late["bar"]["left"]
        assert late["bar"]["width"] > run["bar"]["width"], "4 s and more against 0.1 s and a start"

        summaries = driver.find_elements(By.CSS_SELECTOR, "summary")
        rows = driver.find_elements(By.CSS_SELECTOR, "details:first-of-type .processes tbody tr")
        assert len(rows) > 5
        assert not rows[0].is_displayed()
        summaries[0].click()
        assert rows[0].is_displayed()
        assert "chromedriver" in rows[0].text
        assert "killed by browserkeeper" in rows[0].text
        assert any("; adopted" in row.text for row in rows), "Chromium's crash handlers"
        summaries[2].send_keys(Keys.ENTER)
        program = driver.find_element(By.CSS_SELECTOR, "details:nth-of-type(3) .processes tbody tr")
        assert program.is_displayed()
        assert "<b>x" in program.text
        assert "by itself" in program.text
        path = driver.find_element(By.CSS_SELECTOR, "path.area")
        assert path.size["height"] > 20, "memory over time"
        driver.find_element(By.ID, "unusual").click()
        assert [s.is_displayed() for s in summaries] == [True, True, False, True]

        assert driver.execute_script(OVERFLOW) == 0
        assert is_whole(driver, ".chip.bad")
        resize(driver, 375)
        assert is_whole(driver, ".chip.bad")
        assert rows[0].find_element(By.CSS_SELECTOR, "svg").size["width"] > 200
        assert driver.execute_script("return innerWidth") == 375
        assert driver.execute_script(OVERFLOW) == 0
        assert driver.find_elements(By.CSS_SELECTOR, "b, i") != []
        assert not driver.find_elements(By.CSS_SELECTOR, "summary b, summary i, .processes b")
        assert driver.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_the_docs_name_the_script_that_makes_the_screenshot() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    assert "python -m scripts.report_picture" in text
    assert "](report.png)" in text
    assert (ROOT / "docs" / "report.png").stat().st_size < 200_000
