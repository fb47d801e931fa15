"""What a frozen program needs of browserkeeper.

Its public names and guards are imported by name while the program runs, so that PyInstaller does not see
them.  The entry points (Celery, pytest, command line) and their layers come with a program that imports
them.  The guard's sources are files as well: for a guard that an interpreter of the system runs.
"""

from pathlib import Path

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata

PACKAGE = Path(__file__).parents[2]
ENTRY_POINTS = {
    "__main__",
    "celery",
    "cli",
    "frozen",
    "html",
    "pytest_plugin",
    "status",
    "telemetry",
    "watch",
}


def _modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in ENTRY_POINTS:
            yield ".".join(("browserkeeper", *(part for part in parts if part != "__init__")))


def _is_wanted(name):
    """Selenium imports its drivers by name.  The DevTools modules (8 MB) serve ``bidi_connection()``."""
    return not name.startswith("selenium.webdriver.common.devtools")


selenium = collect_submodules("selenium.webdriver", filter=_is_wanted)
hiddenimports = ["browserkeeper.frozen", *_modules(), *selenium]
module_collection_mode = {"browserkeeper": "pyz+py"}
datas = [*copy_metadata("browserkeeper"), *collect_data_files("browserkeeper", excludes=["frozen"])]
