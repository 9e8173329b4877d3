"""Load batches of a `RowDataset` to the training device."""

from __future__ import annotations

import numpy as np
import torch

from xbench.data.prepared import RowData
from xbench.training.loader import Loader, Part
from xbench.training.nested import convert, count_bytes, map_tensors
from xbench.training.row_set import RowSet


class RowLoader(Loader):
    """Loader of rows: parts are batches as the dataset makes them, or a dict of them if there are terms.

    Floating-point tensors are converted to the training's dtype.

    Args:
        rows: the rows in this process.
        data: what is known of the rows.
    """

    def __init__(self, rows: RowSet, data: RowData, device: torch.device, dtype: torch.dtype):
        self._rows = rows.converted(dtype)
        self._has_terms, self._dtype, self.device = bool(data.term_names), dtype, device
        first = self.load(np.zeros(1, dtype=np.int64))
        self._row_bytes = count_bytes(list(first.values()) if self._has_terms else first)
        if data.row_bytes is not None:
            self._row_bytes = int(data.row_bytes.max())

    def load(self, indices: np.ndarray) -> Part:
        loaded = self._rows.load(indices)
        part = loaded if self._has_terms else loaded[""]
        part = convert(part, self._dtype)
        return part if self.device.type == "cpu" else map_tensors(lambda t: t.to(self.device), part)

    @property
    def resident_bytes(self) -> int:
        return self._rows.resident_bytes if self.device.type == "cpu" else 0

    def batch_bytes(self, size: int) -> int:
        return size * self._row_bytes
