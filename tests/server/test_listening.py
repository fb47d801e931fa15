"""Where the server listens, and whom the sockets let in."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from browserkeeper.errors import ConfigError
from browserkeeper.server.listening import Address, Listening, open_all, take_from_systemd
from tests.support.other_user import NOBODY, shell_as_nobody


@pytest.fixture
def opened() -> Iterator[list[Listening]]:
    """What a test has opened, which is closed after it."""
    mine: list[Listening] = []
    yield mine
    for listening in mine:
        listening.close()


def unix(path: Path) -> Address:
    return Address.parse(f"unix:{path}")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:4444", "127.0.0.1", 4444),
        ("[::1]:0", "::1", 0),
        ("localhost:65535", "localhost", 65535),
        (":4444", "", 4444),
        ("*:4444", "*", 4444),
    ],
)
def test_an_address_has_a_host_and_a_port(text: str, host: str, port: int) -> None:
    found = Address.parse(text)
    assert (found.host, found.port, found.path) == (host, port, "")


def test_a_relative_path_is_that_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Address.parse("unix:bk.sock").path == str(tmp_path / "bk.sock")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("4444", "neither"),
        ("localhost", "neither"),
        ("localhost:http", "neither"),
        ("localhost:65536", "neither"),
        ("localhost:-1", "neither"),
        ("localhost:²", "neither"),
        ("::1:4444", "in brackets"),
        ("unix:", "path of a file"),
        ("unix:/tmp/", "path of a file"),
        ("unix:@name", "abstract"),
        ("unix:/tmp/" + "x" * 200, "107 bytes"),
        ("unix:/tmp/" + "é" * 60, "107 bytes"),
    ],
)
def test_an_address_that_is_none_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        Address.parse(text)
    assert "--listen" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["sekret@127.0.0.1:4444", "http://sekret@localhost", "user:sekret@h:1", "sekret@h"]
)
def test_a_token_in_the_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError, match="--token-file") as caught:
        Address.parse(text)
    assert "sekret" not in str(caught.value)


def test_a_socket_is_its_users_alone_whatever_the_umask(tmp_path: Path, opened: list[Listening]) -> None:
    before = os.umask(0)
    try:
        opened.append(open_all([unix(tmp_path / "a")]))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    opened[0].close()
    assert not (tmp_path / "a").exists()


@pytest.mark.root
def test_only_its_group_may_use_a_socket_with_a_group(tmp_path: Path, opened: list[Listening]) -> None:
    """The control has no group, and the same user may not connect."""
    folder = Path("/tmp", f"bk-group-{os.getpid()}")
    folder.mkdir(mode=0o755)
    try:
        opened.append(open_all([unix(folder / "with")], group=str(NOBODY)))
        opened.append(open_all([unix(folder / "without")]))
        facts = (folder / "with").stat()
        assert (stat.S_IMODE(facts.st_mode), facts.st_gid, facts.st_uid) == (0o660, NOBODY, 0)
        ask = "test -w $1 && echo may || echo may not"
        assert shell_as_nobody(ask, folder / "with").strip() == "may"
        assert shell_as_nobody(ask, folder / "without").strip() == "may not"
    finally:
        for one in opened:
            one.close()
        folder.rmdir()


@pytest.mark.parametrize(
    ("group", "listen", "why"),
    [("no-such-group", "unix:{}", "no such group"), ("root", "127.0.0.1:0", "unix socket")],
)
def test_a_group_that_cannot_be_given_is_refused(
    tmp_path: Path, group: str, listen: str, why: str
) -> None:
    address = Address.parse(listen.format(tmp_path / "a"))
    with pytest.raises(ConfigError, match=f"--group.*{why}"):
        open_all([address], group=group, has_token=True)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------- what a dead server has left


def a_server_killed_at(path: Path) -> None:
    script = (
        "import os, signal, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); "
        "s.listen(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -9


def test_the_socket_file_of_a_killed_server_is_replaced(tmp_path: Path, opened: list[Listening]) -> None:
    path = tmp_path / "a"
    a_server_killed_at(path)
    assert path.exists()
    opened.append(open_all([unix(path)]))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("listens", [True, False], ids=["listening", "bound only"])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_the_socket_of_a_living_program_is_left_alone(
    tmp_path: Path, kind: socket.SocketKind, listens: bool
) -> None:
    """A program that has just bound its socket does not listen yet."""
    path = tmp_path / "a"
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(str(path))
        if listens and kind != socket.SOCK_DGRAM:
            other.listen()
        before = path.lstat()
        with pytest.raises(ConfigError, match="another program"):
            open_all([unix(path)])
        assert path.lstat() == before


def test_a_living_server_whose_queue_is_full_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(str(path))
        with pytest.raises(ConfigError, match="another program"):
            open_all([unix(path)])
        for client in clients:
            client.close()
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link to a socket", "link to nothing"])
def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    if kind == "file":
        path.write_text("mine")
    elif kind == "directory":
        path.mkdir()
    else:
        if kind == "link to a socket":
            a_server_killed_at(other)
        path.symlink_to(other)
    with pytest.raises(ConfigError, match="not a socket"):
        open_all([unix(path)])
    assert os.path.lexists(path)


@pytest.mark.root
def test_the_dead_socket_of_another_user_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    a_server_killed_at(path)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="another user"):
        open_all([unix(path)])
    assert path.exists()


@pytest.mark.parametrize("mode", [0o777, 0o773])
def test_a_directory_that_all_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    """The control has the sticky bit, as /tmp has: there only the owner can remove a file."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ConfigError, match="exchange the socket"):
        open_all([unix(folder / "a")])
    folder.chmod(mode | stat.S_ISVTX)
    open_all([unix(folder / "a")]).close()


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory cannot be used"):
        open_all([unix(tmp_path / "none" / "a")])


