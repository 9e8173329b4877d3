"""The metrics of records of version 1, which did not declare them: those of classification."""

from __future__ import annotations

from xbench.records.schema import MetricRecord

_OBJECTIVE = "training objective: mean cross entropy in nats, class weights included"

_TEST_LOSS = MetricRecord(
    name="test_loss", title="test loss", direction="min", split="test", method=_OBJECTIVE
)

# Metrics of a cell, measured with the selected weights, in the order of table rows.
CLASSIFICATION = (
    MetricRecord(
        name="train_accuracy",
        title="train accuracy",
        direction="max",
        split="train",
        method="share of the distinct training examples whose class has the highest logit",
    ),
    MetricRecord(
        name="test_accuracy",
        title="test accuracy",
        direction="max",
        split="test",
        method="share of the examples whose class has the highest logit",
    ),
    MetricRecord(
        name="auc",
        title="AUC (from scores)",
        direction="max",
        split="test",
        method="area under the ROC curve, by the log odds of the positive class; with more than two classes, "
        "the mean of each class against the rest",
    ),
    MetricRecord(
        name="balanced_accuracy",
        title="balanced accuracy",
        direction="max",
        split="test",
        method="mean of the recalls of all classes that have examples, from hard predictions",
    ),
    MetricRecord(
        name="recall",
        title="recall",
        direction="max",
        split="test",
        method="of the positive class; with more than two classes, the mean over those that have examples",
    ),
    MetricRecord(
        name="precision",
        title="precision",
        direction="max",
        split="test",
        method="of the positive class; with more than two classes, the mean over those that have examples or "
        "were predicted, where a class that was never predicted counts as 0",
    ),
    _TEST_LOSS,
)

# Metrics of an epoch. `test_loss` is measured only if it selects the weights.
CLASSIFICATION_EPOCHS = (
    MetricRecord(
        name="train_loss",
        title="train loss",
        direction="min",
        split="train",
        method="mean of the losses of the epoch's steps, each taken before its update",
    ),
    MetricRecord(
        name="validation_loss",
        title="validation loss",
        direction="min",
        split="validation",
        method=_OBJECTIVE,
    ),
    MetricRecord(
        name="validation_accuracy",
        title="validation accuracy",
        direction="max",
        split="validation",
        method="share of the examples whose class has the highest logit",
    ),
    _TEST_LOSS,
)
