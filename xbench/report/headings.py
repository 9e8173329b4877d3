"""Say above a table which models ran on which data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xbench.records.schema import CellRecord, DataRecord
from xbench.text import pluralize

# So many datasets are named above one table.
MAX_DATASETS = 8


def data_lines(records: Sequence[CellRecord]) -> tuple[str, ...]:
    """The models and their data, with the number of images.

    One dataset takes a single line, with its counts by class. Several take a line each, with counts by split.
    Of two classes, the positive one is named.
    """
    if not records:
        return ()
    models = ", ".join(dict.fromkeys(record.model.title for record in records))
    datasets: dict[str, DataRecord] = {}
    for record in records:
        data = record.dataset
        datasets.setdefault(repr((data.requested, data.name, data.params, data.counts)), data)
    several = list(datasets.values())
    if len(several) == 1:
        line = _with_counts(f"{models} on {_name(several[0])}", several[0].counts)
        return ("; ".join(filter(None, [line, several[0].told_positive])),)
    lines = [f"{models} on {pluralize(len(several), 'dataset')}"]
    lines += [
        "; ".join(filter(None, [_with_counts(_title(data, several), _by_split(data)), data.told_positive]))
        for data in several[:MAX_DATASETS]
    ]
    if len(several) > MAX_DATASETS:
        lines.append(f"and {len(several) - MAX_DATASETS} more")
    return tuple(lines)


def _title(data: DataRecord, datasets: Sequence[DataRecord]) -> str:
    return " ".join([_name(data), *_own_params(data, datasets)])


def _name(data: DataRecord) -> str:
    return f"{data.name} [STAND-IN DATA]" if data.name != data.requested else data.name


def _own_params(data: DataRecord, datasets: Sequence[DataRecord]) -> list[str]:
    """The settings that tell a dataset from others of its name."""
    namesakes = [other for other in datasets if other.name == data.name]
    return [
        f"{key}={value}"
        for key, value in data.params.items()
        if any(key not in other.params or other.params[key] != value for other in namesakes)
    ]


def _with_counts(title: str, counts: Mapping[str, int]) -> str:
    numbers = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return f"{title}: {numbers}" if numbers else title


def _by_split(data: DataRecord) -> dict[str, int]:
    totals: dict[str, int] = {}
    for name, count in data.counts.items():
        split = name.partition("/")[0]
        totals[split] = totals.get(split, 0) + count
    return totals
