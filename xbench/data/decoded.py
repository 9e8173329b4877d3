"""Decoded datasets: labels and splits in memory, pixels in one flat file that is read by position."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from xbench.components.facts import Facts, Output, TensorFacts
from xbench.data.duplicates import NO_DUPLICATES, Duplicates
from xbench.data.near_copies import NOT_COMPARED, NearCopies
from xbench.data.prepared import PreparedData
from xbench.data.rows import RowReader


@dataclass(frozen=True, kw_only=True)
class DecodedDataset(PreparedData):
    """All readable images of a dataset, ready to be read by position.

    Attributes:
        positive, shape: as in `xbench.Dataset`; shape is (channels, height, width).
        pixels_path: uint8 file of shape (rows, height, width, channels).
        rows: (examples,) int64: each example's row in the file.
        unreadable: (name, reason) of each image that was left out.
        duplicates: copies across splits or classes.
        near: images that look alike but are not copies.
    """

    positive: str
    shape: tuple[int, int, int]
    pixels_path: Path
    rows: np.ndarray
    unreadable: tuple[tuple[str, str], ...]
    duplicates: Duplicates = NO_DUPLICATES
    near: NearCopies = NOT_COMPARED

    @property
    def facts(self) -> Facts:
        return image_facts(self.shape, len(self.classes), self.train_rows)

    def for_training(self) -> Self:
        return replace(self, names=(), duplicates=NO_DUPLICATES, near=NOT_COMPARED)

    def file_rows(self, indices: np.ndarray) -> np.ndarray:
        return self.rows[indices]

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


def image_facts(shape: tuple[int, int, int], classes: int, rows: int) -> Facts:
    """Return the facts about labelled images (channels, height, width), as models get them."""
    return Facts((TensorFacts(shape, "float32"), TensorFacts((), "int64")), Output("classes", classes), rows)
