"""The relay between browsers and proxies, with small clients in place of browsers."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib.util
import os
import resource
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browserkeeper.errors import ConfigError
from browserkeeper.options.proxy import Proxy
from browserkeeper.proxy import client, peers, relay
from browserkeeper.proxy.relay import Route
from tests.support.proxies import Asked, RecordingProxy, RecordingTarget, dead_port
from tests.support.waiting import wait_until

SECRET = "pass:wörd@1"
QUOTED = "pass%3Aw%C3%B6rd%401"


@pytest.fixture
def target() -> Iterator[RecordingTarget]:
    with RecordingTarget() as target:
        yield target


@contextlib.contextmanager
def route_to(proxy: RecordingProxy | str, **more: Any) -> Iterator[Route]:
    url = proxy if isinstance(proxy, str) else proxy.url.replace(SECRET, QUOTED)
    route = Route(Proxy.parse(dict(server=url, **more) if more else url))
    try:
        yield route
    finally:
        route.close()


KINDS = {
    "http": lambda: RecordingProxy("http"),
    "http with a password": lambda: RecordingProxy("http", "me", SECRET),
    "http on IPv6": lambda: RecordingProxy("http", "me", SECRET, host="::1"),
    "socks5": lambda: RecordingProxy("socks5"),
    "socks5 with a password": lambda: RecordingProxy("socks5", "me", SECRET),
}


@pytest.fixture(params=KINDS)
def proxy(request: pytest.FixtureRequest) -> Iterator[RecordingProxy]:
    with KINDS[request.param]() as proxy:
        yield proxy


def connect(route: Route) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", route.port))
    connection.settimeout(60)
    return connection


def receive_all(connection: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65536):
            data += chunk
    return data


def receive_until(connection: socket.socket, end: bytes) -> bytes:
    """Reads nothing beyond ``end`` where that comes within the first 500 bytes, as in a head."""
    data = b""
    while end not in data:
        chunk = connection.recv(1 if len(data) < 500 else 65536)
        assert chunk, data
        data += chunk
    return data


def get(route: Route, url: str, more: str = "") -> bytes:
    with connect(route) as connection:
        host = url.split("/")[2]
        head = f"GET {url} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n"
        connection.sendall(head.encode())
        return receive_all(connection)


def open_tunnel(route: Route, host: str, port: int) -> socket.socket:
    connection = connect(route)
    connection.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    assert receive_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    return connection


@contextlib.contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on 127.0.0.1 whose connections are given to ``answer``, each in a thread."""

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, AssertionError):
            answer(connection)

    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


# ------------------------------------------------------------------ requests


def test_a_request_goes_through_the_proxy(proxy: RecordingProxy, target: RecordingTarget) -> None:
    with route_to(proxy) as route:
        for host in ("127.0.0.1", "localhost", "shop.test"):
            assert get(route, target.url_of(host, "/?a=b")).endswith(b"target")
        assert route.failure() is None
    assert target.ways() == {proxy.name}
    assert len(proxy.served) == 3
    assert "shop.test" in proxy.served[-1]
    assert {asked.user for asked in proxy.asked} == {proxy.user}
    assert "proxy-authorization" not in target.headers["/"]
    assert "proxy-connection" not in target.headers["/"]


def test_a_tunnel_goes_through_the_proxy(proxy: RecordingProxy, target: RecordingTarget) -> None:
    with route_to(proxy) as route, open_tunnel(route, "shop.test", target.port) as tunnel:
        tunnel.sendall(b"GET /inside HTTP/1.0\r\n\r\n")
        assert receive_all(tunnel).startswith(b"HTTP/1.1 404 ")
    assert target.ways() == {proxy.name}
    assert proxy.served == [f"shop.test:{target.port}"]


