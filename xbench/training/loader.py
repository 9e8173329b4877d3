"""From positions in files to batches on the training device.

Files are read as batches are needed, and the system is told of the next ones early, so that a set may be
larger than memory and a step does not wait for the disk. To a CUDA device they go from pinned memory, which
they are read into directly: the host reads the next batch while the device computes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from xbench.components.specs import ModelSpec
from xbench.data.decoded import DecodedDataset
from xbench.data.features import FeatureFile
from xbench.training.pinned import PinnedBuffers

# Read at once: large enough to keep the copies efficient, small enough not to count as memory.
_BLOCK_BYTES = 10 << 20
# Sent at once.
_MAX_INDICES = 8192


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
        self._host_labels = data.labels
        self._labels = torch.from_numpy(data.labels).to(device)
        self._row_buffers = self._index_buffers = None
        if device.type == "cuda":
            self._row_buffers = PinnedBuffers(self._reader.buffer, device)
            self._index_buffers = PinnedBuffers(np.empty(_MAX_INDICES, dtype=np.int64), device)

    def load(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Load a batch.

        Args:
            indices: (n,) positions in the dataset.

        Returns:
            Examples (n, *shape) and labels (n,) int64, on the device.
        """
        return self._examples(indices), self._labels[self._move(indices)]

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """Labels (n,) int64 of examples, on the host."""
        return self._host_labels[indices]

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
        """Of what is held from batch to batch in the memory that training takes: the device's, on CUDA."""
        return self._labels.nbytes if self.device.type == "cuda" else 0

    @property
    def pinned_bytes(self) -> int:
        """Of pinned host memory that batches go through to the device; 0 on a CPU."""
        return sum(buffers.nbytes for buffers in (self._row_buffers, self._index_buffers) if buffers)

    def batch_bytes(self, size: int) -> int:
        """Of the examples and labels of a batch."""
        return size * (math.prod(self._shape) * self._dtype.itemsize + self._labels.itemsize)

    @abstractmethod
    def _examples(self, indices: np.ndarray) -> torch.Tensor:
        """Examples (n, *shape) on the device."""

    def _blocks(self, indices: np.ndarray) -> Iterator[tuple[slice, torch.Tensor]]:
        """The rows as they lie in the file, on the device, block by block, and their places in the batch."""
        for start in range(0, len(indices), self._block):
            rows = self._rows[indices[start : start + self._block]]
            # Sent as they are: `copy_` alone would convert on the host, and send four times as much.
            yield slice(start, start + self._block), self._read_rows(rows)

    def _read_rows(self, rows: np.ndarray) -> torch.Tensor:
        if self._row_buffers is None:
            return torch.from_numpy(self._reader.read(rows))
        return self._row_buffers.send(len(rows), partial(self._reader.read, rows))

    def _move(self, indices: np.ndarray) -> torch.Tensor:
        """The indices on the device."""
        if self._index_buffers is None:
            return torch.from_numpy(indices)
        parts = [indices[start : start + _MAX_INDICES] for start in range(0, len(indices), _MAX_INDICES)]
        sent = [self._index_buffers.send(len(part), partial(np.copyto, src=part)) for part in parts]
        return sent[0] if len(sent) == 1 else torch.cat(sent)


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
    """Keeps every image of the dataset in the device's memory, normalised, as a notebook would. Batches are
    copies."""

    def __init__(
        self,
        data: DecodedDataset,
        spec: ModelSpec,
        device: torch.device,
        dtype: torch.dtype,
        memory_format: str,
    ):
        super().__init__(data, spec, device, dtype, memory_format)
        everything = np.arange(len(data.labels))
        first, _ = super().load(everything[:1])
        # Filled part by part: a second copy of it all would be the peak.
        self._images = torch.empty_like(first.expand(len(everything), -1, -1, -1))
        for start in range(0, len(everything), self._block):
            part = slice(start, start + self._block)
            self._images[part], _ = super().load(everything[part])

    @property
    def resident_bytes(self) -> int:
        return self._images.nbytes + self._labels.nbytes

    def load(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = self._move(indices)
        return self._images[chosen], self._labels[chosen]

    def announce(self, indices: np.ndarray) -> None:
        """They are in memory."""
