"""Find what the features that each cell trained on cost, whichever cell of the run computed them."""

from __future__ import annotations

from collections.abc import Iterable

from xbench.records.schema import CellRecord


def features_s_by_cell(records: Iterable[CellRecord]) -> dict[str, float]:
    """Seconds that computing a cell's features took, for every cell that used them.

    The cell that needs features first computes them, and its record has the time. Cells with the same model,
    data, precision and weights share them. Weights that no file gives come from the seed, so that each seed
    has features of its own.

    Returns:
        Cell ID -> seconds. Cells whose features an earlier run computed are absent.
    """
    records = list(records)
    cost_s: dict[str, float] = {}
    for record in records:
        if record.time.features_s:
            key = _features_key(record)
            cost_s[key] = cost_s.get(key, 0.0) + record.time.features_s
    return {
        record.cell_id: cost_s[_features_key(record)]
        for record in records
        if record.features.precision is not None and _features_key(record) in cost_s
    }


def _features_key(record: CellRecord) -> str:
    model, data = record.model, record.dataset
    return repr(
        (
            (model.name, sorted(model.params.items()), model.weights),
            (data.name, data.fingerprint),
            (record.settings.get("dtype"), record.features.precision, record.device.get("threads")),
            None if model.weights else record.seed,
        )
    )