def test_a_websocket_goes_through_the_proxy(proxy: RecordingProxy, target: RecordingTarget) -> None:
    """By an Upgrade of a plain request, as no browser does today, and in a tunnel, as all do."""
    upgrade = "Upgrade: websocket\r\nSec-WebSocket-Key: x\r\nConnection: Upgrade\r\n"
    with route_to(proxy) as route:
        with connect(route) as plain:
            url = target.url_of("shop.test", "/socket")
            plain.sendall(f"GET {url} HTTP/1.1\r\nHost: shop.test\r\n{upgrade}\r\n".encode())
            receive_until(plain, b"hello")
        with open_tunnel(route, "shop.test", target.port) as tunnel:
            tunnel.sendall(f"GET /socket HTTP/1.1\r\nHost: shop.test\r\n{upgrade}\r\n".encode())
            receive_until(tunnel, b"hello")
    assert target.ways("/socket") == {proxy.name}


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_a_connection_is_used_for_several_requests(kind: str) -> None:
    """Also for requests to different targets, as Firefox sends them, and after an answer in chunks.

    The server is both the target behind SOCKS5 and an HTTP proxy.
    """
    connections = []

    def answer(connection: socket.socket) -> None:
        connections.append(connection)
        while True:
            head = receive_until(connection, b"\r\n\r\n")
            if b"chunked" in head:
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                connection.sendall(b"5;x=y\r\nchunk\r\n0\r\nTrailer: x\r\n\r\n")
            else:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody")

    with contextlib.ExitStack() as stack:
        one, other = stack.enter_context(server(answer)), stack.enter_context(server(answer))
        socks = stack.enter_context(RecordingProxy("socks5"))
        url = socks.url if kind == "socks5" else f"http://127.0.0.1:{one}"
        own = stack.enter_context(connect(stack.enter_context(route_to(url))))
        for port, path, end in (
            *((one, "chunked", b"\r\nTrailer: x\r\n\r\n"), (one, "plain", b"body")),
            *((other, "plain", b"body"), (one, "plain", b"body"), (one, "chunked", b"x\r\n\r\n")),
        ):
            url = f"http://127.0.0.1:{port}/{path}"
            own.sendall(f"GET {url} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            assert receive_until(own, end).startswith(b"HTTP/1.1 200 ")
    assert len(connections) == (1 if kind == "http" else 3)


def test_a_body_is_sent_whatever_its_form(target: RecordingTarget) -> None:
    bodies = []

    def answer(connection: socket.socket) -> None:
        data = receive_until(connection, b"END")
        bodies.append(data.partition(b"\r\n\r\n")[2])
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with server(answer) as port, RecordingProxy("socks5") as proxy, route_to(proxy) as route:
        for field, body in (
            ("Content-Length: 200003", b"x" * 200000 + b"END"),
            ("Transfer-Encoding: chunked", b"3\r\nEND\r\n0\r\n\r\n"),
        ):
            with connect(route) as own:
                head = f"POST http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n"
                own.sendall(head.encode() + body)
                assert b"200 OK" in receive_until(own, b"200 OK\r\nContent-Length: 0\r\n\r\n")
    assert [body[:3] for body in bodies] == [b"xxx", b"3\r\n"]
    assert len(bodies[0]) == 200003


@pytest.mark.parametrize(
    "request_line",
    [
        "GET / HTTP/1.1",
        "GET https://shop.test/ HTTP/1.1",
        "GET ftp://shop.test/ HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http://shop.test:99999/ HTTP/1.1",
        "CONNECT shop.test HTTP/1.1",
        "CONNECT :443 HTTP/1.1",
        "CONNECT http://shop.test:443 HTTP/1.1",
        "noise",
        "\x16\x03\x01",
    ],
)
def test_what_no_browser_sends_to_a_proxy_is_refused(request_line: str) -> None:
    """A page can have its browser send ``GET /`` to this port, if that browser has no proxy."""
    with RecordingProxy() as proxy, route_to(proxy) as route, connect(route) as own:
        own.sendall(f"{request_line}\r\nHost: x\r\n\r\n".encode("latin-1"))
        assert receive_all(own).startswith(b"HTTP/1.1 400 ")
        assert proxy.asked == []


# ------------------------------------------------------------------ load


def test_100_megabytes_are_passed_on_in_bounded_memory(target: RecordingTarget) -> None:
    """The reader waits: what a relay without back-pressure had read meanwhile would be in memory."""
    size = 100 * 2**20
    with RecordingProxy("http", "me", SECRET) as proxy, route_to(proxy) as route:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with connect(route) as own:
            url = f"{target.url}/big?{size}"
            own.sendall(f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            received = len(receive_until(own, b"\r\n\r\n").partition(b"\r\n\r\n")[2])
            while chunk := own.recv(2**20):
                received += len(chunk)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert received == size
    assert grown * 1024 < 32 * 2**20


def test_a_reader_that_does_not_read_stops_the_writer() -> None:
    sent = 0

    def answer(connection: socket.socket) -> None:
        nonlocal sent
        receive_until(connection, b"\r\n\r\n")
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sent += connection.send(bytes(2**16))

    def stands() -> bool:
        before = sent
        return not wait_until(lambda: sent != before, seconds=1) and sent > 0

    with contextlib.ExitStack() as stack:
        port = stack.enter_context(server(answer))
        proxy = stack.enter_context(RecordingProxy("socks5"))
        own = stack.enter_context(connect(stack.enter_context(route_to(proxy))))
        own.sendall(f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\n\r\n".encode())
        assert wait_until(stands)
        assert sent < 50 * 2**20  # the buffers of the kernel, of the proxy and of the relay


def test_200_connections_at_once(proxy: RecordingProxy, target: RecordingTarget) -> None:
    with route_to(proxy) as route, contextlib.ExitStack() as stack:
        open_ones = [stack.enter_context(connect(route)) for _ in range(200)]
        for number, own in enumerate(open_ones):
            url = target.url_of("shop.test", f"/{number}")
            own.sendall(f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        for own in open_ones:
            assert receive_all(own).startswith(b"HTTP/1.1 404 ")
        assert route.failure() is None
    assert target.paths == {f"/{number}" for number in range(200)}
    assert target.ways() == {proxy.name}


# ------------------------------------------------------------------ ends


def test_half_closed_connections_go_on_in_the_other_direction(proxy: RecordingProxy) -> None:
    """Both kinds: the browser has sent all, or the target has."""

    def answer_after_all(connection: socket.socket) -> None:
        data = receive_all(connection)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + hashlib.sha256(data[-9:]).hexdigest().encode())

    def close_first(connection: socket.socket) -> None:
        connection.sendall(b"all")
        connection.shutdown(socket.SHUT_WR)
        received.append(receive_all(connection))

    received: list[bytes] = []
    digest = hashlib.sha256(b"last word").hexdigest().encode()
    with route_to(proxy) as route, server(answer_after_all) as one, server(close_first) as other:
        with open_tunnel(route, "127.0.0.1", one) as tunnel:
            tunnel.sendall(b"x" * 100000 + b"last word")
            tunnel.shutdown(socket.SHUT_WR)
            assert receive_all(tunnel).endswith(digest)
        with open_tunnel(route, "127.0.0.1", other) as tunnel:
            assert receive_all(tunnel) == b"all"
            tunnel.sendall(b"still here")
            tunnel.shutdown(socket.SHUT_WR)
            assert wait_until(lambda: received == [b"still here"])


def test_a_request_that_the_browser_gives_up_is_given_up_at_the_target(proxy: RecordingProxy) -> None:
    ended = threading.Event()
    begun = threading.Event()

    def never_answer(connection: socket.socket) -> None:
        receive_until(connection, b"\r\n\r\n")
        begun.set()
        receive_all(connection)
        ended.set()

    with server(never_answer) as port, route_to(proxy) as route:
        with open_tunnel(route, "127.0.0.1", port) as own:
            own.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert begun.wait(60)
        assert ended.wait(60)
        assert route.failure() is None


def test_after_its_end_a_route_refuses_connections_and_cuts_off_those_it_had(
    target: RecordingTarget,
) -> None:
    with RecordingProxy() as proxy, route_to(proxy) as route:
        tunnel = open_tunnel(route, "127.0.0.1", target.port)
        with route_to(proxy) as other:
            route.close()
            route.close()
            assert receive_all(tunnel) == b""
            assert wait_until(lambda: is_refused(route.port))
            assert get(other, target.url).endswith(b"target")
        tunnel.close()


def is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def relay_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "browserkeeper-proxy"]


def test_the_relay_ends_with_its_last_route() -> None:
    assert wait_until(lambda: not relay_threads())
    with route_to("http://127.0.0.1:1") as one:
        with route_to("socks5://127.0.0.1:1"):
            assert len(relay_threads()) == 1
        assert len(relay_threads()) == 1
        assert not is_refused(one.port)
    assert wait_until(lambda: not relay_threads())
    for _ in range(50):  # the end of one relay beside the start of the next
        with route_to("http://127.0.0.1:1") as route:
            assert not is_refused(route.port)
    dropped = Route(Proxy.parse("http://127.0.0.1:1"))
    port = dropped.port
    del dropped
    gc.collect()
    assert wait_until(lambda: is_refused(port) and not relay_threads())


def test_a_connection_that_was_just_accepted_is_closed_with_the_relay() -> None:
    """At whatever moment of its acceptance; an open one would be a ResourceWarning, and so an error."""
    for round in range(100):
        with route_to("http://127.0.0.1:1") as route:
            client = socket.create_connection(("127.0.0.1", route.port))
            time.sleep(round % 10 * 1e-4)
        with client, contextlib.suppress(ConnectionError):
            client.settimeout(60)
            assert client.recv(1) == b""
        assert wait_until(lambda: not relay_threads())
        gc.collect()


def test_a_relay_whose_thread_dies_refuses_connections_and_says_so() -> None:
    with RecordingProxy() as proxy, route_to(proxy) as route:
        thread = relay_threads()[0]
        assert relay._current is not None
        relay._current.loop.call_soon_threadsafe(relay._current.loop.stop)
        thread.join(60)
        assert is_refused(route.port)
        failure = route.failure()
        assert failure is not None
        assert "the relay of this program has ended" in str(failure)
        with route_to(proxy) as another:
            assert not is_refused(another.port)


# ------------------------------------------------------------------ failures


def failure_of(route: Route, url: str = "http://127.0.0.1:9/") -> Any:
    """The failure that a plain request and a tunnel have, which must be the same."""
    assert get(route, url) == b""
    assert wait_until(lambda: route.failure() is not None)
    plain = route.failure()
    with connect(route) as own:
        own.sendall(b"CONNECT 127.0.0.1:9 HTTP/1.1\r\n\r\n")
        answer = receive_all(own)
    assert b"407" not in answer
    assert answer.startswith(b"HTTP/1.1 502 ")
    tunnel = route.failure()
    assert plain is not None
    assert tunnel is not None
    assert (plain.reason, plain.proxy, plain.user) == (tunnel.reason, tunnel.proxy, tunnel.user)
    return plain


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_a_wrong_password_is_named_without_the_password(kind: str, target: RecordingTarget) -> None:
    with RecordingProxy(kind, "me", "right") as proxy:
        with route_to(f"{kind}://me:secret-word@{proxy.address}") as route:
            error = failure_of(route, target.url)
        assert error.reason == "password"
        assert error.user == "me"
        assert proxy.address in error.proxy
        assert "'me'" in str(error)
        assert "secret-word" not in repr(error) + str(error) + repr(vars(error)) + repr(route)
        with route_to(f"{kind}://{proxy.address}") as route:
            error = failure_of(route, target.url)
            assert "requires a user and a password" in str(error)
            assert (error.reason, error.user) == ("password", "")
    assert target.requests == []
    assert {asked.admitted for asked in proxy.asked} == {False}


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
def test_a_proxy_that_cannot_be_reached_is_named(scheme: str, target: RecordingTarget) -> None:
    with dead_port() as port, route_to(f"{scheme}://me:secret-word@127.0.0.1:{port}") as route:
        error = failure_of(route, target.url)
        assert error.reason == "unreachable"
        assert f"{scheme}://127.0.0.1:{port} cannot be reached: Connection refused" in str(error)
    with route_to(f"{scheme}://me:secret-word@no-such-proxy.invalid:3128") as route:
        error = failure_of(route, target.url)
        assert error.reason == "unresolvable"
        assert "no-such-proxy.invalid:3128" in str(error)
        assert "secret-word" not in str(error)
    assert target.requests == []


def answering(text: str) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(text.encode())

    return answer


@pytest.mark.parametrize(
    ("scheme", "answer", "reason", "words"),
    [
        ("http", "SSH-2.0-OpenSSH\r\n\r\n", "protocol", "does not answer as an HTTP proxy"),
        ("http", "", "protocol", "closes the connection"),
        ("http", "HTTP/1.1 407 Who\r\nProxy-Authenticate: NTLM\r\n\r\n", "password", "NTLM"),
        ("socks5", "HTTP/1.1 400 Bad Request\r\n\r\n", "protocol", "another protocol"),
        ("socks5", "", "protocol", "SOCKS5"),
        ("socks5", "\x05\x00\x05\x02\x00\x01aaaaaa", "forbidden", "not allowed"),
        ("https", "HTTP/1.1 400 Bad Request\r\n\r\n", "protocol", "does not speak TLS"),
    ],
)
def test_what_is_no_proxy_or_does_not_let_through_is_named(
    scheme: str, answer: str, reason: str, words: str
) -> None:
    with server(answering(answer)) as port, route_to(f"{scheme}://127.0.0.1:{port}") as route:
        error = failure_of(route)
        assert error.reason == reason
        assert words in str(error)


def test_a_proxy_that_forbids_a_tunnel_is_named() -> None:
    refusing = answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    with server(refusing) as port, route_to(f"http://127.0.0.1:{port}") as route, connect(route) as own:
        own.sendall(b"CONNECT shop.test:443 HTTP/1.1\r\n\r\n")
        assert receive_all(own).startswith(b"HTTP/1.1 502 ")
        error = route.failure()
        assert error is not None
        assert error.reason == "forbidden"
        assert "HTTP 403 to CONNECT shop.test:443" in str(error)


def test_a_target_that_cannot_be_reached_is_no_failure_of_the_proxy(proxy: RecordingProxy) -> None:
    with dead_port() as port, route_to(proxy) as route:
        get(route, f"http://127.0.0.1:{port}/")
        with connect(route) as own:
            own.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
            assert receive_all(own).startswith(b"HTTP/1.1 502 ")
        assert route.failure() is None
    assert len(proxy.served) == 2


def test_a_failure_is_over_when_a_request_comes_through(target: RecordingTarget) -> None:
    proxy = RecordingProxy("http", "me", "wrong")
    with proxy, route_to(f"http://me:right@{proxy.address}") as route:
        failure_of(route, target.url)
        proxy.password = "right"
        assert get(route, target.url).endswith(b"target")
        assert route.failure() is None
        proxy.close()
        get(route, target.url)
        error = route.failure()
        assert error is not None
        assert error.reason in ("unreachable", "protocol")


def test_a_browser_that_gives_up_is_no_failure_of_the_proxy() -> None:
    seen = threading.Event()

    def hang(connection: socket.socket) -> None:
        connection.recv(65536)
        seen.set()
        receive_all(connection)

    with server(hang) as port, route_to(f"http://127.0.0.1:{port}") as route:
        with connect(route) as own:
            own.sendall(b"GET http://shop.test/ HTTP/1.1\r\n\r\n")
            assert seen.wait(60)
        assert wait_until(lambda: not route._entry.tasks)
        assert route.failure() is None


# ------------------------------------------------------------------ bypass


def test_hosts_of_the_bypass_list_are_reached_directly(
    proxy: RecordingProxy, target: RecordingTarget
) -> None:
    bypass = ["127.0.0.0/8", "*.shop.test"]
    with route_to(proxy, bypass=bypass) as route:
        assert get(route, target.url + "/direct").startswith(b"HTTP/1.1 404")
        with open_tunnel(route, "127.0.0.1", target.port) as tunnel:
            tunnel.sendall(b"GET /tunnel HTTP/1.0\r\n\r\n")
            receive_all(tunnel)
        assert get(route, target.url_of("localhost", "/proxied")).startswith(b"HTTP/1.1 404")
        with dead_port() as port:
            assert get(route, f"http://127.0.0.1:{port}/") == b""
        assert route.failure() is None
    assert target.ways("/direct") == target.ways("/tunnel") == {""}
    assert target.ways("/proxied") == {proxy.name}


def test_targets_behind_one_connection_keep_their_ways(target: RecordingTarget) -> None:
    bypass = ["localhost"]
    with RecordingProxy() as proxy, route_to(proxy, bypass=bypass) as route, connect(route) as own:
        for host in ("localhost", "127.0.0.1", "localhost", "shop.test"):
            url = target.url_of(host, f"/{host}")
            own.sendall(f"HEAD {url} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            receive_until(own, b"\r\n\r\n")
            if host in ("127.0.0.1", "shop.test"):  # the test's proxy closes each connection
                break
    assert target.ways("/localhost") == {""}
    assert target.ways("/127.0.0.1") == {proxy.name}


# ------------------------------------------------------------------ whose connections


@pytest.mark.parametrize("ask", [peers._by_netlink, peers._by_proc])
def test_the_owner_of_a_connection_is_known(ask: Callable[..., tuple[int, int]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as other:
            connection, _ = listener.accept()
            with connection:
                peer, own = connection.getpeername(), connection.getsockname()
                uid, inode = ask(peer, own)
                assert uid == os.geteuid()
                assert inode == os.fstat(other.fileno()).st_ino
                other.close()
                assert ask(peer, own)[1] == 0
        assert ask(("127.0.0.1", 1), listener.getsockname()) == (-1, 0)
    assert peers.can_tell()


@pytest.mark.root
def test_connections_of_another_user_are_cut_off(target: RecordingTarget) -> None:
    with RecordingProxy("http", "me", SECRET) as proxy, route_to(proxy) as route:
        results = []
        for uid in (65534, os.getuid()):
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                with contextlib.suppress(BaseException):
                    os.setuid(uid)
                    os.write(write, get(route, f"{target.url}/")[:12] or b"cut off")
                os._exit(0)
            os.waitpid(child, 0)
            results.append(os.read(read, 100))
            os.close(read)
            os.close(write)
        assert results == [b"cut off", b"HTTP/1.1 200"]
        assert len(proxy.asked) == 1


def test_where_the_owner_cannot_be_told_the_proxy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(peers, "_by_netlink", fail)
    assert peers.can_tell()  # by /proc

    def unknown(*_: object) -> None:
        raise peers.UnknownPeerError

    monkeypatch.setattr(peers, "_by_proc", unknown)
    with pytest.raises(ConfigError, match="other users of this machine could use the proxy"):
        Route(Proxy.parse("http://127.0.0.1:1"))


# ------------------------------------------------------------------ forks and patched programs


def test_a_fork_holds_no_socket_of_the_relay_and_makes_one_of_its_own(target: RecordingTarget) -> None:
    with RecordingProxy("http", "me", SECRET) as proxy, route_to(proxy) as route:
        tunnel = open_tunnel(route, "127.0.0.1", target.port)
        go_read, go_write = os.pipe()
        result_read, result_write = os.pipe()
        child = os.fork()
        if child == 0:
            verdict = b"failed"
            with contextlib.suppress(BaseException):
                route.close()  # the parent's: nothing happens
                os.read(go_read, 1)
                assert is_refused(route.port)
                with route_to(proxy) as own:
                    assert get(own, target.url).endswith(b"target")
                verdict = b"well"
            os.write(result_write, verdict)
            os._exit(0)
        assert get(route, target.url).endswith(b"target")
        route.close()
        assert receive_all(tunnel) == b""  # a copy of the relay's socket in the fork would hold it open
        assert wait_until(lambda: is_refused(route.port))
        os.write(go_write, b"x")
        assert os.read(result_read, 10) == b"well"
        os.waitpid(child, 0)
        for one in (go_read, go_write, result_read, result_write):
            os.close(one)
        tunnel.close()


PATCHED = """
import {library}; {patch}
import sys
from browserkeeper.errors import ConfigError
from browserkeeper.options.proxy import Proxy
from browserkeeper.proxy.relay import Route
import urllib.request
try:
    route = Route(Proxy.parse(sys.argv[1]))
except ConfigError as error:
    print("refused:", error); sys.exit()
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{"http": "http://" + route.address}}))
print(opener.open(sys.argv[2], timeout=60).read().decode())
route.close()
"""


@pytest.mark.parametrize(
    ("library", "patch", "outcome"),
    [
        ("gevent.monkey", "gevent.monkey.patch_all()", "target"),
        ("gevent.monkey", "gevent.monkey.patch_socket()", "refused: gevent has replaced"),
        ("eventlet", "eventlet.monkey_patch()", "refused: browserkeeper does not work under eventlet"),
        ("eventlet", "eventlet.monkey_patch(select=False)", "refused: browserkeeper does not"),
        ("sys", "pass", "target"),
    ],
)
def test_patched_programs_have_a_relay_that_works_or_an_error(
    library: str, patch: str, outcome: str, target: RecordingTarget
) -> None:
    if importlib.util.find_spec(library.partition(".")[0]) is None:
        pytest.skip(f"no {library}")
    with RecordingProxy("http", "me", SECRET) as proxy:
        script = PATCHED.format(library=library, patch=patch)
        words = [sys.executable, "-c", script, proxy.url.replace(SECRET, QUOTED), target.url + "/"]
        done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True)
        assert outcome in done.stdout, done.stderr
        assert SECRET not in done.stdout + done.stderr


def test_the_answer_of_urllib_through_a_route(target: RecordingTarget) -> None:
    """A client that was not written for this test."""
    with RecordingProxy("http", "me", SECRET) as proxy, route_to(proxy) as route:
        handler = urllib.request.ProxyHandler({"http": f"http://{route.address}"})
        with urllib.request.build_opener(handler).open(target.url, timeout=60) as answer:
            assert b"target" in answer.read()
    assert proxy.asked == [Asked("GET", f"{target.url}/", admitted=True, user="me")] or proxy.served
    assert client.Client.__doc__
