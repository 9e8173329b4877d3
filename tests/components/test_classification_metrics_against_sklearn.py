"""Metrics against scikit-learn's confusion matrix and explicit scores, and against counting pairs, on random
and degenerate cases."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from sklearn.metrics import confusion_matrix, roc_auc_score

from tests.components.classified import measure
from xbench.components.classification import classification
from xbench.components.classification_metrics import log_odds

often = settings(derandomize=True, max_examples=80, deadline=None)

# Few distinct values, so that ties are common; and logits so large that probabilities round to 0 or 1.
COARSE = st.integers(-3, 3).map(float)
FINE = st.floats(-30, 30, width=32)
EXTREME = st.sampled_from([-1e5, -200.0, -100.0, -88.0, -17.0, 0.0, 17.0, 88.0, 100.0, 200.0, 3e38])


@st.composite
def scored(draw, least=2, most=5):
    """Logits (n, classes) that float32 can hold, and labels. Some class may be absent from labels,
    predictions or both."""
    count, width = draw(st.integers(1, 30)), draw(st.integers(least, most))
    numbers = draw(st.sampled_from([COARSE, FINE, EXTREME]))
    rows = st.lists(numbers, min_size=width, max_size=width)
    logits = np.array(draw(st.lists(rows, min_size=count, max_size=count)), dtype=np.float32)
    labels = np.array(draw(st.lists(st.integers(0, width - 1), min_size=count, max_size=count)))
    return logits.astype(np.float64), labels


def share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def auc_by_pairs(scores, is_positive) -> float:
    """The share of pairs of a positive and a negative example that are in order; a tie counts half."""
    pairs = [(p, n) for p in scores[is_positive] for n in scores[~is_positive]]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


def odds_one_by_one(logits) -> np.ndarray:
    """Log odds of each class by their definition: the others in the order of their differences."""
    found = np.empty_like(logits)
    for row, label in np.ndindex(logits.shape):
        others = np.sort(np.delete(logits[row], label) - logits[row, label])
        found[row, label] = -logsumexp(others)
    return found


def same(found: float | None, expected: float | None) -> bool:
    return found is None if expected is None else found == pytest.approx(expected, rel=1e-12)


@often
@given(scored())
def test_counts_are_those_of_the_confusion_matrix(case):
    logits, labels = case
    width = logits.shape[1]
    predicted = np.array([max(range(width), key=lambda c: row[c]) for row in logits])  # first of ties
    matrix = confusion_matrix(labels, predicted, labels=range(width))
    hits, truths, predictions = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    recalls = [hits[c] / truths[c] for c in range(width) if truths[c]]
    found = measure(logits, labels)
    assert same(found["accuracy"], hits.sum() / matrix.sum())
    assert same(found["balanced_accuracy"], np.mean(recalls))
    if width == 2:
        assert same(found["recall"], share(hits[1], truths[1]))
        assert same(found["precision"], share(hits[1], predictions[1]))
    else:
        seen = [c for c in range(width) if truths[c] or predictions[c]]
        assert same(found["recall"], np.mean(recalls))
        assert same(found["precision"], np.mean([share(hits[c], predictions[c]) or 0.0 for c in seen]))


@often
@given(scored(most=2), st.integers(0, 1))
def test_auc_of_two_classes_is_that_of_the_difference_of_logits(case, positive):
    logits, labels = case
    differences = logits[:, positive] - logits[:, 1 - positive]
    is_positive = labels == positive
    found = measure(logits, labels, positive)["auc"]
    if is_positive.all() or not is_positive.any():
        assert found is None
    else:
        assert found == pytest.approx(auc_by_pairs(differences, is_positive), rel=1e-12)
        assert found == pytest.approx(roc_auc_score(is_positive, differences), rel=1e-12)


@often
@given(scored(most=2))
def test_auc_does_not_depend_on_which_class_is_positive(case):
    logits, labels = case
    assume(len(set(labels)) == 2)
    one, other = (measure(logits, labels, positive)["auc"] for positive in (0, 1))
    assert one == pytest.approx(other, rel=1e-12)


@often
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=40), st.data())
def test_auc_of_log_probabilities_is_that_of_probabilities(thousandths, data):
    """Certainty included: the logarithm of 0 is minus infinity."""
    scores = np.array(thousandths) / 1000
    labels = np.array(data.draw(st.lists(st.integers(0, 1), min_size=len(scores), max_size=len(scores))))
    assume(0 < labels.sum() < len(labels))
    with np.errstate(divide="ignore"):
        found = measure(np.log(np.stack([1 - scores, scores], axis=1)), labels)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores), rel=1e-12)


@often
@given(scored(least=3))
def test_auc_of_more_classes_is_the_mean_of_each_against_the_rest(case):
    logits, labels = case
    width = logits.shape[1]
    found = measure(logits, labels)["auc"]
    if len(set(labels)) < width:
        assert found is None
        return
    odds = log_odds(logits)
    each = [auc_by_pairs(odds[:, c], labels == c) for c in range(width)]
    assert found == pytest.approx(np.mean(each), rel=1e-12)
    assert found == pytest.approx(
        np.mean([roc_auc_score(labels == c, odds[:, c]) for c in range(width)]), rel=1e-12
    )


@often
@given(st.data())
def test_auc_of_moderate_logits_is_sklearns_of_probabilities(data):
    """Where probabilities lose nothing, one-against-rest of scikit-learn is the same."""
    width = data.draw(st.integers(3, 4))
    labels = np.array(data.draw(st.permutations([*range(width)] * 4)))
    logits = np.random.default_rng(data.draw(st.integers(0, 999))).normal(size=(len(labels), width))
    odds = np.exp(logits)
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    found = measure(logits, labels)["auc"]
    assert found == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"), rel=1e-12)


class TestLogOdds:
    @often
    @given(scored())
    def test_are_those_of_the_definition(self, case):
        logits, _ = case
        assert log_odds(logits) == pytest.approx(odds_one_by_one(logits), rel=1e-12, abs=1e-12)

    @often
    @given(scored(most=2))
    def test_of_two_classes_are_the_difference_to_the_last_bit(self, case):
        logits, _ = case
        difference = logits[:, 0] - logits[:, 1]
        assert np.array_equal(log_odds(logits), np.stack([difference, -difference], axis=1))

    @often
    @given(st.lists(COARSE, min_size=4, max_size=6), st.randoms(use_true_random=False), COARSE)
    def test_are_equal_where_they_must_be(self, row, random, shift):
        """Examples that differ by the order of the other classes, or by a constant."""
        others = row[1:]
        random.shuffle(others)
        logits = np.array([row, [row[0], *others], [value + shift for value in row]])
        assert len(set(log_odds(logits)[:, 0])) == 1

    def test_of_certain_classes_are_infinite(self):
        inf = math.inf
        found = log_odds(np.array([[inf, 0.0, 1.0], [-inf, 0.0, 0.0], [-inf, -inf, 5.0]]))
        assert found.tolist() == [[inf, -inf, -inf], [-inf, 0.0, 0.0], [-inf, -inf, inf]]

    def test_that_are_not_defined_are_nan(self):
        inf = math.inf
        found = log_odds(np.array([[inf, inf, 1.0], [-inf, -inf, -inf]]))
        assert np.isnan(found).tolist() == [[True, True, False], [True, True, True]]
        assert found[0, 2] == -inf


@pytest.mark.parametrize(("labels", "auc"), [([0, 0, 1, 1], 1.0), ([1, 0, 0, 1], 0.5), ([1, 1, 0, 0], 0.0)])
def test_infinite_logits_have_an_order(labels, auc):
    logits = np.array([[math.inf, 0.0], [1.0, 0.0], [0.0, 0.0], [-math.inf, 0.0]])
    assert measure(logits, np.array(labels), positive=0)["auc"] == auc


def test_infinite_logits_of_three_classes_have_an_order():
    logits = np.array([[math.inf, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, -math.inf]])
    assert measure(logits, np.array([2, 0, 1]))["auc"] == pytest.approx((1 / 2 + 1 + 1 / 4) / 3)


def test_an_order_that_infinite_logits_leave_open_gives_no_auc():
    logits = np.array([[math.inf, math.inf], [0.0, 1.0], [1.0, 0.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(logits, np.array([0, 1, 0]))
    assert found["auc"] is None
    assert found["accuracy"] == 1.0


@pytest.mark.parametrize("positive", [0, 1])
def test_a_confident_model_keeps_its_order(positive):
    """In float32 all these probabilities of the right class round to 1, and one example is worse than all."""
    logits = torch.tensor([[0.0, 20.0], [0.0, 30.0], [0.0, 40.0], [0.0, 18.0]])
    assert len(set(logits.softmax(dim=1)[:, 1].tolist())) == 1
    assert measure(logits, np.array([1, 1, 1, 0]), positive)["auc"] == 1.0
    assert measure(logits, np.array([0, 0, 0, 1]), positive)["auc"] == 0.0


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e6])
def test_a_scale_changes_no_auc_of_two_classes(scale):
    logits = np.random.default_rng(0).normal(size=(60, 2))
    labels = np.arange(60) % 2
    assert measure(scale * logits, labels)["auc"] == measure(logits, labels)["auc"]


def test_a_confident_model_of_three_classes_keeps_its_order():
    """Even in float64 the probabilities of class 0 of the first three round to 1."""
    logits = np.array([[900.0, 0.0, 0.0], [800.0, 0.0, 0.0], [60.0, 0.0, 0.0], [30.0, 0.0, 0.0]])
    # Of class 1 two of three pairs are in order, of the others all.
    assert measure(logits, np.array([0, 0, 1, 2]))["auc"] == pytest.approx((1 + 2 / 3 + 1) / 3)


@pytest.mark.parametrize(("label", "hit"), [(0, 1.0), (1, 0.0)])
def test_one_example_with_equal_scores_is_the_first_class(label, hit):
    found = measure([[0.5, 0.5]], np.array([label]))
    assert (found["accuracy"], found["balanced_accuracy"], found["auc"]) == (hit, hit, None)
    assert found["precision"] is None  # class 1 is never predicted
    assert found["recall"] == (0.0 if label else None)


def test_a_class_that_is_never_predicted_lowers_the_macro_precision():
    """Three balanced classes, all taken for the first."""
    logits = np.tile(np.array([[2.0, 0.1, 0.1]]), (6, 1))
    found = measure(logits, np.array([0, 0, 1, 1, 2, 2]))
    assert found["precision"] == pytest.approx(1 / 9)
    assert found["recall"] == found["balanced_accuracy"] == pytest.approx(1 / 3)


@often
@given(scored(), st.data())
def test_a_logit_that_is_nan_gives_none(case, data):
    logits, labels = case
    row = data.draw(st.integers(0, len(labels) - 1))
    broken = logits.copy()
    broken[row, data.draw(st.integers(0, logits.shape[1] - 1))] = np.nan
    found = measure(broken, labels)
    assert found == dict.fromkeys(("accuracy", "auc", "balanced_accuracy", "recall", "precision"))


@often
@given(scored())
def test_losses_are_those_of_the_log_odds(case):
    logits, labels = case
    task = classification(tuple("abcde"[: logits.shape[1]]))
    batch = (torch.empty(0), torch.from_numpy(labels))
    odds = np.take_along_axis(log_odds(logits), labels[:, None], axis=1)[:, 0]
    found = task.loss_of(torch.from_numpy(logits), batch)
    assert found.numpy() == pytest.approx(np.logaddexp(0.0, -odds), rel=1e-12, abs=1e-12)
    weights = torch.arange(1.0, logits.shape[1] + 1, dtype=torch.float64)
    summed = task.summed(torch.from_numpy(logits), batch, weights)
    assert summed.item() == pytest.approx((found * weights[batch[1]]).sum().item(), rel=1e-12)
