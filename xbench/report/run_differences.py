"""Find what differs between runs besides their figures: versions, hardware, data and protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from xbench.records.schema import CellRecord, Component
from xbench.report.run_comparison import NamedRun
from xbench.report.settings import ABSENT, SHOWN_DEFAULTS, show_value
from xbench.text import shorten
from xbench.units import format_bytes

DifferenceKind = Literal["versions", "hardware", "data", "protocol"]
KINDS: tuple[DifferenceKind, ...] = ("versions", "hardware", "data", "protocol")

# Facts about a run or a column: kind and name of the fact -> its distinct values, in order.
Facts = dict[tuple[DifferenceKind, str], list[Any]]

_HASH_CHARS = 12


@dataclass(frozen=True)
class Difference:
    """A fact that differs between runs.

    Attributes:
        name: what differs, such as `torch` or `batch_size`.
        where: the experiments and columns that it concerns; "" for the whole run.
        values: its distinct values in each run; empty where it is not recorded.
    """

    kind: DifferenceKind
    name: str
    where: str
    values: tuple[tuple[Any, ...], ...]


def find_differences(runs: Sequence[NamedRun]) -> tuple[Difference, ...]:
    """Find all facts that differ between runs, by kind. Facts about a column are compared where every run has
    the column, and a fact that differs alike in several columns is listed once."""
    found = [
        Difference(kind, name, "", values)
        for (kind, name), values in _contrast([_collect_run_facts(run) for run in runs])
    ]
    columns = _list_common_columns(runs)
    places: dict[str, tuple[DifferenceKind, str, tuple[tuple[Any, ...], ...], list[str]]] = {}
    for experiment, column in columns:
        cells = [run.find_cells(experiment, column) for run in runs]
        facts = [_collect_column_facts(found) for found in cells]
        for (kind, name), values in (*_contrast(facts), *_contrast_pairing(cells)):
            key = repr((kind, name, values))
            places.setdefault(key, (kind, name, values, []))[-1].append(f"{experiment}: {column}")
    found += [
        Difference(kind, name, "all columns" if len(where) == len(columns) else "; ".join(where), values)
        for kind, name, values, where in places.values()
    ]
    return tuple(sorted(found, key=lambda difference: KINDS.index(difference.kind)))


def format_values(difference: Difference) -> tuple[str, ...]:
    """Format the values of a difference, one text for each run."""
    return tuple(
        ", ".join(_format_value(difference.name, value) for value in values) or ABSENT
        for values in difference.values
    )


def _format_value(name: str, value: Any) -> str:
    if name.endswith("_bytes") and isinstance(value, int):
        return f"{format_bytes(value)} ({value:,} bytes)"
    return shorten(show_value(value))


def _list_common_columns(runs: Sequence[NamedRun]) -> list[tuple[str, str]]:
    return [
        (experiment, column)
        for experiment, columns in runs[0].cells.items()
        for column in columns
        if all(run.find_cells(experiment, column) for run in runs[1:])
    ]


def _contrast(
    facts: Sequence[Facts],
) -> Iterator[tuple[tuple[DifferenceKind, str], tuple[tuple[Any, ...], ...]]]:
    """Find the facts whose values are not the same in all runs, whatever their order."""
    for key in dict.fromkeys(key for found in facts for key in found):
        values = tuple(tuple(found.get(key, ())) for found in facts)
        if len({repr(sorted(map(repr, each))) for each in values}) > 1:
            yield key, values


def _collect_run_facts(run: NamedRun) -> Facts:
    record = run.run
    facts: Facts = {("protocol", "suite"): [record.suite], ("hardware", "kind of device"): [record.device]}
    facts |= {("versions", name): [version] for name, version in record.versions.items()}
    facts |= {("hardware", name): [value] for name, value in record.hardware.items()}
    facts |= {("protocol", name): [value] for name, value in record.malloc.items()}
    facts |= {
        ("protocol", f"definition of {metric.name}"): [f"{metric.direction}, {metric.split}: {metric.method}"]
        for metric in record.metrics
    }
    return facts


def _collect_column_facts(cells: Mapping[int, CellRecord]) -> Facts:
    facts: Facts = {}
    seen: dict[tuple[DifferenceKind, str], set[str]] = {}
    for record in cells.values():
        for kind, name, value in _list_cell_facts(record):
            text = repr(value)
            if value is not None and text not in seen.setdefault((kind, name), set()):
                seen[kind, name].add(text)
                facts.setdefault((kind, name), []).append(value)
    return facts


def _list_cell_facts(record: CellRecord) -> Iterator[tuple[DifferenceKind, str, Any]]:
    data = record.dataset
    parts: dict[str, Component] = {"model": record.model, "optimizer": record.optimizer}
    for role, part in parts.items():
        yield "versions", f"code of the {role}", part.origin or None
        yield "protocol", role, part.title
        yield "protocol", f"weights of the {role}", part.weights or None
        for name, value in part.params.items():
            yield "protocol", f"{role}: {name}", _show(value)
    yield "versions", "code of the dataset", data.origin or None
    yield "data", "dataset", data.name
    yield "data", "fingerprint", data.fingerprint or None
    yield "data", "number of rows", data.counts or None
    yield "data", "unreadable images", len(data.unreadable)
    for name, value in data.params.items():
        yield "data", f"dataset: {name}", _show(value)
    for name, value in {**SHOWN_DEFAULTS, **record.settings}.items():
        yield "protocol", name, _show(value)
    for name, value in record.requested.items():
        if name not in record.settings:
            yield "protocol", f"{name}, requested", _show(value)
    for name, value in record.ran.items():
        yield "protocol", f"{name}, as run", _show(value)
    yield "protocol", "limit_bytes", record.memory.limit_bytes
    yield "protocol", "malloc", record.memory.malloc
    yield "protocol", "threads in use", record.device.get("threads")
    for processor in record.processors or [str(record.device.get("name", ""))]:
        yield "hardware", "processor or device", processor or None


def _show(value: Any) -> Any:
    """Write None, which stands for a default, as a value of its own."""
    return "default" if value is None else value


def _contrast_pairing(
    cells: Sequence[Mapping[int, CellRecord]],
) -> Iterator[tuple[tuple[DifferenceKind, str], tuple[tuple[Any, ...], ...]]]:
    """Find seeds that do not start from the same weights, or do not see the same batches, in all runs."""
    starts = {"initial weights": "weights_sha256", "order of examples": "order_sha256"}
    for name, field in starts.items():
        for seed in cells[0]:
            if all(seed in found for found in cells):
                hashes = [getattr(found[seed].pairing, field)[:_HASH_CHARS] for found in cells]
                if all(hashes) and len(set(hashes)) > 1:
                    yield ("protocol", f"{name}, seed {seed}"), tuple((value,) for value in hashes)
