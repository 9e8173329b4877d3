"""Make the figures of a run from its records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from xbench.records.schema import CellRecord, RunRecord
from xbench.records.store import RunFolder
from xbench.report.comparison import Comparison, comparisons
from xbench.report.curves import Curve, read_curves
from xbench.report.figure import Figure
from xbench.report.loss_figures import make_loss_figures
from xbench.report.memory_figures import make_memory_figures
from xbench.report.profile_figures import make_profile_figures
from xbench.report.stand_ins import list_stand_ins
from xbench.report.tradeoff_figures import find_main_metric, make_axis_figures, make_tradeoff_figures
from xbench.report.tuning_figures import make_tuning_figures


def read_figures(folder: RunFolder) -> tuple[Figure, ...]:
    """Read a run and make its figures.

    Raises:
        XbenchError: the run cannot be read.
    """
    run, records = folder.read()
    return make_figures(run, records, read_curves(folder, run, records), comparisons(run, records))


def make_figures(
    run: RunRecord,
    records: Sequence[CellRecord],
    curves: Mapping[str, Curve],
    compared: Sequence[Comparison],
) -> tuple[Figure, ...]:
    """Make the figures of each experiment, and those of the whole run. A figure without data is left out.

    Args:
        curves: cell ID -> its loss curve, see `read_curves`.
        compared: the experiments of the run, see `comparisons`.
    """
    warnings = {
        comparison.experiment.name: "; ".join(list_stand_ins(_list_drawn(comparison)))
        for comparison in compared
    }
    of_experiments = [
        replace(figure, warning=warnings[figure.experiment])
        for comparison in compared
        for figure in _make_figures(run, curves, comparison)
    ]
    whole = "; ".join(list_stand_ins(records))
    return (*of_experiments, *(replace(figure, warning=whole) for figure in make_profile_figures(compared)))


def _make_figures(run: RunRecord, curves: Mapping[str, Curve], comparison: Comparison) -> Iterator[Figure]:
    yield from make_loss_figures(comparison, curves)
    yield from make_memory_figures(comparison)
    metric = find_main_metric(run.metrics_of(comparison.experiment.name), comparison.columns)
    if metric is not None:
        yield from make_tradeoff_figures(comparison, metric)
        yield from make_axis_figures(comparison, metric)
    yield from make_tuning_figures(comparison)


def _list_drawn(comparison: Comparison) -> Iterator[CellRecord]:
    for column in comparison.columns:
        yield from column.records
    for tuned in comparison.tuning.columns if comparison.tuning is not None else ():
        yield from tuned.trials
