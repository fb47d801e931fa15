"""The fixture site, without a browser: the answer of each page, and that closing does not hang."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urljoin

import pytest

from fixtures.server import FILES, Site
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
QUICK = 5.0
"""Seconds that a fast answer may take on a busy machine."""
SHOP_PAGES = 18
"""Home, about, 4 shelves and 12 books."""
BY_SCRIPT = [
    *("crash", "memory", "beforeunload", "alert", "storage", "popup", "console", "special"),
    *("worker", "permissions", "copying", "framed"),
]
"""Special pages that are files.  Tests with a browser run their scripts."""


class NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def get(url: str, **headers: str) -> tuple[http.client.HTTPMessage, str]:
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers, answer.read().decode()


def refusal(url: str, data: bytes | None = None) -> tuple[int, str]:
    """The status and the text of an error answer."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, data, timeout=10)
    with caught.value as error:
        return error.code, error.read().decode()


def links(html: str) -> set[str]:
    return set(re.findall(r'<a [^>]*href="([^"]+)"', html))


def crawl(site: Site) -> tuple[dict[str, str], list[str]]:
    """All pages that can be reached from the home page, by path; and the dead links."""
    pages: dict[str, str] = {}
    dead, queue = [], ["/"]
    while queue:
        path = queue.pop()
        if path in pages or path in dead:
            continue
        try:
            pages[path] = get(urljoin(site.url, path))[1]
        except urllib.error.HTTPError as error:
            error.close()
            dead.append(path)
            continue
        queue += links(pages[path])
    return pages, dead


# -- the shop


def test_all_pages_of_the_shop_are_linked_and_one_link_is_dead(site: Site) -> None:
    pages, dead = crawl(site)
    assert len(pages) == SHOP_PAGES
    assert dead == ["/hidden"]
    assert len([path for path in pages if path.startswith("/book/")]) == 12


def test_every_book_has_a_title_a_price_and_a_stock(site: Site) -> None:
    for path, html in crawl(site)[0].items():
        if path.startswith("/book/"):
            assert re.search(r"<h1>[^<]+</h1>", html), path
            assert re.search(r'<p class="price">£\d+\.\d\d</p>', html), path
            assert re.search(r'<p class="stock[^"]*">\d+ in stock</p>', html), path


def test_the_price_on_the_shelf_is_the_price_of_the_book(site: Site) -> None:
    pages = crawl(site)[0]
    card = re.compile(r'<a href="(/book/[^"]+)">([^<]+)</a>.*?class="cost">([^<]+)<', re.DOTALL)
    cards = [found for html in pages.values() for found in card.findall(html)]
    assert len(cards) >= 12
    for path, title, price in cards:
        assert f"<h1>{title}</h1>" in pages[path]
        assert f'<p class="price">{price}</p>' in pages[path]


def test_no_page_links_to_another_site() -> None:
    for file in FILES.rglob("*.*"):
        text = file.read_text()
        assert not re.search(r"(?<!chrome:)//[a-z0-9]|@import|url\(", text), file


