"""From positions in the decoded file to normalised image batches on the training device."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from xbench.components.specs import ModelSpec
from xbench.data.decoded import DecodedDataset, PixelReader

# Images read at once: large enough to keep the copies efficient, small enough not to count as memory.
_BLOCK = 64


class ImageLoader:
    """Loads batches of one dataset for one model.

    Args:
        spec: gives the normalisation.
        memory_format: of the batches, `"channels_last"` or `"contiguous"`.
    """

    def __init__(
        self,
        data: DecodedDataset,
        spec: ModelSpec,
        device: torch.device,
        dtype: torch.dtype,
        memory_format: str,
    ):
        channels, _, width = data.shape
        self._rows = data.rows
        self._reader = PixelReader(data, capacity=_BLOCK)
        self._shape = data.shape
        self._device, self._dtype = device, dtype
        self._contiguous = memory_format == "contiguous"
        self._labels = torch.from_numpy(data.labels)
        # One line of pixels has its channels side by side: as vectors of a whole line, scale and shift are
        # applied at the speed of one long array instead of `channels` values at a time.
        mean = torch.tensor(spec.mean, dtype=dtype).expand(channels).repeat(width)
        std = torch.tensor(spec.std, dtype=dtype).expand(channels).repeat(width)
        self._scale = (1 / (255 * std)).to(device)
        self._shift = (-mean / std).to(device)

    def load(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Load a batch.

        Args:
            indices: (n,) positions in the dataset.

        Returns:
            Normalised images (n, channels, height, width) and labels (n,) int64, on the device.
        """
        channels, height, width = self._shape
        images = torch.empty((len(indices), height, width, channels), dtype=self._dtype, device=self._device)
        lines = images.view(-1, width * channels)
        for start in range(0, len(indices), _BLOCK):
            pixels = torch.from_numpy(self._reader.read(self._rows[indices[start : start + _BLOCK]]))
            # Moved as bytes: `copy_` alone would convert on the host, and move four times as much.
            images[start : start + _BLOCK].copy_(self._moved(pixels))
        lines.mul_(self._scale).add_(self._shift)
        images = images.permute(0, 3, 1, 2)  # channels-last by its strides, without a copy
        labels = self._moved(self._labels[torch.from_numpy(indices)])
        return (images.contiguous() if self._contiguous else images), labels

    @property
    def resident_bytes(self) -> int:
        """Of the examples that are held from batch to batch."""
        return 0

    def batch_bytes(self, size: int) -> int:
        """Of the images and labels of a batch."""
        return size * (math.prod(self._shape) * self._dtype.itemsize + self._labels.itemsize)

    def _moved(self, host: torch.Tensor) -> torch.Tensor:
        """The tensor on the device, without waiting for it: pinned memory is sent while the host goes on, and
        torch reuses it only once it is sent."""
        if self._device.type != "cuda":
            return host
        return host.pin_memory().to(self._device, non_blocking=True)

    def parts(self, indices: np.ndarray, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Load a batch in parts of at most `size`, one at a time, in order."""
        for start in range(0, len(indices), size):
            yield self.load(indices[start : start + size])


class ResidentImageLoader(ImageLoader):
    """Keeps every image of the dataset in memory, normalised, as a notebook would. Batches are copies."""

    def __init__(self, data: DecodedDataset, *args, **kwargs):
        super().__init__(data, *args, **kwargs)
        everything = np.arange(len(data.labels))
        first, _ = super().load(everything[:1])
        # Filled part by part: a second copy of it all would be the peak.
        self._images = torch.empty_like(first.expand(len(everything), -1, -1, -1))
        for start in range(0, len(everything), _BLOCK):
            self._images[start : start + _BLOCK], _ = super().load(everything[start : start + _BLOCK])
        self._all_labels = self._moved(self._labels)

    @property
    def resident_bytes(self) -> int:
        return self._images.nbytes + self._all_labels.nbytes

    def load(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.from_numpy(indices).to(self._device)
        return self._images[chosen], self._all_labels[chosen]
