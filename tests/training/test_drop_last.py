"""An epoch without its last, smaller batch."""

from __future__ import annotations

import pytest

from tests.training.small_cells import SmallCell, small_cnn
from xbench import ModelSpec
from xbench.components import registry


@pytest.fixture(autouse=True)
def components(monkeypatch):
    real_load = registry.load
    monkeypatch.setattr(
        registry,
        "load",
        lambda kind, name, dirs=(): (
            ModelSpec(factory=small_cnn) if name == "small" else real_load(kind, name, dirs)
        ),
    )


@pytest.mark.parametrize(("drop_last", "steps"), [(False, 3), (True, 2)])
def test_it_has_as_many_steps_as_whole_batches(tiny_data, tmp_path, drop_last, steps):
    cell = SmallCell(tiny_data, tmp_path, train_size=21, batch_size=10, drop_last=drop_last, epochs=2)
    assert [row.epoch for row in cell.rows] == [1] * steps + [2] * steps


def test_the_steps_before_are_the_same(tiny_data, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole = SmallCell(tiny_data, tmp_path / "a", train_size=21, batch_size=10, epochs=1)
    dropped = SmallCell(tiny_data, tmp_path / "b", train_size=21, batch_size=10, epochs=1, drop_last=True)
    assert [row.loss for row in dropped.rows] == [row.loss for row in whole.rows][:2]


def test_nothing_is_dropped_where_all_batches_are_whole(tiny_data, tmp_path):
    cell = SmallCell(tiny_data, tmp_path, train_size=20, batch_size=10, drop_last=True, epochs=1)
    assert len(cell.rows) == 2
