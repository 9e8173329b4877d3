"""Cached outputs of a model's frozen part: one row per example in one flat file, which is filled as
examples are requested.

A second file holds a checksum for each row that is present. Checksums are written only after their rows have
reached the disk, so an interrupted run leaves only complete rows, and the next run continues from them. Two
runs that fill the same file write the same rows.

When a file is opened, its rows are compared with their checksums, unless this was already done since its last
modification. Rows that do not match count as absent.
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

# NumPy has no bfloat16, so its bits are stored as integers.
_STORED: dict[Precision, str] = {"float32": "float32", "float64": "float64", "bfloat16": "int16"}

# One per row: its CRC-32 (1 instead of 0) if the row is present, otherwise 0.
_CHECKSUM = np.dtype("<u4")

_INDEX = "index.json"


@dataclass(frozen=True)
class FeatureFile:
    """File with the features of one dataset's examples.

    Attributes:
        folder: the file's folder; its name is a hash of everything that the features depend on.
        shape: shape of one example's features.
        precision: precision of the values.
        rows: number of rows, which are numbered as in the decoded file of images, or as in the dataset.
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
        """NumPy's name of the dtype in the file."""
        return _STORED[self.precision]

    @property
    def values_path(self) -> Path:
        return self.folder / "values"

    @property
    def present_path(self) -> Path:
        return self.folder / "present"

    def reader(self, capacity: int) -> RowReader:
        """Open a reader of features by row.

        Args:
            capacity: the maximum number of rows per read.
        """
        return RowReader(self.values_path, self.shape, self.stored_dtype, capacity)

    def present(self) -> np.ndarray:
        """Return whether each row is present: bool (rows,)."""
        return np.fromfile(self.present_path, dtype=_CHECKSUM) != 0

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """Open the file that an earlier run made, without its damaged rows.

        Returns:
            The file; None if there is none, or it is unusable as a whole.
        """
        try:
            index = read_json(folder / _INDEX)
            if index is None:
                return None
            file = cls(folder, tuple(index["shape"]), index["precision"], index["rows"])
            if not file._is_whole():
                return None
            file._drop_damaged_rows()
            return file
        except (OSError, KeyError, TypeError):
            return None

    def make(self) -> None:
        """Create the files, without any rows, unless they are there and intact.

        Raises:
            XbenchError: the disk is full or not writable.
        """
        with (
            disk_errors(f"features cannot be cached in {self.folder.parent}"),
            staging_folder(self.folder) as staged,
        ):
            for path, size in self._file_sizes().items():
                (staged / path.name).touch()
                os.truncate(staged / path.name, size)
            write_json(staged / _INDEX, {"shape": self.shape, "precision": self.precision, "rows": self.rows})
            with hold_place(self.folder, on_wait=lambda: None):
                if FeatureFile.find(self.folder) != self:  # otherwise another process was faster
                    replace_folder(staged, self.folder)

    def remove(self) -> None:
        """Remove the files, whose features are no longer valid."""
        with suppress(OSError):
            discard(self.folder)

    def _file_sizes(self) -> dict[Path, int]:
        return {
            self.values_path: self.rows * self.row_bytes,
            self.present_path: self.rows * _CHECKSUM.itemsize,
        }

    def _is_whole(self) -> bool:
        found = [(path.stat(), size) for path, size in self._file_sizes().items()]
        return all(stat.S_ISREG(info.st_mode) and info.st_size == size for info, size in found)

    def _drop_damaged_rows(self) -> None:
        """Mark the rows that do not match their checksums as absent.

        Raises:
            OSError: the files cannot be read or written.
        """
        mtime_ns = self.values_path.stat().st_mtime_ns
        if load("checked", str(self.values_path)) == mtime_ns:
            return
        recorded = np.fromfile(self.present_path, dtype=_CHECKSUM)
        rows = np.flatnonzero(recorded)
        found = np.maximum(row_checksums(self.values_path, self.row_bytes, rows), 1)
        damaged = rows[found != recorded[rows]]
        if len(damaged):
            present = os.open(self.present_path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                for row in damaged:
                    os.pwrite(present, bytes(_CHECKSUM.itemsize), int(row) * _CHECKSUM.itemsize)
            finally:
                os.close(present)
        save("checked", str(self.values_path), mtime_ns)


class FeatureWriter:
    """Writer that adds rows to a feature file.

    Use it as a context manager. Written rows count as present after a `commit`, or when the block is left.
    """

    def __init__(self, file: FeatureFile):
        self._file = file
        self._written: dict[int, int] = {}

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Write values (n, *shape) to rows (n,).

        Raises:
            XbenchError: the disk is full, or fails.
        """
        size = self._file.row_bytes
        with disk_errors(f"features cannot be cached in {self._file.folder}"):
            stored = np.ascontiguousarray(values, dtype=self._file.stored_dtype)
            for row, value in zip(rows, stored, strict=True):
                if os.pwrite(self._values, value.data, int(row) * size) != size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._written[int(row)] = max(zlib.crc32(value), 1)

    def commit(self) -> None:
        """Mark the written rows as present.

        Raises:
            XbenchError: the disk is full, or fails.
        """
        with disk_errors(f"features cannot be cached in {self._file.folder}"):
            os.fsync(self._values)
            for row, checksum in self._written.items():
                content = np.array(checksum, dtype=_CHECKSUM).tobytes()
                os.pwrite(self._present, content, row * _CHECKSUM.itemsize)
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
