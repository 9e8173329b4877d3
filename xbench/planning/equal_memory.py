"""Find the axis of each cell that gets the largest value that fits its memory limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from xbench.capacity.axis import AnyAxis, Axis, ScaledSetting
from xbench.capacity.scaled_settings import list_scaled_settings
from xbench.components.settings import Settings
from xbench.errors import XbenchError
from xbench.isolation.ask import ask
from xbench.planning.resolution import ResolvedData
from xbench.suite.cells import Cell
from xbench.suite.component_grid import Known
from xbench.suite.problems import Problems
from xbench.text import shorten

_OF_TRAINING = {axis.setting: axis for axis in (Axis.BATCH_SIZE, Axis.TRAIN_SIZE, Axis.HISTORY_SIZE)}


def find_axes(
    cells: Sequence[Cell],
    resolved: Mapping[str, ResolvedData],
    known: Known,
    import_dirs: Sequence[str],
    problems: Problems,
) -> list[AnyAxis | None]:
    """Find the axis of each cell, and add settings that do not exist or cannot be scaled to `problems`.

    Args:
        resolved: the usable datasets, by the `repr` of the choice.
        known: the settings of each component.

    Returns:
        An axis for each cell; None for a cell without equal memory, or with a mistake.
    """
    scaled = _ScaledSettings(import_dirs)
    axes = [
        _find_axis(cell, resolved.get(repr(cell.dataset)), known, scaled, problems) if cell.along else None
        for cell in cells
    ]
    _check_values(cells, axes, problems)
    return axes


class _ScaledSettings:
    """The settings that can be scaled, of each pair of a model and a dataset that is asked about."""

    def __init__(self, import_dirs: Sequence[str]):
        self._import_dirs = import_dirs
        self._known: dict[tuple[str, str], list[ScaledSetting] | XbenchError] = {}

    def list(self, model: str, dataset: str) -> list[ScaledSetting]:
        """List the settings.

        Raises:
            XbenchError: the specs cannot be read.
        """
        pair = model, dataset
        if pair not in self._known:
            try:
                self._known[pair] = ask(list_scaled_settings, model, dataset, self._import_dirs)
            except XbenchError as error:
                self._known[pair] = error
        found = self._known[pair]
        if isinstance(found, XbenchError):
            raise found
        return found


def _find_axis(
    cell: Cell, data: ResolvedData | None, known: Known, scaled: _ScaledSettings, problems: Problems
) -> AnyAxis | None:
    along = cell.along
    if along == Axis.MICRO_BATCH.setting:
        problems.add(
            cell.along_path,
            "along = 'micro_batch' compares nothing: a micro-batch changes only memory, time and rounding",
            'set along = "batch_size", or micro_batch = "auto" without equal memory',
        )
        return None
    optimizer = cell.optimizer.name
    takes_history = _has_setting(known.get(("optimizer", optimizer)), Axis.HISTORY_SIZE.setting)
    if along in _OF_TRAINING and (along != Axis.HISTORY_SIZE.setting or takes_history):
        return _OF_TRAINING[along]
    if along == Axis.HISTORY_SIZE.setting:
        problems.add(
            cell.along_path,
            f"optimizer '{optimizer}' has no setting 'history_size'",
            f'set another `along` in the table of {optimizer}, such as along = "batch_size"',
        )
        return None
    if data is None:
        return None  # its mistake has been reported
    try:
        offered = scaled.list(cell.model.name, data.choice.name)
    except XbenchError as error:
        problems.add(cell.along_path, error.message, error.hint)
        return None
    found = [axis for axis in offered if along in (axis.setting, axis.name.replace("-", "_"))]
    if len(found) == 1:
        # A text that is as long as a context needs would be another one than the user's.
        return replace(found[0], has_needs=found[0].component == "model")
    names = [*_OF_TRAINING, *(axis.name.replace("-", "_") for axis in offered)]
    of = f"{cell.model.name} and {data.choice.name}"
    problem = f"both {of} have" if found else f"neither {of} nor training has"
    problems.add(
        cell.along_path,
        f"{problem} a setting '{shorten(along)}' whose largest value can be found",
        f"for this model and dataset, `along` is one of {', '.join(names)}",
    )
    return None


def _has_setting(settings: Settings | XbenchError | None, name: str) -> bool:
    return isinstance(settings, Settings) and (name in settings.names or settings.is_open)


def _check_values(cells: Sequence[Cell], axes: Sequence[AnyAxis | None], problems: Problems) -> None:
    """Add values of scaled settings to `problems`, where the suite gives them to cells that find their own.

    A value is right if it is for other optimizers of the experiment.
    """
    all_of: dict[str, set[AnyAxis | None]] = {}
    for cell, axis in zip(cells, axes, strict=True):
        all_of.setdefault(cell.experiment, set()).add(axis)
    for cell, axis in zip(cells, axes, strict=True):
        if not isinstance(axis, ScaledSetting):
            continue
        for value in cell.values:
            is_own = (value.kind, value.key) == (axis.component, axis.setting)
            if is_own and (value.is_item or len(all_of[cell.experiment]) == 1):
                problems.add(
                    value.path,
                    f"'{value.key}' is the setting whose largest value is found, so it has no value of its "
                    "own",
                    f"leave out {value.key}, or find that of another setting (`along`)",
                )
