"""The modules of the Celery door, which Celery finds by an entry point."""

from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("browserkeeper.celery")
