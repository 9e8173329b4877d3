"""Machines that exist as numbers only: which sizes fit them, and the trials of a search on them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from xbench.capacity.search import Bounds, first_failure, largest_fit, next_size, next_slope_size
from xbench.records.capacity import TrialRecord

MB = 1_000_000
BASE = 300 * MB
UNBOUNDED = 1 << 30
# No search may go on for longer, whatever a machine does.
PATIENCE = 40


def fits(size: int, peak_bytes: int, charged_bytes: int | None = None) -> TrialRecord:
    """The trial of a size that fits; what is charged is the peak unless it is given."""
    charged_bytes = peak_bytes if charged_bytes is None else charged_bytes
    return TrialRecord(value=size, outcome="fits", peak_bytes=peak_bytes, charged_bytes=charged_bytes)


def ran_out(size: int) -> TrialRecord:
    """The trial of a size that does not fit."""
    return TrialRecord(value=size, outcome="oom")


@dataclass
class Machine:
    """A machine under a limit.

    Attributes:
        peak: of a process that runs a size, in bytes.
        noise: the share of what a size adds to the least one by which any single run may be off.
    """

    peak: Callable[[int], float]
    limit_bytes: int
    noise: float = 0.0
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def run(self, size: int) -> TrialRecord:
        exact = self.peak(size)
        peak_bytes = int(exact + (exact - self.peak(1)) * self.random.uniform(-self.noise, self.noise))
        if peak_bytes > self.limit_bytes:
            return ran_out(size)
        return fits(size, peak_bytes)

    def largest(self, highest: int = UNBOUNDED) -> int:
        """The true maximum, by bisection of a machine without noise; 0 if nothing fits."""
        fits, fails = 0, highest + 1
        while fails - fits > 1:
            middle = (fits + fails) // 2
            fits, fails = (middle, fails) if self.peak(middle) <= self.limit_bytes else (fits, middle)
        return fits


def linear(largest: int, headroom: float, base: int = BASE) -> Machine:
    """One slope; sizes up to `largest` fit into `headroom` bytes above what the process holds."""
    slope = headroom / (largest + 0.5)
    return Machine(lambda size: base + slope * size, int(base + headroom))


def kinked(largest: int, headroom: float, kink: float, slopes: float) -> Machine:
    """Two slopes, the second `slopes` times the first (0 for a flat start is `slopes=inf`), from a share
    `kink` of the largest size on."""
    at, end = kink * largest, largest + 0.5
    first = 0.0 if slopes == float("inf") else headroom / (at + slopes * (end - at))
    second = headroom / (end - at) if first == 0.0 else slopes * first
    return Machine(
        lambda size: BASE + first * size + (second - first) * max(0.0, size - at), BASE + int(headroom)
    )


@dataclass(frozen=True)
class Played:
    """A search that ended.

    Attributes:
        ascending: how many of the trials shared the first process.
    """

    trials: list[TrialRecord]
    ascending: int

    @property
    def found(self) -> int | None:
        best = largest_fit(self.trials)
        return best.value if best else None

    @property
    def fails(self) -> int | None:
        failure = first_failure(self.trials)
        return failure.value if failure else None


def bounds_of(
    machine: Machine,
    tolerance: float = 0.01,
    highest: int = UNBOUNDED,
    enough: int | None = None,
) -> Bounds:
    return Bounds(machine.limit_bytes, highest, enough or highest, tolerance)


def play(machine: Machine, bounds: Bounds) -> Played:
    """All trials of a search, as a probe runs them: ascending sizes in one process, then one at a time."""
    trials: list[TrialRecord] = []
    while (size := next_slope_size(trials, bounds)) is not None:
        assert 1 <= size <= bounds.highest
        assert all(size > trial.value for trial in trials), "sizes ascend in one process"
        trials.append(machine.run(size))
        assert len(trials) < PATIENCE
    ascending = len(trials)
    while (size := next_size(trials, bounds)) is not None:
        assert 1 <= size <= bounds.highest
        trials.append(machine.run(size))
        assert len(trials) < PATIENCE
    return Played(trials, ascending)
