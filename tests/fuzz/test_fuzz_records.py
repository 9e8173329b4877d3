"""Damaged records are refused, or shown: a few hundred; `fuzz_records.py` has more."""

from __future__ import annotations

from tests.fuzz.fuzz_records import FORMS, complaint_about, fuzz, in_a_folder


def test_damaged_records_are_refused_or_shown():
    with in_a_folder():
        tallies = fuzz(count=200, seed=0)
    assert [item for tally in tallies.values() for item in tally.bad] == []
    for kind, tally in tallies.items():
        # Else the damage tries nothing of what it is made for.
        assert tally.refused > 10, kind
        assert tally.printed > 10, kind
        assert tally.tried == 100, kind


def test_what_would_be_complained_about():
    assert complaint_about(None, "", "Traceback (most recent call last):", FORMS[0])
    assert complaint_about(1, "", "error: x", FORMS[0])
    assert complaint_about(0, "\x1b[31m", "", FORMS[0])
    assert complaint_about(2, "half a table", "error: x", FORMS[0])
    assert complaint_about(0, "a table\n", "", FORMS[0]) == ""
