"""Read rows of a flat file by position, and prefetch rows that are needed soon."""

from __future__ import annotations

import math
import os
import weakref
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np

from xbench.memory.processor import usable_cpus

Rows = Sequence[int] | np.ndarray

# Bytes to read at once when a file is checked.
_BLOCK_BYTES = 1 << 22


def row_checksums(path: Path, row_bytes: int, rows: Rows) -> np.ndarray:
    """Compute the CRC-32 of rows of a file, on all processors.

    Args:
        path: a file of consecutive rows.
        row_bytes: bytes of each row.
        rows: the rows' positions.

    Returns:
        uint32 array (len(rows),).

    Raises:
        OSError: the file is shorter than it should be, or the disk fails.
    """
    block_rows = max(1, _BLOCK_BYTES // row_bytes)
    blocks = [rows[start : start + block_rows] for start in range(0, len(rows), block_rows)]

    def checksums_of(block: Rows) -> list[int]:
        with RowReader(path, (row_bytes,), "uint8", len(block)) as reader:
            return [zlib.crc32(row) for row in reader.read(block)]

    with ThreadPoolExecutor(usable_cpus()) as pool:
        found = [checksum for block in pool.map(checksums_of, blocks) for checksum in block]
    return np.array(found, dtype=np.uint32)


class RowReader:
    """Reader of rows of equal size, into one reused buffer or into one of the caller's.

    The file may be larger than memory. It is not memory-mapped: touched pages of a map would count as the
    cell's memory, while pages that are read stay in the system's page cache.

    Args:
        path: a file of consecutive rows.
        shape, dtype: of each row.
        capacity: the maximum number of rows per read.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str, capacity: int):
        self._buffer = np.empty((capacity, *shape), dtype=dtype)
        self._path, self._row_bytes = path, math.prod(shape) * self._buffer.itemsize
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._close = weakref.finalize(self, os.close, self._descriptor)

    @property
    def buffer(self) -> np.ndarray:
        """Default buffer of `read`: an array of (capacity, *shape)."""
        return self._buffer

    def read(self, rows: Rows, into: np.ndarray | None = None) -> np.ndarray:
        """Read rows of the file.

        Args:
            rows: positions of the rows.
            into: array to use instead of the buffer: of the same dtype, (len(rows), *shape) or longer.

        Returns:
            Array of (len(rows), *shape): a view of the buffer, valid until the next read into it.

        Raises:
            OSError: the file is shorter than it should be, or the disk fails.
        """
        buffer = self._buffer if into is None else into
        for place, row in enumerate(rows):
            read_bytes = os.preadv(self._descriptor, [buffer[place]], int(row) * self._row_bytes)
            if read_bytes != self._row_bytes:
                raise OSError(f"{self._path} ends within row {row}: delete its folder to create it again")
        return buffer[: len(rows)]

    def prefetch(self, rows: Rows) -> None:
        """Let the system read rows into its page cache in the background.

        Where it does not support this (macOS), rows are read when they are needed.
        """
        if hasattr(os, "posix_fadvise"):
            for row in rows:
                start = int(row) * self._row_bytes
                os.posix_fadvise(self._descriptor, start, self._row_bytes, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close the file. This happens at the latest when the reader is garbage-collected."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
