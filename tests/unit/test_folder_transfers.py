"""Downloads that are noticed by looks into their folder, while the files get their names."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path

import pytest

from browserkeeper.drivers import transfers
from browserkeeper.drivers.transfers import FolderTransfers

PARTIAL = "Unconfirmed 1.crdownload"


def renamed_in_the_look(
    monkeypatch: pytest.MonkeyPatch, folder: Path, renames: list[tuple[str, str]]
) -> None:
    """Have the next looks miss the only file, which gets another name in each of them."""
    look = transfers._files_in

    def files_in(path: str) -> list[tuple[str, os.stat_result]]:
        if not renames:
            return look(path)
        before, after = renames.pop(0)
        (folder / before).rename(folder / after)
        return []

    monkeypatch.setattr(transfers, "_files_in", files_in)


@pytest.mark.parametrize("names", [[PARTIAL, "file.bin"], ["early.crdownload", PARTIAL, "file.bin"]])
def test_a_file_that_is_renamed_during_the_look_is_not_given_up(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / names[0]).write_text("part")
    downloads = FolderTransfers(str(tmp_path))
    downloads.refresh()
    renamed_in_the_look(monkeypatch, tmp_path, list(itertools.pairwise(names)))
    downloads.refresh()
    assert [(one.state, one.name, one.size) for one in downloads.known] == [("complete", "file.bin", 4)]


def test_control_a_file_that_is_gone_is_given_up(tmp_path: Path) -> None:
    (tmp_path / PARTIAL).write_text("part")
    downloads = FolderTransfers(str(tmp_path))
    downloads.refresh()
    (tmp_path / PARTIAL).unlink()
    downloads.refresh()
    assert [one.state for one in downloads.known] == ["failed"]


def test_no_look_gives_up_one_of_many_files_that_get_their_names(tmp_path: Path) -> None:
    downloads = FolderTransfers(str(tmp_path))

    def save() -> None:
        for number in range(1000):
            partial = tmp_path / f"{number}.crdownload"
            partial.write_text("part")
            partial.rename(tmp_path / f"{number}.bin")

    thread = threading.Thread(target=save)
    thread.start()
    while thread.is_alive():
        downloads.refresh()
    thread.join()
    downloads.refresh()
    assert {one.state for one in downloads.known} == {"complete"}
    assert len(downloads.known) == 1000
