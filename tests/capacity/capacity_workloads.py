"""What probes run in children: memory of known sizes, and failures of known kinds."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from xbench.errors import RefusedValue, XbenchError

MB = 1_000_000


@dataclass(frozen=True)
class Allocating:
    """Fills `bytes_per_size` for each of a size, and frees it.

    Attributes:
        breaks_at: from this size on, something else happens.
        how: `raise`, `refuse`, `refuse value` or `SIGKILL`.
    """

    bytes_per_size: int
    breaks_at: int | None = None
    how: str = "raise"

    def prepare(self) -> Callable[[int], None]:
        return self._run

    def _run(self, size: int) -> None:
        if self.breaks_at is not None and size >= self.breaks_at:
            self._break()
        torch.ones(size * self.bytes_per_size, dtype=torch.uint8)

    def _break(self) -> None:
        if self.how == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "refuse value":
            raise RefusedValue(f"the data has only {self.breaks_at} rows")
        if self.how == "refuse":
            raise XbenchError("these settings cannot be met", hint="change them")
        raise ArithmeticError("the code is wrong")


@dataclass(frozen=True)
class Unpreparable:
    """Fails before any size is tried."""

    def prepare(self) -> Callable[[int], None]:
        raise ArithmeticError("no size would help")


def held_bytes(send, workload) -> tuple[int, int]:
    """What a trial's child holds before the size that it is about, and the reserve of its limit."""
    import xbench.capacity.probe  # noqa: F401 -- a trial's child has it
    from xbench.memory.host import resident_bytes
    from xbench.memory.limits import host_reserve_bytes
    from xbench.memory.peaks import release_all

    workload.prepare()(1)
    release_all("cpu")
    return resident_bytes(), host_reserve_bytes()


def build_model(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.ReLU(), nn.Linear(8, num_classes))
