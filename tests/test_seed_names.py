"""Seeds in words."""

from __future__ import annotations

import pytest

from xbench.text import name_seeds


@pytest.mark.parametrize(
    ("seeds", "named"),
    [
        ([3], "seed 3"),
        ([2, 0], "seeds 0, 2"),
        ([0, 1, 2], "seeds 0, 1, 2"),
        ([0, 1, 2, 3, 7], "seeds 0 to 3, 7"),
        ([5, 5], "seed 5"),
        (range(100), "seeds 0 to 99"),
    ],
)
def test_they_are_named(seeds, named):
    assert name_seeds(seeds) == named
