"""The history of L-BFGS: pairs of steps and changes of the gradient, and the products with them.

The pairs may have a narrower dtype than the vectors they are multiplied with, and may be on the host. Each
product then converts one part of one vector at a time, and is computed in the dtype of the other operand, so
there is never a second copy of the history, and no sum is accumulated in the narrow dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

# Number of elements converted at a time: 1 MB in float32.
PART = 1 << 18


class PairHistory:
    """The newest pairs of an optimizer, in the order in which they were added.

    All of it is in a dict, which is part of the optimizer's state. The tensors are allocated at once, so an
    optimizer whose history does not fit into memory fails in its first step, and not after it has trained for
    hours.

    Args:
        state: the dict, as made by `allocate`.
    """

    def __init__(self, state: dict[str, Any]):
        self._state = state

    @classmethod
    def allocate(
        cls, size: int, like: torch.Tensor, length: int, dtype: torch.dtype, on_host: bool
    ) -> dict[str, Any]:
        """Allocate an empty history.

        Args:
            size: maximum number of pairs.
            like: tensor with the device and dtype of the vectors that will be multiplied.
            length: number of elements of a vector.
            dtype: dtype of the pairs.
            on_host: whether the pairs are in page-locked memory of the host.
        """
        where: dict[str, Any] = {"device": "cpu", "pin_memory": True} if on_host else {"device": like.device}
        return {
            "steps": torch.zeros(size, length, dtype=dtype, **where),
            "changes": torch.zeros(size, length, dtype=dtype, **where),
            "curvatures": like.new_ones(size),  # products of a step and its change
            "squares": like.new_ones(size),  # products of a change with itself
            "added": 0,
        }

    def __len__(self) -> int:
        return min(self._state["added"], self._size)

    @property
    def _size(self) -> int:
        return len(self._state["steps"])

    def list_newest_first(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield each pair's step, its change, and their product as stored."""
        for slot in self._list_slots():
            yield self._state["steps"][slot], self._state["changes"][slot], self._state["curvatures"][slot]

    def _list_slots(self) -> list[int]:
        newest = self._state["added"] - 1
        return [(newest - age) % self._size for age in range(len(self))]

    def clear(self) -> None:
        """Forget all pairs."""
        self._state["added"] = 0

    def add(self, step: torch.Tensor, change: torch.Tensor) -> bool:
        """Add a pair, in place of the oldest one if the history is full.

        A pair is left out if its curvature, the product of step and change, is not positive by more than
        rounding errors. The curvature is that of the pair as stored: rounding to bfloat16 can change the sign
        of a small one.

        Returns:
            Whether the pair was added.
        """
        dtype = self._state["steps"].dtype
        curvature, square, change_square = multiply_pair(step, change, dtype)
        if not is_positive(curvature, square, change_square, step.dtype):
            return False
        slot = self._state["added"] % self._size
        self._state["steps"][slot].copy_(step)
        self._state["changes"][slot].copy_(change)
        self._state["curvatures"][slot] = curvature
        self._state["squares"][slot] = change_square
        self._state["added"] += 1
        return True

    def newest_scale(self) -> torch.Tensor:
        """Return s'y / y'y of the newest pair, an estimate of the inverse curvature."""
        slot = self._list_slots()[0]
        return self._state["curvatures"][slot] / self._state["squares"][slot]

    def mean_scale(self) -> torch.Tensor:
        """Return the mean of s'y / y'y over all pairs."""
        count = len(self)
        return (self._state["curvatures"][:count] / self._state["squares"][:count]).mean()

    def multiply(self, vector: torch.Tensor, scale: float | torch.Tensor, weight: float = 1.0) -> None:
        """Replace a vector by its product with the approximate inverse Hessian, in place.

        This is the two-loop recursion (Nocedal and Wright, "Numerical Optimization", algorithm 7.4) for the
        matrix that starts as `scale` times the identity, and that each pair (s, y), from the oldest to the
        newest, changes to `(I - r s y') H (I - r y s') + weight r s s'`, where r is 1 / s'y.
        """
        pairs = list(self.list_newest_first())
        factors = []
        for step, change, curvature in pairs:
            factor = _dot(step, vector) / curvature
            _add_scaled(vector, change, -factor)
            factors.append(factor)
        vector.mul_(scale)
        for (step, change, curvature), factor in zip(reversed(pairs), reversed(factors), strict=True):
            _add_scaled(vector, step, weight * factor - _dot(change, vector) / curvature)

    def fill(self, scale: float) -> None:
        """Fill the history with equal pairs of positive curvature.

        Args:
            scale: ratio of step to change; a power of two is exact in every dtype.
        """
        length = self._state["steps"].shape[1]
        self._state["steps"].fill_(scale)
        self._state["changes"].fill_(1.0)
        self._state["curvatures"].fill_(scale * length)
        self._state["squares"].fill_(length)
        self._state["added"] = self._size


def multiply_pair(step: torch.Tensor, change: torch.Tensor, dtype: torch.dtype) -> tuple[float, float, float]:
    """Compute s'y, s's and y'y of a pair that is rounded to `dtype`, in the dtype of its vectors."""
    products = step.new_zeros(3)
    for s, y in zip(step.split(PART), change.split(PART), strict=True):
        s, y = s.to(dtype).to(step.dtype), y.to(dtype).to(step.dtype)
        products += torch.stack([s.dot(y), s.dot(s), y.dot(y)])
    curvature, square, change_square = products.tolist()
    return curvature, square, change_square


def is_positive(curvature: float, square: float, change_square: float, dtype: torch.dtype) -> bool:
    """Return whether s'y is positive by more than the rounding errors of a product in `dtype`.

    Args:
        curvature, square, change_square: s'y, s's and y'y.
    """
    return curvature > torch.finfo(dtype).eps * (square * change_square) ** 0.5


def _dot(stored: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    parts = zip(stored.split(PART), vector.split(PART), strict=True)
    return torch.stack([_convert(part, of_vector).dot(of_vector) for part, of_vector in parts]).sum()


def _add_scaled(vector: torch.Tensor, stored: torch.Tensor, factor: torch.Tensor) -> None:
    """Add a stored vector, times a factor that stays on the device, to `vector` in place."""
    for part, of_vector in zip(stored.split(PART), vector.split(PART), strict=True):
        of_vector.addcmul_(_convert(part, of_vector), factor)


def _convert(part: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    # The device first: torch would convert before the transfer, and so send more bytes.
    return part.to(like.device, non_blocking=True).to(like.dtype)
