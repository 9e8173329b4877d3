"""Heading of a table: the models and the datasets that they were trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from xbench.records.schema import CellRecord, DataRecord
from xbench.report.stand_ins import STAND_IN_DATA
from xbench.text import pluralize

# Datasets listed above a table; the others are counted.
MAX_DATASETS = 8


def describe_data(records: Sequence[CellRecord]) -> tuple[str, ...]:
    """Describe the models and their data, with the numbers of rows.

    A single dataset is described on one line, with counts by class. Several datasets have a line each, with
    counts by split. Each line ends with the facts that the data's task declares.
    """
    if not records:
        return ()
    models = ", ".join(dict.fromkeys(record.model.title for record in records))
    distinct = list_datasets(records)
    if len(distinct) == 1:
        line = _append_counts(f"{models} on {_format_name(distinct[0])}", distinct[0].counts)
        return ("; ".join(filter(None, [line, distinct[0].facts_text])),)
    lines = [f"{models} on {pluralize(len(distinct), 'dataset')}"]
    lines += [
        "; ".join(
            filter(
                None,
                [_append_counts(name_dataset(data, distinct), _count_by_split(data)), data.facts_text],
            )
        )
        for data in distinct[:MAX_DATASETS]
    ]
    if len(distinct) > MAX_DATASETS:
        lines.append(f"and {len(distinct) - MAX_DATASETS} more")
    return tuple(lines)


def list_datasets(records: Iterable[CellRecord]) -> list[DataRecord]:
    """List the distinct datasets of cells."""
    datasets: dict[str, DataRecord] = {}
    for record in records:
        data = record.dataset
        datasets.setdefault(repr((data.requested, data.name, data.params, data.counts)), data)
    return list(datasets.values())


def name_dataset(data: DataRecord, datasets: Sequence[DataRecord]) -> str:
    """Name a dataset, with the settings that distinguish it from others of its name."""
    return " ".join([_format_name(data), *_distinguish(data, datasets)])


def _format_name(data: DataRecord) -> str:
    return f"{data.name} [{STAND_IN_DATA}]" if data.name != data.requested else data.name


def _distinguish(data: DataRecord, datasets: Sequence[DataRecord]) -> list[str]:
    """Format the settings that distinguish a dataset from others with the same name."""
    namesakes = [other for other in datasets if other.name == data.name]
    return [
        f"{key}={value}"
        for key, value in data.params.items()
        if any(key not in other.params or other.params[key] != value for other in namesakes)
    ]


def _append_counts(title: str, counts: Mapping[str, int]) -> str:
    numbers = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return f"{title}: {numbers}" if numbers else title


def _count_by_split(data: DataRecord) -> dict[str, int]:
    totals: dict[str, int] = {}
    for name, count in data.counts.items():
        split = name.partition("/")[0]
        totals[split] = totals.get(split, 0) + count
    return totals
