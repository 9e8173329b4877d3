"""The task of classification: weighted cross entropy, and the metrics of predicted classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from xbench.components import classification_metrics as scores
from xbench.components.facts import Output
from xbench.components.metric import Metric
from xbench.components.tasks import Task
from xbench.errors import XbenchError

if TYPE_CHECKING:
    from torch import Tensor

    from xbench.components.metric import Batch


def classification(classes: Sequence[str], positive: str = "") -> Task:
    """Make the task of classifying rows `(inputs, label)` by a model that returns a logit for each class.

    Args:
        classes: names of the classes, in the order of labels.
        positive: with two classes, the one that recall, precision and AUC refer to; the last by default.

    Returns:
        A task that minimises the mean cross entropy. If a suite weights classes, the mean is weighted.

    Raises:
        XbenchError: there are fewer than two classes, or the positive class is not one of them.
    """
    classes = tuple(classes)
    if len(classes) < 2:
        raise XbenchError(f"a dataset needs at least 2 classes, and this one has {len(classes)}")
    positive = positive or classes[-1]
    if positive not in classes:
        raise XbenchError(f"the positive class '{positive}' is not one of {', '.join(classes)}")
    place = classes.index(positive)
    return Task(
        loss_of=_cross_entropies,
        summed=_sum_cross_entropies,
        metrics=(
            Metric(
                name="accuracy",
                direction="max",
                method="share of the examples whose class has the highest logit",
                value=_hits,
            ),
            Metric(
                name="auc",
                direction="max",
                title="AUC (from scores)",
                method="area under the ROC curve, by the log odds of the positive class; with more than two "
                "classes, the mean of each class against the rest",
                function=partial(scores.auc, positive=place),
            ),
            Metric(
                name="balanced_accuracy",
                direction="max",
                title="balanced accuracy",
                method="mean of the recalls of all classes that have examples, from hard predictions",
                function=scores.balanced_accuracy,
            ),
            Metric(
                name="recall",
                direction="max",
                title="recall",
                method="of the positive class; with more than two classes, the mean over those that have "
                "examples",
                function=partial(scores.recall, positive=place),
            ),
            Metric(
                name="precision",
                direction="max",
                title="precision",
                method="of the positive class; with more than two classes, the mean over those that have "
                "examples or were predicted, where a class that was never predicted counts as 0",
                function=partial(scores.precision, positive=place),
            ),
        ),
        collect=_collect,
        classes=classes,
        label=_label,
        output=Output("classes", len(classes)),
        loss_unit="nats",
        loss_method="training objective: mean cross entropy in nats, class weights included",
        facts={"positive": positive} if len(classes) == 2 else {},
    )


def _cross_entropies(logits: Tensor, batch: Batch) -> Tensor:
    from torch.nn import functional

    return functional.cross_entropy(logits, batch[1], reduction="none")


def _sum_cross_entropies(logits: Tensor, batch: Batch, class_weights: Tensor) -> Tensor:
    from torch.nn import functional

    return functional.cross_entropy(logits, batch[1], weight=class_weights, reduction="sum")


def _hits(logits: Tensor, batch: Batch) -> Tensor:
    """Return 1 for each row whose class has the highest logit; NaN for a row with a NaN among its logits."""
    hits = (logits.argmax(1) == batch[1]).double()
    return hits.masked_fill(logits.isnan().any(1), float("nan"))


def _label(batch: Batch) -> Tensor:
    return batch[1]


def _collect(logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    return {"label": batch[1], "logit": logits}
