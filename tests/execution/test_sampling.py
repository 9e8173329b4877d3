"""How much metrics depend on which test rows were drawn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from xbench.execution.sampling import _area, estimate_sampling
from xbench.records.outputs import Outputs


def outputs_of(groups, hits, losses=None) -> Outputs:
    """Outputs of two classes; the highest logit is that of the label where `hits` is true."""
    label = np.arange(len(groups)) % 2
    right = np.asarray(hits) == (label == 1)
    losses = np.ones(len(groups)) if losses is None else losses
    columns = {"label": label, "logit_a": np.where(right, 0.0, 1.0), "logit_b": np.where(right, 1.0, 0.0)}
    return Outputs([f"{i}" for i in range(len(groups))], groups, losses, columns)


def test_rows_without_groups_have_the_width_of_a_binomial():
    hits = np.arange(400) % 5 != 0
    found = estimate_sampling(outputs_of([""] * 400, hits), {"test_accuracy": 0.8})
    assert (found.rows, found.groups) == (400, 400)
    assert found.half_widths["test_accuracy"] == pytest.approx(1.96 * np.sqrt(0.8 * 0.2 / 400), rel=0.1)


def test_rows_of_a_group_are_drawn_together():
    groups = [f"patient {place // 4}" for place in range(400)]
    hits = np.arange(400) // 4 % 5 != 0  # all rows of a patient are alike
    found = estimate_sampling(outputs_of(groups, hits), {"test_accuracy": 0.8})
    assert (found.rows, found.groups) == (400, 100)
    assert found.half_widths["test_accuracy"] == pytest.approx(1.96 * np.sqrt(0.8 * 0.2 / 100), rel=0.15)


def test_a_metric_that_is_not_that_of_the_outputs_is_left_out():
    outputs = outputs_of([""] * 10, [True] * 9 + [False], np.arange(10.0))
    found = estimate_sampling(outputs, {"test_accuracy": 0.5, "test_loss": 4.5, "auc": None})
    assert set(found.half_widths) == {"test_loss"}
    assert estimate_sampling(outputs, {"test_accuracy": 0.5}) is None


def test_rows_that_are_all_right_do_not_show_how_others_would_be():
    assert estimate_sampling(outputs_of([""] * 10, [True] * 10), {"test_accuracy": 1.0}) is None


def test_a_single_group_says_nothing():
    assert estimate_sampling(outputs_of(["one"] * 10, [True] * 10), {"test_accuracy": 1.0}) is None


def test_all_metrics_of_a_classification():
    random = np.random.default_rng(0)
    outputs = outputs_of([""] * 200, random.random(200) < 0.7)
    label, scores = outputs.columns["label"], random.normal(size=200)
    outputs.columns["logit_b"][:] = outputs.columns["logit_a"] + np.round(scores + label, 1)
    measured = {
        "test_accuracy": float(np.mean((outputs.columns["logit_b"] > outputs.columns["logit_a"]) == label)),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(
            label, outputs.columns["logit_b"] > outputs.columns["logit_a"]
        ),
        "auc": sklearn_metrics.roc_auc_score(label, outputs.columns["logit_b"] - outputs.columns["logit_a"]),
        "test_loss": 1.0,
    }
    found = estimate_sampling(outputs, measured)
    assert set(found.half_widths) == set(measured) - {"test_loss"}  # which is 1 for every row
    assert 0.02 < found.half_widths["auc"] < 0.12


def test_weights_of_rows_count_as_repetitions():
    random = np.random.default_rng(1)
    scores, label = random.integers(0, 6, 40).astype(float), random.integers(0, 2, 40)
    times = random.integers(0, 3, 40)
    repeated = np.repeat(np.arange(40), times)
    expected = sklearn_metrics.roc_auc_score(label[repeated], scores[repeated])
    assert _area(times[None].astype(float), scores, label == 1)[0] == pytest.approx(expected)