def test_files_have_their_content_type_and_are_not_cached(site: Site) -> None:
    headers, _ = get(site.url)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert get(site.url_for("style.css"))[0]["Content-Type"] == "text/css; charset=utf-8"
    assert get(site.url_for("worker.js"))[0]["Content-Type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("path", ["../server.py", "%2e%2e/server.py", "/etc/passwd", "site/index.html"])
def test_no_path_reaches_other_files(site: Site, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    connection.request("GET", f"/{path}")  # urllib would remove the dots
    assert connection.getresponse().status == 404
    connection.close()


def test_the_form_shows_the_fields_it_received(site: Site) -> None:
    form = b"name=Ada+%3Cb%3E&shelf=fiction"
    with urllib.request.urlopen(site.url_for("contact"), form, timeout=10) as answer:
        page = answer.read().decode()
    assert "Thank you, Ada &lt;b&gt;." in page
    assert "<b>" not in page


def test_a_form_elsewhere_is_refused(site: Site) -> None:
    assert refusal(site.url_for("about"), b"name=Ada")[0] == 405


def test_a_form_that_is_too_long_is_refused(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    connection.putrequest("POST", "/contact")
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


# -- the special pages


@pytest.mark.parametrize("name", BY_SCRIPT)
def test_pages_with_scripts_are_served_with_any_query(site: Site, name: str) -> None:
    _, html = get(site.url_for(name, now=1, mb=5))
    assert "<h1>" in html


def test_the_special_pages_are_all_listed_in_one_place(site: Site) -> None:
    listed = {link.partition("?")[0].lstrip("/") for link in links(get(site.url_for("special"))[1])}
    pages = {"slow", "never", "cookies", "download", "hidden", "redirect", "cached", "private"}
    assert pages | set(BY_SCRIPT) - {"special"} <= listed


def test_slow_answers_late(site: Site) -> None:
    began = time.monotonic()
    _, html = get(site.url_for("slow", seconds=0.3))
    assert 0.3 <= time.monotonic() - began < 0.3 + QUICK
    assert "0.3 seconds" in html


def test_slow_pages_do_not_hold_up_others(site: Site) -> None:
    with ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        list(pool.map(get, [site.url_for("slow", seconds=1)] * 8))
        assert time.monotonic() - began < 8, "one after the other takes 8 s"


def test_never_does_not_answer(site: Site) -> None:
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(site.url_for("never"), timeout=0.3)


def test_the_hidden_page_does_not_exist(site: Site) -> None:
    status, html = refusal(site.url_for("hidden"))
    assert status == 404
    assert "There is no /hidden." in html


def test_the_404_page_escapes_the_path(site: Site) -> None:
    assert "<script>" not in refusal(site.url_for("<script>"))[1]


@pytest.mark.parametrize("n", [1, 3])
def test_redirect_redirects_n_times_and_goes_home(site: Site, n: int) -> None:
    opener = urllib.request.build_opener(NoRedirects)
    targets, url = [], site.url_for("redirect", n=n)
    for _ in range(n):
        with pytest.raises(urllib.error.HTTPError, match="302") as caught:
            opener.open(url, timeout=10)
        with caught.value as error:
            targets.append(error.headers["Location"])
        url = urljoin(url, targets[-1])
    assert targets[-1] == "/"
    assert "/" not in targets[:-1]


def test_cookies_count_visits_and_have_every_attribute(site: Site) -> None:
    headers, html = get(site.url_for("cookies"))
    cookies = headers.get_all("Set-Cookie") or []
    assert "visits=1; Path=/; SameSite=Lax" in cookies
    assert any("Max-Age=86400" in cookie for cookie in cookies)
    assert any("HttpOnly" in cookie for cookie in cookies)
    assert "document.cookie = " in html


@pytest.mark.parametrize(("sent", "counted"), [("visits=4", 5), ("visits=many", 1), ("a=b; c", 1)])
def test_cookies_shows_what_it_received(site: Site, sent: str, counted: int) -> None:
    headers, html = get(site.url_for("cookies"), Cookie=sent)
    assert f"visits={counted};" in (headers.get_all("Set-Cookie") or [])[0]
    shown = re.search(r'<pre id="received">(.*)</pre>', html)
    assert shown
    received = json.loads(shown.group(1).replace("&quot;", '"'))
    assert received.get("visits", "") in ("", "4", "many")


@pytest.mark.parametrize("kb", [1, 300])
def test_download_is_an_attachment_of_that_size(site: Site, kb: int) -> None:
    headers, body = get(site.url_for("download", kb=kb))
    assert headers["Content-Disposition"] == 'attachment; filename="leaky-shelf.csv"'
    assert len(body) == kb * 1024


def test_cached_may_be_kept_for_an_hour(site: Site) -> None:
    headers, _ = get(site.url_for("cached"))
    assert headers.get_all("Cache-Control") == ["max-age=3600"]


def test_the_private_page_accepts_any_name_and_password(site: Site) -> None:
    assert refusal(site.url_for("private"))[0] == 401
    with pytest.raises(urllib.error.HTTPError, match="401") as caught:
        get(site.url_for("private"), Authorization="Bearer of-news")
    with caught.value as error:
        assert error.headers["WWW-Authenticate"] == 'Basic realm="The Leaky Shelf"'
    assert "You may come in." in get(site.url_for("private"), Authorization="Basic QWRhOng=")[1]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("slow", {"seconds": "soon"}),
        ("slow", {"seconds": "-1"}),
        ("slow", {"seconds": "nan"}),
        ("slow", {"seconds": ""}),
        ("redirect", {"n": 0}),
        ("redirect", {"n": 10**9}),
        ("download", {"kb": 10**9}),
    ],
)
def test_an_invalid_query_is_answered_with_400(site: Site, path: str, query: dict[str, object]) -> None:
    status, html = refusal(site.url_for(path, **query))
    assert status == 400
    assert "is not" in html


# -- HTTP


@pytest.mark.parametrize("path", ["/", "/style.css", "/cookies", "/download", "/slow?seconds=0", "/no"])
def test_head_has_the_headers_of_get_and_no_body(site: Site, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    lengths = []
    for method in (
        "HEAD",
        "GET",
        "HEAD",
    ):  # on one connection: the body of a HEAD would break the next answer
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        lengths.append(answer.headers["Content-Length"])
        assert len(body) == (int(lengths[-1]) if method == "GET" else 0)
    assert len(set(lengths)) == 1
    connection.close()


def test_unknown_methods_are_refused(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    connection.request("DELETE", "/")
    assert connection.getresponse().status == 501
    connection.close()


def test_nothing_is_written_to_stderr(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    get(site.url)
    refusal(site.url_for("hidden"))
    with socket.create_connection(("127.0.0.1", site.port)) as rude:
        rude.sendall(b"GET /download?kb=100000 HTTP/1.1\r\n\r\n")
    time.sleep(0.1)
    assert capfd.readouterr() == ("", "")


# -- the object


def test_requests_lists_what_was_asked_for() -> None:
    with Site() as site:
        get(site.url)
        get(site.url_for("slow", seconds=0))
        assert site.requests == ["GET /", "GET /slow?seconds=0"]
        site.forget_requests()
        assert site.requests == []


def test_wait_for_returns_when_the_page_is_asked_for() -> None:
    with Site() as site, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(site.wait_for, "/about")
        get(site.url_for("about", x=1))
        waiting.result(timeout=5)


def test_wait_for_gives_up(site: Site) -> None:
    with pytest.raises(TimeoutError, match="/nowhere was not requested"):
        site.wait_for("/nowhere", timeout=0.05)


def test_a_given_port_is_used_and_free_again_after_close() -> None:
    with Site() as first:
        port = first.port
        with pytest.raises(OSError, match="in use"):
            Site(port)
    with Site(port) as second:
        assert second.url == f"http://127.0.0.1:{port}/"
        get(second.url)


def test_only_the_loopback_is_served(site: Site) -> None:
    assert site._server.socket.getsockname()[0] == "127.0.0.1"


def test_closing_twice_or_before_the_start_is_harmless() -> None:
    site = Site()
    site.close()
    with Site() as other:
        pass
    other.close()


def test_close_is_quick_with_running_requests_and_ends_them() -> None:
    site = Site().start()
    threads_before = threading.active_count()
    with ThreadPoolExecutor(4) as pool:
        hanging = [pool.submit(get, site.url_for("never")) for _ in range(2)]
        hanging += [pool.submit(get, site.url_for("slow", seconds=600)) for _ in range(2)]
        site.wait_for("/never")
        site.wait_for("/slow")
        began = time.monotonic()
        site.close()
        assert time.monotonic() - began < QUICK
        for request in hanging:
            with pytest.raises((http.client.HTTPException, OSError)):
                request.result(timeout=QUICK)
    assert wait_until(lambda: threading.active_count() <= threads_before)


def test_close_is_quick_with_idle_and_half_open_connections() -> None:
    site = Site().start()
    idle = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    idle.request("GET", "/")
    idle.getresponse().read()
    deaf = socket.create_connection(("127.0.0.1", site.port))
    deaf.sendall(b"GET /download?kb=100000 HTTP/1.1\r\n\r\n")  # and reads none of its 100 MB
    site.wait_for("/download")
    began = time.monotonic()
    site.close()
    assert time.monotonic() - began < QUICK
    idle.close()
    deaf.close()


def test_the_site_can_be_started_by_hand() -> None:
    command = [sys.executable, "-m", "fixtures.server", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert found
        assert "<h1>The Leaky Shelf</h1>" in get(found.group())[1]
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_the_site_does_not_import_browserkeeper() -> None:
    code = "import fixtures.server, sys; print('browserkeeper' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_a_gate_is_passed_when_it_was_opened_before_or_after(site: Site) -> None:
    get(site.url_for("open", name="before"))
    get(site.url_for("gate", name="before"))
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(get, site.url_for("gate", name="after"))
        site.wait_for("/gate")
        get(site.url_for("open", name="another"))
        assert not waiting.done()
        get(site.url_for("open", name="after"))
        assert waiting.result()
