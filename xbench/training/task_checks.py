"""Check a task and a model on a few rows before a run: a mistake is then one line, and not a failed cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from xbench.components.roles import check_patterns
from xbench.components.tasks import Metric, Task
from xbench.components.tracebacks import describe_error
from xbench.data.prepared import RowData
from xbench.errors import TaskMistake, XbenchError
from xbench.memory.exhaustion import evidence_of, exhaustion
from xbench.training.frozen import set_training
from xbench.training.micro_batches import are_losses_dependent
from xbench.training.nested import list_tensors, map_tensors
from xbench.training.objective import Objective
from xbench.training.rounding import equal_up_to_rounding
from xbench.training.row_loader import RowLoader
from xbench.training.row_set import RowSet

_MAX_ROWS = 8


def check_task(model: nn.Module, name: str, rows: RowSet, data: RowData, dtype: torch.dtype) -> None:
    """Compute the losses and metrics of a few spread rows of each term, and their gradients.

    Args:
        model: the model, on the CPU; its weights are not changed, but it must not be used afterwards.
        name: the model's name, for messages.

    Raises:
        TaskMistake: the task breaks its contract.
        XbenchError: the model cannot take the rows, or does not suit the task.
        MemoryError, RuntimeError: memory ran out.
    """
    try:
        check_patterns(model, rows.task.roles)
    except XbenchError as error:
        raise TaskMistake(f"the task of dataset '{data.name}': {error.message}", error.hint) from error
    loader = RowLoader(rows, data, torch.device("cpu"), dtype)
    objective = Objective(rows.task, data, {}, torch.device("cpu"), dtype)
    model = model.to(dtype)
    is_train = ~data.is_test & ~data.own_validation
    few = {term: _spread(indices) for term, indices in objective.by_term(np.flatnonzero(is_train)).items()}
    for term, indices in few.items():
        _check_term(model, name, loader, objective, term, indices, data)
    where = f"the task of dataset '{data.name}'"
    _check_penalty(model, objective, where)
    _check_structures(rows, data)
    measured = objective.by_term(np.flatnonzero(data.is_test if data.is_test.any() else is_train))
    for term, indices in measured.items():
        _check_metrics(model, loader, objective, term, _spread(indices), rows.task.metrics, where)
    for term, indices in few.items():
        if term not in measured:
            on_train = [metric for metric in rows.task.metrics if metric.value and "train" in metric.on]
            _check_metrics(model, loader, objective, term, indices, on_train, where)
    if rows.task.additive:
        for indices in few.values():
            if len(indices) > 1 and are_losses_dependent(model, loader, objective, indices):
                raise TaskMistake(
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
        losses, outputs = objective.losses_of(model, batch, term)
    except TaskMistake as error:
        raise TaskMistake(error.message.replace("the task's", f"{where}:", 1), error.hint) from error
    except XbenchError as error:
        raise XbenchError(f"model '{name}' and {where}: {error.message}", error.hint) from error
    except Exception as error:
        _raise_if_exhausted(error)
        hint = f"a batch is {_describe_batch(batch)}, and the model is {type(model).__name__}"
        if isinstance(error, IndexError):
            hint = _explain_index(model, batch) or hint
        raise XbenchError(
            f"model '{name}' and {where} fail on a few rows: {describe_error(error)}", hint
        ) from error
    if not losses.is_floating_point():
        dtype = str(losses.dtype).removeprefix("torch.")
        raise TaskMistake(f"{where} returns losses of dtype {dtype}, which have no gradient")
    wrong = losses[~torch.isfinite(losses)]
    if len(wrong):
        if any(tensor.isnan().any() for tensor in list_tensors(outputs)):
            raise XbenchError(
                f"model '{name}' returns NaN for a row of dataset '{data.name}', before any training",
                hint="look for NaN or very large values in the rows, and for divisions by zero in the model",
            )
        raise TaskMistake(
            f"{where} has a loss of {wrong[0].item()} on a row, before any training",
            hint="look for a division by zero, a logarithm of 0, or values that are too large",
        )
    if not losses.requires_grad:
        raise TaskMistake(
            f"{where} has losses without a gradient",
            hint="compute the loss from the model's parameters, without `detach`, `item` or `no_grad`",
        )
    if data.weights is not None and (losses[data.weights[indices] == 0] != 0).any():
        raise TaskMistake(
            f"{where} has a loss other than 0 on a row with a weight of 0",
            hint="weights divide the sum of losses, but do not multiply them: return `weight * loss`",
        )
    _check_sum(objective, model, batch, where)
    losses.sum().backward()
    if not any(p.grad is not None for p in model.parameters()):
        raise XbenchError(f"{where}: no parameter of model '{name}' receives a gradient from the loss")
    model.zero_grad()
    _check_evaluation(model, objective, batch, term, where)


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
        _raise_if_exhausted(error)
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
        _raise_if_exhausted(error)
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


def _check_structures(rows: RowSet, data: RowData) -> None:
    """Check that each metric of the task sees batches of the same structure, whatever their term.

    Otherwise `batch[1]` may be the second tensor of one batch, and the second row of another.
    """
    task = rows.task
    has_test, has_own_validation = data.is_test.any(), data.own_validation.any()
    outlines = {
        place: _outline(source.load(np.zeros(1, dtype=np.int64)))
        for source, place in zip(rows.sources, rows.places, strict=True)
        if task.terms and len(source)
    }
    for metric in task.metrics:
        splits: set[str] = set(metric.on)
        if "validation" in splits and not has_own_validation:
            splits.add("train")  # from which it may be held out
        if metric.function is not None:
            splits = {"test" if has_test else "train"} if task.collect is not None else set()
        elif not callable(metric.value):
            continue
        seen: dict[str, str] = {}
        for (split, term), outline in outlines.items():
            if split in splits:
                seen.setdefault(outline, term)
        if len(seen) > 1:
            found = " and ".join(f"{outline} in term '{term}'" for outline, term in seen.items())
            raise TaskMistake(
                f"metric '{metric.name}' of dataset '{data.name}' sees batches of different structures: "
                f"{found}",
                hint="give the metric to the Term that it is for: Term(loss=..., metrics=(...,))",
            )


def _outline(batch: object) -> str:
    """Describe the structure of a batch, without shapes."""
    if isinstance(batch, Mapping):
        return f"{{{', '.join(f'{key!r}: {_outline(batch[key])}' for key in sorted(batch, key=repr))}}}"
    if isinstance(batch, tuple | list):
        return f"({', '.join(map(_outline, batch))})"
    return "tensor" if isinstance(batch, torch.Tensor) else type(batch).__name__


def _check_metrics(
    model: nn.Module,
    loader: RowLoader,
    objective: Objective,
    term: str,
    indices: np.ndarray,
    of_task: Iterable[Metric],
    where: str,
) -> None:
    """Compute the metrics of a few rows.

    Args:
        of_task: the metrics of the whole task to compute, besides those of the term.
    """
    task, metrics = objective.task, [*of_task, *objective.task.metrics_of(term)]
    functions = any(metric.function for metric in metrics)
    model.eval()
    part = loader.load(indices)
    batch = part[term] if term else part
    try:
        with torch.set_grad_enabled(task.differentiates):
            needs_outputs = functions or any(callable(metric.value) for metric in metrics)
            outputs = objective.outputs(model, batch) if needs_outputs else None
            for metric in metrics:
                if callable(metric.value):
                    values = metric.value(outputs, batch)
                    _check_values(metric.name, values, len(indices))
                    _check_finish(metric, values.double().mean().item())
            if functions:
                collected = outputs if task.collect is None else task.collect(outputs, batch)
                _check_collected(collected, len(indices))
                _check_functions(task, map_tensors(_to_numpy, collected))
    except XbenchError as error:
        raise TaskMistake(f"{where}: {error.message}", error.hint) from error
    except Exception as error:
        _raise_if_exhausted(error)
        raise TaskMistake(f"{where}: its metrics fail: {describe_error(error)}") from error


def _check_values(name: str, values: object, count: int) -> None:
    if not isinstance(values, torch.Tensor):
        raise TaskMistake(
            f"metric '{name}' returns a {type(values).__name__}, not a tensor with a number for each row"
        )
    if tuple(values.shape) != (count,):
        raise TaskMistake(
            f"metric '{name}' returns a tensor of shape {tuple(values.shape)} for {count} rows, not one "
            "number for each row"
        )


def _check_finish(metric: Metric, average: float) -> None:
    if metric.finish is None:
        return
    try:
        float(metric.finish(average))
    except (ArithmeticError, ValueError):  # the average of all rows may be within its domain
        pass
    except Exception as error:
        raise XbenchError(f"metric '{metric.name}': its `finish` fails: {describe_error(error)}") from error


def _check_functions(task: Task, collected: Any) -> None:
    """Call the functions of metrics. Some need more rows, or rows of each class, and may refuse these."""
    for metric in task.metrics:
        if metric.function is None:
            continue
        function = metric.load_function()
        try:
            value = function(collected)
        except (ArithmeticError, ValueError):
            continue
        try:
            float(value)
        except (TypeError, ValueError) as error:
            raise XbenchError(
                f"metric '{metric.name}': its function returns a {type(value).__name__}, not a number"
            ) from error


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.detach().double() if tensor.is_floating_point() else tensor).cpu().numpy()


def _check_collected(collected: object, count: int) -> None:
    shapes = [tuple(tensor.shape) for tensor in list_tensors(collected)]
    if not shapes:
        raise TaskMistake(f"what the task collects is a {type(collected).__name__} without a tensor")
    for shape in shapes:
        if shape[:1] != (count,):
            raise TaskMistake(
                f"what the task collects has a tensor of shape {shape} for {count} rows, not a row for each"
            )


def _explain_index(model: nn.Module, batch: object) -> str:
    """Say which embedding has too few rows for the indices of a batch; "" if none has."""
    indices = [t for t in list_tensors(batch) if t.numel() and not t.is_floating_point()]
    highest = max((int(tensor.max()) for tensor in indices), default=-1)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings <= highest:
            return (
                f"the embedding '{name}' has {module.num_embeddings:,} rows, and the batch has the index "
                f"{highest:,}: raise the setting of the model that says how many there are"
            )
    return ""


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
