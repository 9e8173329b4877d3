"""Read records of any schema version as records of the current one. Reading rewrites no file.

Version 1 had no declarations of metrics: they were those of classification. The values of an epoch were
fields of its record.
"""

from __future__ import annotations

from pydantic import Field

from xbench.records.metrics import CLASSIFICATION, CLASSIFICATION_EPOCHS
from xbench.records.schema import SCHEMA_VERSION, CellRecord, EpochRecord, Record, RunRecord, Whole


class _Version(Record):
    schema_version: Whole = SCHEMA_VERSION


class _EpochOfVersion1(Record):
    epoch: Whole
    train_loss: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    test_loss: float | None = None


class _CellOfVersion1(CellRecord):
    epochs: list[_EpochOfVersion1] = Field(default_factory=list)


def parse_run(content: bytes) -> RunRecord:
    """Parse the content of a `run.json`.

    Raises:
        pydantic.ValidationError: it is not the record of a run.
    """
    run = RunRecord.model_validate_json(content)
    if run.schema_version != 1:
        return run
    declarations = {"metrics": list(CLASSIFICATION), "epoch_metrics": list(CLASSIFICATION_EPOCHS)}
    return run.model_copy(update={"schema_version": SCHEMA_VERSION, **declarations})


def parse_cell(line: bytes) -> CellRecord:
    """Parse a line of `cells.jsonl`.

    Raises:
        pydantic.ValidationError: it is not the record of a cell.
    """
    if _Version.model_validate_json(line).schema_version != 1:
        return CellRecord.model_validate_json(line)
    old = _CellOfVersion1.model_validate_json(line)
    epochs = [
        EpochRecord(epoch=epoch.epoch, values=epoch.model_dump(exclude={"epoch"})) for epoch in old.epochs
    ]
    fields = {name: getattr(old, name) for name in CellRecord.model_fields}
    return CellRecord(**{**fields, "schema_version": SCHEMA_VERSION, "epochs": epochs})
