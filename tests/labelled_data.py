"""Data that is known by labels, splits and groups alone: its images are never read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xbench.data.decoded import DecodedDataset


def labelled_data(
    labels: Sequence[int] | np.ndarray,
    classes: tuple[str, ...],
    is_test: Sequence[bool] | None = None,
    groups: Sequence[str] | None = None,
) -> DecodedDataset:
    """Make images with these labels. By default, all are training images that belong to no group."""
    count = len(labels)
    return DecodedDataset(
        name="labelled",
        notes=(),
        stand_in="",
        labels=np.asarray(labels),
        is_test=np.zeros(count, dtype=bool) if is_test is None else np.asarray(is_test),
        classes=classes,
        groups=("",) * count if groups is None else tuple(groups),
        names=(),
        fingerprint="",
        positive=classes[-1],
        shape=(3, 1, 1),
        pixels_path=Path(),
        rows=np.arange(count),
        unreadable=(),
    )
