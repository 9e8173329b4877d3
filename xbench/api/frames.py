"""Make pandas data frames of records. Missing integers and booleans are `pandas.NA`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xbench.errors import XbenchError
from xbench.records.schema import CellKey, CellRecord, RunRecord
from xbench.records.store import RunFolder
from xbench.report.comparison import Comparison
from xbench.report.declared_cells import list_ended, match_cells
from xbench.report.run_document import FINDING_COLUMNS, describe_finding
from xbench.report.target_tables import describe_cell_to_target
from xbench.report.tuning_section import TRIAL_COLUMNS, list_trial_rows

if TYPE_CHECKING:
    import pandas as pd

_SIZES = ("train_size", "batch_size", "micro_batch", "history_size")
_TIMES = (
    *("training_s", "evaluation_s", "prepare_s", "compile_s", "features_s", "memory_pass_s"),
    "step_ms_median",
)
_BYTES = (
    "peak_host_bytes",
    "peak_device_bytes",
    "limit_bytes",
    "parameters_bytes",
    "optimizer_state_bytes",
)
_OF_PASS = ("needed_bytes", "optimizer_peak_bytes")
_COUNTS = ("selected_epoch", "steps", "closures")

# pandas' types of columns in which values may be missing.
_TO_TARGET: dict[str, Any] = {
    "reached_target": "boolean",
    **dict.fromkeys(("steps_to_target", "closures_to_target", "examples_to_target"), "Int64"),
    "training_s_to_target": "float64",
    "bytes_to_target": "Int64",
}
_CELL_TYPES: dict[str, Any] = {
    **dict.fromkeys(("attempt", *_COUNTS, *_SIZES, *_OF_PASS, *_BYTES), "Int64"),
    **dict.fromkeys((*_TIMES, "state_vectors"), "float64"),
}
_STEP_TYPES: dict[str, Any] = {
    "seed": "int64",
    "step": "int64",
    "epoch": "int64",
    "loss": "float64",
    "wall_s": "float64",
    "closures": "int64",
    "host_peak_bytes": "Int64",
    "device_peak_bytes": "Int64",
    "device_reserved_bytes": "Int64",
}
_EVALUATION_TYPES: dict[str, Any] = {
    **dict.fromkeys(("seed", "step", "epoch", "examples", "closures"), "int64"),
    "training_s": "float64",
}
_STEP_COLUMNS = ["experiment", "column", "seed", "cell_id", *list(_STEP_TYPES)[1:]]
_FINDING_TYPES: dict[str, Any] = {
    **dict.fromkeys(("estimate", "low", "high", "p", "p_corrected"), "float64"),
    **dict.fromkeys(("is_significant", "is_better"), "boolean"),
}
_TRIAL_TYPES: dict[str, Any] = {
    "trial": "int64",
    "score": "float64",
    "is_chosen": "bool",
    "closures": "int64",
    "training_s": "float64",
}


def make_cells_frame(
    run: RunRecord, records: Sequence[CellRecord], comparisons: Sequence[Comparison]
) -> pd.DataFrame:
    """Make the frame of `Results.cells`."""
    import pandas as pd

    metrics = [metric.name for metric in run.metrics]
    targets = {compared.experiment.name: compared.target for compared in comparisons if compared.target}
    rows = []
    for cell, record in match_cells(run, records):
        row = _make_row(cell, record, metrics)
        if targets:
            target = targets.get(cell.experiment)
            found = describe_cell_to_target(target, record) if target and record else {}
            row |= dict.fromkeys(_TO_TARGET) | found
        rows.append(row)
    frame = pd.DataFrame(rows)
    types = _CELL_TYPES | _TO_TARGET | dict.fromkeys(metrics, "float64")
    return frame.astype({name: types[name] for name in frame.columns if name in types})


def _make_row(cell: CellKey, record: CellRecord | None, metrics: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"experiment": cell.experiment, "column": cell.column, "seed": cell.seed}
    keys = ("status", "reason", "model", "dataset", "dataset_stand_in", "optimizer", *metrics)
    row |= dict.fromkeys((*keys, *_COUNTS, *_SIZES, *_TIMES, *_OF_PASS, *_BYTES, "state_vectors"))
    row |= {"cell_id": cell.cell_id, "attempt": None}
    if record is None:
        return row
    row |= {
        "status": record.status,
        "reason": record.reason,
        "model": record.model.name,
        "dataset": record.dataset.name,
        "dataset_stand_in": record.dataset.stand_in,
        "optimizer": record.optimizer.name,
        "needed_bytes": record.needed_bytes,
        "optimizer_peak_bytes": record.memory_pass.optimizer_peak_bytes if record.memory_pass else None,
        "state_vectors": record.memory.state_vectors,
        "attempt": record.attempt,
    }
    row |= {name: getattr(record, name) for name in _COUNTS}
    row |= {name: size for name in _SIZES if isinstance(size := record.ran.get(name), int)}
    row |= {name: getattr(record.time, name) for name in _TIMES}
    row |= {name: getattr(record.memory, name) for name in _BYTES}
    row |= {name: record.metrics.get(name) for name in metrics}  # as in tables, a metric takes the name
    settings = {
        "optimizer": record.optimizer.params,
        "model": record.model.params,
        "training": record.settings,
    }
    return row | {
        f"{kind}.{name}": value
        for kind, given in settings.items()
        for name, value in given.items()
        if name not in _SIZES
    }


def make_steps_frame(folder: RunFolder, run: RunRecord, records: Sequence[CellRecord]) -> pd.DataFrame:
    """Make the frame of `Results.steps`.

    Raises:
        XbenchError: a trace is damaged or missing.
    """
    import pandas as pd

    from xbench.records.tables import read_table

    frames = []
    for record in list_ended(run, records):
        if record.trace_crc32 is None:
            continue
        try:
            table = read_table(folder.trace_path(record.cell_id, record.attempt), record.trace_crc32)
        except (OSError, ValueError) as error:
            name = f"{record.experiment} / {record.column} / seed {record.seed}"
            raise XbenchError(
                f"the trace of {name} cannot be read: {error}",
                hint="run the suite again with fresh=True, or read the other frames, which do not need it",
            ) from error
        frame = pd.DataFrame({name: table.column(name).to_numpy() for name in table.column_names})
        frame = frame.assign(
            experiment=record.experiment, column=record.column, seed=record.seed, cell_id=record.cell_id
        )
        frames.append(frame.astype(_STEP_TYPES))
    if not frames:
        return pd.DataFrame(columns=_STEP_COLUMNS).astype(_STEP_TYPES)
    return pd.concat(frames, ignore_index=True)[_STEP_COLUMNS]


def make_evaluations_frame(run: RunRecord, records: Sequence[CellRecord]) -> pd.DataFrame:
    """Make the frame of `Results.evaluations`."""
    import pandas as pd

    names = [metric.name for metric in run.epoch_metrics if metric.split != "train"]
    rows = [
        {
            "experiment": record.experiment,
            "column": record.column,
            "seed": record.seed,
            "cell_id": record.cell_id,
            **evaluation.model_dump(exclude={"values"}),
            **{name: evaluation.values.get(name) for name in names},
        }
        for record in list_ended(run, records)
        for evaluation in record.evaluations
    ]
    types = _EVALUATION_TYPES | dict.fromkeys(names, "float64")
    return pd.DataFrame(rows, columns=["experiment", "column", "seed", "cell_id", *list(types)[1:]]).astype(
        types
    )


def make_findings_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Make the frame of `Results.findings`."""
    import pandas as pd

    rows = [
        {"experiment": comparison.experiment.name, **describe_finding(finding)}
        for comparison in comparisons
        for finding in comparison.findings
    ]
    return pd.DataFrame(rows, columns=list(FINDING_COLUMNS)).astype(_FINDING_TYPES)


def make_trials_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Make the frame of `Results.trials`."""
    import pandas as pd

    rows = [
        row
        for comparison in comparisons
        for row in list_trial_rows(comparison.experiment.name, comparison.tuning)
    ]
    settings = dict.fromkeys(f"values.{name}" for row in rows for name in row["values"])
    flat = [row | {f"values.{name}": value for name, value in row["values"].items()} for row in rows]
    place = TRIAL_COLUMNS.index("values")
    columns = [*TRIAL_COLUMNS[:place], *settings, *TRIAL_COLUMNS[place + 1 :]]
    return pd.DataFrame(flat, columns=columns).astype(_TRIAL_TYPES)
