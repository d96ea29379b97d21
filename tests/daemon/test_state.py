"""Identity and incarnation: drawn once, counted at each start, never half written."""

from __future__ import annotations

from pathlib import Path

import pytest

from abid.state import FILE, StateDamaged, next_incarnation


def test_identity_is_drawn_once_and_starts_are_counted(tmp_path: Path) -> None:
    first = next_incarnation(tmp_path)
    second = next_incarnation(tmp_path)
    assert len(first.node) == 4
    assert second.node == first.node
    assert (first.incarnation, second.incarnation) == (1, 2)


@pytest.mark.parametrize(
    "damage", ["", "{}", "[]", '{"node": "zz", "incarnation": 1}', '{"node": "00", "incarnation": 1}']
)
def test_a_damaged_file_is_named_and_kept(tmp_path: Path, damage: str) -> None:
    (tmp_path / FILE).write_text(damage)
    with pytest.raises(StateDamaged, match=FILE):
        next_incarnation(tmp_path)
    assert (tmp_path / FILE).read_text() == damage


def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    first = next_incarnation(tmp_path)
    (tmp_path / FILE).with_suffix(".new").write_text("half")
    assert next_incarnation(tmp_path) == (first.node, 2)
