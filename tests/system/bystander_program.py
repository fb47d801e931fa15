"""The processes of the bystander campaign: bystanders, a job server, and what sessions consist of.

    python3 -I -S bystander_program.py ROLE NAME=VALUE...

Each process connects to the campaign's unix socket (``witness=PATH``), sends its ``label`` as one line,
and answers every byte with the same byte.  So the campaign knows which process lives, and that it is not
stopped.  A process ends when the campaign closes the connection, and after 10 minutes in any case.

``stay``    connects.  ``comm``: the name in ``ps``; ``uid``: becomes that user by exec(2), as gosu does;
            ``daemon=1``: two forks and a session of its own; ``children=N``.
``session`` the command of a session: itself, a child, a daemon, and, unless ``all-marked=1``, a daemon
            without environment; files in TMPDIR.  ``mount=DIRECTORY`` binds that directory below TMPDIR,
            ``tmpfs=DIRECTORY`` mounts a tmpfs and copies the files of the directory into it.
            ``server=PATH``: also a client of the job server, which runs a job with the label ``job``.
            ``drop=UID``: becomes that user first.
``server``  the job server, at ``path``: runs each job with the environment of its client, as at(1) and
            pm2 do.  ``late=1``: keeps the environment, and runs the job when a client sends ``go``.

With other arguments it is a driver that starts such a session and accepts WebDriver commands; its
options are in the environment variable BYSTANDER, one a line.  ``--version`` is answered as a driver or
as Chromium, by the name of the program.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

LIFETIME = 600
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

Options = dict[str, str]


def connect_and_answer(options: Options) -> NoReturn:
    """Say who this is, and answer the campaign until it closes the connection."""
    link = socket.socket(socket.AF_UNIX)
    link.connect(options["witness"])
    link.sendall(f"{options['label']}\n".encode())
    while byte := link.recv(1):
        link.sendall(byte)
    os._exit(0)


def in_child(role: str, options: Options, env: dict[str, str] | None = None) -> int:
    """Start a new process of this program in a child; returns its pid."""
    child = os.fork()
    if child == 0:
        execute(role, options, os.environ if env is None else env)
    return child


def execute(role: str, options: Options, env: os._Environ[str] | dict[str, str]) -> NoReturn:
    words = [f"{name}={value}" for name, value in options.items()]
    os.execve(sys.executable, [sys.executable, "-I", "-S", __file__, role, *words], env)


def as_daemon(role: str, options: Options, env: dict[str, str] | None = None) -> None:
    """Two forks and a session of its own, as in daemon(7)."""
    middle = os.fork()
    if middle == 0:
        os.setsid()
        in_child(role, options, env)
        os._exit(0)
    os.waitpid(middle, 0)


def become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def stay(options: Options) -> NoReturn:
    options = dict(options)
    if uid := int(options.pop("uid", "0")):
        become(uid)
        execute("stay", options, os.environ)  # makes its environment readable to its new user
    if options.pop("daemon", ""):
        as_daemon("stay", options)
        os._exit(0)
    for _ in range(int(options.pop("children", "0"))):
        in_child("stay", options)
    if name := options.get("comm"):
        with open("/proc/self/comm", "w") as file:
            file.write(name)
    signal.alarm(LIFETIME)
    connect_and_answer(options)


# ---------------------------------------------------------------------------------- a session's command


def populate(options: Options) -> None:
    """The processes and files of a session, as browsers leave them; all processes but this one."""
    label = {"witness": options["witness"], "label": options["label"]}
    in_child("stay", {**label, "comm": "chromium"})
    as_daemon("stay", {**label, "comm": "chrome_crashpad"})
    if not options.get("all-marked"):  # a renderer has overwritten its environment
        as_daemon("stay", {**label, "comm": "chromium"}, {})
    place = os.environ.get("TMPDIR", "/tmp")
    if os.path.basename(place).startswith("bk-"):
        os.makedirs(f"{place}/org.chromium.Chromium.profile/Default", exist_ok=True)
        for name in ("Cookies", "History"):
            with open(f"{place}/org.chromium.Chromium.profile/Default/{name}", "w") as file:
                file.write(name * 1000)
        mount_below(place, options)
    if path := options.get("server"):
        be_client(path, {**label, "label": options["job"]})


def mount_below(place: str, options: Options) -> None:
    """Mount what the options name; the campaign unmounts it."""
    for kind in ("mount", "tmpfs"):
        if source := options.get(kind):
            os.mkdir(f"{place}/mounted")
            words = ["--bind", source] if kind == "mount" else ["-t", "tmpfs", "campaign"]
            run(["mount", *words, f"{place}/mounted"])
            if kind == "tmpfs":
                run(["cp", "-a", f"{source}/.", f"{place}/mounted"])


def run(words: list[str]) -> None:
    if (status := os.spawnvp(os.P_WAIT, words[0], words)) != 0:
        sys.exit(f"{words}: exit status {status}")


def be_client(path: str, job: Options) -> None:
    """Hand this environment and a job to the server; returns when the server has them."""
    link = socket.socket(socket.AF_UNIX)
    link.connect(path)
    words = [f"{name}={value}" for name, value in job.items()]
    env = [f"{name}={value}" for name, value in os.environ.items()]
    link.sendall("\n".join([*words, "", *(line for line in env if "\n" not in line)]).encode())
    link.shutdown(socket.SHUT_WR)
    link.recv(1)


def session(options: Options) -> NoReturn:
    if uid := int(options.pop("drop", "0")):
        become(uid)
        execute("session", options, os.environ)
    signal.alarm(LIFETIME)
    populate(options)
    connect_and_answer(options)


# ---------------------------------------------------------------------------------- the job server


def serve(options: Options) -> NoReturn:
    """``uid``: of the jobs; ``daemon=1``: they are daemons, else children of the server."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(options["path"])
    os.chmod(options["path"], 0o777)
    server.listen(16)
    if os.fork() == 0:
        connect_and_answer(options)  # the server is a bystander too
    signal.alarm(LIFETIME)
    waiting: list[tuple[Options, dict[str, str]]] = []
    while True:
        link, _ = server.accept()
        with link.makefile("rb") as file:
            text = file.read().decode()
        if text != "go":
            head, _, env = text.partition("\n\n")
            waiting.append((pairs(head.splitlines()), pairs(env.splitlines())))
        while waiting and (text == "go" or not options.get("late")):
            launch(options, *waiting.pop())
        link.sendall(b"+")
        link.close()


