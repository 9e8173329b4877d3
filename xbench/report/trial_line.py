"""Describe a trial of a search in a line of progress."""

from __future__ import annotations

from xbench.records.schema import CellRecord, RunRecord
from xbench.report.rows import show_metric
from xbench.report.settings import show_value
from xbench.units import format_seconds


def describe_trial(record: CellRecord, run: RunRecord | None) -> str:
    """Return the settings, the score and the time of a trial, each after a comma; "" for any other cell.

    Args:
        run: declares the metric of the search; without it, there is no score.
    """
    if record.trial is None:
        return ""
    parts = [f"{name} = {show_value(value)}" for name, value in record.trial.values.items()]
    if run is not None and record.trial.score is not None:
        searched = (e.tuning.metric for e in run.experiments if e.name == record.experiment and e.tuning)
        name = next(searched, "")
        parts += [
            f"{metric.title} {show_metric(metric, record.trial.score)}"
            for metric in run.epoch_metrics
            if metric.name == name
        ]
    if record.time.training_s is not None:
        parts.append(f"training {format_seconds(record.time.training_s)}")
    return "".join(f", {part}" for part in parts)
