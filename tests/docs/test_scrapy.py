"""docs/how-to/scrapy.md: its middleware and its spider in real crawls, which end in each way."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.support import witness
from tests.support.howto import Program, command_of, environment
from tests.support.pages import write_files
from tests.support.waiting import SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.chrome]
PAGE = "docs/how-to/scrapy.md"
PLAIN = """
from scrapy.http import HtmlResponse
from selenium import webdriver

class BrowserMiddleware:
    def process_request(self, request):
        options = webdriver.ChromeOptions()
        for argument in ("--headless", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        driver = webdriver.Chrome(options)
        driver.get(request.url)
"""


class Crawl(Program):
    """The command of the page, on addresses of the local site."""

    def __init__(self, directory: Path, *urls: str, settings: tuple[str, ...] = ()):
        words = command_of(PAGE, "python -m scrapy")
        words = [f"urls={','.join(urls)}" if word.startswith("urls=") else word for word in words]
        more = [word for setting in settings for word in ("-s", setting)]
        super().__init__([*words, *more], directory, environment(TMPDIR=str(directory)))


def test_pages_are_loaded_side_by_side_and_those_that_fail_are_repeated(
    site: Site, tmp_path: Path
) -> None:
    write_files(PAGE, tmp_path)
    spider = tmp_path / "shelf.py"
    text = spider.read_text()
    pages = [site.url, site.url_for("slow", seconds=1), site.url_for("never")]
    for limit in (SECONDS / 6, SECONDS / 2):  # a busy machine may need more than 10 s for a good page
        site.forget_requests()
        spider.write_text(text.replace('"DOWNLOAD_TIMEOUT": 30', f'"DOWNLOAD_TIMEOUT": {limit}'))
        with Crawl(tmp_path, *pages) as crawl:
            assert crawl.wait() == 0, crawl.output
        titles = {item["title"] for item in json.loads((tmp_path / "titles.json").read_text())}
        if site.requests.count("GET /never") == 3 and len(titles) == 2:
            break
    assert titles == {"The Leaky Shelf", "Slow"}
    assert site.requests.count("GET /never") == 3, "RETRY_TIMES is 2"
    assert "LeaseTimeout" in crawl.output
    assert "Spider closed (finished)" in crawl.output


@pytest.mark.leaves_zombies(4, "a killed crawl cannot wait for its guards")
@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGKILL,)])
def test_a_crawl_that_is_killed_while_a_page_hangs_leaves_nothing(
    numbers: tuple[signal.Signals, ...], site: Site, tmp_path: Path
) -> None:
    write_files(PAGE, tmp_path)
    known = {seen.pid for seen in witness.below(os.getpid())}
    with Crawl(tmp_path, site.url_for("never")) as crawl:
        site.wait_for("/never")
        for times, number in enumerate(numbers, 1):
            crawl.signal(number)
            if number == signal.SIGINT:
                crawl.wait_for_output("Received SIGINT", times)
        crawl.wait()
        assert not witness.wait_until_gone(os.getpid(), known, SECONDS)


@pytest.mark.leaves_zombies(40, "the processes of a browser whose owner was killed")
def test_control_a_killed_crawl_with_plain_selenium_leaves_its_browser(
    site: Site, tmp_path: Path
) -> None:
    write_files(PAGE, tmp_path)
    (tmp_path / "browser_middleware.py").write_text(PLAIN)
    known = {seen.pid for seen in witness.below(os.getpid())}
    with Crawl(tmp_path, site.url_for("never")) as crawl:
        site.wait_for("/never")
        crawl.signal(signal.SIGKILL)
        crawl.wait()
        left = witness.wait_until_gone(os.getpid(), known, 1)
        witness.clean_up(known)
        assert any(seen.name.startswith("chrom") for seen in left)
