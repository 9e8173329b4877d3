"""Metrics against scikit-learn's confusion matrix and explicit scores, and against counting pairs, on random
and degenerate cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, roc_auc_score

from xbench.training.evaluation import Evaluation
from xbench.training.metrics import classification_metrics

often = settings(derandomize=True, max_examples=80, deadline=None)

# Few distinct values, so that ties are common; and logits so large that probabilities are 0, 1 or subnormal.
COARSE = st.integers(-3, 3).map(float)
FINE = st.floats(-30, 30, width=32)
EXTREME = st.sampled_from([-200.0, -100.0, -88.0, -17.0, 0.0, 17.0, 88.0, 100.0, 200.0])


@st.composite
def scored(draw, least=2, most=5):
    """Logits (n, classes) in float32, softmax probabilities of them, and labels: some class may be absent
    from labels, predictions or both."""
    count, width = draw(st.integers(1, 30)), draw(st.integers(least, most))
    numbers = draw(st.sampled_from([COARSE, FINE, EXTREME]))
    rows = st.lists(numbers, min_size=width, max_size=width)
    logits = np.array(draw(st.lists(rows, min_size=count, max_size=count)), dtype=np.float32)
    labels = np.array(draw(st.lists(st.integers(0, width - 1), min_size=count, max_size=count)))
    return logits, torch.from_numpy(logits).softmax(dim=1).numpy(), labels


def measured(probabilities, labels, positive=1):
    return classification_metrics(probabilities, labels, positive, 0.5, 0.7)


def share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def auc_by_pairs(scores, is_positive) -> float:
    """The share of pairs of a positive and a negative example that are in order; a tie counts half."""
    differences = scores[is_positive][:, None] - scores[~is_positive][None, :]
    return float(((differences > 0) + 0.5 * (differences == 0)).mean())


def same(found: float | None, expected: float | None) -> bool:
    return found is None if expected is None else found == pytest.approx(expected, rel=1e-12)


@often
@given(scored())
def test_counts_are_those_of_the_confusion_matrix(case):
    _, probabilities, labels = case
    width = probabilities.shape[1]
    predicted = np.array([max(range(width), key=lambda c: row[c]) for row in probabilities])  # first of ties
    matrix = confusion_matrix(labels, predicted, labels=range(width))
    hits, truths, predictions = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    recalls = [hits[c] / truths[c] for c in range(width) if truths[c]]
    found = measured(probabilities, labels)
    assert same(found.test_accuracy, hits.sum() / matrix.sum())
    assert same(found.balanced_accuracy, np.mean(recalls))
    if width == 2:
        assert same(found.recall, share(hits[1], truths[1]))
        assert same(found.precision, share(hits[1], predictions[1]))
    else:
        seen = [c for c in range(width) if truths[c] or predictions[c]]
        assert same(found.recall, np.mean(recalls))
        assert same(found.precision, np.mean([share(hits[c], predictions[c]) or 0.0 for c in seen]))


@often
@given(scored(most=2), st.integers(0, 1))
def test_auc_of_two_classes_is_that_of_the_logits(case, positive):
    """Far from where probabilities round to 0 or 1, and beyond."""
    logits, probabilities, labels = case
    margins = logits[:, positive].astype(np.float64) - logits[:, 1 - positive]
    # Where the smaller probability has no digits left, or not enough of them, margins tell more than it does.
    gaps = np.diff(np.unique(margins))
    assume((abs(margins) < 80).all() and (gaps > 1e-5).all())
    is_positive = labels == positive
    found = measured(probabilities, labels, positive).auc
    if is_positive.all() or not is_positive.any():
        assert found is None
    else:
        assert found == pytest.approx(auc_by_pairs(margins, is_positive), rel=1e-12)
        assert found == pytest.approx(roc_auc_score(is_positive, margins), rel=1e-12)


@often
@given(scored(most=2))
def test_auc_does_not_depend_on_which_class_is_positive(case):
    _, probabilities, labels = case
    assume(len(set(labels)) == 2)
    one, other = (measured(probabilities, labels, positive).auc for positive in (0, 1))
    assert one == pytest.approx(other, rel=1e-12)


@often
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=40), st.data())
def test_auc_of_unrounded_probabilities_is_sklearns(thousandths, data):
    scores = np.array(thousandths) / 1000
    labels = np.array(data.draw(st.lists(st.integers(0, 1), min_size=len(scores), max_size=len(scores))))
    assume(0 < labels.sum() < len(labels))
    found = measured(np.stack([1 - scores, scores], axis=1), labels)
    assert found.auc == pytest.approx(roc_auc_score(labels, scores), rel=1e-12)


@often
@given(scored(least=3))
def test_auc_of_more_classes_is_the_mean_of_one_against_rest(case):
    _, probabilities, labels = case
    width = probabilities.shape[1]
    found = measured(probabilities, labels).auc
    if len(set(labels)) < width:
        assert found is None
        return
    scores = probabilities.astype(np.float64)
    scores = scores / scores.sum(axis=1, keepdims=True)
    each = [auc_by_pairs(scores[:, c], labels == c) for c in range(width)]
    assert found == pytest.approx(np.mean(each), rel=1e-12)
    assert found == pytest.approx(roc_auc_score(labels, scores, multi_class="ovr"), rel=1e-12)


@pytest.mark.parametrize("positive", [0, 1])
def test_a_confident_model_keeps_its_order(positive):
    """All these probabilities of the right class round to 1, and one example is worse than all others."""
    logits = torch.tensor([[0.0, 20.0], [0.0, 30.0], [0.0, 40.0], [0.0, 18.0]])
    probabilities = logits.softmax(dim=1).numpy()
    assert len(set(probabilities[:, 1])) == 1
    assert measured(probabilities, np.array([1, 1, 1, 0]), positive).auc == 1.0
    assert measured(probabilities, np.array([0, 0, 0, 1]), positive).auc == 0.0


def test_subnormal_probabilities_keep_their_order():
    logits = torch.tensor([[100.0, 0.0], [101.0, 0.0], [102.0, 0.0]])
    probabilities = logits.softmax(dim=1).numpy()
    assert 0 < probabilities[2, 1] < probabilities[0, 1] < np.finfo(np.float32).tiny
    assert measured(probabilities, np.array([1, 0, 0])).auc == 1.0


@pytest.mark.parametrize(("label", "hit"), [(0, 1.0), (1, 0.0)])
def test_one_example_with_equal_scores_is_the_first_class(label, hit):
    found = measured(np.array([[0.5, 0.5]], dtype=np.float32), np.array([label]))
    assert (found.test_accuracy, found.balanced_accuracy, found.auc) == (hit, hit, None)
    assert found.precision is None  # class 1 is never predicted
    assert found.recall == (0.0 if label else None)


def test_a_class_that_is_never_predicted_lowers_the_macro_precision():
    """Three balanced classes, all taken for the first."""
    probabilities = np.tile(np.array([[0.8, 0.1, 0.1]]), (6, 1))
    found = measured(probabilities, np.array([0, 0, 1, 1, 2, 2]))
    assert found.precision == pytest.approx(1 / 9)
    assert found.recall == found.balanced_accuracy == pytest.approx(1 / 3)


@often
@given(scored(), st.data())
def test_a_score_that_is_no_number_gives_none(case, data):
    _, probabilities, labels = case
    row = data.draw(st.integers(0, len(labels) - 1))
    broken = probabilities.copy()
    broken[row, data.draw(st.integers(0, probabilities.shape[1] - 1))] = np.nan
    found = measured(broken, labels)
    assert (found.train_accuracy, found.test_loss) == (0.5, 0.7)
    assert found.model_dump(exclude={"train_accuracy", "test_loss"}) == {
        "test_accuracy": None,
        "auc": None,
        "balanced_accuracy": None,
        "recall": None,
        "precision": None,
    }
    assert math.isnan(Evaluation(0.7, broken, labels).accuracy)


def test_an_accuracy_that_is_no_number_is_none():
    found = classification_metrics(np.array([[0.2, 0.8]]), np.array([1]), 1, math.nan, 0.7)
    assert found.train_accuracy is None
    assert found.test_accuracy == 1.0


@often
@given(scored())
def test_accuracy_of_an_evaluation_is_that_of_the_metrics(case):
    _, probabilities, labels = case
    assert Evaluation(0.7, probabilities, labels).accuracy == measured(probabilities, labels).test_accuracy
