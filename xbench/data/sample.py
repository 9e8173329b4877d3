"""A dataset as it is listed, with a few of its images decoded: enough to see how long a run would take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xbench.components.specs import Dataset, Example
from xbench.data.decode import decode
from xbench.data.decoded import DecodedDataset

_OF_EACH_CLASS = 16


def sampled(dataset: Dataset, name: str, stand_in: str) -> DecodedDataset:
    """All examples of a dataset; the pixels of each are those of one of a few of its class.

    Args:
        name, stand_in: as `decode` takes them.

    Raises:
        XbenchError: none of the few is readable.
    """
    few: list[Example] = []
    for label in range(len(dataset.classes)):
        few += [e for e in dataset.examples if e.label == label][:_OF_EACH_CLASS]
    part = replace(dataset, examples=tuple(few))
    decoded = decode(part, name, stand_in, False, lambda done, total: None)
    labels = np.array([example.label for example in dataset.examples])
    rows = np.empty(len(labels), dtype=np.int64)
    for label in range(len(dataset.classes)):
        of_class = decoded.rows[decoded.labels == label]
        if not len(of_class):
            of_class = decoded.rows
        rows[labels == label] = np.resize(of_class, (labels == label).sum())
    return replace(
        decoded,
        is_sample=True,
        rows=rows,
        labels=labels,
        is_test=np.array([example.split == "test" for example in dataset.examples]),
        groups=tuple(example.group for example in dataset.examples),
    )
