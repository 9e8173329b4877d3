"""Load batches from files to the training device.

Files are read as batches are needed, and the system prefetches the next ones, so that a dataset may be larger
than memory and a step does not wait for the disk. For a CUDA device, they are read directly into pinned
memory: the host reads the next batch while the device computes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from xbench.components.specs import ModelSpec
from xbench.data.decoded import DecodedDataset
from xbench.data.features import FeatureFile
from xbench.data.prepared import PreparedData
from xbench.training.pinned import PinnedBuffers

# Rows on the device, as a task's functions take them: a batch; or, if the task has several terms, a dict with
# a batch for each term.
Part = Any

# Bytes to read at once: large enough for efficient copies, small enough not to matter for memory.
_BLOCK_BYTES = 10 << 20
# Bytes of float32 pixels that are normalised at once for batches of 16-bit numbers.
_WIDE_BYTES = 4 << 20
# Indices to send to the device at once.
_MAX_INDICES = 8192


class Loader(ABC):
    """Loader of one dataset's batches.

    Attributes:
        device: the training device.
        resident_bytes: bytes held between batches in the memory used for training: on CUDA, the device's.
        pinned_bytes: bytes of pinned host memory for sending batches to the device; 0 on a CPU.
    """

    device: torch.device

    @property
    @abstractmethod
    def resident_bytes(self) -> int: ...

    @property
    def pinned_bytes(self) -> int:
        return 0

    @abstractmethod
    def load(self, indices: np.ndarray) -> Part:
        """Load rows on the device.

        Args:
            indices: (n,) positions in the dataset.
        """

    def parts(self, indices: np.ndarray, size: int) -> Iterator[Part]:
        """Load a batch in parts of at most `size` rows, one at a time, in order."""
        for start in range(0, len(indices), size):
            following = indices[start + size : start + 2 * size]
            # After the last part comes the first, for another evaluation of the same batch.
            self.prefetch(following if len(following) else indices[:size])
            yield self.load(indices[start : start + size])

    def prefetch(self, indices: np.ndarray) -> None:  # noqa: B027 - not all loaders can
        """Let the system read rows in the background that are needed soon."""

    @abstractmethod
    def batch_bytes(self, size: int) -> int:
        """Return the bytes of a batch of `size` rows, at most."""


class PositionLoader(Loader):
    """Loader of the rows of a flat file, with labels: parts are tuples `(examples, labels)`.

    Args:
        source: provides the reader of the examples' rows.
        shape: shape of one example, as the model takes it.
        dtype: dtype of the batches.
        memory_format: layout of batches of images or feature maps, `"channels_last"` or `"contiguous"`.
    """

    def __init__(
        self,
        data: PreparedData,
        source: DecodedDataset | FeatureFile,
        shape: tuple[int, ...],
        device: torch.device,
        dtype: torch.dtype,
        memory_format: str,
    ):
        self._file_rows, self._shape = data.file_rows, shape
        self._block = max(1, _BLOCK_BYTES // source.row_bytes)
        self._reader = source.reader(self._block)
        self.device, self._dtype = device, dtype
        self._contiguous = memory_format == "contiguous"
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
        return self.load_examples(indices), self._labels[self._send(indices)]

    def prefetch(self, indices: np.ndarray) -> None:
        """Let the system read examples in the background that are needed soon."""
        self._reader.prefetch(self._file_rows(indices))

    @property
    def resident_bytes(self) -> int:
        return self._labels.nbytes if self.device.type == "cuda" else 0

    @property
    def pinned_bytes(self) -> int:
        return sum(buffers.nbytes for buffers in (self._row_buffers, self._index_buffers) if buffers)

    def batch_bytes(self, size: int) -> int:
        """Return the bytes of a batch's examples and labels."""
        return size * (math.prod(self._shape) * self._dtype.itemsize + self._labels.itemsize)

    @abstractmethod
    def load_examples(self, indices: np.ndarray) -> torch.Tensor:
        """Load examples (n, *shape) to the device."""

    def _read_blocks(self, indices: np.ndarray) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield the rows block by block, with their places in the batch: unconverted, on the device."""
        for start in range(0, len(indices), self._block):
            rows = self._file_rows(indices[start : start + self._block])
            # Sent unconverted: `copy_` alone would convert on the host, and send four times as many bytes.
            yield slice(start, start + self._block), self._read_rows(rows)

    def _read_rows(self, rows: np.ndarray) -> torch.Tensor:
        if self._row_buffers is None:
            return torch.from_numpy(self._reader.read(rows))
        return self._row_buffers.send(len(rows), partial(self._reader.read, rows))

    def _send(self, indices: np.ndarray) -> torch.Tensor:
        """Send indices to the device."""
        if self._index_buffers is None:
            return torch.from_numpy(indices)
        parts = [indices[start : start + _MAX_INDICES] for start in range(0, len(indices), _MAX_INDICES)]
        sent = [self._index_buffers.send(len(part), partial(np.copyto, src=part)) for part in parts]
        return sent[0] if len(sent) == 1 else torch.cat(sent)


class ImageLoader(PositionLoader):
    """Loader of images, normalised for a model.

    Args:
        spec: provides the normalisation.
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
        # A line of pixels has interleaved channels. Scale and shift are vectors of a whole line, so that they
        # are applied at the speed of one long array instead of `channels` values at a time.
        # Pixels are numbers of 8 bits, which bfloat16 holds exactly, but normalised ones are not.
        self._is_narrow = dtype.itemsize < torch.float32.itemsize
        wide = torch.float32 if self._is_narrow else dtype
        mean = torch.tensor(spec.mean, dtype=wide).expand(channels).repeat(width)
        std = torch.tensor(spec.std, dtype=wide).expand(channels).repeat(width)
        self._scale = (1 / (255 * std)).to(device)
        self._shift = (-mean / std).to(device)

    def load_examples(self, indices: np.ndarray) -> torch.Tensor:
        channels, height, width = self._shape
        images = torch.empty((len(indices), height, width, channels), dtype=self._dtype, device=self.device)
        for places, pixels in self._read_blocks(indices):
            images[places].copy_(pixels)
        lines = images.view(-1, width * channels)
        if self._is_narrow:
            for some in lines.split(max(1, _WIDE_BYTES // self._scale.nbytes)):
                some.copy_(some.float().mul_(self._scale).add_(self._shift))
        else:
            lines.mul_(self._scale).add_(self._shift)
        images = images.permute(0, 3, 1, 2)  # channels-last by its strides, without a copy
        return images.contiguous() if self._contiguous else images


class FeatureLoader(PositionLoader):
    """Loader of the outputs of a model's frozen part, which are the inputs of its trained part."""

    def __init__(
        self,
        data: PreparedData,
        features: FeatureFile,
        device: torch.device,
        dtype: torch.dtype,
        memory_format: str,
    ):
        super().__init__(data, features, features.shape, device, dtype, memory_format)
        self._precision = getattr(torch, features.precision)

    def load_examples(self, indices: np.ndarray) -> torch.Tensor:
        features = torch.empty((len(indices), *self._shape), dtype=self._dtype, device=self.device)
        for places, stored in self._read_blocks(indices):
            features[places].copy_(stored.view(self._precision))
        if features.ndim == 4 and not self._contiguous:
            return features.contiguous(memory_format=torch.channels_last)
        return features


class ResidentImageLoader(ImageLoader):
    """Loader that keeps every image of the dataset in the device's memory, normalised, as a notebook would.

    Batches are copies.
    """

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
        # Filled part by part: a second copy of all images would be the memory peak.
        self._images = torch.empty_like(first.expand(len(everything), -1, -1, -1))
        for start in range(0, len(everything), self._block):
            part = slice(start, start + self._block)
            self._images[part], _ = super().load(everything[part])

    @property
    def resident_bytes(self) -> int:
        return self._images.nbytes + self._labels.nbytes

    def load(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = self._send(indices)
        return self._images[chosen], self._labels[chosen]

    def prefetch(self, indices: np.ndarray) -> None:
        """Do nothing: all images are in memory."""
