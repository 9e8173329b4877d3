"""List the settings of models and datasets that can be scaled. Its functions run in child processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from xbench.capacity.axis import ScaledSetting
from xbench.components.registry import load as load_spec
from xbench.components.settings import settings_of
from xbench.components.specs import DatasetSpec, ModelSpec
from xbench.errors import XbenchError


def list_scaled_settings(
    send: object, model: str, dataset: str, import_dirs: Sequence[str]
) -> list[ScaledSetting]:
    """List the settings of a model and a dataset whose specs declare a `Scale`.

    Raises:
        XbenchError: a spec cannot be loaded, or a `Scale` names a setting that does not exist.
    """
    return [
        *_list_settings("model", model, import_dirs),
        *_list_settings("dataset", dataset, import_dirs),
    ]


def find_needs(
    send: object, axis: ScaledSetting, name: str, value: int, import_dirs: Sequence[str]
) -> dict[str, Any]:
    """Return the other settings of a component that a value of a scaled setting needs; see `Scale`.

    Args:
        name: the name of the component.
    """
    return dict(_load(axis.component, name, import_dirs).scalable[axis.setting].needs(value))


def _load(
    component: Literal["model", "dataset"], name: str, import_dirs: Sequence[str]
) -> ModelSpec | DatasetSpec:
    if component == "model":
        return load_spec("model", name, import_dirs)
    return load_spec("dataset", name, import_dirs)


def _list_settings(
    component: Literal["model", "dataset"], name: str, import_dirs: Sequence[str]
) -> list[ScaledSetting]:
    spec = _load(component, name, import_dirs)
    if not spec.scalable:
        return []
    settings, scaled = settings_of(spec), []
    for setting, scale in spec.scalable.items():
        multiple, divisor = scale.multiple, ""
        if isinstance(multiple, str):
            multiple, divisor = settings.defaults.get(multiple, 1), multiple
        for needed in filter(None, (setting, divisor)):
            if needed not in settings.names:
                raise XbenchError(f"{component} '{name}' has no setting '{needed}', which its Scale names")
        scaled.append(
            ScaledSetting(
                component=component,
                setting=setting,
                name=scale.axis or setting.replace("_", "-"),
                lowest=scale.lowest,
                highest=scale.highest,
                multiple=multiple,
                multiple_of=divisor,
            )
        )
    return scaled
