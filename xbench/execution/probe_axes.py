"""Find the axes that a probe can vary: sizes of training, and settings of the model and the dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xbench.capacity.axis import AnyAxis, Axis
from xbench.capacity.scaled_settings import list_scaled_settings
from xbench.components.registry import load as load_spec
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
        for scaled in ask(list_scaled_settings, model, dataset, import_dirs):
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
