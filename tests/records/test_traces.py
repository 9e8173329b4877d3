"""Traces: a row a step, and never half of one."""

from __future__ import annotations

import math

import pyarrow.parquet
import pytest

from xbench.records.traces import TraceRow, read_trace, write_trace

ROWS = [
    TraceRow(1, 1, 0.6931471805599453, 0.001, 1, 400_000_000, None, None),
    TraceRow(2, 1, 1e-300, 0.25, 20, 2**40 + 1, 3, 2**33),
]


def test_round_trip(tmp_path):
    path = tmp_path / "traces" / "cell.parquet"
    write_trace(path, ROWS)
    assert read_trace(path) == ROWS


def test_losses_that_are_not_finite(tmp_path):
    rows = [TraceRow(1, 1, loss, 0.1, 1, 1, None, None) for loss in (math.inf, -math.inf, math.nan)]
    write_trace(tmp_path / "cell.parquet", rows)
    losses = [row.loss for row in read_trace(tmp_path / "cell.parquet")]
    assert losses[:2] == [math.inf, -math.inf]
    assert math.isnan(losses[2])


def test_columns_and_types(tmp_path):
    write_trace(tmp_path / "cell.parquet", ROWS[:1])
    schema = pyarrow.parquet.read_schema(tmp_path / "cell.parquet")
    assert {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True)} == {
        "step": "int64",
        "epoch": "int64",
        "loss": "double",
        "wall_s": "double",
        "closures": "int64",
        "host_peak_bytes": "int64",
        "device_peak_bytes": "int64",
        "device_reserved_bytes": "int64",
    }


class TestInterrupted:
    @pytest.fixture
    def path(self, tmp_path, monkeypatch):
        """A trace, before a second one cannot be written to the end."""
        path = tmp_path / "cell.parquet"
        write_trace(path, ROWS)

        def fill_the_disk(table, where, **_):
            where.write_bytes(b"PAR1 and no more")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(pyarrow.parquet, "write_table", fill_the_disk)
        return path

    def test_the_old_one_stands(self, path):
        with pytest.raises(OSError, match="No space left"):
            write_trace(path, ROWS[:1])
        assert read_trace(path) == ROWS

    def test_no_half_one_appears(self, path):
        with pytest.raises(OSError, match="No space left"):
            write_trace(path.with_name("other.parquet"), ROWS)
        assert [found.name for found in path.parent.glob("*.parquet")] == [path.name]


def test_nothing_but_the_trace_is_left(tmp_path):
    write_trace(tmp_path / "cell.parquet", ROWS)
    write_trace(tmp_path / "cell.parquet", ROWS[:1])
    assert [found.name for found in tmp_path.iterdir()] == ["cell.parquet"]
    assert read_trace(tmp_path / "cell.parquet") == ROWS[:1]
