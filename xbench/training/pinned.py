"""Send host memory to a CUDA device while the host continues."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

# While one buffer is filled, the others may be in transfer.
_BUFFERS = 3


class PinnedBuffers:
    """A few buffers of pinned host memory, used in turn, so that data need not be copied before it is sent.

    Args:
        like: an array with the shape (capacity, ...) and dtype of one buffer.
        device: the CUDA device to send to.
    """

    def __init__(self, like: np.ndarray, device: torch.device):
        self._device = device
        self._buffers = [torch.from_numpy(like).pin_memory() for _ in range(_BUFFERS)]
        self._sent = [torch.cuda.Event() for _ in range(_BUFFERS)]
        self._turn = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def send(self, count: int, fill: Callable[[np.ndarray], object]) -> torch.Tensor:
        """Fill a buffer and send it, without waiting until it arrives.

        The host waits only if the device has not yet received the buffer's previous content, so it is ahead
        of the device by no more than the other buffers.

        Args:
            count: number of rows, at most a buffer's capacity.
            fill: writes rows to the array (count, ...) that it is called with.

        Returns:
            The rows (count, ...), on the device.
        """
        turn, self._turn = self._turn, (self._turn + 1) % _BUFFERS
        self._sent[turn].synchronize()  # returns at once for a buffer that was never sent
        rows = self._buffers[turn][:count]
        fill(rows.numpy())
        sent = rows.to(self._device, non_blocking=True)
        self._sent[turn].record(torch.cuda.current_stream(self._device))
        return sent
