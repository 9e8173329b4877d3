"""Search the sizes of a training for the smallest memory with which it still reaches a target. Nothing runs
here.

A smaller micro-batch changes only rounding, so it is free: its memory is measured, and nothing is trained.
Any other size changes the training. Along each of these axes in turn, sizes are bisected by trainings: a size
that reaches the target shows that larger ones do, and a size that does not shows that smaller ones do not.
(This need not hold, as a training depends on chance, but it is what a search of a few trainings can assume.)

A search goes through the same sizes again if it gets the peaks and the outcomes that are known already. This
is how one that was interrupted goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from xbench.capacity.axes import Axis, size_of, with_size
from xbench.records.targets import WaitsFor
from xbench.training.settings import CellSettings

# Trainings of one search.
MAX_TRAININGS = 5
# Sizes whose peaks differ by less than this share need the same memory: a peak is not measured more exactly.
_SAME_PEAK = 0.01

# Sizes by setting, as a key.
SizesKey = frozenset[tuple[str, int]]


class Stopped(Exception):
    """The search cannot go on.

    Attributes:
        note: why.
        waits_for: see `BytesRecord`.
    """

    def __init__(self, note: str, waits_for: WaitsFor = ""):
        super().__init__(note)
        self.note, self.waits_for = note, waits_for


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        settings: the settings that need the least memory, of those that reach the target.
        peak_bytes: their peak; None if it could not be measured.
        is_trained: whether they were trained; otherwise only their micro-batch is smaller than it was.
        fails_bytes: the largest smaller peak of settings that do not reach the target; None if there is none.
        note: why smaller sizes were not tried; "" if there are none.
        waits_for: see `BytesRecord`.
    """

    settings: CellSettings
    peak_bytes: int | None
    is_trained: bool
    fails_bytes: int | None
    note: str
    waits_for: WaitsFor = ""


@dataclass
class Search:
    """A search for the least memory.

    Attributes:
        measure: returns the peak of some settings, in bytes; None if they cannot be run. May raise `Stopped`.
        reaches: trains with some settings under a limit for their peak, and returns whether the target was
            reached. Raises `Stopped` if that cannot be found out.
        settings: settings that reach the target, with resolved sizes: at first those to begin with, then the
            best.
        peaks: sizes -> their peak, as far as it is known.
        outcomes: sizes that were trained -> whether they reach the target.
    """

    measure: Callable[[CellSettings], int | None]
    reaches: Callable[[CellSettings, int], bool]
    settings: CellSettings
    peaks: dict[SizesKey, int] = field(default_factory=dict)
    outcomes: dict[SizesKey, bool] = field(default_factory=dict)
    _is_trained: bool = False
    _notes: list[str] = field(default_factory=list)

    def run(self, order: Sequence[Axis]) -> Found:
        """Search along the axes on which sizes may be reduced: first the micro-batch, then the others."""
        trained = [axis for axis in order if axis is not Axis.MICRO_BATCH]
        untried = [axis.setting for axis in trained]
        try:
            if self._measure(self.settings) is None:
                raise Stopped("the memory of the cell could not be measured", "retry")
            if Axis.MICRO_BATCH in order:
                self._reduce_micro_batch()
            for axis in trained:
                untried.remove(axis.setting)
                self._bisect(axis)
        except Stopped as stopped:
            is_over = not stopped.waits_for
            left = [f"no smaller {setting} was tried" for setting in untried if is_over]
            return self.describe("; ".join([*self._notes, stopped.note, *left]), stopped.waits_for)
        if not self._notes and not self.outcomes:
            self._notes.append("no smaller size needs less memory")
        return self.describe("; ".join(self._notes))

    def describe(self, note: str, waits_for: WaitsFor = "") -> Found:
        """Return what was found until now."""
        peak_bytes = self.peaks.get(key_of(self.settings))
        failed = (self.peaks[sizes] for sizes, reached in self.outcomes.items() if not reached)
        below = (failed_bytes for failed_bytes in failed if failed_bytes < (peak_bytes or 0))
        fails_bytes = max(below, default=None)
        return Found(self.settings, peak_bytes, self._is_trained, fails_bytes, note, waits_for)

    def _reduce_micro_batch(self) -> None:
        """Choose the largest power of two that needs no more memory than one example at once, which would be
        the slowest."""
        least_bytes = self._measure(with_size(self.settings, Axis.MICRO_BATCH, 1))
        if least_bytes is None or not _is_less(least_bytes, self._peak_bytes):
            return
        # 2**low needs as little memory as one example, and 2**high is too large.
        low, high = 0, (self.settings.training.sizes.micro_batch - 1).bit_length()
        while high - low > 1:
            middle = (low + high) // 2
            peak_bytes = self._measure(with_size(self.settings, Axis.MICRO_BATCH, 2**middle))
            if peak_bytes is None or _is_less(least_bytes, peak_bytes):
                high = middle
            else:
                low = middle
        self.settings = with_size(self.settings, Axis.MICRO_BATCH, 2**low)

    def _bisect(self, axis: Axis) -> None:
        """Bisect the sizes of an axis by trainings, until one more would tell nothing."""
        high = size_of(self.settings, axis)
        low = 0  # no size this small exists
        while isinstance(high, int) and high - low > 1:
            size = min(max(math.isqrt(max(low, 1) * high), low + 1), high - 1)
            settings = _shrink(self.settings, axis, size)
            peak_bytes = self._measure(settings)
            if peak_bytes is None:
                self._notes.append(f"{axis.setting} = {size:,} cannot be run")
                return
            if not _is_less(peak_bytes, self._peak_bytes):
                return  # it frees nothing
            if self._reaches(settings, peak_bytes):
                self.settings, self._is_trained, high = settings, True, size
            else:
                low = size

    @property
    def _peak_bytes(self) -> int:
        """The peak of the best settings."""
        return self.peaks[key_of(self.settings)]

    def _measure(self, settings: CellSettings) -> int | None:
        sizes = key_of(settings)
        if sizes not in self.peaks:
            peak_bytes = self.measure(settings)
            if peak_bytes is None:
                return None
            self.peaks[sizes] = peak_bytes
        return self.peaks[sizes]

    def _reaches(self, settings: CellSettings, peak_bytes: int) -> bool:
        sizes = key_of(settings)
        if sizes not in self.outcomes:
            if len(self.outcomes) >= MAX_TRAININGS:
                raise Stopped(f"{MAX_TRAININGS} trainings are the most")
            self.outcomes[sizes] = self.reaches(settings, peak_bytes)
        return self.outcomes[sizes]


def list_sizes(settings: CellSettings) -> dict[str, int]:
    """List the sizes of settings that are numbers, by setting."""
    sizes = {axis.setting: size_of(settings, axis) for axis in Axis}
    return {name: size for name, size in sizes.items() if isinstance(size, int)}


def key_of(settings: CellSettings) -> SizesKey:
    """Return the sizes of settings as a key."""
    return frozenset(list_sizes(settings).items())


def _shrink(settings: CellSettings, axis: Axis, size: int) -> CellSettings:
    """Reduce a size, and those of batches that it bounds."""
    settings = with_size(settings, axis, size)
    sizes = settings.training.sizes
    batch_size = min(sizes.batch_size, sizes.train_size)
    settings = with_size(settings, Axis.BATCH_SIZE, batch_size)
    return with_size(settings, Axis.MICRO_BATCH, min(sizes.micro_batch, batch_size))


def _is_less(peak_bytes: int, other_bytes: int) -> bool:
    return peak_bytes < (1 - _SAME_PEAK) * other_bytes
