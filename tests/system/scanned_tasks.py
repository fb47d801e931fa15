"""The Celery app of ``scanned_scenario.py``: for the worker, and for the program that sends tasks."""

from __future__ import annotations

from celery import Celery

from browserkeeper.celery import BrowserTask, install
from tests.system.scanned_scenario import of_environment

scenario = of_environment()
messages, control = (scenario.directory / name for name in ("messages", "control"))
messages.mkdir(exist_ok=True)

app = Celery("scanned", broker="filesystem://", backend=f"file://{scenario.directory}")
app.conf.broker_transport_options = {
    "data_folder_in": str(messages),
    "data_folder_out": str(messages),
    "control_folder": str(control),
}
install(app, browser="chromium", **scenario.arguments)


@app.task(base=BrowserTask, bind=True)  # type: ignore[untyped-decorator]
def visit(self: BrowserTask) -> None:
    scenario.use(self.driver)
