"""The soak through the server: leases of several client processes, faults among them, a witness.

    python -m tests.server.soak --n 2000 [--seed S] [--leases-per-browser 4] [--over unix|tcp|both]

Client processes (``soak_client.py``) take leases from one ``browserkeeper serve``.  Each lease finds no
trace of another, leaves a token of its own, and finds that token alone at its end.  Meanwhile clients
are killed and stopped and lose connections; the drivers, browsers, tabs and guards of the server are
killed; the server itself is killed, or drained, and started again.

After each batch no client has a lease, and the witness looks: the server must list none, all places must
be free, and a sample of the server's memory, threads, descriptors, processes and files is taken.  At the
end the soak checks: every task had a lease in the end, no session was given twice, no lease failed
without a fault that reaches it, no measure grew while one server lived, and nothing is left.

The seed repeats the choice of the faults, but not the machine's timing.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import http.client
import itertools
import json
import os
import queue
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.pool.soak import (
    DRIVERS,
    FEWEST_SAMPLES,
    ROOT,
    START_LIMIT,
    TOLERANCE,
    Before,
    Sample,
    Sampler,
    growth,
    places,
    site,
    what_grew,
)
from tests.support import witness
from tests.support.waiting import wait_until

PROGRAM = Path(__file__).with_name("soak_client.py")
ATTEMPTS = 8
"""Of a task; each but the last may fail for a fault that was injected into another one."""
GONE = 120.0
"""Seconds for the session of a dead client to end; over TCP the server waits for 15 s by itself."""
SETTLE = 120.0
"""Seconds for the browsers of a killed server to end, and for a drained server to exit."""
SHOWN = 25
"""How many complaints are printed."""
FOR_EACH_END = 500
"""The server is killed once, and drained once, for so many leases."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """``act``: an order of ``soak_client.py``.  ``at``: the message of the client at which the soak
    sends the signal to the ``victim``: "client", "browser", "driver", "tab", "guard", "server", or ""
    for no signal.  ``fails``: the lease must fail (True), must not (False), or may (None); ``by``: with
    which errors."""

    weight: int
    act: str = "use"
    victim: str = ""
    at: str = "has"
    number: signal.Signals = signal.SIGKILL
    fails: bool | None = False
    by: tuple[str, ...] = ()


FAULTS = {
    "kill client": Fault(8, victim="client"),
    "kill client that asks": Fault(6, victim="client", at="asking"),
    "kill client in a command": Fault(6, "hang", "client", at="busy"),
    "stop client": Fault(6, victim="client", number=signal.SIGSTOP),
    "drop connection": Fault(8, "drop"),
    "drop connection that asks": Fault(6, "drop while asking"),
    "exit without an end": Fault(4, "leave"),
    "expire": Fault(4, "expire", fails=True, by=("LeaseTimeout", "SessionTimeout")),
    "kill browser": Fault(6, victim="browser", fails=True, by=("BrowserDied",)),
    "kill driver": Fault(6, victim="driver", fails=True, by=("BrowserDied",)),
    "kill tab": Fault(6, victim="tab", fails=None),
    "kill guard": Fault(4, victim="guard", fails=None),
    "kill server": Fault(0, victim="server", fails=True),
    "drain server": Fault(0, victim="server", number=signal.SIGTERM),
}
OF_BROWSERS = ("browser", "driver", "tab", "guard")
"""Victims that a lease may share with its neighbours."""


@dataclasses.dataclass(frozen=True)
class Settings:
    n: int
    seed: int
    leases_per_browser: int = 1
    size: int = 2
    clients: int = 4
    over: str = "both"
    share: float = 0.2
    """The share of the tasks that have a fault."""
    batch: int = 20
    patience: float = 120.0
    """Seconds to wait for a lease, and for the server to have all its browsers again."""
    hung: int = 0
    """How many leases may lose their browser without a fault that was injected: on a machine whose
    processes get too little time, the server gives up browsers that do not answer."""
    planted: str = ""
    """A fault of the server itself, as a control; see ``planted.py``."""

    @property
    def seats(self) -> int:
        return self.size * self.leases_per_browser


@dataclasses.dataclass(frozen=True)
class Task:
    number: int
    fault: str
    """A key of FAULTS, or ""."""

    def __str__(self) -> str:
        return f"task {self.number} ({self.fault or 'no fault'})"


def draw(settings: Settings) -> list[Task]:
    """Each fault once where there are so many, then at random."""
    rng = random.Random(settings.seed)
    number = round(settings.n * settings.share)
    ends = max(1, settings.n // FOR_EACH_END)
    faults = [*FAULTS, *["kill server", "drain server"] * (ends - 1)][:number]
    weights = [fault.weight for fault in FAULTS.values()]
    faults += rng.choices(list(FAULTS), weights, k=number - len(faults))
    faults += [""] * (settings.n - len(faults))
    rng.shuffle(faults)
    return [Task(number, fault) for number, fault in enumerate(faults)]


# ------------------------------------------------------------------ the server


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Unix(http.client.HTTPConnection):
    def __init__(self, path: Path, limit: float):
        super().__init__("localhost", timeout=limit)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Server:
    """``browserkeeper serve``, which may be ended and started again.  ``life`` counts its starts."""

    def __init__(self, settings: Settings, records: Path, sampler: Sampler):
        self.settings, self.sampler, self.records = settings, sampler, records
        self.socket, self.log = records / "s", records / "log"
        self.token = secrets.token_hex(16)
        (records / "token").write_text(self.token)
        (records / "token").chmod(0o600)
        self.port = free_port()
        self.life = 0
        self.up = threading.Event()
        self.lock = threading.Lock()
        """Held while the server is being ended, until it is there again."""
        self.clients: set[int] = set()
        """The pids of the clients, which are no part of the server."""
        self.complaints: list[str] = []

    def start(self) -> None:
        self._launch()
        for _ in range(0 if self.life else 3):  # after that, clients have its address
            wait_until(lambda: self.process.poll() is not None or self._is_there(), START_LIMIT, 0.1)
            if self.process.poll() != 2:
                break
            self.port = free_port()  # another program has taken the port meanwhile
            self._launch()
        assert wait_until(self._answers, START_LIMIT, 0.1), self.log.read_text()
        self.life += 1
        self.up.set()

    def _launch(self) -> None:
        program = "tests.server.planted" if self.settings.planted else "browserkeeper"
        words = [sys.executable, "-m", program, "serve", "--listen", f"unix:{self.socket}"]
        words += ["--listen", f"127.0.0.1:{self.port}", "--token-file", str(self.records / "token")]
        words += ["--max", str(self.settings.size), "--min-idle", str(self.settings.seats)]
        words += ["--leases-per-browser", str(self.settings.leases_per_browser)]
        words += ["--queue-timeout", str(self.settings.patience), "--drain-timeout", str(SETTLE)]
        planted = {**os.environ, "PLANTED": self.settings.planted}
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(words, cwd=ROOT, stderr=file, env=planted)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return self._is_there()

    def _is_there(self) -> bool:
        with contextlib.suppress(OSError):
            return self.ask("GET", "/status")[0] == 200
        return False

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = Unix(self.socket, 2 * self.settings.patience)
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode())
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())["value"]
        finally:
            connection.close()

    def labels(self) -> list[str]:
        """Those of the leases that it has now."""
        return [one["label"] for one in self._sessions()]

    def facts(self, label: str) -> list[dict[str, Any]]:
        """What it says of the leases of this label."""
        return [one for one in self._sessions() if one["label"] == label]

    def _sessions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", "/browserkeeper/sessions")[1]
        return found

    def end(self, number: signal.Signals) -> bool:
        """Begin its end.  False if another thread is at it."""
        if not self.lock.acquire(blocking=False):
            return False
        self.up.clear()
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()
        return True

    def start_again(self) -> None:
        """After :meth:`end`: wait until it and all of its browsers have ended; then start it."""
        self.wait_for_end()
        self.start()
        self.lock.release()

    def wait_for_end(self) -> None:
        try:
            status = self.process.wait(SETTLE * 2)
        except subprocess.TimeoutExpired:
            self.complaints.append("the server did not exit")
            self.process.kill()
            status = self.process.wait()
        if status not in (0, -signal.SIGKILL):
            self.complaints.append(f"the server exited with {status}")
        if not wait_until(lambda: not witness.alive(self.below()), SETTLE, 0.05):
            self.complaints.append(f"a server has left {witness.alive(self.below())}")
        if not wait_until(lambda: not self.files(), SETTLE, 0.05):
            self.complaints.append(f"a server has left {self.files()}")
        witness.reap_orphans({*self.sampler.known, *self.clients})

    def files(self) -> list[str]:
        live = self.records / "live"
        found = [*self.sampler.place.iterdir(), *(live.iterdir() if live.exists() else ())]
        return sorted(map(str, found))

    def below(self) -> list[witness.Seen]:
        """What the soak has started, without the clients: the server and what is of it."""
        return witness.new_below(os.getpid(), {*self.sampler.known, *self.clients})

    def of_browser(self, browser: str, kind: str) -> list[witness.Seen]:
        """The processes of one kind of OF_BROWSERS; ``browser``: its id."""
        found = []
        below = self.below()
        drivers = {one.pid for one in below if one.name in DRIVERS}
        for one in below:
            words = command_line(one.pid)
            is_of = f"bk-{browser}" in words or f"bk-guard {browser}" in words
            child = one.parent in drivers and is_of and "--type=" not in words
            # The browser of an isolated driver is a guard's child, and bk-browser stands for it.
            by_guard = is_of and "--remote-debugging-pipe" in words and "--type=" not in words
            main = one.name != "bk-browser" and (child or by_guard)
            if kind == "driver" and child:
                found += [seen for seen in below if seen.pid == one.parent]
            elif (
                (kind == "browser" and main)
                or (kind == "tab" and is_of and "--type=renderer" in words)
                or (kind == "guard" and "bk-guard" in words and is_of)
            ):
                found.append(one)
        return found

    def sample(self) -> Sample:
        below = self.below()
        files, size = witness.contents(self.sampler.place)
        pid = self.process.pid
        return Sample(
            processes=len(witness.alive(below)),
            zombies=len(witness.zombies(below)),
            memory=witness.pss([one for one in below if one.pid != pid]),
            own_memory=witness.pss([one for one in below if one.pid == pid]),
            descriptors=len(os.listdir(f"/proc/{pid}/fd")),
            threads=len(os.listdir(f"/proc/{pid}/task")),
            files=files,
            bytes=size,
        )


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


# ------------------------------------------------------------------ the clients


class Client:
    """A process that runs ``soak_client.py``."""

    def __init__(self, server: Server, over: str):
        where = f"127.0.0.1:{server.port}" if over == "tcp" else f"unix:{server.socket}"
        words = [sys.executable, "-S", str(PROGRAM), where, server.token if over == "tcp" else ""]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)
        self.pid, self._server = self.process.pid, server
        server.clients.add(self.pid)

    def tell(self, order: Any = None) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("\n" if order is None else json.dumps(order) + "\n")
            self.process.stdin.flush()

    def messages(self) -> Iterator[dict[str, Any]]:
        """Until the process ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)

    def end(self) -> None:
        self.process.kill()
        with self.process:
            pass
        # The pid stays in ``clients`` until its zombie is gone, so that it never counts as the server's.
        self._server.clients.discard(self.pid)


