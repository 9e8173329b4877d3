"""Describe one cell as groups of names and formatted values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from xbench.records.base import Record
from xbench.records.schema import CellRecord, Component, DataRecord, MetricRecord, PairingRecord
from xbench.report.rows import show_metric
from xbench.report.settings import ABSENT, show_value
from xbench.text import shorten
from xbench.units import format_bytes, format_seconds

# Characters of a value, and of a hash, which is only compared with others by eye.
_MAX_SHOWN = 2000
_HASH_CHARS = 16

# A title and its lines, each of a name and a value.
Group = tuple[str, list[tuple[str, str]]]


def describe_cell(record: CellRecord, metrics: Sequence[MetricRecord]) -> list[Group]:
    """Describe a cell: how it ended, its sizes, settings and components, and its measurements.

    Values that were not measured are left out, as are groups without a value.
    """
    groups = [
        ("Outcome", list(_describe_outcome(record))),
        ("Sizes", list(_describe_sizes(record))),
        ("Metrics", list(_describe_metrics(record, metrics))),
        ("Times", _describe_fields(record.time)),
        ("Memory", _describe_fields(record.memory)),
        ("Memory pass", _describe_fields(record.memory_pass) if record.memory_pass else []),
        ("Settings", _describe_settings(record.settings)),
        ("Optimizer", _describe_component(record.optimizer)),
        ("Model", [*_describe_component(record.model), *_describe_roles(record.parameters_by_role)]),
        ("Data", _describe_data(record.dataset)),
        ("Features", _describe_fields(record.features)),
        ("Starting point", [*_describe_seeds(record), *_describe_pairing(record.pairing)]),
        ("Device", describe_mapping(record.device)),
    ]
    return [group for group in groups if group[1]]


def describe_mapping(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Format the values that are there. Their units are the ends of their names, as in `peak_bytes`."""
    return [_format_field(name, value) for name, value in values.items() if value not in (None, "", [], {})]


def show_time(text: str) -> str:
    """Format the time of a record, `2026-01-31T12:00:00.000+00:00`, to the second."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{time:%Y-%m-%d %H:%M:%S} {time.tzname() or ''}".rstrip()


def _describe_fields(record: Record) -> list[tuple[str, str]]:
    return describe_mapping({name: getattr(record, name) for name in type(record).model_fields})


def _format_field(name: str, value: Any) -> tuple[str, str]:
    for suffix, show in (
        ("_bytes", format_bytes),
        ("_ms_median", "median {:,.1f} ms".format),
        ("_s", format_seconds),
        ("_share", "{:.1%}".format),
    ):
        if name.endswith(suffix) and isinstance(value, int | float):
            return _title(name.removesuffix(suffix)), show(value)
    return _title(name), _show(value)


def _describe_outcome(record: CellRecord) -> Iterator[tuple[str, str]]:
    yield "status", record.status
    if record.reason:
        yield "reason", _show(record.reason)
    if record.expect:
        yield "expected status", record.expect
    yield "attempt", str(record.attempt)
    if record.waits_for:
        yield "waits for", record.waits_for
    if record.reused_from:
        yield "reused from run", record.reused_from
    if record.resumed_at:
        yield "resumed at steps", ", ".join(f"{step:,}" for step in record.resumed_at)
    yield "steps", f"{record.steps:,}"
    yield "closures", f"{record.closures:,}"
    if record.selected_epoch is not None:
        yield "selected epoch", str(record.selected_epoch)
    if record.processors:
        yield "processors", ", ".join(record.processors)
    yield "started", show_time(record.started_at)
    yield "ended", show_time(record.ended_at)
    yield "cell", record.cell_id


def _describe_sizes(record: CellRecord) -> Iterator[tuple[str, str]]:
    """Describe the sizes as run; for those that differ from the requested ones, also the request and why."""
    for name in dict.fromkeys([*record.requested, *record.ran]):
        requested, ran = record.requested.get(name), record.ran.get(name)
        if requested is None and ran is None:
            continue
        text = ABSENT if ran is None else show_value(ran)
        if requested is not None and requested != ran:
            text += f" (requested: {show_value(requested)})"
        why = record.fitted.get(name)
        yield _title(name), f"{text}: {_show(why)}" if why else text


def _describe_metrics(record: CellRecord, metrics: Sequence[MetricRecord]) -> Iterator[tuple[str, str]]:
    for metric in metrics:
        value = record.metrics.get(metric.name)
        if value is not None:
            yield metric.title, show_metric(metric, value)


def _describe_component(component: Component) -> list[tuple[str, str]]:
    fields = [("name", component.name), ("from", component.origin), ("stand-in", component.stand_in)]
    return [
        *((name, _show(value)) for name, value in fields if value),
        *_describe_settings(component.params),
        *([("weights", _show(component.weights))] if component.weights else []),
    ]


def _describe_roles(counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    if counts:
        roles = ", ".join(f"{count:,} {role}" for role, count in counts.items())
        yield "trained parameters", f"{sum(counts.values()):,} ({roles})"


def _describe_data(data: DataRecord) -> list[tuple[str, str]]:
    fields = [("name", data.name), ("stand-in", data.stand_in), ("fingerprint", data.fingerprint)]
    if data.name != data.requested:
        fields.insert(1, ("in place of", data.requested))
    return [*((name, _show(value)) for name, value in fields if value), *_describe_settings(data.params)]


def _describe_seeds(record: CellRecord) -> Iterator[tuple[str, str]]:
    """Describe the parts of a seed that vary apart."""
    if len(set(record.seed_parts.key)) > 1:
        yield "seeds", ", ".join(f"{part} {seed}" for part, seed in record.seed_parts)


def _describe_pairing(pairing: PairingRecord) -> list[tuple[str, str]]:
    return [
        (name, value[:_HASH_CHARS] if name.endswith("sha256") else value)
        for name, value in _describe_fields(pairing)
    ]


def _describe_settings(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(_title(name), "default" if value is None else _show(value)) for name, value in values.items()]


def _title(name: str) -> str:
    return name.replace("_", " ")


def _show(value: Any) -> str:
    return shorten(show_value(value), _MAX_SHOWN)
