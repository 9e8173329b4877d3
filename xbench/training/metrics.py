"""Classification metrics, by scikit-learn. Computed where scores arrive, never in the process that is
measured: importing scikit-learn would count as the cell's memory."""

from __future__ import annotations

import numpy as np

from xbench.records.schema import Metrics


def classification_metrics(
    probabilities: np.ndarray, labels: np.ndarray, positive: int, train_accuracy: float, test_loss: float
) -> Metrics:
    """Metrics of the test split.

    Args:
        probabilities: (n, classes) scores.
        labels: (n,) true classes.
        positive: label of the class that recall, precision and AUC are about, with two classes; with more,
            they are macro means (AUC one against rest).

    Returns:
        The metrics; None where one is undefined: the AUC with a class absent, precision with no positive
        prediction, recall with no positive example.
    """
    from sklearn import metrics

    predicted = probabilities.argmax(axis=1)
    present = np.unique(labels)
    recalls = [float((predicted[labels == label] == label).mean()) for label in present]
    if probabilities.shape[1] == 2:
        average, pos_label = "binary", positive
        scores, truth = probabilities[:, positive], labels == positive
    else:
        average, pos_label = "macro", 1
        scores, truth = probabilities.astype(np.float64), labels
        scores = scores / scores.sum(axis=1, keepdims=True)  # roc_auc_score wants sums of 1 to rounding
    kept = {"average": average, "pos_label": pos_label, "zero_division": np.nan}
    all_classes_present = len(present) == probabilities.shape[1]
    return Metrics(
        train_accuracy=train_accuracy,
        test_accuracy=float(metrics.accuracy_score(labels, predicted)),
        auc=float(metrics.roc_auc_score(truth, scores, multi_class="ovr")) if all_classes_present else None,
        balanced_accuracy=float(np.mean(recalls)),
        recall=_defined(metrics.recall_score(labels, predicted, **kept)),
        precision=_defined(metrics.precision_score(labels, predicted, **kept)),
        test_loss=test_loss,
    )


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
