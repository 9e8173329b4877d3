"""Hostile suites are refused with a clear message, or are plans: a few hundred; `fuzz_suites.py` has more."""

from __future__ import annotations

import pytest

from tests.fuzz.fuzz_suites import KINDS, complaint_about, fuzz, in_this_process, try_here


@pytest.mark.slow
def test_hostile_suites_are_refused_or_are_plans():
    with in_this_process():
        tallies = fuzz(count=175, seed=0, attempt_one=try_here)
    assert [item for tally in tallies.values() for item in tally.bad] == []
    assert set(tallies) == set(KINDS)
    for kind, tally in tallies.items():
        assert tally.tried >= 20, kind
        assert tally.refused > 10, kind
    # Else nothing of what comes after reading was tried.
    assert sum(tally.valid for tally in tallies.values()) > 10


def test_what_would_be_complained_about():
    assert complaint_about(None, "Traceback (most recent call last):")
    assert complaint_about(1, "error: suite.toml:1: x\n")
    assert complaint_about(2, "")
    assert complaint_about(2, "error: no line is named\n")
    assert complaint_about(2, "error: suite.toml:1: \x1b[31m\n")
    assert complaint_about(2, "error: suite.toml:1: x\n  hint: y\n") == ""
