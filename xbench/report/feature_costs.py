"""Find the time spent on the features of each cell, whichever cell of the run computed them."""

from __future__ import annotations

from collections.abc import Iterable

from xbench.records.schema import CellRecord


def find_features_s(records: Iterable[CellRecord]) -> dict[str, float]:
    """Find how long computing features took, for every cell that used them.

    The first cell that needs certain features computes them, and only its record has the time. Cells with
    the same model, data, precision and weights share features. Without a weights file, the seed determines
    the weights, so each seed has its own features.

    Returns:
        Cell ID -> seconds. Cells whose features an earlier run computed are absent.
    """
    records = list(records)
    cost_s: dict[str, float] = {}
    for record in records:
        if record.time.features_s:
            key = _make_features_key(record)
            cost_s[key] = cost_s.get(key, 0.0) + record.time.features_s
    return {
        record.cell_id: cost_s[_make_features_key(record)]
        for record in records
        if record.features.precision is not None and _make_features_key(record) in cost_s
    }


def _make_features_key(record: CellRecord) -> str:
    model, data = record.model, record.dataset
    return repr(
        (
            (model.name, sorted(model.params.items()), model.weights),
            (data.name, data.fingerprint),
            (record.settings.get("dtype"), record.settings.get("autocast", "off")),
            (record.features.precision, record.device.get("threads")),
            None if model.weights else record.seed_parts.weights,
        )
    )
