"""Outputs of a model's frozen part in the cache: one row an image, in one flat file that fills up as images
are asked for.

A second file has a byte for each row that is there. It is written behind the rows and after they have reached
the disk, so that an interrupted run leaves rows to go on from and none that is half made. Two runs that fill
the same file write the same rows.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np

from xbench.data.rows import RowReader
from xbench.paths import put_in_place

Precision = Literal["float32", "float64", "bfloat16"]

# NumPy has no bfloat16; its bits travel as whole numbers.
_STORED: dict[Precision, str] = {"float32": "float32", "float64": "float64", "bfloat16": "int16"}

_INDEX = "index.json"


@dataclass(frozen=True)
class FeatureFile:
    """Features of the images of one decoded dataset.

    Attributes:
        folder: holds the file; named by all that the features depend on.
        shape: of one image's features.
        precision: of the values.
        rows: of the decoded file, whose numbering this one shares.
    """

    folder: Path
    shape: tuple[int, ...]
    precision: Precision
    rows: int

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.stored_dtype).itemsize

    @property
    def stored_dtype(self) -> str:
        """NumPy's name for what lies in the file."""
        return _STORED[self.precision]

    @property
    def values_path(self) -> Path:
        return self.folder / "values"

    @property
    def present_path(self) -> Path:
        return self.folder / "present"

    def reader(self, capacity: int) -> RowReader:
        """Reads features by row.

        Args:
            capacity: the most rows of one read.
        """
        return RowReader(self.values_path, self.shape, self.stored_dtype, capacity)

    def present(self) -> np.ndarray:
        """For each row whether it is there: bool (rows,)."""
        return np.fromfile(self.present_path, dtype=np.uint8).astype(bool)

    @classmethod
    def found(cls, folder: Path) -> Self | None:
        """What an earlier run has made; None if there is nothing, or it is damaged."""
        try:
            index = json.loads((folder / _INDEX).read_text())
            file = cls(folder, tuple(index["shape"]), index["precision"], index["rows"])
            return file if file._is_whole() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def make(self) -> None:
        """Make the files, without a row yet, where they are not there or damaged."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f"{self.folder.name}.", dir=self.folder.parent))
        try:
            for path, size in self._sizes().items():
                (aside / path.name).touch()
                os.truncate(aside / path.name, size)
            index = {"shape": self.shape, "precision": self.precision, "rows": self.rows}
            (aside / _INDEX).write_text(json.dumps(index))
            put_in_place(aside, self.folder, lambda: FeatureFile.found(self.folder) == self)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def remove(self) -> None:
        """Remove the files: what they hold is of no use."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _sizes(self) -> dict[Path, int]:
        return {self.values_path: self.rows * self.row_bytes, self.present_path: self.rows}

    def _is_whole(self) -> bool:
        return all(path.stat().st_size == size for path, size in self._sizes().items())


class FeatureWriter:
    """Adds rows to a feature file. Use as a context manager: what was written counts once it is left, or at a
    `commit`."""

    def __init__(self, file: FeatureFile):
        self._file = file
        self._written: list[int] = []

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Write values (n, *shape) to rows (n,)."""
        for row, value in zip(rows, np.ascontiguousarray(values, dtype=self._file.stored_dtype), strict=True):
            if os.pwrite(self._values, value.data, int(row) * self._file.row_bytes) != self._file.row_bytes:
                raise OSError(f"{self._file.values_path}: no room for another row")
            self._written.append(int(row))

    def commit(self) -> None:
        """Let what was written count."""
        os.fsync(self._values)
        for row in self._written:
            os.pwrite(self._present, b"\1", row)
        self._written = []

    def __enter__(self) -> Self:
        self._values = os.open(self._file.values_path, os.O_WRONLY | os.O_CLOEXEC)
        self._present = os.open(self._file.present_path, os.O_WRONLY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_) -> None:
        try:
            self.commit()
        finally:
            os.close(self._values)
            os.close(self._present)
