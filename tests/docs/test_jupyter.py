"""docs/how-to/jupyter.md: its cells in real kernels, which are interrupted, restarted and killed."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from jupyter_core.utils import ensure_event_loop

from fixtures.server import Site
from tests.support import witness
from tests.support.howto import Program, command_of, environment
from tests.support.pages import files_of
from tests.support.waiting import SECONDS

pytestmark = [pytest.mark.chrome, pytest.mark.slow]
PAGE = "docs/how-to/jupyter.md"
PLAIN = """
from selenium import webdriver
options = webdriver.ChromeOptions()
for argument in ("--headless", "--no-sandbox", "--disable-dev-shm-usage"):
    options.add_argument(argument)
driver = webdriver.Chrome(options)
"""


def cells(site: Site) -> list[str]:
    """The cells of the page, in order, for the local site."""
    return [
        text.replace("https://example.com/", site.url)
        for name, text in files_of(PAGE).items()
        if name.startswith("cell ")
    ]


class Kernel:
    """A real ipykernel, and what its cells print and show."""

    def __init__(self, directory: Path):
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(directory), env=environment(TMPDIR=str(directory)))
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=5 * SECONDS)

    def run(self, cell: str) -> str:
        """The output of a cell: streams, errors, and the types of its pictures."""
        found = []

        def keep(message: dict[str, Any]) -> None:
            content = message["content"]
            found.append(
                content.get("text") or content.get("ename") or " ".join(content.get("data", ()))
            )

        self.client.execute_interactive(cell, timeout=5 * SECONDS, output_hook=keep)
        return "\n".join(found)

    def interrupt_at(self, event: Callable[[], None]) -> threading.Thread:
        """Interrupt the kernel when ``event`` returns, in a thread."""

        def interrupt() -> None:
            event()
            self.manager.interrupt_kernel()
            ensure_event_loop().close()  # that of this thread, which jupyter_client leaves open

        thread = threading.Thread(target=interrupt)
        thread.start()
        return thread


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    running = Kernel(tmp_path)
    yield running
    running.client.stop_channels()
    running.manager.shutdown_kernel(now=True)  # SIGKILL
    ensure_event_loop().close()


def drivers() -> list[witness.Seen]:
    return [seen for seen in witness.alive(witness.below(os.getpid())) if "chromedriver" in seen.name]


def test_the_cells_run_by_jupyter_execute(site: Site, tmp_path: Path) -> None:
    empty: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    code = [{**empty, "id": f"cell-{number}", "source": text} for number, text in enumerate(cells(site))]
    notebook = tmp_path / "scrape.ipynb"
    notebook.write_text(json.dumps({"cells": code, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    with Program([*command_of(PAGE, "jupyter execute"), "--inplace"], tmp_path) as program:
        assert program.wait() == 0, program.output
    _, picture, report = json.loads(notebook.read_text())["cells"]
    assert "image/png" in picture["outputs"][-1]["data"]
    assert "closed, clean" in "".join(report["outputs"][-1]["text"])


@pytest.mark.leaves_zombies(2, "a kernel that ends by itself or by SIGKILL does not wait for its guard")
def test_an_interrupt_a_second_run_and_a_killed_kernel(site: Site, kernel: Kernel) -> None:
    opening, picture, closing = cells(site)
    opening = opening.replace("set_page_load_timeout(30)", "set_page_load_timeout(40)")
    kernel.run(opening)
    assert "image/png" in kernel.run(picture)

    interrupting = kernel.interrupt_at(lambda: site.wait_for("/never"))
    assert "KeyboardInterrupt" in kernel.run(f"driver.get({site.url_for('never')!r})")
    interrupting.join()
    said = kernel.run("print(driver.title)")
    assert "'getTitle' waits for 'get', which was interrupted" in said
    assert "image/png" in kernel.run(picture)  # the session goes on

    assert len(first := drivers()) == 1
    kernel.run(opening)
    assert not witness.wait_until_gone(os.getpid(), known_but(first), SECONDS)
    assert len(drivers()) == 1
    assert "closed, clean" in kernel.run(closing)

    kernel.run(opening)
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=5 * SECONDS)
    assert not witness.wait_until_gone(os.getpid(), known_but(drivers()), SECONDS)
    kernel.run(opening)
    os.kill(kernel.manager.provisioner.pid, signal.SIGKILL)  # type: ignore[union-attr]


def known_but(processes: list[witness.Seen]) -> set[int]:
    """All processes below this one, without the given ones."""
    return {seen.pid for seen in witness.below(os.getpid())} - {seen.pid for seen in processes}


def test_control_plain_selenium_loses_its_driver_by_an_interrupt_and_outlives_its_kernel(
    site: Site, kernel: Kernel
) -> None:
    """Jupyter interrupts the kernel's whole process group, and so plain Selenium's driver."""
    known = {seen.pid for seen in witness.below(os.getpid())}
    kernel.run(PLAIN)
    kernel.interrupt_at(lambda: None).join()
    assert "MaxRetryError" in kernel.run("driver.title") + kernel.run("driver.title")
    kernel.run(PLAIN.replace("driver =", "other ="))
    kernel_pid = kernel.manager.provisioner.pid  # type: ignore[union-attr]
    os.kill(kernel_pid, signal.SIGKILL)  # as the kernel does for memory: this process alone
    left = witness.wait_until_gone(os.getpid(), known, 1)
    witness.clean_up(known)
    assert any(seen.name.startswith("chrom") for seen in left)
