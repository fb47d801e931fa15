"""The names of output folders."""

from __future__ import annotations

import string

from hypothesis import given, settings
from hypothesis import strategies as st

from browserkeeper.pytest_plugin import output_folder


@settings(deadline=None)  # a busy machine may stop an example for longer than 0.2 s
@given(st.text(max_size=400), st.integers(1, 5))
def test_any_test_id_makes_a_safe_name(nodeid: str, attempt: int) -> None:
    name = output_folder.folder_name(nodeid, attempt)
    assert set(name) <= set(string.ascii_letters + string.digits + "._-")
    assert len(name) <= 150
    assert name not in (".", "..")
    assert not name.startswith(".")


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=30), st.integers(1, 3)), unique=True, max_size=20))
def test_different_test_ids_have_different_folders(ids: list[tuple[str, int]]) -> None:
    assert len({output_folder.folder_name(*each).lower() for each in ids}) == len(ids)
