"""The task contract: what a dataset minimises and reports, and the rows that it brings.

This module imports no torch, as specs and listings import it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from xbench.components.facts import Output
from xbench.components.metric import NAME, SPLIT_PREFIXES, Batch, Metric, check_callable, check_metrics
from xbench.components.roles import Role, check_role_names
from xbench.components.specs import DatasetSpec, ModelSpec
from xbench.errors import XbenchError
from xbench.text import format_value, quote_some

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

# A tensor, or a tuple or dict of (nested) tensors, whose first dimension counts rows; a map-style dataset,
# such as a list of rows; a `BatchReader`; or a `torch.utils.data.DataLoader`, of which only the dataset and
# the collate function are used.
Rows: TypeAlias = Any


class BatchReader(Protocol):
    """Rows that are read by position, such as those of a file that is larger than memory."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def read(self, positions: np.ndarray) -> Batch:
        """Return the batch of rows at (n,) int64 positions, in their order."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One of several terms of a loss. Each row belongs to one term.

    The mean loss of a term is reported as `NAME_loss`, without its scale and the weights of classes.

    Attributes:
        loss: `loss(model, batch) -> (n,)`: the loss of each row.
        scale: factor of the term in the whole loss.
        weight: `weight(batch) -> (n,)`: the weight of each row; 1 by default.
        metrics: averages over the rows of this term. Their names begin with the term's: `error` of a term
            `boundary` is recorded as `test_boundary_error`.
    """

    loss: Callable[[nn.Module, Batch], Tensor]
    scale: float = 1.0
    weight: Callable[[Batch], Tensor] | None = None
    metrics: tuple[Metric, ...] = ()

    def __post_init__(self) -> None:
        check_callable("a term's `loss`", self.loss)
        if self.weight is not None:
            check_callable("a term's `weight`", self.weight)
        if not _is_finite(self.scale):
            raise XbenchError(
                f"a term's `scale` is {format_value(self.scale)}", hint="give a finite number, such as 0.1"
            )


