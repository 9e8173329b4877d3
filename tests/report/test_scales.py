"""Units of axes."""

from __future__ import annotations

import pytest

from xbench.report.scales import choose_size_unit


@pytest.mark.parametrize(
    ("largest", "unit"), [(0, "MB"), (9_000, "kB"), (10_000, "MB"), (5e8, "MB"), (2e9, "GB")]
)
def test_the_largest_size_decides_the_unit(largest, unit):
    assert choose_size_unit([largest / 3, largest])[1] == unit
