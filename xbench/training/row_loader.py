"""Load batches of a `RowDataset` to the training device."""

from __future__ import annotations

import numpy as np
import torch

from xbench.data.prepared import RowData
from xbench.training.loader import FeatureLoader, Loader, Part
from xbench.training.nested import convert, count_bytes, map_tensors, replace_first
from xbench.training.row_set import RowSet


class RowLoader(Loader):
    """Loader of rows: parts are batches as the dataset makes them, or a dict of them if there are terms.

    Floating-point tensors are converted to a dtype, except features.

    Args:
        rows: the rows in this process.
        data: what is known of the rows.
        features: loader of cached features, which take the place of the first tensor of a batch: the model's
            input. The task must have a single term.
    """

    def __init__(
        self,
        rows: RowSet,
        data: RowData,
        device: torch.device,
        dtype: torch.dtype,
        features: FeatureLoader | None = None,
    ):
        self._features = features
        self._rows = rows.converted(dtype)
        self._has_terms, self._dtype, self.device = bool(data.term_names), dtype, device
        first = self.load(np.zeros(1, dtype=np.int64))
        self._row_bytes = count_bytes(list(first.values()) if self._has_terms else first)
        if data.row_bytes is not None:
            self._row_bytes = int(data.row_bytes.max())

    def load(self, indices: np.ndarray) -> Part:
        loaded = self._rows.load(indices)
        part = loaded if self._has_terms else loaded[""]
        if self._features is None:
            part = convert(part, self._dtype)
        else:  # before anything is sent: the inputs are not needed on the device
            features = self._features.load_examples(indices)
            part = replace_first(convert(replace_first(part, features), self._dtype), features)
        return part if self.device.type == "cpu" else map_tensors(lambda t: t.to(self.device), part)

    def prefetch(self, indices: np.ndarray) -> None:
        """Let the system read features in the background that are needed soon."""
        if self._features is not None:
            self._features.prefetch(indices)

    @property
    def resident_bytes(self) -> int:
        of_features = 0 if self._features is None else self._features.resident_bytes
        return of_features + (self._rows.resident_bytes if self.device.type == "cpu" else 0)

    @property
    def pinned_bytes(self) -> int:
        return 0 if self._features is None else self._features.pinned_bytes

    def batch_bytes(self, size: int) -> int:
        return size * self._row_bytes
