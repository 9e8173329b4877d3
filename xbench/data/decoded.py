"""A decoded dataset: labels and splits in memory, pixels in one flat file that is read by position."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np


@dataclass(frozen=True)
class DecodedDataset:
    """All readable images of a dataset, ready to be read by position.

    Attributes:
        name: the dataset's name in the suite.
        classes, positive, shape, notes: as in `xbench.Dataset`; shape is (channels, height, width).
        stand_in: what to tell a reader if the data is made up; empty for real data.
        pixels_path: uint8 file of (rows, height, width, channels).
        rows, labels, is_test: (examples,) arrays: row in the file (int64), class (int64), split (bool).
        groups: (examples,) names of patients or the like.
        fingerprint: hash of all that training can see of the data.
        unreadable: (name, reason) of each image that was left out.
    """

    name: str
    classes: tuple[str, ...]
    positive: str
    shape: tuple[int, int, int]
    notes: tuple[str, ...]
    stand_in: str
    pixels_path: Path
    rows: np.ndarray
    labels: np.ndarray
    is_test: np.ndarray
    groups: tuple[str, ...]
    fingerprint: str
    unreadable: tuple[tuple[str, str], ...]


class PixelReader:
    """Reads images by position into one reused buffer.

    Reads, not a memory map: touched pages of a map would count as the cell's memory, reads stay in the
    system's page cache.

    Args:
        data: the dataset to read.
        capacity: the most images of one read.
    """

    def __init__(self, data: DecodedDataset, capacity: int):
        channels, height, width = data.shape
        self._buffer = np.empty((capacity, height, width, channels), dtype=np.uint8)
        self._image_bytes = height * width * channels
        self._path = data.pixels_path
        self._descriptor = os.open(data.pixels_path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read rows of the file.

        Returns:
            uint8 (len(rows), height, width, channels): a view of the buffer, valid until the next read.

        Raises:
            OSError: the file is shorter than it should be, or the disk fails.
        """
        for place, row in enumerate(rows):
            read_bytes = os.preadv(self._descriptor, [self._buffer[place]], int(row) * self._image_bytes)
            if read_bytes != self._image_bytes:
                raise OSError(f"{self._path} ends within row {row}: delete its folder to have it made again")
        return self._buffer[: len(rows)]

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()
