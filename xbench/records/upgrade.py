"""Parse records of any schema version and upgrade them to the current one. No file is rewritten.

Version 1 did not declare its metrics, which were always those of classification, and stored the values of an
epoch as fields of the epoch's record.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from xbench.records.base import SCHEMA_VERSION, Record, Whole
from xbench.records.metrics import CLASSIFICATION, CLASSIFICATION_EPOCHS
from xbench.records.schema import CellRecord, RunRecord


class _EpochOfVersion1(Record):
    epoch: Whole
    train_loss: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    test_loss: float | None = None


def _upgrade_cell(fields: Any) -> Any:
    if not isinstance(fields, dict) or fields.get("schema_version") != 1:
        return fields
    epochs = [
        {"epoch": epoch.epoch, "values": epoch.model_dump(exclude={"epoch"})}
        for epoch in _EPOCHS_OF_VERSION_1.validate_python(fields.get("epochs", []))
    ]
    return {**fields, "schema_version": SCHEMA_VERSION, "epochs": epochs}


_EPOCHS_OF_VERSION_1 = TypeAdapter(list[_EpochOfVersion1])
_CELL: TypeAdapter[CellRecord] = TypeAdapter(Annotated[CellRecord, BeforeValidator(_upgrade_cell)])


def parse_run(content: bytes) -> RunRecord:
    """Parse the content of a `run.json`.

    Raises:
        pydantic.ValidationError: the content is not the record of a run.
    """
    run = RunRecord.model_validate_json(content)
    if run.schema_version != 1:
        return run
    declarations = {"metrics": list(CLASSIFICATION), "epoch_metrics": list(CLASSIFICATION_EPOCHS)}
    return run.model_copy(update={"schema_version": SCHEMA_VERSION, **declarations})


def parse_cell(line: bytes) -> CellRecord:
    """Parse a line of `cells.jsonl`.

    Raises:
        pydantic.ValidationError: the line is not the record of a cell.
    """
    return _CELL.validate_json(line)
