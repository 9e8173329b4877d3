"""Outputs of a model's frozen part in the cache: one row an image, in one flat file that fills up as images
are asked for.

A second file has a checksum for each row that is there. It is written behind the rows and after they have
reached the disk, so that an interrupted run leaves rows to go on from and none that is half made. Two runs
that fill the same file write the same rows.

Rows are held against their checksums when the file is opened and its modification time is not the one at
which that was last done; those that do not match count as not there.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np

from xbench.data.rows import RowReader, row_checksums
from xbench.storage.atomic import read_json, write_json
from xbench.storage.cache import load, save
from xbench.storage.locks import hold_place
from xbench.storage.paths import disk_errors
from xbench.storage.staging import discard, replace_folder, staging_folder

Precision = Literal["float32", "float64", "bfloat16"]

# NumPy has no bfloat16; its bits travel as whole numbers.
_STORED: dict[Precision, str] = {"float32": "float32", "float64": "float64", "bfloat16": "int16"}

# For each row 0, or its CRC-32 if it is there (1 in place of 0).
_CHECKSUM = np.dtype("<u4")

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
        return np.fromfile(self.present_path, dtype=_CHECKSUM) != 0

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """What an earlier run has made; None if there is nothing, or it is damaged beyond single rows."""
        try:
            index = read_json(folder / _INDEX)
            if index is None:
                return None
            file = cls(folder, tuple(index["shape"]), index["precision"], index["rows"])
            if not file._is_whole():
                return None
            file._check_rows()
            return file
        except (OSError, KeyError, TypeError):
            return None

    def make(self) -> None:
        """Make the files, without a row yet, where they are not there or damaged.

        Raises:
            XbenchError: the disk is full, or cannot be written.
        """
        with (
            disk_errors(f"features cannot be kept in {self.folder.parent}"),
            staging_folder(self.folder) as staged,
        ):
            for path, size in self._sizes().items():
                (staged / path.name).touch()
                os.truncate(staged / path.name, size)
            write_json(staged / _INDEX, {"shape": self.shape, "precision": self.precision, "rows": self.rows})
            with hold_place(self.folder, on_wait=lambda: None):
                if FeatureFile.find(self.folder) != self:  # else another process was faster
                    replace_folder(staged, self.folder)

    def remove(self) -> None:
        """Remove the files: what they hold is of no use."""
        with suppress(OSError):
            discard(self.folder)

    def _sizes(self) -> dict[Path, int]:
        return {
            self.values_path: self.rows * self.row_bytes,
            self.present_path: self.rows * _CHECKSUM.itemsize,
        }

    def _is_whole(self) -> bool:
        found = [(path.stat(), size) for path, size in self._sizes().items()]
        return all(stat.S_ISREG(of.st_mode) and of.st_size == size for of, size in found)

    def _check_rows(self) -> None:
        """Take back the rows that are not as they were written.

        Raises:
            OSError: they cannot be read, or taken back.
        """
        mtime_ns = self.values_path.stat().st_mtime_ns
        if load("checked", str(self.values_path)) == mtime_ns:
            return
        noted = np.fromfile(self.present_path, dtype=_CHECKSUM)
        rows = np.flatnonzero(noted)
        found = np.maximum(row_checksums(self.values_path, self.row_bytes, rows), 1)
        damaged = rows[found != noted[rows]]
        if len(damaged):
            present = os.open(self.present_path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                for row in damaged:
                    os.pwrite(present, bytes(_CHECKSUM.itemsize), int(row) * _CHECKSUM.itemsize)
            finally:
                os.close(present)
        save("checked", str(self.values_path), mtime_ns)


class FeatureWriter:
    """Adds rows to a feature file. Use as a context manager: what was written counts once it is left, or at a
    `commit`."""

    def __init__(self, file: FeatureFile):
        self._file = file
        self._written: dict[int, int] = {}

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Write values (n, *shape) to rows (n,).

        Raises:
            XbenchError: the disk is full, or fails.
        """
        size = self._file.row_bytes
        with disk_errors(f"features cannot be kept in {self._file.folder}"):
            stored = np.ascontiguousarray(values, dtype=self._file.stored_dtype)
            for row, value in zip(rows, stored, strict=True):
                if os.pwrite(self._values, value.data, int(row) * size) != size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._written[int(row)] = max(zlib.crc32(value), 1)

    def commit(self) -> None:
        """Let what was written count.

        Raises:
            XbenchError: the disk is full, or fails.
        """
        with disk_errors(f"features cannot be kept in {self._file.folder}"):
            os.fsync(self._values)
            for row, checksum in self._written.items():
                noted = np.array(checksum, dtype=_CHECKSUM).tobytes()
                os.pwrite(self._present, noted, row * _CHECKSUM.itemsize)
        self._written = {}

    def __enter__(self) -> Self:
        self._values = os.open(self._file.values_path, os.O_WRONLY | os.O_CLOEXEC)
        self._present = os.open(self._file.present_path, os.O_WRONLY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.commit()
        finally:
            os.close(self._values)
            os.close(self._present)
