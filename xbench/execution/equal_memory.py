"""Give each cell of an experiment with equal memory the largest value on its axis that fits its limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from xbench.capacity.axes import with_size
from xbench.capacity.axis import Axis, ScaledSetting
from xbench.capacity.scaled_settings import find_needs
from xbench.data.prepared import PreparedData
from xbench.errors import XbenchError
from xbench.execution.fitting import add_keys, format_limit, make_skip
from xbench.execution.shared import FeatureKeeper
from xbench.execution.size_search import FoundSize, find_size, recall_size
from xbench.isolation.ask import ask
from xbench.planning.datasets import DatasetFacts, describe_dataset, prepare_dataset
from xbench.planning.identity import capacity_key
from xbench.planning.observer import Observer
from xbench.planning.planned import PlannedCell, Skip
from xbench.records.schema import CellRecord
from xbench.training.settings import CellSettings, Choice
from xbench.training.splits import split_examples

_OF_EXAMPLES = (Axis.BATCH_SIZE, Axis.TRAIN_SIZE)


def recall_sizes(left: Sequence[PlannedCell], cells: Sequence[PlannedCell]) -> list[PlannedCell]:
    """Give cells the sizes that earlier searches have found, so that their times can be estimated.

    Args:
        left: the cells to fit.
        cells: all cells of the run: every seed of a column gets the same size.

    Returns:
        The cells to fit, in the same order. A cell whose size is not known yet stays as it is.
    """
    wanted, values, recalled = _list_wanted(cells), _Values(), []
    for cell in left:
        # The key of a cell whose weights are to be downloaded is computed again.
        if cell.axis is not None and _awaits_size(cell) and not cell.model.missing:
            found = recall_size(cell, cell.settings, cell.axis, wanted[_column(cell)])
            cell = cell if found is None else _apply(cell, found, values)
        recalled.append(cell)
    return recalled


def reuse_sizes(cells: Sequence[PlannedCell], records: Iterable[CellRecord]) -> list[PlannedCell]:
    """Give cells the size with which another seed of their column has run under the same limit, even if they
    have another one that was found since.
    """
    ran = {(record.experiment, record.column): record for record in records if record.status == "done"}
    values = _Values()
    return [_reuse(cell, ran.get(_column(cell)), values) for cell in cells]


def _reuse(cell: PlannedCell, record: CellRecord | None, values: _Values) -> PlannedCell:
    if record is None or cell.axis is None or cell.skip is not None:
        return cell
    setting = cell.axis.setting
    value, why = record.ran.get(setting), record.fitted.get(setting)
    is_known = not cell.awaits_size and cell.sizes[setting] == value
    if value is None or why is None or is_known or record.memory.limit_bytes != cell.memory.limit_bytes:
        return cell
    return values.give(cell, value, why)


def fit_equal_memory(
    left: Sequence[PlannedCell],
    cells: Sequence[PlannedCell],
    features: FeatureKeeper,
    observer: Observer,
) -> list[PlannedCell]:
    """Search the largest size of each cell that awaits one.

    Args:
        left, cells: see `recall_sizes`.

    Returns:
        The cells to fit, in the same order. A cell that cannot run at all is skipped.
    """
    wanted, values, fitted = _list_wanted(cells), _Values(), []
    failed: dict[tuple[str, str], Skip] = {}
    for cell in left:
        if _awaits_size(cell) and _column(cell) in failed:
            cell = replace(cell, skip=failed[_column(cell)])
        elif _awaits_size(cell):
            # Features depend on settings of the model and the dataset.
            cell = cell if isinstance(cell.axis, ScaledSetting) else features.for_trials(cell)
            cell = _fit(cell, wanted[_column(cell)], values, observer)
            if cell.skip is not None:
                failed[_column(cell)] = cell.skip
        fitted.append(cell)
    return fitted


def _awaits_size(cell: PlannedCell) -> bool:
    return cell.awaits_size and cell.skip is None


def _column(cell: PlannedCell) -> tuple[str, str]:
    return cell.declared.experiment, cell.declared.column


def _list_wanted(cells: Sequence[PlannedCell]) -> dict[tuple[str, str], int | None]:
    """List the largest useful size of each column; None if there is no end.

    Each seed may hold out other groups, so the number of training examples may differ.
    """
    wanted: dict[tuple[str, str], int | None] = {}
    for cell in cells:
        if cell.axis in _OF_EXAMPLES:
            least = wanted.get(_column(cell))
            there = cell.available if cell.axis is Axis.TRAIN_SIZE else cell.sized.training.sizes.train_size
            wanted[_column(cell)] = there if least is None else min(there, least)
        else:
            wanted[_column(cell)] = cell.axis.highest if isinstance(cell.axis, ScaledSetting) else None
    return wanted


def _fit(cell: PlannedCell, wanted: int | None, values: _Values, observer: Observer) -> PlannedCell:
    axis = cell.axis
    if axis is None or cell.skip is not None:
        return cell
    try:
        found = recall_size(cell, cell.settings, axis, wanted)
        if found is None:
            found = find_size(cell, cell.settings, axis, wanted, observer)
    except XbenchError as error:
        return replace(cell, skip=make_skip(error))
    if found is None:
        return cell.with_skip("oom", f"not even the smallest {axis.setting} fits {format_limit(cell)}")
    return _apply(cell, found, values)


def _apply(cell: PlannedCell, found: FoundSize, values: _Values) -> PlannedCell:
    """Return the cell with the size that was found, and with the reason for its record."""
    assert cell.axis is not None
    limit = format_limit(cell)
    if found.fails is not None:
        why = f"the largest that fits {limit} ({found.fails:,} does not)"
    elif cell.axis in _OF_EXAMPLES:
        why = f"all examples, which fit {limit}"
    else:
        why = f"the largest possible, which fits {limit}"
    key = capacity_key(cell, cell.settings, cell.axis, cell.memory.limit_bytes)
    return add_keys(values.give(cell, found.value, why), [key])


class _Values:
    """Values of settings, given to cells. What a child process says of a value is kept for other cells."""

    def __init__(self) -> None:
        self._needs: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, tuple[DatasetFacts, PreparedData]] = {}

    def give(self, cell: PlannedCell, value: int, why: str) -> PlannedCell:
        """Return the cell with a value on its axis; it is skipped if its data has too few rows with it.

        Args:
            why: why the cell has this value, for its record.
        """
        axis, settings = cell.axis, cell.settings
        assert axis is not None
        if not isinstance(axis, ScaledSetting):
            return cell.with_largest(with_size(settings, axis, value), why)
        if axis.component == "model":
            return cell.with_largest(self._scale_model(cell, axis, value), why)
        try:
            return self._scale_data(cell, axis, value).with_largest(settings, why)
        except XbenchError as error:
            return replace(cell, skip=make_skip(error))

    def _scale_model(self, cell: PlannedCell, axis: ScaledSetting, value: int) -> CellSettings:
        model = cell.settings.model
        key = repr((model.name, axis.setting, value))
        if key not in self._needs:
            self._needs[key] = ask(find_needs, axis, model.name, value, cell.import_dirs)
        params = {**model.params, axis.setting: value, **self._needs[key]}
        return replace(cell.settings, model=Choice(model.name, params))

    def _scale_data(self, cell: PlannedCell, axis: ScaledSetting, value: int) -> PlannedCell:
        """Return the cell with the rows that its dataset has with a value.

        Raises:
            XbenchError: the rows cannot be prepared, or are too few.
        """
        before = cell.resolved
        choice = Choice(before.choice.name, {**before.choice.params, axis.setting: value})
        key = repr((choice, before.strict))
        if key not in self._rows:
            facts = ask(describe_dataset, choice, cell.import_dirs)
            self._rows[key] = facts, ask(prepare_dataset, choice, before.strict, cell.import_dirs)
        facts, data = self._rows[key]
        available = len(split_examples(data, cell.settings.training, cell.settings.seed_parts.split).train)
        resolved = replace(before, choice=choice, facts=facts)
        return replace(cell, resolved=resolved, data=data, available=available)
