"""Check a task and a model on a few rows before a run: a mistake is then one line, and not a failed cell."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from xbench.components.tracebacks import describe_error
from xbench.data.prepared import RowData
from xbench.errors import XbenchError
from xbench.memory.exhaustion import evidence_of, exhaustion
from xbench.training.frozen import set_training
from xbench.training.micro_batches import are_losses_dependent
from xbench.training.nested import list_tensors, map_tensors
from xbench.training.objective import Objective
from xbench.training.row_loader import RowLoader
from xbench.training.row_set import RowSet

_MAX_ROWS = 8


def check_task(model: nn.Module, name: str, rows: RowSet, data: RowData, dtype: torch.dtype) -> None:
    """Compute the losses and metrics of a few spread rows of each term, and their gradients.

    Args:
        model: the model, on the CPU; its weights are not changed, but it must not be used afterwards.
        name: the model's name, for messages.

    Raises:
        XbenchError: the model cannot take the rows, or the task breaks its contract.
        MemoryError, RuntimeError: memory ran out.
    """
    loader = RowLoader(rows, data, torch.device("cpu"), dtype)
    objective = Objective(rows.task, data, {}, torch.device("cpu"), dtype)
    model = model.to(dtype)
    is_train = ~data.is_test & ~data.own_validation
    few = {term: _spread(indices) for term, indices in objective.by_term(np.flatnonzero(is_train)).items()}
    for term, indices in few.items():
        _check_term(model, name, loader, objective, term, indices, data)
    _check_penalty(model, objective)
    measured = data.is_test if data.is_test.any() else is_train
    for term, indices in objective.by_term(np.flatnonzero(measured)).items():
        _check_metrics(model, loader, objective, term, _spread(indices))
    if rows.task.additive:
        for indices in few.values():
            if len(indices) > 1 and are_losses_dependent(model, loader, objective, indices):
                raise XbenchError(
                    f"the task of dataset '{data.name}' is not additive: the loss of a row depends on the "
                    "other rows of its batch",
                    hint="return the loss of each row by itself; or set `additive=False` in its Task, and "
                    'train with micro_batch = "full"',
                )


def _check_term(
    model: nn.Module,
    name: str,
    loader: RowLoader,
    objective: Objective,
    term: str,
    indices: np.ndarray,
    data: RowData,
) -> None:
    set_training(model)
    part = loader.load(indices)
    batch = part[term] if term else part
    where = f"the task of dataset '{data.name}'" + (f", term '{term}'," if term else "")
    try:
        losses, _ = objective.losses_of(model, batch, term)
    except XbenchError as error:
        raise XbenchError(error.message.replace("the task's", f"{where}:", 1), error.hint) from error
    except Exception as error:
        _raise_if_exhausted(error)
        raise XbenchError(
            f"model '{name}' and {where} fail on a few rows: {describe_error(error)}",
            hint=f"a batch is {_describe_batch(batch)}, and the model is {type(model).__name__}",
        ) from error
    if tuple(losses.shape) != (len(indices),):
        raise XbenchError(
            f"{where} returns {losses.shape[0]} losses for {len(indices)} rows",
            hint="return one number for each row: a mean over all dimensions but the first",
        )
    if not losses.is_floating_point():
        dtype = str(losses.dtype).removeprefix("torch.")
        raise XbenchError(f"{where} returns losses of dtype {dtype}, which have no gradient")
    wrong = losses[~torch.isfinite(losses)]
    if len(wrong):
        raise XbenchError(
            f"{where} has a loss of {wrong[0].item()} on a row, before any training",
            hint="look for a division by zero, a logarithm of 0, or values that are too large",
        )
    if not losses.requires_grad:
        raise XbenchError(
            f"{where} has losses without a gradient",
            hint="compute the loss from the model's parameters, without `detach`, `item` or `no_grad`",
        )
    losses.sum().backward()
    if not any(p.grad is not None for p in model.parameters()):
        raise XbenchError(f"{where}: no parameter of model '{name}' receives a gradient from the loss")
    model.zero_grad()
    _check_evaluation(model, objective, batch, term, where)


def _check_evaluation(model: nn.Module, objective: Objective, batch: object, term: str, where: str) -> None:
    model.eval()
    try:
        with torch.set_grad_enabled(objective.task.differentiates):
            objective.losses_of(model, batch, term)
    except Exception as error:
        _raise_if_exhausted(error)
        hint = ""
        if not objective.task.differentiates:
            hint = (
                "if the loss takes derivatives with respect to inputs, set `differentiates=True` in its Task"
            )
        raise XbenchError(f"{where} fails in evaluation: {describe_error(error)}", hint=hint) from error


def _check_penalty(model: nn.Module, objective: Objective) -> None:
    try:
        penalty = objective.penalty(model)
    except Exception as error:
        _raise_if_exhausted(error)
        raise XbenchError(f"the task's penalty fails: {describe_error(error)}") from error
    if penalty is None:
        return
    if not isinstance(penalty, torch.Tensor) or penalty.numel() != 1:
        what = f"shape {tuple(penalty.shape)}" if isinstance(penalty, torch.Tensor) else repr(penalty)
        raise XbenchError(f"the task's penalty is not a tensor with a single number, but {what}")
    if not torch.isfinite(penalty).all():
        raise XbenchError(f"the task's penalty is {penalty.item()} before any training")
    if not penalty.requires_grad:
        raise XbenchError("the task's penalty has no gradient: it does not depend on the model's parameters")


def _check_metrics(
    model: nn.Module, loader: RowLoader, objective: Objective, term: str, indices: np.ndarray
) -> None:
    task = objective.task
    model.eval()
    part = loader.load(indices)
    batch = part[term] if term else part
    try:
        with torch.set_grad_enabled(task.differentiates):
            outputs = objective.outputs(model, batch) if task.metrics else None
            for metric in task.metrics:
                if callable(metric.value):
                    _check_values(metric.name, metric.value(outputs, batch), len(indices))
            if any(metric.function for metric in task.metrics):
                collected = outputs if task.collect is None else task.collect(outputs, batch)
                _check_collected(collected, len(indices))
    except XbenchError:
        raise
    except Exception as error:
        _raise_if_exhausted(error)
        raise XbenchError(f"the task's metrics fail: {describe_error(error)}") from error


def _check_values(name: str, values: object, count: int) -> None:
    if not isinstance(values, torch.Tensor):
        raise XbenchError(
            f"metric '{name}' returns a {type(values).__name__}, not a tensor with a number for each row"
        )
    if tuple(values.shape) != (count,):
        raise XbenchError(
            f"metric '{name}' returns a tensor of shape {tuple(values.shape)} for {count} rows, not one "
            "number for each row"
        )


def _check_collected(collected: object, count: int) -> None:
    shapes = [tuple(tensor.shape) for tensor in list_tensors(collected)]
    if not shapes:
        raise XbenchError(f"what the task collects is a {type(collected).__name__} without a tensor")
    for shape in shapes:
        if shape[:1] != (count,):
            raise XbenchError(
                f"what the task collects has a tensor of shape {shape} for {count} rows, not a row for each"
            )


def _spread(indices: np.ndarray) -> np.ndarray:
    """Choose a few rows that are spread over all, since neighbours are often alike."""
    places = np.linspace(0, len(indices) - 1, min(len(indices), _MAX_ROWS)).astype(np.int64)
    return indices[places]


def _describe_batch(batch: object) -> str:
    return str(
        map_tensors(lambda t: _Shown(f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}"), batch)
    )


class _Shown(str):
    """A text that prints without quotes within a structure."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _raise_if_exhausted(error: Exception) -> None:
    """Raise the error again if memory ran out."""
    if exhaustion(evidence_of(error)):
        raise error
