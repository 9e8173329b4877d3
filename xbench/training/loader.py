"""From positions in files to batches on the training device.

Files are read as batches are needed, and the system is told of the next ones early, so that a set may be
larger than memory and a step does not wait for the disk.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch

from xbench.components.specs import ModelSpec
from xbench.data.decoded import DecodedDataset
from xbench.data.features import FeatureFile

# Read at once: large enough to keep the copies efficient, small enough not to count as memory.
_BLOCK_BYTES = 10 << 20


class Loader(ABC):
    """Loads batches of one dataset: what the model takes, and labels.

    Args:
        source: gives the reader of the rows of the examples.
        shape: of one example, as the model takes it.
        dtype: of the batches.
        memory_format: of batches of images or maps, `"channels_last"` or `"contiguous"`.
    """

    def __init__(
        self,
        data: DecodedDataset,
        source: DecodedDataset | FeatureFile,
        shape: tuple[int, ...],
        device: torch.device,
        dtype: torch.dtype,
        memory_format: str,
    ):
        self._rows, self._shape = data.rows, shape
        self._block = max(1, _BLOCK_BYTES // source.row_bytes)
        self._reader = source.reader(self._block)
        self.device, self._dtype = device, dtype
        self._contiguous = memory_format == "contiguous"
        self._labels = torch.from_numpy(data.labels)

    def load(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Load a batch.

        Args:
            indices: (n,) positions in the dataset.

        Returns:
            Examples (n, *shape) and labels (n,) int64, on the device.
        """
        return self._examples(indices), self._moved(self._labels[torch.from_numpy(indices)])

    def parts(self, indices: np.ndarray, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Load a batch in parts of at most `size`, one at a time, in order."""
        for start in range(0, len(indices), size):
            following = indices[start + size : start + 2 * size]
            # After the last part the first is the next: of another evaluation of the same batch.
            self.announce(following if len(following) else indices[:size])
            yield self.load(indices[start : start + size])

    def announce(self, indices: np.ndarray) -> None:
        """Say which examples are needed soon."""
        self._reader.announce(self._rows[indices])

    @property
    def resident_bytes(self) -> int:
        """Of the examples that are held from batch to batch."""
        return 0

    def batch_bytes(self, size: int) -> int:
        """Of the examples and labels of a batch."""
        return size * (math.prod(self._shape) * self._dtype.itemsize + self._labels.itemsize)

    @abstractmethod
    def _examples(self, indices: np.ndarray) -> torch.Tensor:
        """Examples (n, *shape) on the device."""

    def _blocks(self, indices: np.ndarray) -> Iterator[tuple[slice, torch.Tensor]]:
        """The rows as they lie in the file, on the device, block by block, and their places in the batch."""
        for start in range(0, len(indices), self._block):
            stored = torch.from_numpy(self._reader.read(self._rows[indices[start : start + self._block]]))
            # Moved as they are: `copy_` alone would convert on the host, and move four times as much.
            yield slice(start, start + self._block), self._moved(stored)

    def _moved(self, host: torch.Tensor) -> torch.Tensor:
        """The tensor on the device, without waiting for it: pinned memory is sent while the host goes on, and
        torch reuses it only once it is sent."""
        if self.device.type != "cuda":
            return host
        return host.pin_memory().to(self.device, non_blocking=True)


class ImageLoader(Loader):
    """Loads images, normalised for a model.

    Args:
        spec: gives the normalisation.
    """

    def __init__(
        self,
        data: DecodedDataset,
        spec: ModelSpec,
        device: torch.device,
        dtype: torch.dtype,
        memory_format: str,
    ):
        super().__init__(data, data, data.shape, device, dtype, memory_format)
        channels, _, width = data.shape
        # One line of pixels has its channels side by side: as vectors of a whole line, scale and shift are
        # applied at the speed of one long array instead of `channels` values at a time.
        mean = torch.tensor(spec.mean, dtype=dtype).expand(channels).repeat(width)
        std = torch.tensor(spec.std, dtype=dtype).expand(channels).repeat(width)
        self._scale = (1 / (255 * std)).to(device)
        self._shift = (-mean / std).to(device)

    def _examples(self, indices: np.ndarray) -> torch.Tensor:
        channels, height, width = self._shape
        images = torch.empty((len(indices), height, width, channels), dtype=self._dtype, device=self.device)
        for places, pixels in self._blocks(indices):
            images[places].copy_(pixels)
        images.view(-1, width * channels).mul_(self._scale).add_(self._shift)
        images = images.permute(0, 3, 1, 2)  # channels-last by its strides, without a copy
        return images.contiguous() if self._contiguous else images


class FeatureLoader(Loader):
    """Loads the outputs of a model's frozen part, for what is trained behind it."""

    def __init__(
        self,
        data: DecodedDataset,
        features: FeatureFile,
        device: torch.device,
        dtype: torch.dtype,
        memory_format: str,
    ):
        super().__init__(data, features, features.shape, device, dtype, memory_format)
        self._precision = getattr(torch, features.precision)

    def _examples(self, indices: np.ndarray) -> torch.Tensor:
        features = torch.empty((len(indices), *self._shape), dtype=self._dtype, device=self.device)
        for places, stored in self._blocks(indices):
            features[places].copy_(stored.view(self._precision))
        if features.ndim == 4 and not self._contiguous:
            return features.contiguous(memory_format=torch.channels_last)
        return features


class ResidentImageLoader(ImageLoader):
    """Keeps every image of the dataset in memory, normalised, as a notebook would. Batches are copies."""

    def __init__(self, data: DecodedDataset, *args, **kwargs):
        super().__init__(data, *args, **kwargs)
        everything = np.arange(len(data.labels))
        first, _ = super().load(everything[:1])
        # Filled part by part: a second copy of it all would be the peak.
        self._images = torch.empty_like(first.expand(len(everything), -1, -1, -1))
        for start in range(0, len(everything), self._block):
            part = slice(start, start + self._block)
            self._images[part], _ = super().load(everything[part])
        self._all_labels = self._moved(self._labels)

    @property
    def resident_bytes(self) -> int:
        return self._images.nbytes + self._all_labels.nbytes

    def load(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.from_numpy(indices).to(self.device)
        return self._images[chosen], self._all_labels[chosen]

    def announce(self, indices: np.ndarray) -> None:
        """They are in memory."""
