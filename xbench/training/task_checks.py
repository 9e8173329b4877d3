"""Check a task and a model on a few rows before a run: a mistake is then one line, and not a failed cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from xbench.components.metric import Batch, Split
from xbench.components.roles import check_patterns
from xbench.components.tracebacks import describe_error
from xbench.data.prepared import RowData
from xbench.errors import TaskMistake, XbenchError
from xbench.memory.exhaustion import raise_if_exhausted
from xbench.training.failure_hints import hint_broadcast, hint_failure
from xbench.training.frozen import set_training
from xbench.training.metric_checks import check_metrics, check_structures
from xbench.training.micro_batches import are_losses_dependent
from xbench.training.nested import convert, list_tensors, map_tensors
from xbench.training.objective import Objective
from xbench.training.output_sizes import check_output_size, watch_outputs
from xbench.training.precision import cast_model
from xbench.training.rounding import equal_up_to_rounding
from xbench.training.row_loader import RowLoader
from xbench.training.row_set import RowSet

_MAX_ROWS = 8


def check_task(
    model: nn.Module,
    name: str,
    rows: RowSet,
    data: RowData,
    dtype: torch.dtype,
    size_hint: str = "",
    autocast: str = "off",
) -> None:
    """Compute the losses and metrics of a few spread rows of each split and term, and training's gradients.

    Args:
        model: the model, on the CPU; its weights are not changed, but it must not be used afterwards.
        name: the model's name, for messages.
        size_hint: hint for a model whose outputs do not have the size that the task declares; "" for the
            usual one.
        dtype, autocast: the training settings.

    Raises:
        TaskMistake: the task breaks its contract.
        XbenchError: the model cannot take the rows, or does not suit the task.
        MemoryError, RuntimeError: memory ran out.
    """
    where = f"the task of dataset '{data.name}'"
    try:
        check_patterns(model, rows.task.roles)
    except XbenchError as error:
        raise TaskMistake(f"{where}: {error.message}", error.hint) from error
    cpu, loss_dtype = torch.device("cpu"), torch.float32 if dtype is torch.bfloat16 else dtype
    loader = RowLoader(rows, data, cpu, loss_dtype)
    objective = Objective(rows.task, data, {}, cpu, loss_dtype, autocast=autocast)
    tried = _Tried(cast_model(model, cpu, dtype), name, loader, objective, data, size_hint)
    is_train = ~data.is_test & ~data.own_validation
    few = tried.choose(is_train)
    for term, indices in few.items():
        _check_term(tried, term, indices)
    _check_penalty(model, objective, where)
    check_structures(rows, data)
    splits: dict[Split, np.ndarray] = {
        "train": is_train,
        "validation": data.own_validation,
        "test": data.is_test,
    }
    measured = "test" if data.is_test.any() else "train"
    for split, members in splits.items():
        for term, indices in tried.choose(members).items():
            if split != "train":
                _check_held_out(tried, split, term, indices, few.get(term))
            batch = tried.load(term, indices)
            check_metrics(model, objective, batch, term, split, split == measured, where)
    if rows.task.additive:
        for term, indices in few.items():
            if len(indices) > 1 and are_losses_dependent(model, loader, objective, indices):
                raise TaskMistake(
                    f"{where} is not additive: the loss of a row depends on the other rows of its batch",
                    hint=tried.explain_broadcast(term, indices)
                    or "return the loss of each row by itself; or set `additive=False` in its Task, and "
                    'train with micro_batch = "full"',
                )


@dataclass(frozen=True)
class _Tried:
    """A model and a task that are tried on rows; see `check_task`."""

    model: nn.Module
    name: str
    loader: RowLoader
    objective: Objective
    data: RowData
    size_hint: str

    def choose(self, members: np.ndarray) -> dict[str, np.ndarray]:
        """Choose a few spread rows of each term.

        Args:
            members: (rows,) bool: the rows to choose from.
        """
        groups = self.objective.by_term(np.flatnonzero(members)) if members.any() else {}
        return {term: _spread(indices) for term, indices in groups.items()}

    def load(self, term: str, indices: np.ndarray) -> Batch:
        part = self.loader.load(indices)
        return part[term] if term else part

    def name_task(self, term: str) -> str:
        return f"term '{term}' of " * bool(term) + f"the task of dataset '{self.data.name}'"

    def explain_broadcast(self, term: str, indices: np.ndarray) -> str:
        """Return the hint for a loss in which outputs and targets may be broadcast; "" if none are."""
        batch = convert(self.load(term, indices), next(p.dtype for p in self.model.parameters()))
        differentiates = self.objective.task.differentiates
        with watch_outputs(self.model.eval()) as shapes, torch.set_grad_enabled(differentiates):
            self.objective.losses_of(self.model, batch, term)
        return hint_broadcast(shapes, batch)


def _check_term(tried: _Tried, term: str, indices: np.ndarray) -> None:
    """Check the losses of a few training rows, in training and in evaluation."""
    model, objective, where = tried.model, tried.objective, tried.name_task(term)
    set_training(model)
    batch = tried.load(term, indices)
    losses, outputs = _compute_losses(
        tried,
        term,
        batch,
        f"model '{tried.name}' and {where} fail on a few rows",
        f"a batch is {_describe_batch(batch)}, and the model is {type(model).__name__}",
    )
    if not losses.is_floating_point():
        dtype = _name_dtype(losses)
        raise TaskMistake(f"{where} returns losses of dtype {dtype}, which have no gradient")
    _check_losses(tried, losses, outputs, indices, where, "a row")
    if not losses.requires_grad:
        raise TaskMistake(
            f"{where} has losses without a gradient",
            hint="compute the loss from the model's parameters, without `detach`, `item` or `no_grad`",
        )
    _check_sum(objective, model, batch, where)
    losses.sum().backward()
    if not any(p.grad is not None for p in model.parameters()):
        raise XbenchError(f"{where}: no parameter of model '{tried.name}' receives a gradient from the loss")
    model.zero_grad()
    _check_evaluation(model, objective, batch, term, where)


def _compute_losses(
    tried: _Tried, term: str, batch: Batch, fault: str, hint: str
) -> tuple[torch.Tensor, Any]:
    """Compute the loss of each row; compare the size of the model's outputs with the declared one.

    Args:
        fault, hint: what to report before an exception, and with it.

    Returns:
        The losses, and the outputs that they are made of.
    """
    where, failure, losses, outputs = tried.name_task(term), None, torch.empty(0), None
    with watch_outputs(tried.model) as shapes:
        try:
            losses, outputs = tried.objective.losses_of(tried.model, batch, term)
        except Exception as error:
            raise_if_exhausted(error)
            failure = error
    # Before a failure is reported: a wrong size may be its cause.
    output = tried.objective.task.output
    check_output_size(shapes, output, tried.name, tried.data.name, tried.size_hint)
    if isinstance(failure, TaskMistake):
        message = failure.message.replace("the task's", f"{where}:", 1)
        raise TaskMistake(message, hint_broadcast(shapes, batch) or failure.hint) from failure
    if isinstance(failure, XbenchError):
        message = f"model '{tried.name}' and {where}: {failure.message}"
        raise XbenchError(message, failure.hint) from failure
    if failure is not None:
        known = hint_failure(failure, tried.model, batch)
        hint = f"{known}; {hint}" if known else hint
        raise XbenchError(f"{fault}: {describe_error(failure)}", hint) from failure
    return losses, outputs


def _check_losses(
    tried: _Tried, losses: torch.Tensor, outputs: Any, indices: np.ndarray, where: str, row: str
) -> None:
    """Check that losses are finite, and 0 where the weight is 0."""
    wrong = losses[~torch.isfinite(losses)]
    if len(wrong):
        if any(tensor.isnan().any() for tensor in list_tensors(outputs)):
            raise XbenchError(
                f"model '{tried.name}' returns NaN for {row} of dataset '{tried.data.name}', before any "
                "training",
                hint="look for NaN or very large values in the rows, and for divisions by zero in the model",
            )
        raise TaskMistake(
            f"{where} has a loss of {wrong[0].item()} on {row}, before any training",
            hint="look for a division by zero, a logarithm of 0, or values that are too large",
        )
    weights = tried.data.weights
    if weights is not None and (losses[weights[indices] == 0] != 0).any():
        raise TaskMistake(
            f"{where} has a loss other than 0 on {row} with a weight of 0",
            hint="weights divide the sum of losses, but do not multiply them: return `weight * loss`",
        )


def _check_held_out(
    tried: _Tried, split: Split, term: str, indices: np.ndarray, trained: np.ndarray | None
) -> None:
    """Check the losses of a few validation or test rows, which the model meets in evaluation alone.

    Args:
        trained: training rows of the same term, whose shapes are shown if the others differ; None if the
            term has none.
    """
    batch, where = tried.load(term, indices), tried.name_task(term)
    fault = f"model '{tried.name}' and {where} fail on a few {split} rows"
    shape = _describe_rows(batch)
    usual = shape if trained is None else _describe_rows(tried.load(term, trained))
    if shape != usual:
        fault += f", of {shape}, where training rows are {usual}"
    tried.model.eval()
    with torch.set_grad_enabled(tried.objective.task.differentiates):
        hint = f"a {split} batch is {_describe_batch(batch)}"
        losses, outputs = _compute_losses(tried, term, batch, fault, hint)
    _check_losses(tried, losses, outputs, indices, where, f"a {split} row")


def _check_sum(objective: Objective, model: nn.Module, batch: object, where: str) -> None:
    """Check that `summed`, which is trained on, is the sum of the losses, which are evaluated."""
    if objective.task.summed is None or not objective.task.additive:
        return
    summed = objective.part_loss(model.eval(), batch, 1.0)
    evaluated = objective.sum_losses(objective.losses_of(model, batch)[0], batch)
    set_training(model)
    if not equal_up_to_rounding(summed.detach().reshape(1), evaluated.detach().reshape(1)):
        raise TaskMistake(
            f"{where} has a `summed` of {summed.item():g} where the losses sum up to {evaluated.item():g}"
        )


def _check_evaluation(model: nn.Module, objective: Objective, batch: object, term: str, where: str) -> None:
    model.eval()
    try:
        with torch.set_grad_enabled(objective.task.differentiates):
            objective.losses_of(model, batch, term)
    except Exception as error:
        raise_if_exhausted(error)
        hint = ""
        if not objective.task.differentiates:
            hint = (
                "if the loss takes derivatives with respect to inputs, set `differentiates=True` in its Task"
            )
        raise TaskMistake(f"{where} fails in evaluation: {describe_error(error)}", hint=hint) from error


def _check_penalty(model: nn.Module, objective: Objective, where: str) -> None:
    try:
        penalty = objective.penalty(model)
    except Exception as error:
        raise_if_exhausted(error)
        raise TaskMistake(f"{where}: its penalty fails: {describe_error(error)}") from error
    if penalty is None:
        return
    if not isinstance(penalty, torch.Tensor) or penalty.ndim:
        is_tensor = isinstance(penalty, torch.Tensor)
        what = f"has the shape {tuple(penalty.shape)}" if is_tensor else f"is a {type(penalty).__name__}"
        raise TaskMistake(
            f"{where}: its penalty {what}, and must be a scalar tensor",
            hint="return a tensor without dimensions, such as a sum",
        )
    if not torch.isfinite(penalty).all():
        raise TaskMistake(f"{where}: its penalty is {penalty.item()} before any training")
    if not penalty.requires_grad:
        raise TaskMistake(f"{where}: its penalty does not depend on the model's parameters")


def _spread(indices: np.ndarray) -> np.ndarray:
    """Choose a few rows that are spread over all, since neighbours are often alike."""
    places = np.linspace(0, len(indices) - 1, min(len(indices), _MAX_ROWS)).astype(np.int64)
    return indices[places]


def _describe_batch(batch: Batch) -> str:
    """Describe a batch by the dtypes and shapes of its tensors."""
    return str(map_tensors(lambda t: _Shown(f"{_name_dtype(t)} {tuple(t.shape)}"), batch))


def _describe_rows(batch: Batch) -> str:
    """Describe one row of a batch by the dtypes and shapes of its tensors."""
    return str(map_tensors(lambda t: _Shown(f"{_name_dtype(t)} {tuple(t.shape[1:])}"), batch))


def _name_dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


class _Shown(str):
    """A text that prints without quotes within a structure."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