# ------------------------------------------------------------------ the run


@dataclasses.dataclass
class Attempt:
    task: Task
    fault: Fault | None
    token: str
    life: int
    began: float
    session: str = ""
    browser: str = ""
    done: bool = False
    """The client has come to the end of the order; else it has died."""
    failure: str = ""
    during_end: bool = False
    """The server was ended before the client had a lease, or was killed."""


class Soak:
    def __init__(self, settings: Settings, server: Server, url: str):
        self.settings, self.server, self.url = settings, server, url
        self.complaints: list[str] = []
        self.answered: collections.Counter[int] = collections.Counter()
        self.faults: collections.Counter[str] = collections.Counter()
        self.samples: dict[int, list[Sample]] = collections.defaultdict(list)
        self.freed: list[float] = []
        """Seconds from the death of a client to the end of its lease."""
        self.unexplained: list[str] = []
        self.leases = 0
        self._sessions: set[str] = set()
        self._hurt: dict[str, float] = {}
        """When a process of these browsers was killed."""
        self._drains: list[int] = []
        self._lock = threading.Lock()
        self._began = time.monotonic()
        ways = itertools.cycle(["unix", "tcp"] if settings.over == "both" else [settings.over])
        self._ways = list(itertools.islice(ways, settings.clients))
        self._clients: list[Client | None] = [None] * settings.clients

    def run(self, tasks: list[Task]) -> None:
        try:
            for start in range(0, len(tasks), self.settings.batch):
                batch: queue.SimpleQueue[Task] = queue.SimpleQueue()
                for task in tasks[start : start + self.settings.batch]:
                    batch.put(task)
                workers = [
                    threading.Thread(target=self._work, args=(number, batch))
                    for number in range(self.settings.clients)
                ]
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()
                self._rest(is_last=start + self.settings.batch >= len(tasks))
        finally:
            for client in self._clients:
                if client is not None:
                    client.end()

    def _work(self, number: int, batch: queue.SimpleQueue[Task]) -> None:
        """What one thread does for one client after another."""
        try:
            while True:
                try:
                    task = batch.get_nowait()
                except queue.Empty:
                    return
                for fault in (FAULTS.get(task.fault), *[None] * (ATTEMPTS - 1)):
                    if self._attempt(number, task, fault):
                        break
                else:
                    self._complain(f"{task} had no lease in {ATTEMPTS} attempts")
        except BaseException as error:
            self._complain(f"client {number}: {type(error).__name__}: {error}")
            raise

    def _complain(self, text: str) -> None:
        with self._lock:
            self.complaints.append(text)
        print(f"     ! {text}", flush=True)

    def _attempt(self, number: int, task: Task, fault: Fault | None) -> bool:
        """Whether the task has had its lease: to its end, or to that of its client."""
        if not self.server.up.wait(5 * SETTLE):
            raise TimeoutError("the server did not come back")
        client = self._clients[number] = self._clients[number] or Client(self.server, self._ways[number])
        attempt = Attempt(
            task, fault, f"t{task.number}-{secrets.token_hex(6)}", self.server.life, time.monotonic()
        )
        client.tell(
            {
                "token": attempt.token,
                "act": fault.act if fault else "use",
                "site": self.url,
                "patience": self.settings.patience,
            }
        )
        ends_server = False
        for message in client.messages():
            kind = message["is"]
            if kind == "got":
                self._note_lease(attempt, message)
            if fault and fault.victim and kind == fault.at:
                ends_server |= self._inject(attempt, fault, client)
            if kind == "has":
                client.tell()
            if kind == "done":
                attempt.done, attempt.failure = True, message["failure"]
                for found in message["found"]:
                    self._complain(f"{task} found {found}")
                break
        if not attempt.done:
            client.end()
            self._clients[number] = None
            self._wait_for_end(attempt)
        if ends_server:
            self.server.start_again()
        return self._judge(attempt)

    def _note_lease(self, attempt: Attempt, message: dict[str, Any]) -> None:
        attempt.session, attempt.browser = message["session"], message["browser"]
        with self._lock:
            self.leases += 1
            is_new = attempt.session not in self._sessions
            self._sessions.add(attempt.session)
        if not is_new:
            self._complain(f"{attempt.task} got session {attempt.session}, which was given before")

    def _inject(self, attempt: Attempt, fault: Fault, client: Client) -> bool:
        """Send the signal.  True if the server has to be started again."""
        print(f"     - {attempt.task}", flush=True)
        if fault.victim == "server":
            return self.server.end(fault.number)
        if fault.victim == "client":
            os.kill(client.pid, fault.number)
            if fault.number == signal.SIGSTOP:
                time.sleep(1)
                os.kill(client.pid, signal.SIGCONT)
            return False
        victims = self.server.of_browser(attempt.browser, fault.victim)
        if not victims:
            if self.server.up.is_set() and self.server.life == attempt.life:  # else they end with it
                self._complain(f"{attempt.task}: its browser {attempt.browser} has no {fault.victim}")
            return False
        self._hurt[attempt.browser] = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(victims).pid, fault.number)
        self._hurt[attempt.browser] = time.monotonic()
        return False

    def _wait_for_end(self, attempt: Attempt) -> None:
        """The client is dead: its lease must end."""
        began = time.monotonic()
        while self.server.life == attempt.life and self.server.up.is_set():
            try:
                if attempt.token not in self.server.labels():
                    self.freed.append(time.monotonic() - began)
                    return
            except (OSError, http.client.HTTPException):
                pass  # the server was ended
            if time.monotonic() > began + GONE:
                facts = self.server.facts(attempt.token)
                self._complain(
                    f"{attempt.task}: the lease of the dead client is there after {GONE} s: {facts}"
                )
                return
            time.sleep(0.02)

    def _judge(self, attempt: Attempt) -> bool:
        """Whether the task is done.  Complains about a failure that has no reason, and about a success
        where the lease had to fail."""
        task, fault, failure = attempt.task, attempt.fault, attempt.failure
        is_fault_of_client = fault is not None and (fault.victim == "client" or fault.act == "leave")
        server_ended = self.server.life != attempt.life or not self.server.up.is_set()
        if not attempt.done and not is_fault_of_client:
            self._complain(f"{task}: its client has died")
        if fault is not None:
            self.faults[task.fault] += 1
        if not failure:
            if fault is not None and fault.fails and fault.victim != "server":
                self._complain(f"{task} did not fail")
            self.answered[task.number] += 1
            return True
        expected = fault is not None and fault.fails is not False
        if expected and fault is not None and fault.by:
            if not (failure.startswith(fault.by) or server_ended or self._is_hurt(attempt)):
                self._complain(f"{task} failed with {failure}")
        elif not (expected or server_ended or self._is_hurt(attempt)):
            with self._lock:
                self.unexplained.append(f"{task} failed: {failure}")
            print(f"     ? {self.unexplained[-1]}", flush=True)
        return False

    def _is_hurt(self, attempt: Attempt) -> bool:
        """Was a process of its browser killed?  Of a lease that was not made, any browser counts."""
        if attempt.browser:
            return attempt.browser in self._hurt
        return any(at >= attempt.began for at in list(self._hurt.values()))  # other threads add to it

    # -- between two batches

    def _rest(self, *, is_last: bool) -> None:
        """No client has a lease now: check that the server knows, and take a sample."""
        server, patience = self.server, self.settings.patience
        if not wait_until(lambda: not server.labels(), GONE, 0.05):
            self._complain(f"leases without a client: {server.labels()}")
        if is_last or len(self.samples[server.life]) % 4 == 2:
            self._call_the_roll()
        browsers = self.settings.size
        if not wait_until(lambda: len(self._drivers()) == browsers, patience, 0.1):
            self._complain(f"{len(self._drivers())} browsers instead of {browsers}")
        witness.reap_orphans({*server.sampler.known, *server.clients, server.process.pid})
        wait_until_quiet(lambda: len(witness.alive(server.below())))
        sample = server.sample()
        self.samples[server.life].append(sample)
        print(
            f"{sum(self.answered.values()):5} leases  {time.monotonic() - self._began:5.0f} s  "
            f"server {server.life}: {sample.own_memory / 2**20:.0f} MB, {sample.threads} threads, "
            f"fds {sample.descriptors}; {sample.processes} processes {sample.memory / 2**20:.0f} MB, "
            f"{sample.files} files {sample.bytes / 2**20:.1f} MB",
            flush=True,
        )

    def _drivers(self) -> list[witness.Seen]:
        return [one for one in witness.alive(self.server.below()) if one.name in DRIVERS]

    def _call_the_roll(self) -> None:
        """Take all places at once: none may be lost."""
        wanted = {"capabilities": {"alwaysMatch": {"browserkeeper:timeout": self.settings.patience}}}
        answers = []
        for _ in range(self.settings.seats):
            answers.append(self.server.ask("POST", "/session", wanted))
        held = [value["sessionId"] for status, value in answers if status == 200]
        if len(held) != self.settings.seats:
            failed = [value["message"] for status, value in answers if status != 200]
            self._complain(f"{len(held)} of {self.settings.seats} places could be had: {failed}")
        for session in held:
            self.server.ask("DELETE", f"/session/{session}")

    # -- the end

    def check(self, tasks: list[Task]) -> None:
        """Add the complaints about the whole run."""
        self.complaints += [
            f"{task} had {self.answered[task.number]} leases"
            for task in tasks
            if self.answered[task.number] != 1
        ]
        if len(self.unexplained) > self.settings.hung:
            self.complaints += self.unexplained
        for life, samples in self.samples.items():
            if len(samples) >= FEWEST_SAMPLES:
                self.complaints += [f"server {life}: {text}" for text in what_grew(samples)]