def test_what_another_server_has_put_at_the_path_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    first = open_all([unix(path)])
    path.unlink()
    second = open_all([unix(path)])
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()


def test_where_one_address_cannot_be_had_nothing_stays_open(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Address("", "127.0.0.1", other.getsockname()[1])
        with pytest.raises(ConfigError, match=r"Cannot listen on 127\.0\.0\.1"):
            open_all([unix(tmp_path / "a"), taken], has_token=True)
    assert not (tmp_path / "a").exists()


# ------------------------------------------------------------------------------------------------ TCP


def test_tcp_without_a_token_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--token-file"):
        open_all([unix(tmp_path / "a"), Address.parse("127.0.0.1:0")], insecure=True)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("text", ["0.0.0.0:0", "[::]:0", "*:0", ":0", "0:0", "0x0:0", "[0:0::0]:0"])
def test_all_interfaces_need_insecure(text: str, opened: list[Listening]) -> None:
    try:
        socket.getaddrinfo(Address.parse(text).host or None, 0)
    except OSError as error:
        pytest.skip(f"no such address here: {error}")
    with pytest.raises(ConfigError, match="--insecure"):
        open_all([Address.parse(text)], has_token=True)
    opened.append(open_all([Address.parse(text)], has_token=True, insecure=True))
    assert opened[0].sockets


def test_all_interfaces_in_other_words_need_insecure() -> None:
    with pytest.raises(ConfigError, match="--insecure"):
        open_all([Address.parse("[::ffff:0.0.0.0]:0")], has_token=True)


def test_a_name_is_listened_on_at_each_of_its_addresses(opened: list[Listening]) -> None:
    opened.append(open_all([Address.parse("localhost:0")], has_token=True))
    assert opened[0].tcp_hosts <= {"127.0.0.1", "::1"}
    assert len({one.getsockname()[1] for one in opened[0].sockets}) == 1
    assert all(name.startswith("http://") for name in opened[0].names())


def test_a_name_without_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be found"):
        open_all([Address.parse("no-such-host.invalid:1")], has_token=True)


# -------------------------------------------------------------------------------------------- systemd

TAKE = """
import os, sys
from browserkeeper.errors import ConfigError
from browserkeeper.server.listening import Address, open_all, take_from_systemd
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[1]))
try:
    given = take_from_systemd(os.environ)
    listening = open_all([], given=given, has_token=sys.argv[2] == "token")
    print(*listening.names(), sep="\\n")
    print([name for name in os.environ if name.startswith("LISTEN_")])
    print([os.get_inheritable(one.fileno()) for one in given])
except ConfigError as error:
    print("refused:", error)
"""


def started_by_systemd(*given: socket.socket, pid: int = 0, token: bool = False) -> str:
    """The output of a process that got these sockets as descriptors 3 and following."""

    def move() -> None:
        copies = [os.dup(one.fileno()) for one in given]
        high = [os.dup2(fd, 40 + n) for n, fd in enumerate(copies)]
        for n, fd in enumerate(high):
            os.dup2(fd, 3 + n, inheritable=True)

    env = {**os.environ, "LISTEN_FDS": str(len(given)), "LISTEN_FDNAMES": "web:unix"}
    words = [sys.executable, "-c", TAKE, str(pid), "token" if token else "none"]
    done = subprocess.run(
        words,
        env=env,
        preexec_fn=move,
        pass_fds=range(3, 3 + len(given)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_sockets_of_systemd_are_used(tmp_path: Path) -> None:
    with open_unix(tmp_path / "a", 0o600) as one, socket.create_server(("127.0.0.1", 0)) as two:
        lines = started_by_systemd(one, two, token=True).splitlines()
        port = two.getsockname()[1]
        assert lines == [f"unix:{tmp_path / 'a'}", f"http://127.0.0.1:{port}", "[]", "[False, False]"]
    assert (tmp_path / "a").exists(), "systemd's file is not ours to remove"


def test_sockets_that_are_meant_for_another_process_are_not_touched(tmp_path: Path) -> None:
    """As with `sh -c`, or `browserkeeper run`, between systemd and the server."""
    with open_unix(tmp_path / "a", 0o600) as one:
        assert started_by_systemd(one, pid=1).splitlines() == ["", "[]", "[]"]


def open_unix(path: Path, mode: int) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.bind(str(path))
    path.chmod(mode)
    one.listen()
    return one


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("mode 0666", "SocketMode=0600"),
        ("abstract", "no file mode"),
        ("tcp without token", "--token-file"),
        ("everywhere", "--insecure"),
        ("datagram", "ListenStream="),
        ("connected", "ListenStream="),
        ("pipe", "not a socket"),
    ],
)
def test_a_socket_of_systemd_that_lets_in_too_many_is_refused(
    tmp_path: Path, kind: str, why: str
) -> None:
    if kind == "mode 0666":
        one = open_unix(tmp_path / "a", 0o666)
    elif kind == "abstract":
        one = socket.socket(socket.AF_UNIX)
        one.bind(f"\0bk-test-{os.getpid()}")
        one.listen()
    elif kind == "datagram":
        one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    elif kind in ("connected", "pipe"):
        one, other = socket.socketpair()
        other.close()
    else:
        one = socket.create_server(("0.0.0.0" if kind == "everywhere" else "127.0.0.1", 0))
    if kind == "pipe":
        one.close()
        read, write = os.pipe()
        os.close(write)
        with open(read, "rb") as file:
            said = started_by_systemd(file, token=True)  # type: ignore[arg-type]
    else:
        with one:
            said = started_by_systemd(one, token=kind == "everywhere")
    assert said.startswith("refused:"), said
    assert why in said


def test_without_systemd_nothing_is_taken() -> None:
    assert take_from_systemd({}) == []
    assert take_from_systemd({"LISTEN_FDS": "2"}) == []


@pytest.mark.parametrize(
    ("addresses", "place"),
    [
        (["unix:{folder}/s"], ""),
        (["unix:{folder}/s", "127.0.0.1:0"], "ws://127.0.0.1:"),
        (["0.0.0.0:0"], "ws://127.0.0.1:"),
        (["[::1]:0"], "ws://[::1]:"),
    ],
)
def test_websockets_are_at_an_address_of_this_machine(
    tmp_path: Path, addresses: list[str], place: str
) -> None:
    parsed = [Address.parse(one.format(folder=tmp_path)) for one in addresses]
    listening = open_all(parsed, has_token=True, insecure=True)
    try:
        found = listening.websockets_at()
        assert found.startswith(place)
        if place:
            assert int(found.removeprefix(place)) == listening.sockets[-1].getsockname()[1]
    finally:
        listening.close()
