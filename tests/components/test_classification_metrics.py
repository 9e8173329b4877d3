"""Metrics on cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.components.classified import measure


def metrics(scores, labels, positive=1):
    """Of a model whose outputs are the logarithms of these probabilities of class 1."""
    scores = np.array(scores)
    with np.errstate(divide="ignore"):
        logits = np.log(np.stack([1 - scores, scores], axis=1))
    return measure(logits, labels, positive)


def test_by_hand():
    result = metrics([0.9, 0.8, 0.3, 0.6, 0.1], [1, 1, 1, 0, 0])
    assert result["accuracy"] == pytest.approx(3 / 5)
    assert result["recall"] == pytest.approx(2 / 3)
    assert result["precision"] == pytest.approx(2 / 3)
    assert result["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert result["auc"] == pytest.approx(5 / 6)  # 5 of 6 pairs are in order


def test_the_positive_class_may_be_the_first():
    swapped = metrics([0.1, 0.2, 0.7, 0.4, 0.9], [0, 0, 0, 1, 1], positive=0)
    straight = metrics([0.9, 0.8, 0.3, 0.6, 0.1], [1, 1, 1, 0, 0])
    assert swapped == straight


def test_the_reports_auc_is_its_balanced_accuracy():
    """Table 2, Adam: recall 0.936 and precision 0.862 of 390 positives and 465 negatives give 0.905."""
    true_positives = round(0.936 * 390)
    false_positives = round(true_positives / 0.862) - true_positives
    labels = [1] * 390 + [0] * 465
    hits = [1.0] * true_positives + [0.0] * (390 - true_positives)
    scores = hits + [1.0] * false_positives + [0.0] * (465 - false_positives)
    result = metrics(scores, labels)
    assert result["balanced_accuracy"] == pytest.approx(0.905, abs=1e-3)
    assert result["auc"] == pytest.approx(result["balanced_accuracy"])


def test_constant_scores_and_no_positive_prediction():
    result = metrics([0.2, 0.2, 0.2], [1, 0, 0])
    assert result["auc"] == pytest.approx(0.5)
    assert result["recall"] == 0.0
    assert result["precision"] is None


def test_an_absent_class_leaves_what_it_would_define_undefined():
    result = metrics([0.9, 0.2], [0, 0])
    assert result["auc"] is None
    assert result["recall"] is None
    assert result["precision"] == 0.0
    assert result["balanced_accuracy"] == pytest.approx(0.5)


def test_three_classes_are_averaged():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.1, 0.1, 0.8]])
    result = measure(np.log(probabilities), [0, 1, 2, 2], positive=0)
    assert result["accuracy"] == pytest.approx(3 / 4)
    assert result["recall"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert result["precision"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert result["auc"] == pytest.approx(1.0)