def wait_until_quiet(number: Any, seconds: float = 1.0, limit: float = 60.0) -> None:
    """Wait until ``number()`` has had the same value for so many seconds."""
    until = time.monotonic() + limit
    value, since = number(), time.monotonic()
    while time.monotonic() < min(until, since + seconds):
        time.sleep(0.1)
        if (now := number()) != value:
            value, since = now, time.monotonic()


@dataclasses.dataclass
class Result:
    soak: Soak
    complaints: list[str]
    peak: int
    seconds: float


def run(settings: Settings) -> Result:
    """Run the whole soak.  The calling process must be a subreaper (``witness.become_init``)."""
    tasks, began = draw(settings), time.monotonic()
    with places() as (tmpdirs, records), site() as url:
        sampler = Sampler(tmpdirs)
        before = Before(sampler, records)
        server = Server(settings, records, sampler)
        soak = Soak(settings, server, url)
        with sampler:
            server.start()
            try:
                soak.run(tasks)
            finally:
                server.end(signal.SIGTERM)
                server.wait_for_end()
        soak.complaints += [*server.complaints, *before.what_is_left()]
        if server.socket.exists():
            soak.complaints.append("the socket is left")
        witness.clean_up(sampler.known)
    soak.check(tasks)
    if sampler.peak > settings.size + 1:
        soak.complaints.append(f"{sampler.peak} drivers at a time")
    return Result(soak, soak.complaints, sampler.peak, time.monotonic() - began)


