"""The hook for PyInstaller, which finds it by the entry point ``pyinstaller40``.

``hook-browserkeeper.py`` says what a frozen program needs of this package, and ``rthook.py`` runs in
the program before anything of its own.  PyInstaller executes both; nothing here imports them.
"""

from __future__ import annotations

import os


def get_hook_dirs() -> list[str]:
    """The directory of the hooks (pyinstaller.org, "Providing PyInstaller Hooks with your Package")."""
    return [os.path.dirname(__file__)]
