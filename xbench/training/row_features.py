"""Read the inputs of a model from rows, and find out whether its features can take their place.

With features, a task gets the trained part of the model in place of the model, and features in place of the
first tensor of a batch. The task may be any code, so it is run on a few rows: first with inputs that raise an
error if anything but the model uses them, and then with features, which must not change a result.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xbench.components.metric import Batch
from xbench.components.tracebacks import describe_error
from xbench.data.prepared import RowData
from xbench.errors import XbenchError
from xbench.memory.exhaustion import raise_if_exhausted
from xbench.training.frozen import Backbone, are_equal, find_obstacle, set_training
from xbench.training.global_state import seed_generators
from xbench.training.nested import list_tensors, replace_first
from xbench.training.objective import Objective
from xbench.training.rounding import equal_up_to_rounding
from xbench.training.row_loader import RowLoader
from xbench.training.row_set import RowSet

# Rows that the task is run on; `find_obstacle` needs at least three.
_FEW_ROWS = 3
_SEED = 3


class UnequalShapes(XbenchError):
    """Rows or their features differ in shape, so that they cannot be stored in one file."""


class RowInputs:
    """Reader of the inputs of a model: the first tensor of each row.

    Each row is read by itself, so that no row is padded to the length of another. All rows that are ever read
    must have the same shape.
    """

    def __init__(self, rows: RowSet, data: RowData, device: torch.device, dtype: torch.dtype):
        self._loader, self._device = RowLoader(rows, data, torch.device("cpu"), dtype), device
        self._shapes: set[torch.Size] = set()

    def __call__(self, indices: np.ndarray) -> Tensor:
        """Read the inputs (n, ...) of rows at (n,) positions to the device.

        Raises:
            UnequalShapes: the inputs differ in shape, from each other or from those read before.
        """
        single = [_get_inputs(self._loader.load(indices[place : place + 1])) for place in range(len(indices))]
        self._shapes.update(inputs.shape for inputs in single)
        if len(self._shapes) > 1:
            raise UnequalShapes("rows differ in shape")
        return torch.cat(single).to(self._device)


def find_row_obstacle(
    model: nn.Module,
    rows: RowSet,
    data: RowData,
    load_inputs: RowInputs,
    device: torch.device,
    dtype: torch.dtype,
) -> str | None:
    """Explain in one line why a cell cannot be trained on features of rows; return None if it can.

    Args:
        model: a model with some frozen parameters, as `set_training` leaves it. Its running statistics may
            change.

    Raises:
        MemoryError, RuntimeError: memory ran out.
    """
    task = rows.task
    if task.terms:
        return "the loss has several terms"
    if task.differentiates:
        return "the loss takes derivatives with respect to the model's inputs"
    if data.row_bytes is not None:
        return "rows differ in size"
    train = np.flatnonzero(~data.is_test & ~data.is_validation)
    few = train[np.linspace(0, len(train) - 1, _FEW_ROWS).astype(np.int64)]
    batch = RowLoader(rows, data, device, dtype).load(few)
    inputs, objective = _get_inputs(batch), Objective(task, data, {}, device, dtype)
    try:
        if not equal_up_to_rounding(inputs, load_inputs(few), share=0):
            return "the inputs of a row depend on the other rows of its batch"
        with _pass_to_model(model, inputs) as guarded:
            _train(model, objective, replace_first(batch, guarded))
            _evaluate(model, objective, replace_first(batch, guarded))
    except XbenchError as error:
        return error.message
    except Exception as error:
        raise_if_exhausted(error)
        return f"the task fails without the model's inputs: {describe_error(error)}"
    set_training(model)
    return find_obstacle(model, inputs) or _find_difference(model, objective, batch)


def _find_difference(model: nn.Module, objective: Objective, batch: Batch) -> str | None:
    """Say what the task computes differently from features and the trained part of a model."""
    backbone = Backbone(model)
    with_features = replace_first(batch, backbone(_get_inputs(batch)))
    for run in (_train, _evaluate):
        expected = run(model, objective, batch)
        try:
            found = run(backbone.head, objective, with_features)
        except Exception as error:
            raise_if_exhausted(error)
            return f"the task needs more of the model than '{backbone.name}': {describe_error(error)}"
        for what, value in expected.items():
            if not are_equal(value, found[what]):
                return f"{what} of the task does not depend on '{backbone.name}' alone"
    set_training(model)
    return None


def _train(model: nn.Module, objective: Objective, batch: Batch) -> dict[str, Any]:
    """Compute what is computed of a batch in training."""
    set_training(model)
    seed_generators(_SEED)
    with torch.enable_grad():
        losses, _ = objective.losses_of(model, batch)
        seed_generators(_SEED)
        summed = objective.part_loss(model, batch, 1.0)
        penalty = objective.penalty(model)
    label = None if objective.task.label is None else objective.task.label(batch)
    return {"the loss": losses, "the sum of losses": summed, "the penalty": penalty, "the label": label}


@torch.no_grad()
def _evaluate(model: nn.Module, objective: Objective, batch: Batch) -> dict[str, Any]:
    """Compute what is computed of a batch in evaluation."""
    task = objective.task
    model.eval()
    seed_generators(_SEED)
    losses, outputs = objective.losses_of(model, batch)
    computed = {"the loss": losses}
    if outputs is None and task.metrics:
        outputs = objective.outputs(model, batch)
    for metric in task.metrics:
        if callable(metric.value):
            computed[f"metric '{metric.name}'"] = metric.value(outputs, batch)
    if any(metric.function is not None for metric in task.metrics):
        computed["the collected output"] = outputs if task.collect is None else task.collect(outputs, batch)
    return computed


def _get_inputs(batch: Batch) -> Tensor:
    return next(list_tensors(batch))


# What anyone may ask inputs. Whether features answer the same is found when the task gets them.
_PERMITTED = (Tensor.__len__, Tensor.size, Tensor.shape.__get__, Tensor.device.__get__)  # type: ignore[attr-defined]


class _Guarded(Tensor):
    """Inputs that raise an error when their values are used."""

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function in _PERMITTED:
            return super().__torch_function__(function, types, args, kwargs or {})
        raise XbenchError("the task itself uses the model's inputs")


@contextmanager
def _pass_to_model(model: nn.Module, inputs: Tensor) -> Iterator[Tensor]:
    """Yield guarded inputs, which a model takes as the inputs themselves."""
    guarded = inputs.as_subclass(_Guarded)

    def unwrap(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs or len(args) != 1 or args[0] is not guarded:
            raise XbenchError("the task does not call the model with the first tensor of a batch alone")
        return (inputs,), {}

    hook = model.register_forward_pre_hook(unwrap, with_kwargs=True, prepend=True)
    try:
        yield guarded
    finally:
        hook.remove()
