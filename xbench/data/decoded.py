"""Decoded datasets: labels and splits in memory, pixels in one flat file that is read by position."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xbench.data.duplicates import NO_DUPLICATES, Duplicates
from xbench.data.rows import RowReader


@dataclass(frozen=True)
class DecodedDataset:
    """All readable images of a dataset, ready to be read by position.

    Attributes:
        name: the dataset's name in the suite.
        classes, positive, shape, notes: as in `xbench.Dataset`; shape is (channels, height, width).
        stand_in: notice for readers if the data is synthetic; empty for real data.
        pixels_path: uint8 file of shape (rows, height, width, channels).
        rows, labels, is_test: (examples,) arrays: row in the file (int64), class (int64), split (bool).
        groups: (examples,) names of patients or other groups.
        names: (examples,) as in `xbench.Example`; empty in processes that do not need them.
        fingerprint: hash of everything that training can see of the data.
        unreadable: (name, reason) of each image that was left out.
        duplicates: copies across splits or classes.
        is_sample: whether the pixels of a few images stand in for those of all; see `data.sample`.
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
    names: tuple[str, ...]
    fingerprint: str
    unreadable: tuple[tuple[str, str], ...]
    duplicates: Duplicates = NO_DUPLICATES
    is_sample: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of one image in the file."""
        return math.prod(self.shape)

    def reader(self, capacity: int) -> RowReader:
        """Open a reader of images (height, width, channels) by row.

        Args:
            capacity: the maximum number of images per read.
        """
        channels, height, width = self.shape
        return RowReader(self.pixels_path, (height, width, channels), "uint8", capacity)
