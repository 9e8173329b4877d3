"""Search the sizes of a training for the smallest memory with which it still reaches a target. Nothing runs
here.

A smaller micro-batch changes only rounding, so it is free: its memory is measured, and nothing is trained.
Any other size changes the training. Along each of these axes in turn, sizes are bisected by trainings: a size
that reaches the target shows that larger ones do, and a size that does not shows that smaller ones do not.
(This need not hold, as a training depends on chance, but it is what a search of a few trainings can assume.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xbench.capacity.axes import Axis, size_of, with_size
from xbench.training.settings import CellSettings

# Trainings of one search.
MAX_TRAININGS = 5
# The note of a search that may go on in a later run.
NO_TIME = "no time was left"
# Sizes whose peaks differ by less than this share need the same memory: a peak is not measured more exactly.
_SAME_PEAK = 0.01


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        settings: the settings that need the least memory, of those that reach the target.
        peak_bytes: their peak.
        is_trained: whether they were trained; otherwise only their micro-batch is smaller than it was.
        fails_bytes: the peak of the largest settings that do not reach the target; None if all of them did.
        note: why smaller sizes were not tried; "" if there are none.
    """

    settings: CellSettings
    peak_bytes: int
    is_trained: bool
    fails_bytes: int | None
    note: str


@dataclass
class Search:
    """A search for the least memory.

    Attributes:
        measure: returns the peak of some settings, in bytes; None if they cannot be run.
        reaches: trains with some settings under a limit for their peak, and returns whether the target was
            reached; None if nothing can be trained any more.
    """

    measure: Callable[[CellSettings], int | None]
    reaches: Callable[[CellSettings, int], bool | None]
    trainings: int = 0

    def run(self, settings: CellSettings, peak_bytes: int, order: Sequence[Axis]) -> Found:
        """Search from settings that reach the target.

        Args:
            settings: the settings, with resolved sizes.
            peak_bytes: their peak.
            order: the axes along which sizes may be reduced.
        """
        found = Found(settings, peak_bytes, is_trained=False, fails_bytes=None, note="")
        if Axis.MICRO_BATCH in order:
            found = self._reduce_micro_batch(found)
        for axis in order:
            if axis is Axis.MICRO_BATCH:
                continue
            found, goes_on = self._bisect(found, axis)
            if not goes_on:
                break
        return found

    def _reduce_micro_batch(self, found: Found) -> Found:
        smallest = with_size(found.settings, Axis.MICRO_BATCH, 1)
        peak_bytes = self.measure(smallest)
        if peak_bytes is None or not _is_less(peak_bytes, found.peak_bytes):
            return found
        return Found(smallest, peak_bytes, is_trained=False, fails_bytes=None, note="")

    def _bisect(self, found: Found, axis: Axis) -> tuple[Found, bool]:
        """Bisect the sizes of an axis.

        Returns:
            What was found, and whether to go on with the next axis.
        """
        high = size_of(found.settings, axis)
        low = 0  # no size this small exists
        while isinstance(high, int) and high - low > 1:
            size = min(max(math.isqrt(max(low, 1) * high), low + 1), high - 1)
            settings = _shrink(found.settings, axis, size)
            peak_bytes = self.measure(settings)
            if peak_bytes is None:
                return _add_note(found, f"{axis.setting} = {size:,} cannot be run"), False
            if not _is_less(peak_bytes, found.peak_bytes):
                return found, low == 0 and found.fails_bytes is None  # it frees nothing
            if self.trainings == MAX_TRAININGS:
                return _add_note(found, f"{MAX_TRAININGS} trainings are the most"), False
            self.trainings += 1
            reached = self.reaches(settings, peak_bytes)
            if reached is None:
                return _add_note(found, NO_TIME), False
            if reached:
                found, high = Found(settings, peak_bytes, True, found.fails_bytes, ""), size
            else:
                low = size
                found = Found(found.settings, found.peak_bytes, found.is_trained, peak_bytes, "")
        return found, low == 0


def _shrink(settings: CellSettings, axis: Axis, size: int) -> CellSettings:
    """Reduce a size, and those of batches that it bounds."""
    settings = with_size(settings, axis, size)
    sizes = settings.training.sizes
    batch_size = min(sizes.batch_size, sizes.train_size)
    settings = with_size(settings, Axis.BATCH_SIZE, batch_size)
    return with_size(settings, Axis.MICRO_BATCH, min(sizes.micro_batch, batch_size))


def _is_less(peak_bytes: int, other_bytes: int) -> bool:
    return peak_bytes < (1 - _SAME_PEAK) * other_bytes


def _add_note(found: Found, note: str) -> Found:
    return Found(found.settings, found.peak_bytes, found.is_trained, found.fails_bytes, note)
