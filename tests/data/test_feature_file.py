"""The file of features: rows that fill up, of which only whole ones count."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from xbench.data import features
from xbench.data.features import FeatureFile, FeatureWriter
from xbench.storage.atomic import write_json

SHAPE = (2, 3)
ROWS = 10


@pytest.fixture
def file(cache) -> FeatureFile:
    """A fresh one, in a cache that was not there."""
    file = FeatureFile(cache / "features" / "abc", SHAPE, "float32", ROWS)
    file.make()
    return file


def values(*numbers: float, dtype="float32") -> np.ndarray:
    return np.stack([np.full(SHAPE, number, dtype=dtype) for number in numbers])


def touch(path: Path, later_s: int) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + later_s * 10**9))


def present(file: FeatureFile) -> list[int]:
    return np.flatnonzero(file.present()).tolist()


def read(file: FeatureFile, *rows: int) -> np.ndarray:
    with file.reader(ROWS) as reader:
        return reader.read(rows).copy()


class TestMake:
    def test_there_is_no_row_yet(self, file):
        assert present(file) == []
        assert len(file.present()) == ROWS
        assert FeatureFile.find(file.folder) == file

    def test_nothing_is_left_beside_it(self, file):
        assert [path.name for path in file.folder.parent.iterdir()] == ["abc"]

    def test_space_is_taken_only_as_it_fills(self, file):
        assert file.values_path.stat().st_size == ROWS * file.row_bytes
        assert file.values_path.stat().st_blocks == 0

    def test_a_damaged_one_is_replaced(self, file):
        with FeatureWriter(file) as writer:
            writer.write(np.array([3]), values(1))
        file.present_path.write_bytes(b"\1")
        assert FeatureFile.find(file.folder) is None
        file.make()
        assert FeatureFile.find(file.folder) == file
        assert present(file) == []

    @pytest.mark.parametrize(("precision", "row_bytes"), [("float32", 24), ("float64", 48), ("bfloat16", 12)])
    def test_row_bytes(self, tmp_path, precision, row_bytes):
        assert FeatureFile(tmp_path, SHAPE, precision, ROWS).row_bytes == row_bytes


class TestFound:
    def test_nothing(self, tmp_path):
        assert FeatureFile.find(tmp_path / "nowhere") is None

    @pytest.mark.parametrize("change", [-1, 1])
    @pytest.mark.parametrize("name", ["values", "present"])
    def test_a_file_of_another_size(self, file, name, change):
        path = file.folder / name
        with path.open("r+b") as opened:
            opened.truncate(path.stat().st_size + change)
        assert FeatureFile.find(file.folder) is None

    @pytest.mark.parametrize("name", ["values", "present", "index.json"])
    def test_a_file_that_is_missing(self, file, name):
        (file.folder / name).unlink()
        assert FeatureFile.find(file.folder) is None

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "{",
            "[]",
            "null",
            "{}",
            "\ufffd",
            json.dumps({"shape": None, "precision": "float32", "rows": ROWS}),
            json.dumps({"shape": ["a"], "precision": "float32", "rows": ROWS}),
            json.dumps({"shape": SHAPE, "precision": "float8", "rows": ROWS}),
            json.dumps({"shape": SHAPE, "precision": "float32", "rows": "many"}),
            json.dumps({"shape": SHAPE, "precision": "float64", "rows": ROWS}),
        ],
    )
    def test_an_index_that_makes_no_sense(self, file, content):
        (file.folder / "index.json").write_text(content)
        assert FeatureFile.find(file.folder) is None
        if content.startswith("{") and content.endswith("}"):  # with the right checksum
            write_json(file.folder / "index.json", json.loads(content))
            assert FeatureFile.find(file.folder) is None

    def test_rows_that_are_not_as_they_were_written_are_not_there(self, file):
        with FeatureWriter(file) as writer:
            writer.write(np.array([2, 5, 7]), values(2, 5, 0))
        assert FeatureFile.find(file.folder) == file
        with file.values_path.open("r+b") as opened:
            opened.seek(5 * file.row_bytes + 3)
            opened.write(b"\x01")
        touch(file.values_path, 5)
        assert FeatureFile.find(file.folder) == file
        assert present(file) == [2, 7]
        assert np.array_equal(read(file, 2, 7), values(2, 0))

    def test_rows_without_their_checksums_are_not_there(self, file):
        with FeatureWriter(file) as writer:
            writer.write(np.array([2]), values(2))
        file.present_path.write_bytes(b"\1" * file.present_path.stat().st_size)
        assert FeatureFile.find(file.folder) == file
        assert present(file) == []

    def test_rows_are_looked_at_once(self, file, monkeypatch):
        looked = []
        checksums = features.row_checksums
        monkeypatch.setattr(features, "row_checksums", lambda *args: looked.append(1) or checksums(*args))
        with FeatureWriter(file) as writer:
            writer.write(np.array([2]), values(2))
        for _ in range(2):
            assert FeatureFile.find(file.folder) == file
        assert looked == [1]
        with FeatureWriter(file) as writer:
            writer.write(np.array([3]), values(3))
        touch(file.values_path, 5)
        assert FeatureFile.find(file.folder) == file
        assert looked == [1, 1]
        assert present(file) == [2, 3]

    @pytest.mark.parametrize("name", ["values", "present", "index.json"])
    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
    def test_what_is_no_file(self, file, name, make):
        (file.folder / name).unlink()
        make(file.folder / name)
        assert FeatureFile.find(file.folder) is None
        file.make()
        assert FeatureFile.find(file.folder) == file

    def test_an_index_of_bytes(self, file):
        (file.folder / "index.json").write_bytes(b"\xff\xfe\x00")
        assert FeatureFile.find(file.folder) is None


class TestWriter:
    def test_rows_are_where_they_belong(self, file):
        with FeatureWriter(file) as writer:
            writer.write(np.array([7, 2]), values(70, 20))
            writer.write(np.array([0]), values(5))
        assert present(file) == [0, 2, 7]
        assert np.array_equal(read(file, 2, 7, 0), values(20, 70, 5))

    def test_what_was_not_committed_does_not_count(self, file):
        with FeatureWriter(file) as writer:
            writer.write(np.array([1]), values(1))
            writer.commit()
            writer.write(np.array([2]), values(2))
            assert present(file) == [1]
        assert present(file) == [1, 2]

    def test_what_was_written_before_an_error_counts(self, file):
        with pytest.raises(ArithmeticError), FeatureWriter(file) as writer:
            writer.write(np.array([4]), values(4))
            raise ArithmeticError
        assert present(file) == [4]
        assert FeatureFile.find(file.folder) == file

    def test_rows_that_were_there_stay(self, file):
        for row in (3, 5):
            with FeatureWriter(file) as writer:
                writer.write(np.array([row]), values(row))
        assert present(file) == [3, 5]
        assert np.array_equal(read(file, 3, 5), values(3, 5))

    def test_two_at_once(self, file):
        with FeatureWriter(file) as one, FeatureWriter(file) as other:
            one.write(np.array([3, 4]), values(3, 4))
            other.write(np.array([4, 5]), values(4, 5))
        assert present(file) == [3, 4, 5]
        assert np.array_equal(read(file, 3, 4, 5), values(3, 4, 5))

    def test_bits_travel_unchanged(self, tmp_path):
        file = FeatureFile(tmp_path / "halves", SHAPE, "bfloat16", ROWS)
        file.make()
        bits = values(-2, 32767, dtype="int16")
        with FeatureWriter(file) as writer:
            writer.write(np.array([8, 9]), bits)
        assert np.array_equal(read(file, 8, 9), bits)

    def test_values_need_not_lie_side_by_side(self, file):
        with FeatureWriter(file) as writer:
            scattered = np.arange(12, dtype="float32").reshape(3, 2, 2).transpose(2, 1, 0)
            writer.write(np.array([0, 1]), scattered)
        assert np.array_equal(read(file, 0, 1), scattered)
