"""Names that browserkeeper gives to downloads of leases, whose files the browser has saved under ids."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from browserkeeper.drivers.transfers import move_to

NAMES = ["plain.bin", "new\nline", ".hidden", "x" * 300 + ".bin", "ä中" * 150 + ".txt", f"x.{'y' * 300}"]


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_downloads_of_one_name_are_all_kept_however_long_it_is(
    name: str, is_shared: bool, tmp_path: Path
) -> None:
    given = []
    for number in range(3):
        (tmp_path / "id").write_text(str(number))
        path = move_to(str(tmp_path / "id"), str(tmp_path), name, is_shared=is_shared)
        given.append(os.path.basename(path))
    assert [(tmp_path / one).read_text() for one in given] == ["0", "1", "2"]
    assert sorted(given) == sorted(os.listdir(tmp_path))
    assert all(len(os.fsencode(one)) <= 255 for one in given)
    if len(os.fsencode(name)) <= 255:
        assert given[0] == name
    elif len(Path(name).suffix) < 10:
        assert all(one.startswith(name[:20]) and one.endswith(Path(name).suffix) for one in given)
