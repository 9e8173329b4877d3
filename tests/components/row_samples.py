"""What tests of row datasets share: the facts of their rows, losses of whole splits, plain training loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from xbench.components.facts import Facts, TensorFacts
from xbench.components.tasks import RowDataset, Task


def facts_of(dataset: RowDataset) -> Facts:
    """The facts that a model of this dataset is built with."""
    task, rows = dataset.task, dataset.train
    if task.terms:
        rows = next(iter(rows.values()))
    return Facts(row=_describe(rows), output=dataset.task.output, rows=len(_first(rows)))


def _describe(rows: Any) -> Any:
    if isinstance(rows, tuple):
        return tuple(_describe(part) for part in rows)
    return TensorFacts(tuple(rows.shape[1:]), str(rows.dtype).removeprefix("torch."))


def _first(rows: Any) -> Tensor:
    while not isinstance(rows, Tensor):
        rows = rows[0]
    return rows


def build(dataset: RowDataset, factory: Callable[..., nn.Module], **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return factory(facts_of(dataset), **settings).double()


def outputs_of(task: Task, model: nn.Module, batch: Any) -> Any:
    if task.outputs:
        return task.outputs(model, batch)
    return model(batch[0] if isinstance(batch, tuple) else batch)


def loss_of(task: Task, model: nn.Module, batch: Any) -> Tensor:
    """The loss of a batch, as the contract defines it."""
    if task.terms:
        total: Any = sum(
            term.scale * term.loss(model, batch[name]).mean() for name, term in task.terms.items()
        )
    else:
        total = task.loss_of(outputs_of(task, model, batch), batch).mean()
    return total + (task.penalty(model) if task.penalty else 0.0)


def metrics_of(task: Task, model: nn.Module, batches: list[Any]) -> dict[str, float]:
    """The metrics of a split that is evaluated batch by batch."""
    outputs = [outputs_of(task, model, batch) for batch in batches]
    found = {}
    for metric in task.metrics:
        if metric.value is not None:
            values = [metric.value(out, batch) for out, batch in zip(outputs, batches, strict=True)]
            found[metric.name] = torch.cat(values).mean().item()
        else:
            parts = [task.collect(out, batch) for out, batch in zip(outputs, batches, strict=True)]
            columns = zip(*parts, strict=True)
            collected = tuple(torch.cat(column).detach().numpy() for column in columns)
            found[metric.name] = metric.function(collected)
    return found


def minimise(dataset: RowDataset, model: nn.Module, steps: int, **options: Any) -> float:
    """Train with L-BFGS on all rows; return the loss."""
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe", **options)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(dataset.task, model, dataset.train)
        loss.backward()
        return loss.detach()

    for _ in range(steps):
        optimizer.step(closure)
    return loss_of(dataset.task, model, dataset.train).item()
