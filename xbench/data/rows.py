"""Reading rows of a flat file, by position, ahead of when they are needed."""

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

# Of a file that is checked, read at once.
_BLOCK_BYTES = 1 << 22


def row_checksums(path: Path, row_bytes: int, rows: Rows) -> np.ndarray:
    """CRC-32 of rows of a file, read on all processors.

    Args:
        row_bytes: of each row.

    Returns:
        uint32 array (len(rows),).

    Raises:
        OSError: the file is shorter than it should be, or the disk fails.
    """
    at_once = max(1, _BLOCK_BYTES // row_bytes)
    blocks = [rows[start : start + at_once] for start in range(0, len(rows), at_once)]

    def of_block(block: Rows) -> list[int]:
        with RowReader(path, (row_bytes,), "uint8", len(block)) as reader:
            return [zlib.crc32(row) for row in reader.read(block)]

    with ThreadPoolExecutor(usable_cpus()) as pool:
        found = [checksum for block in pool.map(of_block, blocks) for checksum in block]
    return np.array(found, dtype=np.uint32)


class RowReader:
    """Reads rows of equal size into one reused buffer, or into one of the caller's.

    Reads, not a memory map: touched pages of a map would count as the cell's memory, reads stay in the
    system's page cache. So a file may be larger than memory.

    Args:
        path: the file: rows of `shape` and `dtype`, one behind the other.
        capacity: the most rows of one read.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str, capacity: int):
        self._buffer = np.empty((capacity, *shape), dtype=dtype)
        self._path, self._row_bytes = path, math.prod(shape) * self._buffer.itemsize
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._close = weakref.finalize(self, os.close, self._descriptor)

    @property
    def buffer(self) -> np.ndarray:
        """What `read` reads into where it is given nothing else: an array of (capacity, *shape)."""
        return self._buffer

    def read(self, rows: Rows, into: np.ndarray | None = None) -> np.ndarray:
        """Read rows of the file.

        Args:
            into: array of the buffer's type, (len(rows), *shape) or longer, to be read into in its place.

        Returns:
            Array of (len(rows), *shape): a view of the buffer, valid until the next read.

        Raises:
            OSError: the file is shorter than it should be, or the disk fails.
        """
        buffer = self._buffer if into is None else into
        for place, row in enumerate(rows):
            read_bytes = os.preadv(self._descriptor, [buffer[place]], int(row) * self._row_bytes)
            if read_bytes != self._row_bytes:
                raise OSError(f"{self._path} ends within row {row}: delete its folder to have it made again")
        return buffer[: len(rows)]

    def announce(self, rows: Rows) -> None:
        """Let the system fetch rows into its page cache while this process goes on. Where a system cannot
        (macOS), they are read when they are needed."""
        if hasattr(os, "posix_fadvise"):
            for row in rows:
                start = int(row) * self._row_bytes
                os.posix_fadvise(self._descriptor, start, self._row_bytes, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Let go of the file; done at the latest when nobody holds the reader."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
