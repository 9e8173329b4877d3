"""Seeds in words."""

from __future__ import annotations

import pytest

from xbench.text import name_seeds


@pytest.mark.parametrize(
    ("seeds", "named"),
    [
        ([3], "seed 3"),
        ([2, 0], "seeds 0, 2"),
        ([0, 1, 5], "seeds 0, 1, 5"),
        ([0, 1, 2], "seeds 0 to 2"),
        ([0, 1, 2, 3, 7], "seeds 0 to 3, 7"),
        ([5, 5], "seed 5"),
        (range(100), "seeds 0 to 99"),
    ],
)
def test_they_are_named(seeds, named):
    assert name_seeds(seeds) == named


@pytest.mark.parametrize(
    ("seeds", "named"),
    [
        ([0, 1, 2, 6, 7, 8, 12, 13, 14], "seeds 0 to 2, 6 to 8 and 3 more"),
        ([0, 2, 4, 6], "seeds 0, 2 and 2 more"),
        ([0, 2], "seeds 0, 2"),
        (range(100), "seeds 0 to 99"),
    ],
)
def test_many_of_them_are_counted(seeds, named):
    assert name_seeds(seeds, most=2) == named