def summarise(result: Result, settings: Settings) -> int:
    soak = result.soak
    longest = max(soak.samples.values(), key=len)
    print(f"\n{'at rest':12} {'first tenth':>14} {'last tenth':>14} {'allowed':>14}")
    for measure in TOLERANCE if len(longest) >= FEWEST_SAMPLES else ():
        print(f"{measure:12}", *(f"{value:14,.0f}" for value in growth(longest, measure)))
    print(f"\nfaults: {', '.join(f'{n} {name}' for name, n in sorted(soak.faults.items()))}")
    freed = sorted(soak.freed) or [0.0]
    print(
        f"leases of dead clients ended after {freed[len(freed) // 2]:.2f} s (median), {freed[-1]:.2f} s"
    )
    print(
        f"{len(soak.unexplained)} leases lost their browser without a fault; at most {result.peak} "
        f"drivers at a time; the server was started {soak.server.life} times"
    )
    print(
        f"\n{settings.n} tasks, {soak.leases} leases in {result.seconds:.0f} s, seed {settings.seed}; "
        f"{len(result.complaints)} complaints"
    )
    print(*result.complaints[:SHOWN], sep="\n")
    return 1 if result.complaints else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--leases-per-browser", type=int, default=1)
    parser.add_argument("--size", type=int, default=2, help="browsers")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--over", choices=("unix", "tcp", "both"), default="both")
    parser.add_argument("--share", type=float, default=0.2, help="share of the leases with a fault")
    parser.add_argument("--batch", type=int, default=20, help="number of leases between two samples")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds to wait for a lease")
    parser.add_argument("--hung", type=int, default=0, help="browsers that may be given up")
    parser.add_argument("--planted", default="", help="a fault of the server: see planted.py")
    settings = Settings(**vars(parser.parse_args()))
    print(f"seed {settings.seed}", flush=True)
    witness.become_init()
    sys.exit(summarise(run(settings), settings))


if __name__ == "__main__":
    main()
