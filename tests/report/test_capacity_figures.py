"""The figure of a capacity probe."""

from __future__ import annotations

from xbench.records.capacity import CapacityRecord, CapacityReport, TrialRecord
from xbench.records.schema import Component
from xbench.report.capacity_figures import make_capacity_figures

MB = 10**6
TRIALS = [
    TrialRecord(value=8, outcome="fits", peak_bytes=400 * MB),
    TrialRecord(value=2, outcome="fits", peak_bytes=100 * MB),
    TrialRecord(value=16, outcome="oom", predicted_bytes=800 * MB),
]


def report(*trials: TrialRecord, axis: str = "train-size", stand_in: str = "") -> CapacityReport:
    result = CapacityRecord(
        axis=axis,
        limit_bytes=500 * MB,
        settings={},
        found=8,
        fails=16,
        peak_bytes=400 * MB,
        seconds=1.0,
        trials=list(trials),
    )
    return CapacityReport(
        limit_bytes=500 * MB,
        bound="asked for",
        device="cpu",
        device_name="some processor",
        model="net",
        dataset="data",
        optimizer="lbfgs",
        stand_in=stand_in,
        components={"model": Component(name="net")},
        versions={},
        results=[result],
    )


def test_sizes_that_fit_and_fail_stand_below_the_limit():
    (figure,) = make_capacity_figures(report(*TRIALS))
    assert {series.name: (series.x, series.y) for series in figure.series} == {
        "fits": ((2, 8), (100.0, 400.0)),
        "predicted": ((16,), (800.0,)),
        "out of memory": ((16,), (500.0,)),
    }
    assert figure.limit == (500.0, "limit: 500 MB")
    assert (figure.key, figure.x_label, figure.y_label) == (
        "capacity-train-size",
        "train size (examples)",
        "peak memory (MB)",
    )
    assert "Largest size that fits: 8." in figure.note
    assert "drawn at the limit" in figure.note


def test_values_that_are_refused_are_told_apart():
    (figure,) = make_capacity_figures(report(TRIALS[0], TrialRecord(value=9, outcome="refused")))
    assert [series.name for series in figure.series] == ["fits", "refused"]


def test_trials_that_failed_otherwise_are_told_apart():
    (figure,) = make_capacity_figures(report(TRIALS[0], TrialRecord(value=9, outcome="error")))
    assert [series.name for series in figure.series] == ["fits", "failed otherwise"]


def test_a_history_is_counted_in_update_pairs():
    (figure,) = make_capacity_figures(report(*TRIALS, axis="history-size"))
    assert figure.x_label == "history size (update pairs)"


def test_a_setting_has_no_unit():
    (figure,) = make_capacity_figures(report(*TRIALS, axis="sequence-length"))
    assert figure.x_label == "sequence length"


def test_stand_in_data_is_told():
    (figure,) = make_capacity_figures(report(*TRIALS, stand_in="made-up images"))
    assert figure.warning == "STAND-IN DATA: data (made-up images)"
    assert make_capacity_figures(report(*TRIALS))[0].warning == ""


def test_an_axis_without_trials_has_no_figure():
    assert make_capacity_figures(report()) == ()
