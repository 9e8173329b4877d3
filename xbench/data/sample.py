"""A dataset as it is listed, with a few of its images decoded: enough to see how long a run would take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xbench.components.specs import Dataset, Example
from xbench.data.decode import decode
from xbench.data.decoded import DecodedDataset

# Images that are decoded, over all classes.
_ALL = 64


def decode_sample(dataset: Dataset, name: str, stand_in: str, code: str = "") -> DecodedDataset:
    """All examples of a dataset; the pixels of each are those of one of a few of its class.

    Args:
        name, stand_in, code: as `decode` takes them.

    Raises:
        XbenchError: none of the few is readable.
    """
    few: dict[int, list[Example]] = {}
    of_each = max(1, _ALL // len(dataset.classes))
    for example in dataset.examples:
        of_class = few.setdefault(example.label, [])
        if len(of_class) < of_each and len(few) <= _ALL:
            of_class.append(example)
    part = replace(dataset, examples=tuple(e for of_class in few.values() for e in of_class))
    decoded = decode(part, name, stand_in, False, lambda done, total: None, code, is_sample=True)
    labels = np.array([example.label for example in dataset.examples])
    rows = np.resize(decoded.rows, len(labels))
    for label in np.unique(decoded.labels):
        of_class = labels == label
        rows[of_class] = np.resize(decoded.rows[decoded.labels == label], of_class.sum())
    return replace(
        decoded,
        rows=rows,
        labels=labels,
        is_test=np.array([example.split == "test" for example in dataset.examples]),
        groups=tuple(example.group for example in dataset.examples),
        names=tuple(example.name for example in dataset.examples),
    )
