"""Decode only a few images of a dataset: enough to estimate how long a run would take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xbench.components.image_dataset import Dataset, Example
from xbench.data.decode import decode
from xbench.data.decoded import DecodedDataset

# Images to decode, over all classes.
_MAX_IMAGES = 64


def decode_sample(dataset: Dataset, name: str, stand_in: str, code: str = "") -> DecodedDataset:
    """List all examples of a dataset, and let a few decoded images of each class stand in for all of it.

    Args:
        dataset: the dataset as its factory lists it.
        name, stand_in, code: see `decode`.

    Raises:
        XbenchError: none of these few images is readable.
    """
    chosen: dict[int, list[Example]] = {}
    per_class = max(1, _MAX_IMAGES // len(dataset.classes))
    for example in dataset.examples:
        members = chosen.setdefault(example.label, [])
        if len(members) < per_class and len(chosen) <= _MAX_IMAGES:
            members.append(example)
    part = replace(dataset, examples=tuple(e for members in chosen.values() for e in members))
    decoded = decode(part, name, stand_in, False, lambda done, total: None, code, is_sample=True)
    labels = np.array([example.label for example in dataset.examples])
    rows = np.resize(decoded.rows, len(labels))
    for label in np.unique(decoded.labels):
        in_class = labels == label
        rows[in_class] = np.resize(decoded.rows[decoded.labels == label], in_class.sum())
    return replace(
        decoded,
        rows=rows,
        labels=labels,
        is_test=np.array([example.split == "test" for example in dataset.examples]),
        groups=tuple(example.group for example in dataset.examples),
        names=tuple(example.name for example in dataset.examples),
    )
