"""Make a job with another value of a model's or dataset's setting. Runs in child processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from xbench.capacity.axis import ScaledSetting
from xbench.data.prepared import PreparedData, RowData
from xbench.errors import RefusedValue, Unsupported, XbenchError
from xbench.memory.exhaustion import evidence_of, exhaustion
from xbench.training.job import CellJob
from xbench.training.settings import Choice

# Rows are read in chunks of at most this size, so that reading them takes less memory than training on them.
_MAX_CHUNK_BYTES = 1 << 20
_MAX_CHUNK_ROWS = 256


def scale_job(job: CellJob, axis: ScaledSetting, value: int) -> CellJob:
    """Return a job whose model or dataset has the given value of a setting, and the settings that it needs
    (unless the axis has none).

    The rows of a dataset are described and weighed anew.

    Raises:
        RefusedValue: the dataset's factory refuses the value.
        XbenchError: the dataset does not consist of rows.
    """
    from xbench.training.global_state import load_component

    if axis.component == "model":
        settings, name = job.settings, job.settings.model.name
        scale = load_component("model", name, job.import_dirs).scalable[axis.setting]
        model = Choice(name, {**settings.model.params, axis.setting: value, **scale.needs(value)})
        return replace(job, settings=replace(settings, model=model))
    name = job.data.name
    scale = load_component("dataset", name, job.import_dirs).scalable[axis.setting]
    if not isinstance(job.data, RowData):
        raise XbenchError(
            f"dataset '{name}' declares a scale for '{axis.setting}', but consists of images",
            hint="only settings of datasets of rows can be scaled",
        )
    needs = scale.needs(value) if axis.has_needs else {}
    params = {**job.data.params, axis.setting: value, **needs}
    with refusing():
        return replace(job, data=_prepare(job.data, params, job))


@contextmanager
def refusing() -> Iterator[None]:
    """Take an error of a component within the block for the refusal of a value, unless memory ran out."""
    try:
        yield
    except (RefusedValue, Unsupported):
        raise
    except XbenchError as error:
        cause = error.__cause__
        if cause is not None and exhaustion(evidence_of(cause)):
            raise cause from None
        raise RefusedValue(error.message, error.hint) from error


def _prepare(data: RowData, params: Mapping[str, Any], job: CellJob) -> PreparedData:
    import numpy as np

    from xbench.training.nested import count_bytes
    from xbench.training.prepare_rows import prepare_rows
    from xbench.training.row_set import load_row_set

    rows = load_row_set(data.name, params, job.import_dirs)
    row_bytes = sum(map(count_bytes, rows.load(np.zeros(1, dtype=np.int64)).values()))
    return prepare_rows(
        replace(rows, fingerprint=data.fingerprint),  # rows need not be hashed: nothing is kept of them
        data.name,
        params,
        data.stand_in,
        chunk_rows=min(max(1, _MAX_CHUNK_BYTES // max(1, row_bytes)), _MAX_CHUNK_ROWS),
    )
