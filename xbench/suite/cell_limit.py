"""Refuse a suite that would make too many cells, before they are made."""

from __future__ import annotations

import math

from xbench.suite.lines import KeyPath
from xbench.suite.problems import Problems
from xbench.suite.seeds import MAX_CELLS


class CellLimit:
    """The number of cells that a suite may have.

    Combinations are counted, not made: a million million of them would exhaust the machine.

    Attributes:
        columns: number of columns so far.
    """

    def __init__(self, problems: Problems, seeds: int):
        self._problems, self._seeds = problems, seeds
        self.columns = 0

    def is_exceeded(self, count: int, path: KeyPath, what: str) -> bool:
        """Check whether this many more combinations make too many cells, and report it if they do."""
        cells = (self.columns + count) * self._seeds
        if cells > MAX_CELLS:
            seeds = f" with {self._seeds:,} seeds" if self._seeds > 1 else ""
            message = (
                f"{what} make {_format_count(cells)} cells{seeds}: a suite may have at most {MAX_CELLS:,}"
            )
            self._problems.add(path, message, "shorten a list, or split the suite")
        return cells > MAX_CELLS


def _format_count(count: int) -> str:
    return f"{count:,}" if count < 10**15 else f"over 10^{int(math.log10(count))}"
