"""Outputs on the test split: a row per example, and never half of a file."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from tests.records.record_samples import outputs
from xbench.records.outputs import Outputs, read_outputs, write_outputs

OUTPUTS = Outputs(
    names=("test/a.png", "test/größer 🩻.png", "test/'c'.png"),
    groups=("patient 1", "", "patient 1"),
    losses=np.array([1e-300, 0.1, math.inf]),
    columns={
        "label": np.array([0, 1, 1]),
        "logit_dark": np.array([1 / 3, -math.inf, math.inf]),
        "logit_[red] two\nlines": np.array([-2e30, 0.0, math.nan]),
    },
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "outputs" / "cell.2.parquet"
    write_outputs(path, OUTPUTS)
    return path


def test_round_trip(path):
    found = read_outputs(path)
    assert (found.names, found.groups) == (OUTPUTS.names, OUTPUTS.groups)
    assert list(found.columns) == list(OUTPUTS.columns)
    losses = (found.losses, OUTPUTS.losses)
    for value, expected in [losses, *zip(found.columns.values(), OUTPUTS.columns.values(), strict=True)]:
        assert value.dtype == expected.dtype
        assert np.array_equal(value, expected, equal_nan=value.dtype == np.float64)


def test_rows_without_columns_of_a_task(tmp_path):
    write_outputs(tmp_path / "losses.parquet", replace(OUTPUTS, columns={}))
    found = read_outputs(tmp_path / "losses.parquet")
    assert (found.names, found.columns) == (OUTPUTS.names, {})
    assert found.losses.tolist() == OUTPUTS.losses.tolist()


def test_a_file_of_an_earlier_version(tmp_path):
    """Earlier versions wrote the labels before the groups, and the logits of classes last."""
    path = tmp_path / "old.parquet"
    columns = {
        "name": pyarrow.array(["test/1", "test/2"], pyarrow.string()),
        "label": pyarrow.array([0, 1], pyarrow.int64()),
        "group": pyarrow.array(["", "patient"], pyarrow.string()),
        "loss": pyarrow.array([0.5, 0.25], pyarrow.float64()),
        "logit_NORMAL": pyarrow.array([1.0, 3.0], pyarrow.float64()),
        "logit_PNEUMONIA": pyarrow.array([2.0, 5.0], pyarrow.float64()),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    found, expected = read_outputs(path), outputs()
    assert (found.names, found.groups) == (expected.names, expected.groups)
    assert found.losses.tolist() == expected.losses.tolist()
    columns = {name: column.tolist() for name, column in found.columns.items()}
    assert columns == {name: column.tolist() for name, column in expected.columns.items()}


def test_columns_and_types(path):
    schema = pyarrow.parquet.read_schema(path)
    assert {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True)} == {
        "name": "string",
        "group": "string",
        "loss": "double",
        "label": "int64",
        "logit_dark": "double",
        "logit_[red] two\nlines": "double",
    }


def test_the_same_outputs_are_the_same_bytes(path, tmp_path):
    write_outputs(tmp_path / "again.parquet", OUTPUTS)
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()


def test_nothing_but_the_file_is_left(path):
    write_outputs(path, OUTPUTS)
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(path, monkeypatch):
    def fill_the_disk(table, where, **_):
        where.write_bytes(b"PAR1 and no more")
        raise OSError(28, "No space left on device")

    content = path.read_bytes()
    monkeypatch.setattr(pyarrow.parquet, "write_table", fill_the_disk)
    for place in (path, path.with_name("other.parquet")):
        with pytest.raises(OSError, match="No space left"):
            write_outputs(place, OUTPUTS)
    assert [found.name for found in path.parent.glob("*.parquet")] == [path.name]
    assert path.read_bytes() == content


@pytest.mark.parametrize("hurt", [lambda content: content[:-1], lambda content: b"", lambda content: None])
def test_a_file_that_is_cut_or_missing_is_an_error(path, hurt):
    content = hurt(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((OSError, ValueError)):
        read_outputs(path)


def test_a_value_that_was_changed_is_an_error(path):
    content = path.read_bytes()
    assert b"test/a.png" in content
    path.write_bytes(content.replace(b"test/a.png", b"test/b.png", 1))
    with pytest.raises((OSError, ValueError)):
        read_outputs(path)


def test_another_table_is_an_error(tmp_path):
    path = tmp_path / "trace.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"step": [1], "loss": [0.5]}), path)
    with pytest.raises(ValueError, match="does not have the columns of outputs: step, loss"):
        read_outputs(path)
