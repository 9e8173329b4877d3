"""A run with a search: two optimizers with eight trials each, one out of memory and one diverged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.report.report_samples import cell, id_of, run
from xbench.records.metrics import CLASSIFICATION_EPOCHS
from xbench.records.schema import CellRecord, EpochRecord, ExperimentRecord, RunRecord, Times
from xbench.records.tuning import RangeRecord, SearchRecord, TrialRecord, TunedRecord

TRIAL_SEED = 1000
RATES = (0.00013, 0.00042, 0.0011, 0.0027, 0.0068, 0.021, 0.055, 0.098)
SGD_SCORES = (0.66, 0.61, 0.52, 0.45, 0.41, 0.36, 0.31, 0.29)
ADAM_SCORES = (0.44, 0.33, 0.27, 0.30, 0.41, 0.58, None, None)
LR = RangeRecord(low=1e-4, high=0.1, scale="log")
SPACES = {"sgd": {"lr": LR}, "adam": {"lr": LR, "weight_decay": RangeRecord(choices=[0.0, 0.001, 0.01])}}


def search(**fields: Any) -> SearchRecord:
    values: dict[str, Any] = {
        "search": "quasi-random",
        "budget": 8,
        "metric": "validation_loss",
        "direction": "min",
        "seed": TRIAL_SEED,
        "spaces": SPACES,
    }
    return SearchRecord(**{**values, **fields})


def trial(
    column: str, number: int, values: Mapping[str, Any], score: float | None, status: str = "", **fields: Any
) -> CellRecord:
    """A trial, which is done unless its status says otherwise."""
    status = status or ("done" if score is not None else "diverged")
    record = cell(
        column,
        TRIAL_SEED,
        status=status,
        trial=TrialRecord(number=number, values=dict(values), score=score),
        **{"closures": 100, "steps": 100, "time": Times(training_s=2.5), **fields},
    )
    return record.model_copy(update={"cell_id": id_of(record.experiment, column, "trial", number)})


def trials(column: str, scores: Sequence[float | None], **settings: Sequence[Any]) -> list[CellRecord]:
    """The trials of a column, with learning rates and other settings one by one."""
    settings = {"lr": RATES, **settings}
    return [
        trial(column, place + 1, {name: values[place] for name, values in settings.items()}, score)
        for place, score in enumerate(scores)
    ]


def tuned(
    column: str,
    seed: int,
    accuracy: float,
    found: CellRecord,
    loss: float,
    trials: Sequence[str] = (),
    **fields: Any,
) -> CellRecord:
    """A cell with the settings of a trial.

    Args:
        trials: IDs of all trials of the search.
    """
    assert found.trial is not None
    return cell(
        column,
        seed,
        accuracy,
        tuned=TunedRecord(trial=found.trial.number, values=found.trial.values, trials=trials),
        epochs=[EpochRecord(epoch=1, values={"validation_loss": loss})],
        selected_epoch=1,
        **fields,
    )


def sgd_trials() -> list[CellRecord]:
    return trials("sgd", SGD_SCORES)


def adam_trials() -> list[CellRecord]:
    found = trials("adam", ADAM_SCORES, weight_decay=(0.0, 0.01, 0.001, 0.0, 0.01, 0.001, 0.0, 0.01))
    oom = {"status": "oom", "reason": "memory ran out", "time": Times(), "closures": 0}
    return [
        *found[:6],
        found[6].model_copy(update={"reason": "the loss is NaN"}),
        found[7].model_copy(update=oom),
    ]


def tuned_records() -> list[CellRecord]:
    """All trials, and two seeds of each optimizer with the settings of its best trial."""
    sgd, adam = sgd_trials(), adam_trials()
    finals = [
        *(tuned("sgd", seed, 0.8 + seed / 100, sgd[7], 0.29 + seed / 50) for seed in range(3)),
        *(tuned("adam", seed, 0.9 + seed / 100, adam[2], 0.26 + seed / 50) for seed in range(3)),
    ]
    return [*sgd, *adam, *finals]


def tuned_run(records: Sequence[CellRecord], tuning: SearchRecord | None = None, **fields: Any) -> RunRecord:
    """The run of these records, which does not declare its trials."""
    experiment = ExperimentRecord(name="first", title="First", tuning=tuning or search())
    cells = [record for record in records if record.trial is None]
    return run(cells, experiment, epoch_metrics=list(CLASSIFICATION_EPOCHS), **fields)