def launch(options: Options, job: Options, env: dict[str, str]) -> None:
    job = {**job, **{name: options[name] for name in ("uid",) if name in options}}
    if options.get("daemon"):
        as_daemon("stay", job, env)
    else:
        in_child("stay", job, env)


def pairs(lines: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


# ---------------------------------------------------------------------------------- the driver


CAPABILITIES = '{"value":{"sessionId":"campaign","capabilities":{"browserName":"chrome"}}}'


def drive(options: Options) -> NoReturn:
    """Print the line that the real driver prints, and accept every command."""
    signal.alarm(LIFETIME)
    server = socket.create_server(("127.0.0.1", 0))
    populate(options)
    if os.fork() == 0:
        server.close()
        connect_and_answer(options)
    port = server.getsockname()[1]
    print(f"ChromeDriver was started successfully on port {port}.", flush=True)
    while True:
        link, _ = server.accept()
        if os.fork() == 0:
            answer(link)
        link.close()


def answer(link: socket.socket) -> NoReturn:
    """All requests of one connection."""
    file = link.makefile("rb")
    while first := file.readline():
        length = 0
        while (line := file.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        file.read(length)
        body = CAPABILITIES if first.startswith(b"POST /session ") else '{"value":null}'
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        link.sendall((head + body).encode())
    os._exit(0)


def main() -> None:
    if "--version" in sys.argv:
        name = os.path.basename(sys.argv[0])
        print("ChromeDriver 156.0.0.0" if name == "chromedriver" else "Chromium 156.0.0.0")
    elif role := {"stay": stay, "session": session, "server": serve}.get(sys.argv[1]):
        role(pairs(sys.argv[2:]))
    else:
        drive(pairs(os.environ["BYSTANDER"].splitlines()))


if __name__ == "__main__":
    main()
