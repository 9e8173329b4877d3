"""Rows that show how the columns of a table were run: sizes, and settings that differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from xbench.records.schema import CellRecord
from xbench.text import format_value, name_seeds, pluralize

# Up to this many values of a column are listed with their seeds; of more sizes the range is shown, of other
# values the rest is counted.
MAX_VALUES_LISTED = 3

# Seeds and stretches of seeds that are listed with a value.
_MAX_SEEDS_LISTED = 2

# Defaults of the settings that change how an optimizer is used. Older records do not have these settings, and
# their cells were trained with the defaults.
RECIPE_DEFAULTS: Mapping[str, Any] = {
    "schedule": "constant",
    "warmup": 0,
    "min_lr": 0.0,
    "clip_norm": None,
    "clip_value": None,
    "weight_decay_on": "all",
    "groups": {},
}
# The same with the settings that change what is computed. They are shown wherever they are not the default.
SHOWN_DEFAULTS: Mapping[str, Any] = {
    **RECIPE_DEFAULTS,
    "dtype": "float32",
    "autocast": "off",
    "compile": False,
}

# Shown where a column has no value.
ABSENT = "-"


@dataclass(frozen=True)
class Setting:
    """A setting that can be a row of a comparison.

    Attributes:
        key: name in exports and in a suite's reference columns.
        value: function that reads the setting from a cell's record; returns None if it is not recorded.
        is_size: whether it is a size that may be adapted to the available memory.
    """

    key: str
    title: str
    value: Callable[[CellRecord], Any]
    is_size: bool = False


@dataclass(frozen=True)
class SettingValue:
    """A value of a setting in one column, with the seeds that used it."""

    value: Any
    seeds: tuple[int, ...]


def _make_size(key: str, title: str) -> Setting:
    return Setting(key, title, lambda record: _as_number(record.ran.get(key)), is_size=True)


SIZES = (
    _make_size("train_size", "examples per epoch"),
    _make_size("batch_size", "batch"),
    _make_size("micro_batch", "micro-batch"),
)
_HISTORY = _make_size("history_size", "history")


def list_settings(records: Sequence[CellRecord]) -> list[Setting]:
    """List the settings in these records, in the order of tables. Sizes are the actual ones."""
    usual = {size.key for size in (*SIZES, _HISTORY)}
    scaled = dict.fromkeys(key for record in records for key in record.ran if key not in usual)
    sizes = [*SIZES, _HISTORY, *(_make_size(key, key.replace("_", " ")) for key in scaled)]
    others = {"threads", *(size.key for size in sizes)}
    keys = dict.fromkeys(key for record in records for key in record.settings)
    return [
        *sizes,
        *(_make_setting(key) for key in keys if key not in others),
        Setting("threads", "threads", lambda record: record.device.get("threads")),
        Setting("malloc", "malloc", lambda record: record.memory.malloc),
    ]


def list_component_settings(records: Sequence[CellRecord]) -> list[Setting]:
    """List the components in these records and the settings that they were given: `optimizer`,
    `optimizer.lr`, and so on.
    """
    listed = []
    for kind in ("optimizer", "model", "dataset"):
        listed.append(Setting(kind, kind, partial(_read_name, kind)))
        keys = dict.fromkeys(key for record in records for key in getattr(record, kind).params)
        listed += [Setting(f"{kind}.{key}", f"  {key}", partial(_read_param, kind, key)) for key in keys]
    return listed


def _read_name(kind: str, record: CellRecord) -> str:
    return getattr(record, kind).name


def _read_param(kind: str, key: str, record: CellRecord) -> Any:
    params = getattr(record, kind).params
    return "default" if key in params and params[key] is None else params.get(key)


def _make_setting(key: str) -> Setting:
    if key == "class_weights":
        return Setting(key, "class weights", lambda record: _drop_ones(record.settings.get(key)))
    return Setting(key, key.replace("_", " "), lambda record: _read_setting(record.settings, key))


def _read_setting(settings: Mapping[str, Any], key: str) -> Any:
    """Read a setting; "default" if it is None, which means that the default applied."""
    if key in SHOWN_DEFAULTS:
        value = settings.get(key, SHOWN_DEFAULTS[key])
        return "none" if value is None else value
    return "default" if key in settings and settings[key] is None else settings.get(key)


def _drop_ones(weights: Any) -> Any:
    """Leave out class weights of 1, which is also the weight of classes that are not named."""
    if not isinstance(weights, dict):
        return weights
    return {name: weight for name, weight in weights.items() if weight != 1} or "all 1"


def collect_values(setting: Setting, records: Sequence[CellRecord]) -> tuple[SettingValue, ...]:
    """Collect the distinct values of a setting in one column, with their seeds; skip cells without one."""
    seeds: dict[str, list[int]] = {}
    values: dict[str, Any] = {}
    last, text = None, ""
    for record in records:
        value = setting.value(record)
        if value is None:
            continue
        # Otherwise it has the same text. Equal dicts may differ in their order.
        if type(value) is not type(last) or value != last or isinstance(value, dict):
            last, text = value, show_value(value)
        values.setdefault(text, value)
        seeds.setdefault(text, []).append(record.seed)
    return tuple(SettingValue(value, tuple(seeds[text])) for text, value in values.items())


def needs_row(setting: Setting, columns: Sequence[tuple[str, Sequence[CellRecord]]]) -> bool:
    """Return whether a table needs a row for a setting: its value was adapted, or it differs between cells
    and the column titles do not show how.

    Args:
        columns: the title and the records of each column.
    """
    cells = [(name, record) for name, records in columns for record in records]
    if setting.is_size and any(setting.key in r.fitted and setting.value(r) is not None for _, r in cells):
        return True
    known = [(name, record) for name, record in cells if setting.value(record) is not None]
    if len({show_value(setting.value(record)) for _, record in known}) < 2:
        return False
    return not all(is_in_title(setting.key, name, record) for name, record in known)


def is_in_title(key: str, column: str, record: CellRecord) -> bool:
    """Return whether a column's title shows a setting of its cells."""
    given = record.settings if key in record.settings else record.requested
    return key in given and f" {key}={given[key]} " in f"{column} "


