"""Pages of runs made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.report.report_samples import STAND_IN, cell, failed, measured, run
from xbench.records.schema import CellRecord, ExperimentRecord, RunRecord
from xbench.records.traces import TraceRow
from xbench.report.comparison import comparisons
from xbench.report.figure import Figure, Series
from xbench.report.page import RunPage
from xbench.report.thin_traces import thin_trace

FIGURES = (
    Figure(
        "loss-steps",
        "first",
        "Loss by steps",
        "lines",
        "step",
        "loss (nats)",
        (
            Series("sgd", (1, 2, 3), (0.9, 0.5, 0.1), (0.8, 0.4, 0.0), (1.0, 0.6, 0.2)),
            Series("adam", (1, 2, 3), (0.8, float("nan"), 0.2)),
        ),
        is_y_log=True,
        warning="STAND-IN DATA: synthetic images ran in place of chest-xray",
    ),
    Figure(
        "memory",
        "first",
        "Memory by part",
        "stacked-bars",
        "optimizer",
        "memory (MB)",
        tuple(Series(part, ("sgd", "adam"), (10.0, 20.0)) for part in ("model", "state")),
        limit=(40.0, "limit"),
    ),
    Figure(
        "accuracy-memory",
        "first",
        "Accuracy by memory",
        "points",
        "memory (MB)",
        "test accuracy",
        (Series("sgd", (10.0,), (0.8,), (0.7,), (0.9,), ("sgd",)), Series("adam", (20.0,), (0.9,))),
        front=Series("Pareto front", (10.0, 20.0), (0.8, 0.9)),
    ),
)


def trace(steps: int) -> list[TraceRow]:
    return [
        TraceRow(step, 1, 1 / step, 0.01, 1, 1_000_000 * step, None, None) for step in range(1, steps + 1)
    ]


def page(
    records: Sequence[CellRecord],
    figures: Sequence[Figure] = (),
    declared: RunRecord | None = None,
    **more: Any,
) -> RunPage:
    declared = declared or run(records)
    return RunPage("results/tiny/1", declared, records, comparisons(declared, list(records)), figures, **more)


def varied_page() -> RunPage:
    """Three optimizers on stand-in data with figures of an earlier work, one of which failed."""
    records = [
        measured("sgd").model_copy(update={"dataset": STAND_IN}),
        measured("adam").model_copy(update={"metrics": {"test_accuracy": 0.9}, "dataset": STAND_IN}),
        failed("lbfgs", "oom", "memory ran out"),
    ]
    experiment = ExperimentRecord(
        name="first", title="First", reference={"sgd": {"test_accuracy": 0.777}}, reference_name="2021 report"
    )
    declared = run(records, experiment, missing=[("first", "muon")], warnings=["a warning of the run"])
    return page(
        records,
        FIGURES,
        declared,
        traces={records[0].cell_id: thin_trace(trace(250))},
        logs={records[2].cell_id: "Traceback\n\tlast line"},
    )


def large_page(cells: int = 1000, optimizers: int = 10) -> RunPage:
    """Cells whose figures, traces and hashes all differ."""
    records = [
        cell(
            f"adam lr={place % optimizers}",
            place // optimizers,
            accuracy=place / cells,
            settings={"epochs": 3, "threads": None},
            time={"training_s": 10 + place / 7, "prepare_s": place / 11},
            memory={"peak_host_bytes": 10**9 + place},
            pairing={"weights_sha256": f"{place:064x}", "order_sha256": f"{place + 1:064x}"},
        )
        for place in range(cells)
    ]
    traces = {
        record.cell_id: thin_trace(
            [
                TraceRow(s, 1, (s * p % 97) / 97, (s * p % 89) / 890, 1, 10**9 + s * p, None, None)
                for s in range(1, 120)
            ]
        )
        for p, record in enumerate(records, start=1)
    }
    return page(records, FIGURES, traces=traces)
