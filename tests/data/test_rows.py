"""Reading rows by position, and telling the system of them before."""

from __future__ import annotations

import os

import numpy as np
import pytest

from xbench import ModelSpec
from xbench.data.rows import RowReader

SHAPE = (2, 3)
ROWS = 12
ORDERS = ([0, 1, 2], [11, 0, 5], [], [4, 4], np.array([9, 3]))


@pytest.fixture
def content() -> np.ndarray:
    return np.arange(ROWS * 6, dtype=np.int16).reshape(ROWS, *SHAPE)


@pytest.fixture
def reader(tmp_path, content):
    (tmp_path / "rows").write_bytes(content.tobytes())
    with RowReader(tmp_path / "rows", SHAPE, "int16", 8) as reader:
        yield reader


@pytest.mark.parametrize("order", ORDERS)
def test_rows_come_as_they_were_asked_for(reader, content, order):
    rows = reader.read(order)
    assert rows.dtype == np.int16
    assert np.array_equal(rows, content[np.array(order, dtype=int)])


def test_a_read_is_valid_until_the_next(reader, content):
    first = reader.read([1])
    reader.read([2])
    assert np.array_equal(first, content[[2]])


@pytest.mark.parametrize("order", ORDERS)
def test_rows_may_go_into_an_array_of_the_callers(reader, content, order):
    mine = np.zeros_like(reader.buffer)
    kept = reader.read([7])
    rows = reader.read(order, mine[: len(order)])
    assert np.array_equal(rows, content[np.array(order, dtype=int)])
    assert np.array_equal(mine[: len(order)], rows)
    assert not mine[len(order) :].any()
    assert np.array_equal(kept, content[[7]])  # its own buffer was not touched


@pytest.mark.parametrize("row", [ROWS, ROWS + 1000, 10**9])
def test_a_row_that_is_not_there_is_told(reader, row):
    with pytest.raises(OSError, match=f"ends within row {row}: delete its folder"):
        reader.read([0, row])


def test_a_file_that_is_cut_off_is_told(tmp_path, content):
    (tmp_path / "short").write_bytes(content.tobytes()[:-1])
    with RowReader(tmp_path / "short", SHAPE, "int16", 8) as reader:
        assert np.array_equal(reader.read([ROWS - 2]), content[[ROWS - 2]])
        with pytest.raises(OSError, match=f"ends within row {ROWS - 1}"):
            reader.read([ROWS - 1])


class TestAnnounce:
    @pytest.mark.parametrize("order", [*ORDERS, [ROWS, 10**9], list(range(ROWS)) * 50])
    def test_changes_nothing(self, reader, content, order):
        reader.prefetch(order)
        assert np.array_equal(reader.read([2, 10]), content[[2, 10]])

    @pytest.mark.parametrize("order", [*ORDERS, [ROWS]])
    def test_is_nothing_where_a_system_cannot(self, reader, content, order, monkeypatch):
        monkeypatch.delattr(os, "posix_fadvise", raising=False)
        reader.prefetch(order)
        assert np.array_equal(reader.read([2, 10]), content[[2, 10]])

    @pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot")
    def test_tells_of_the_rows_own_bytes(self, reader, monkeypatch):
        told = []
        monkeypatch.setattr(os, "posix_fadvise", lambda descriptor, *rest: told.append(rest))
        reader.prefetch(np.array([5, 2]))
        assert told == [(60, 12, os.POSIX_FADV_WILLNEED), (24, 12, os.POSIX_FADV_WILLNEED)]


class TestParts:
    @pytest.fixture
    def loader(self, tiny_data):
        import torch

        from xbench.training.loader import ImageLoader

        spec = ModelSpec(factory=lambda num_classes: None)
        return ImageLoader(tiny_data, spec, torch.device("cpu"), torch.float32, "channels_last")

    @pytest.mark.parametrize("size", [1, 7, 60, 120, 500])
    def test_are_the_batch_in_order(self, loader, size):
        import torch

        order = np.random.default_rng(0).permutation(120)
        parts = list(loader.parts(order, size))
        images, labels = loader.load(order)
        assert [len(part) for part, _ in parts] == [min(size, 120 - at) for at in range(0, 120, size)]
        assert torch.equal(torch.cat([part for part, _ in parts]), images)
        assert torch.equal(torch.cat([part for _, part in parts]), labels)

    def test_each_is_announced_before_it_is_read(self, loader, monkeypatch):
        """The last announces the first: a batch is often evaluated again."""
        told = []
        monkeypatch.setattr(loader, "prefetch", lambda indices: told.append(indices.tolist()))
        read = [told[-1] for _ in loader.parts(np.arange(10, 17), 3)]
        assert read == [[13, 14, 15], [16], [10, 11, 12]]

    def test_none_of_nothing(self, loader):
        assert list(loader.parts(np.arange(0), 3)) == []
