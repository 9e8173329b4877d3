"""Evaluate a model on rows: the objective, the averages of the task's metrics, and its collected outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from xbench.components.metric import Metric, Split
from xbench.errors import XbenchError
from xbench.training.frozen import set_training
from xbench.training.global_state import derive_seed, keep_draws_apart, seed_generators
from xbench.training.loader import Loader
from xbench.training.nested import list_tensors, map_tensors
from xbench.training.objective import Objective


@dataclass(frozen=True)
class Evaluation:
    """Results of a model on some rows.

    Attributes:
        loss: the training objective on these rows.
        averages: averages of the metrics of the task and of its terms, by name.
        losses: (n,) float64: the loss of each row, without the weight of its class; None if not collected.
        collected: what the task collects of each row, as nested NumPy arrays; floating-point ones are
            float64, without any rounding. None if not collected.
    """

    loss: float
    averages: dict[str, float] = field(default_factory=dict)
    losses: np.ndarray | None = None
    collected: Any = None


def evaluate(
    model: nn.Module,
    loader: Loader,
    objective: Objective,
    indices: np.ndarray,
    chunk: int,
    split: Split,
    collects: bool = False,
    on_part: Callable[[int], None] = lambda done: None,
    seed: int = 0,
) -> Evaluation:
    """Evaluate a model in chunks.

    A model or task that draws random numbers gets the same ones whenever it is evaluated with the same seed,
    and the optimizer's own are not affected.

    If chunks are no larger than a training micro-batch, evaluation is never the memory peak. The host waits
    for a CUDA device only once, at the end.

    If the task is not additive, the loss of a row depends on the size of its chunk. All chunks of a term then
    have the same size: the last one is filled up with the first rows, which do not count again.

    Args:
        indices: positions of the rows in the dataset.
        chunk: the maximum number of rows per forward pass (see `Trainer.evaluation_chunk`).
        split: the split that the rows count as: metrics name the splits that they are averaged on.
        collects: whether to collect losses and outputs.
        on_part: called after each chunk with the number of rows done (on CUDA: submitted).
        seed: the cell's seed.

    Raises:
        XbenchError: losses or values of metrics are not one number for each row.
    """
    model.eval()
    task, device = objective.task, loader.device
    groups = objective.by_term(indices)
    metrics = _choose_averages(task.metrics, split)
    of_terms = {term: _choose_averages(task.metrics_of(term), split) for term in groups}
    averaged = [(metric, indices) for metric in metrics]
    averaged += [(metric, groups[term]) for term, own in of_terms.items() for metric in own]
    functions = collects and any(metric.function is not None for metric in task.metrics)
    total = torch.zeros((), dtype=torch.float64, device=device)
    sums = {metric.name: torch.zeros((), dtype=torch.float64, device=device) for metric, _ in averaged}
    collector = _Collector(len(indices), device.type == "cuda") if collects else None
    done = 0
    with keep_draws_apart(), torch.set_grad_enabled(task.differentiates):
        for term, rows in groups.items():
            scale = task.terms[term].scale if term else 1.0
            measured = [*metrics, *of_terms[term]]
            of_term = torch.zeros_like(total)
            ends_at = done + len(rows)
            for part in loader.parts(rows if task.additive else _fill_up(rows, chunk), chunk):
                batch = part[term] if term else part
                seed_generators(derive_seed(seed, split, done))
                losses, outputs = objective.losses_of(model, batch, term)
                count = ends_at - done if len(losses) > ends_at - done else None
                of_term += objective.sum_losses(losses, batch, count).detach().double()
                if outputs is None and (functions or any(callable(metric.value) for metric in measured)):
                    outputs = objective.outputs(model, batch)
                for metric in measured:
                    values = metric.value(outputs, batch) if callable(metric.value) else losses
                    if values.shape != losses.shape:
                        raise XbenchError(
                            f"metric '{metric.name}' returns a tensor of shape {tuple(values.shape)} for "
                            f"{len(losses)} rows, not one number for each row"
                        )
                    sums[metric.name] += values.detach()[:count].double().sum()
                if collector is not None:
                    kept = None
                    if functions:
                        kept = outputs if task.collect is None else task.collect(outputs, batch)
                    collector.add(losses, kept, count)
                done += len(losses[:count])
                on_part(done)
            total += scale * of_term / (objective.sum_weights(rows) or math.nan)
        penalty = objective.penalty(model)
        if penalty is not None:
            total += penalty.detach().double()
    set_training(model)
    loss, *summed = torch.stack([total, *sums.values()]).tolist()  # also waits for the copies before it
    return Evaluation(
        loss=loss,
        averages={
            metric.name: _finish(metric, value, objective, rows)
            for (metric, rows), value in zip(averaged, summed, strict=True)
        },
        losses=collector.losses if collector else None,
        collected=collector.collected if collector else None,
    )


def _choose_averages(metrics: Iterable[Metric], split: Split) -> list[Metric]:
    return [metric for metric in metrics if metric.value is not None and split in metric.on]


def _fill_up(rows: np.ndarray, chunk: int) -> np.ndarray:
    """Append the first rows, so that the last chunk is as large as the others."""
    return np.resize(rows, len(rows) + -len(rows) % chunk) if len(rows) > chunk else rows


def _finish(metric: Metric, summed: float, objective: Objective, indices: np.ndarray) -> float:
    weight = objective.sum_weights(indices, with_classes=False) if metric.weighted else len(indices)
    average = summed / (weight or math.nan)
    if metric.finish is None:
        return average
    try:
        return float(metric.finish(average))
    except (OverflowError, ValueError):  # of an exponential or a logarithm
        return float("nan")


class _Collector:
    """Collector of nested tensors, on the host.

    Space is allocated once: small blocks that stay between large ones that are freed would fragment the heap.
    """

    def __init__(self, count: int, on_cuda: bool):
        self._count, self._on_cuda, self._filled = count, on_cuda, 0
        self._space: Any = None

    def add(self, losses: torch.Tensor, outputs: Any, count: int | None = None) -> None:
        """Add losses and outputs of rows, or of the first `count` of them."""
        part = map_tensors(lambda tensor: tensor.detach()[:count], (losses, outputs))
        if self._space is None:
            self._space = map_tensors(self._allocate, part)
        end = self._filled + len(part[0])
        for held, new in zip(list_tensors(self._space), list_tensors(part), strict=True):
            if held.shape[1:] != new.shape[1:]:
                raise XbenchError(
                    f"what the task collects differs in shape between rows: {tuple(held.shape[1:])} and "
                    f"{tuple(new.shape[1:])}",
                    hint="let `collect` in its Task return tensors whose rows all have the same shape",
                )
            held[self._filled : end].copy_(new, non_blocking=self._on_cuda)
        self._filled = end

    def _allocate(self, part: torch.Tensor) -> torch.Tensor:
        dtype = torch.float64 if part.is_floating_point() else part.dtype
        return torch.empty(self._count, *part.shape[1:], dtype=dtype, pin_memory=self._on_cuda)

    @property
    def losses(self) -> np.ndarray:
        return self._space[0].numpy()

    @property
    def collected(self) -> Any:
        return map_tensors(torch.Tensor.numpy, self._space[1])