@dataclass(frozen=True)
class Optimum:
    """The known minimum of the loss over all training rows, penalty included.

    Attributes:
        value: the minimum.
        error: bound on the error of `value`.
    """

    value: float
    error: float = 0.0

    def __post_init__(self) -> None:
        if not _is_finite(self.value):
            raise XbenchError(
                f"an optimum's `value` is {format_value(self.value)}", hint="give a finite number"
            )
        if not isinstance(self.error, Real) or not self.error >= 0:
            raise XbenchError(
                f"an optimum's `error` is {format_value(self.error)}",
                hint="give a bound on the error of `value`: a number that is not negative",
            )


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is minimised over a dataset's rows, and what is reported.

    **Loss.** The loss of a batch is the sum of its rows' losses, divided by the sum of their weights, plus
    the penalty. Losses are unreduced, so that a batch can be computed in parts without changing its value.
    For that, the loss of a row must not depend on the other rows of the batch. Declare it as one of

    - `loss(model, batch) -> (n,)`;
    - `outputs(model, batch)` and `loss_of(outputs, batch) -> (n,)`, which lets metrics use the same outputs;
    - `loss = {"name": Term(...)}`: several terms, of which each row belongs to one; `train` holds the rows of
      each term by its name. The loss is then the sum over terms of scale times the sum of losses over the sum
      of weights. In a batch of a part of the training rows, the sum of losses of a term is divided by the
      weights of all its training rows, times the batch's share of all training rows. The expected loss of a
      batch is therefore the loss of all training rows, however few rows a term has.

    Attributes:
        loss: see above.
        outputs: what `loss_of` and metrics see, for example logits; a tensor or nested tensors with a row for
            each row of the batch. By default `model(batch)`, or `model(batch[0])` if a batch is a tuple.
        loss_of: see above.
        weight: `weight(batch) -> (n,)`: the weight of each row, such as the number of counted tokens of a
            padded sequence; 1 by default. It depends on the data alone, and is computed once. Losses are
            *divided* by the sum of weights and not multiplied by them: with sample weights, `loss` returns
            `weight * loss`, as it returns the sum over counted tokens.
        penalty: `penalty(model) -> scalar`, added once to the loss of every batch.
        metrics: metrics besides the loss. If the task has several terms, they see the batches of all terms,
            which must then have the same structure; give metrics of single terms to their `Term`.
        collect: `collect(outputs, batch)`: what metrics with a `function` need of each row, and what is kept
            of the test rows: a tensor, or a tuple or dict of tensors; the outputs by default. If no metric
            has a `function`, nothing is collected but the losses.
        classes: names of the classes of a classification; empty for other tasks. Suites can then balance
            classes and weight them, and validation is held out of each class alike.
        label: `label(batch) -> (n,)` int64: the class of each row. Needed with `classes`.
        output: what a model returns for a row. Models that ask for it are built with it.
        optimum: the known minimum. Tables then show how far training is from it.
        additive: False if the loss of a row depends on the other rows of the batch (contrastive losses). Such
            a task runs with `micro_batch = "full"` only.
        differentiates: whether the loss takes derivatives with respect to inputs, so that autograd is needed
            in evaluation, too.
        loss_unit: unit of the loss; "" for none.
        loss_method: what the loss is, in words.
        facts: what a reader should know of the task, by name, such as `{"positive class": "PNEUMONIA"}`.
        summed: `summed(outputs, batch, class_weights)`, an optional shortcut: the sum of the rows' losses,
            each multiplied by the weight of its class. `class_weights` is a tensor with one number per class.
        roles: roles of the model's parameters, for a task that comes with its model; see `ModelSpec`, whose
            roles count where the task has none.
    """

    loss: Callable[[nn.Module, Batch], Tensor] | Mapping[str, Term] | None = None
    outputs: Callable[[nn.Module, Batch], Any] | None = None
    loss_of: Callable[[Any, Batch], Tensor] | None = None
    weight: Callable[[Batch], Tensor] | None = None
    penalty: Callable[[nn.Module], Tensor] | None = None
    metrics: tuple[Metric, ...] = ()
    collect: Callable[[Any, Batch], Any] | None = None
    classes: tuple[str, ...] = ()
    label: Callable[[Batch], Tensor] | None = None
    output: Output | None = None
    optimum: Optimum | None = None
    additive: bool = True
    differentiates: bool = False
    loss_unit: str = ""
    loss_method: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    summed: Callable[[Any, Batch, Tensor], Tensor] | None = None
    roles: Mapping[str, Role] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_role_names(self.roles)
        if (self.loss is None) == (self.loss_of is None):
            have = "neither `loss` nor" if self.loss is None else "both `loss` and"
            raise XbenchError(f"a task has {have} `loss_of`, and needs one of them")
        if self.loss is not None and not callable(self.loss) and not isinstance(self.loss, Mapping):
            raise XbenchError(
                f"the `loss` of a task is a {type(self.loss).__name__}, not a function or a dict of terms"
            )
        if self.terms and self.weight is not None:
            raise XbenchError("a task with several terms has no `weight`: give each term its own")
        if isinstance(self.loss, Mapping) and not self.loss:
            raise XbenchError("a task with several terms names no term")
        if self.summed is not None and self.loss_of is None:
            raise XbenchError("a task with `summed` needs `loss_of`, to which it is a shortcut")
        if self.classes and self.label is None:
            raise XbenchError("a task with `classes` needs `label`, which says the class of each row")
        check_metrics("a task's `metrics`", self.metrics)
        for name, term in self.terms.items():
            _check_term(name, term)
        if self.terms and (weighted := [metric.name for metric in self.metrics if metric.weighted]):
            raise XbenchError(
                f"metric '{weighted[0]}' is weighted, but the weights of different terms do not add up",
                hint="give the metric to each Term that it is for, or leave out `weighted`",
            )
        declared = [*self.metrics, *(metric for term in self.terms for metric in self.metrics_of(term))]
        counts = Counter(metric.name for metric in declared)
        if twice := sorted(name for name, count in counts.items() if count > 1):
            raise XbenchError(f"a task declares a metric twice: {quote_some(twice)}")

    @property
    def terms(self) -> Mapping[str, Term]:
        """The terms by name; empty if the loss is not declared as several terms."""
        return self.loss if isinstance(self.loss, Mapping) else {}

    def metrics_of(self, term: str) -> tuple[Metric, ...]:
        """Return the metrics of a term's rows, as they are recorded: its own, and its mean loss.

        Args:
            term: the name of the term; "" if the task has none.
        """
        if not term:
            return ()
        title, own = term.replace("_", " "), self.terms[term]
        renamed = [
            replace(
                metric,
                name=f"{term}_{metric.name}",
                title=f"{title} {metric.title or metric.name.replace('_', ' ')}",
            )
            for metric in own.metrics
        ]
        loss = Metric(
            name=f"{term}_loss",
            direction="min",
            unit=self.loss_unit,
            method=f"mean loss of the rows of the term '{term}', before its scale of {own.scale:g}",
            value="loss",
            weighted=True,
        )
        return (*renamed, loss)


def _check_term(name: str, term: Term) -> None:
    if not isinstance(term, Term):
        raise XbenchError(
            f"term '{name}' of a task is a {type(term).__name__}, not an xbench.Term",
            hint="declare it as Term(loss=...)",
        )
    check_metrics(f"the `metrics` of term '{name}'", term.metrics)
    if not NAME.fullmatch(name) or f"{name}_".startswith(SPLIT_PREFIXES):
        raise XbenchError(
            f"a term cannot be named {name!r}",
            hint="use lower-case letters, digits and `_`, and begin with a letter but not with a split",
        )
    for metric in term.metrics:
        if metric.function is not None:
            raise XbenchError(
                f"metric '{metric.name}' of term '{name}' has a `function`",
                hint="metrics of a term are averages: use `value`, or give the metric to the Task",
            )


@dataclass(frozen=True, kw_only=True)
class RowDataset:
    """Rows and their task: what the factory of a dataset that is not made of images returns.

    Attributes:
        train: the rows to train on; if the task has several terms, the rows of each term by its name.
        task: what is minimised and reported.
        validation, test: rows of these splits, in the same form as `train`. Without validation rows, a share
            of the training rows is held out, as the suite says. Without test rows, metrics are of training.
        collate: makes a batch of a list of rows of a map-style dataset; by default torch's `default_collate`.
        fingerprint: identifies the content of all rows, or is a function that returns such a text and is
            called once; by default, rows are hashed.
        hold_out: whether validation may be held out of the training rows. If not, a suite trains on all of
            them unless it says otherwise. `"end"` holds out the last rows, and leaves out the row before
            them, for rows that are consecutive parts of a sequence; other rows are held out at random.
        notes: sentences for readers of the results.
    """

    train: Rows
    task: Task
    validation: Rows | None = None
    test: Rows | None = None
    collate: Callable[[list[Any]], Batch] | None = None
    fingerprint: str | Callable[[], str] = ""
    hold_out: bool | Literal["end"] = True
    notes: tuple[str, ...] = ()


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A model and a dataset with its task, under one name: `problem = "module:attribute"` in a suite.

    Attributes:
        model: a `ModelSpec`, a factory of the model, or the name of a registered model, such as `"mlp"`.
        dataset: a `DatasetSpec`, a factory of a dataset, a `RowDataset`, or the name of a registered dataset.
    """

    model: ModelSpec | Callable[..., nn.Module] | str
    dataset: DatasetSpec | RowDataset | Callable[..., Any] | str

    def component(self, kind: Literal["model", "dataset"]) -> Any:
        """Return the problem's model or dataset: a spec, a factory or a name."""
        part = self.model if kind == "model" else self.dataset
        return (lambda: part) if isinstance(part, RowDataset) else part
