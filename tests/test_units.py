"""Limits as people write them."""

from __future__ import annotations

import pytest

from xbench.errors import XbenchError
from xbench.units import parse_limit


@pytest.mark.parametrize(
    ("text", "count"),
    [("12GB", 12 * 10**9), ("12GiB", 12 << 30), ("50%", 500), (" 12.5 % ", 125), ("100%", 1000), ("0.1%", 1)],
)
def test_limit(text, count):
    assert parse_limit(text, 1000) == count


@pytest.mark.parametrize("text", ["", "12", "much", "0%", "100.1%", "-5%", "%", "50%GB", "5 apples"])
def test_what_is_no_limit(text):
    with pytest.raises(XbenchError, match="is not a size") as caught:
        parse_limit(text, 1000)
    for form in ("12GB", "12GiB", "50%"):
        assert form in caught.value.hint
