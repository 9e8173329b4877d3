"""Find the axes that a probe can vary: sizes of training, and settings of the model and the dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from xbench.capacity.axis import AnyAxis, Axis, ScaledSetting
from xbench.components.registry import load as load_spec
from xbench.components.settings import settings_of
from xbench.components.specs import DatasetSpec, ModelSpec
from xbench.errors import XbenchError
from xbench.isolation.ask import ask
from xbench.text import escape_controls, format_value


def default_axis(optimizer: str, import_dirs: Sequence[str] = ()) -> Axis:
    """Return the axis that is probed by default: the training set for full-batch optimizers, otherwise the
    batch.

    Args:
        import_dirs: folders of components that were registered from Python.
    """
    try:
        full_batch = ":" not in optimizer and load_spec("optimizer", optimizer, import_dirs).full_batch
    except XbenchError:
        full_batch = False  # `plan_probe` reports the error
    return Axis.TRAIN_SIZE if full_batch else Axis.BATCH_SIZE


def find_axes(
    names: Iterable[str], model: str, dataset: str, import_dirs: Sequence[str] = ()
) -> list[AnyAxis]:
    """Find axes by name: sizes of training, and settings that the specs of model and dataset declare.

    Args:
        import_dirs: folders of components that were registered from Python, or named as `module:attribute`.

    Returns:
        The axes in the order of their names, each once.

    Raises:
        XbenchError: an axis does not exist, or the specs are needed and cannot be loaded.
    """
    known: dict[str, AnyAxis] = {axis.value: axis for axis in Axis}
    wanted = [name.replace("_", "-") if isinstance(name, str) else name for name in names]
    if not all(isinstance(name, str) and name in known for name in wanted):
        for scaled in ask(_list_scaled_settings, model, dataset, import_dirs):
            if scaled.name in known:
                raise XbenchError(
                    f"{model} and {dataset} offer two axes named '{scaled.name}'",
                    hint="give one of them another `axis` in the Scale of its spec",
                )
            known[scaled.name] = scaled
    for name in wanted:
        if not isinstance(name, str) or name not in known:
            hint = f"`--axis` (in Python, `axes`) is one of {', '.join(known)} for {model} and {dataset}"
            raise XbenchError(f"there is no axis {format_value(name)}", escape_controls(hint))
    return [known[name] for name in dict.fromkeys(wanted)]


def _list_scaled_settings(
    send: object, model: str, dataset: str, import_dirs: Sequence[str]
) -> list[ScaledSetting]:
    """List the settings that can be scaled. Runs in a child process, as it imports factories."""
    return [
        *_scaled_settings_of("model", model, import_dirs),
        *_scaled_settings_of("dataset", dataset, import_dirs),
    ]


def _scaled_settings_of(
    component: Literal["model", "dataset"], name: str, import_dirs: Sequence[str]
) -> list[ScaledSetting]:
    spec: ModelSpec | DatasetSpec = (
        load_spec("model", name, import_dirs)
        if component == "model"
        else load_spec("dataset", name, import_dirs)
    )
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
