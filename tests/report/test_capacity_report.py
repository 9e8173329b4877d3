"""A probe's table, picture and CSV."""

from __future__ import annotations

import csv
import io

from tests.report.forms import to_text
from xbench.records.capacity import CapacityRecord, CapacityReport, TrialRecord
from xbench.records.schema import Component
from xbench.report.capacity import describe_outcome, format_capacity_rows, make_capacity_document
from xbench.report.emit import to_csv, to_markdown

MB = 10**6


def found(axis: str, limit_mb: int) -> CapacityRecord:
    """A size that takes 100 MB, under some limit."""
    trial = TrialRecord(value=7, outcome="fits", peak_bytes=100 * MB, seconds=1.0)
    return CapacityRecord(
        axis=axis,
        limit_bytes=limit_mb * MB,
        settings={},
        found=7,
        fails=None,
        peak_bytes=100 * MB,
        seconds=1.0,
        trials=[trial],
    )


REPORT = CapacityReport(
    limit_bytes=400 * MB,
    bound="asked for",
    device="cpu",
    device_name="some processor",
    model="net",
    dataset="data",
    optimizer="sgd",
    components={"model": Component(name="net")},
    versions={"torch": "2"},
    results=[found("batch-size", 200), found("micro-batch", 400)],
)


def test_each_axis_shows_its_own_limit():
    assert [row[3] for row in format_capacity_rows(REPORT)] == ["200 MB", "400 MB"]
    text = to_markdown(make_capacity_document(REPORT))
    assert "| batch-size | 7 | - | 200 MB |" in text
    assert "| micro-batch | 7 | - | 400 MB |" in text


def test_csv_has_the_limit_of_each_trial():
    lines = list(csv.DictReader(io.StringIO(to_csv(make_capacity_document(REPORT)))))
    assert [(line["axis"], int(line["limit_bytes"])) for line in lines] == [
        ("batch-size", 200 * MB),
        ("micro-batch", 400 * MB),
    ]


def test_bars_are_shares_of_their_own_limit():
    text = to_text(make_capacity_document(REPORT), width=120)
    half, quarter = [line.count("█") for line in text.splitlines() if "█" in line]
    assert half == 2 * quarter


def test_outcomes_are_told_apart():
    outcomes = ("fits", "oom", "refused", "error")
    trials = [
        TrialRecord(value=n, outcome=outcome, reason="why" * (n > 1)) for n, outcome in enumerate(outcomes)
    ]
    assert [describe_outcome(trial) for trial in trials] == [
        "fits",
        "does not fit",
        "refused: why",
        "failed: why",
    ]
    drawn = make_capacity_document(
        REPORT.model_copy(update={"results": [found("width", 200).model_copy(update={"trials": trials[1:]})]})
    )
    told = to_text(drawn)
    assert all(f"x {word}" in told for word in ("out of memory", "refused", "failed"))
