"""Make the figures of a capacity probe: peak memory against size, with the limit."""

from __future__ import annotations

from xbench.records.capacity import CapacityRecord, CapacityReport
from xbench.report.figure import Figure, Series
from xbench.report.figure_notes import join_notes
from xbench.report.scales import choose_size_unit
from xbench.report.stand_ins import describe_stand_in_data, describe_stand_in_weights
from xbench.units import format_bytes

# Other axes are settings, whose units are not known.
_UNITS = {
    "train-size": "examples",
    "batch-size": "examples",
    "micro-batch": "examples",
    "history-size": "update pairs",
}

FAILED_NOTE = "Sizes that failed or were refused have no peak, and are drawn at the limit."


def make_capacity_figures(report: CapacityReport) -> tuple[Figure, ...]:
    """Make a figure for each axis of a probe."""
    return tuple(_make_figure(report, result) for result in report.results if result.trials)


def _make_figure(report: CapacityReport, result: CapacityRecord) -> Figure:
    unit_bytes, unit = choose_size_unit([result.limit_bytes])
    limit = result.limit_bytes / unit_bytes
    fits = [
        (t.value, t.peak_bytes / unit_bytes) for t in result.trials if t.outcome == "fits" and t.peak_bytes
    ]
    predicted = [
        (t.value, t.predicted_bytes / unit_bytes) for t in result.trials if t.predicted_bytes is not None
    ]
    oom, refused, error = (
        [(trial.value, limit) for trial in result.trials if trial.outcome == end]
        for end in ("oom", "refused", "error")
    )
    series = (
        Series("fits", *_split(fits)),
        Series("predicted", *_split(predicted), is_ranked=False, place=1),
        Series("out of memory", *_split(oom), place=6),  # a black cross
        Series("refused", *_split(refused), place=4),
        Series("failed otherwise", *_split(error), place=5),
    )
    title = result.axis.replace("-", " ")
    return Figure(
        key=f"capacity-{result.axis}",
        experiment=report.optimizer,
        title=f"Peak memory against {title}",
        subtitle=f"{report.optimizer}, {report.components['model'].title} on {report.dataset}",
        kind="points",
        x_label=f"{title} ({_UNITS[result.axis]})" if result.axis in _UNITS else title,
        y_label=f"peak memory ({unit})",
        series=tuple(one for one in series if one.x),
        warning=_make_warning(report),
        note=join_notes(
            f"Largest size that fits: {'none' if result.found is None else f'{result.found:,}'}.",
            FAILED_NOTE if any(trial.outcome != "fits" for trial in result.trials) else "",
        ),
        limit=(limit, f"limit: {format_bytes(result.limit_bytes)}"),
    )


def _split(points: list[tuple[int, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    ordered = sorted(points)
    return tuple(x for x, _ in ordered), tuple(y for _, y in ordered)


def _make_warning(report: CapacityReport) -> str:
    parts = (
        describe_stand_in_data(report.dataset, report.stand_in),
        describe_stand_in_weights(report.components["model"]),
    )
    return "; ".join(filter(None, parts))