def show_values(setting: Setting, values: Sequence[SettingValue]) -> str:
    """Format the values of one column: `16`, or `16 (seeds 0, 2), 8 (seed 1)`."""
    if not values:
        return ABSENT
    if len(values) == 1:
        return show_value(values[0].value)
    if setting.is_size and len(values) > MAX_VALUES_LISTED:
        sizes = [found.value for found in values]
        return f"{show_value(min(sizes))} to {show_value(max(sizes))}, by seed"
    listed = [
        f"{show_value(found.value)} ({name_seeds(found.seeds, _MAX_SEEDS_LISTED)})"
        for found in values[:MAX_VALUES_LISTED]
    ]
    more = len(values) - len(listed)
    return f"{', '.join(listed)} and {pluralize(more, 'other value')}" if more else ", ".join(listed)


def show_value(value: Any) -> str:
    """Format the value of a setting, which may be any JSON value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _show_table(value) or "none"
    return _show_number(value)


def _show_table(table: Mapping[str, Any]) -> str:
    """Format a table. One of tables keeps its order, in which the first pattern that matches counts."""
    if any(isinstance(value, dict) for value in table.values()):
        return ", ".join(f"{name} ({show_value(value)})" for name, value in table.items())
    return ", ".join(f"{name}={_show_number(table[name])}" for name in sorted(table))


def _show_number(value: Any) -> str:
    if _as_number(value) is None:
        return format_value(value)
    if isinstance(value, int):
        return f"{value:,}"
    short = f"{value:g}"
    return short if float(short) == value else str(value)


def _as_number(value: Any) -> float | None:
    """Return the value if it is a number that tables can show, otherwise None.

    The values of `CellRecord.ran` may come from plugins or from a damaged file.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) < 2**63 else None
