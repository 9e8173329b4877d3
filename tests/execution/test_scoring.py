"""Metrics and outputs of a cell, from the scores that its process sends."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.cell_samples import cell_of
from xbench.execution.scoring import compute_metrics, make_outputs
from xbench.records.metrics import CLASSIFICATION
from xbench.training.events import Scores

MEASURED = {"train_accuracy": 0.5, "test_accuracy": 0.75, "test_loss": 0.7, "train_loss": 0.6}


@pytest.fixture
def cell(tiny_data):
    return cell_of(tiny_data)


def scores_of(cell, values=None, **collected) -> Scores:
    """Scores of a model that tells the classes apart, unless `collected` says otherwise."""
    labels = cell.data.labels[cell.data.is_test]
    logits = np.stack([1.0 - labels, labels + 1e-3 * np.arange(len(labels))], axis=1)
    return Scores(
        values={**MEASURED, **(values or {})},
        losses=np.linspace(0, 1, len(labels)),
        collected={"label": labels, "logit": logits, **collected},
    )


def test_every_declared_metric_has_a_value_in_the_order_of_its_declaration(cell):
    found = compute_metrics(cell, scores_of(cell))
    assert list(found) == [metric.name for metric in CLASSIFICATION]
    assert (found["train_accuracy"], found["test_accuracy"], found["test_loss"]) == (0.5, 0.75, 0.7)
    assert found["auc"] == found["balanced_accuracy"] == found["recall"] == found["precision"] == 1.0


def test_the_positive_class_is_the_datasets(cell, tiny_data):
    nothing_is_bright = np.tile([1.0, 0.0], (int(tiny_data.is_test.sum()), 1))
    found = compute_metrics(cell, scores_of(cell, logit=nothing_is_bright))
    assert tiny_data.positive == "bright"
    assert (found["recall"], found["precision"], found["balanced_accuracy"]) == (0.0, None, 0.5)


def test_a_logit_that_is_nan_gives_none(cell):
    broken = scores_of(cell).collected["logit"]
    broken[3, 1] = math.nan
    found = compute_metrics(cell, scores_of(cell, {"test_accuracy": math.nan}, logit=broken))
    assert found == {
        "train_accuracy": 0.5,
        "test_loss": 0.7,
        "test_accuracy": None,
        "auc": None,
        "balanced_accuracy": None,
        "recall": None,
        "precision": None,
    }


def test_an_average_that_is_nan_is_none(cell):
    found = compute_metrics(cell, scores_of(cell, {"train_accuracy": math.nan}))
    assert found["train_accuracy"] is None
    assert found["test_accuracy"] == 0.75


def test_without_scores_no_metric_has_a_value(cell):
    assert compute_metrics(cell, None) == dict.fromkeys(metric.name for metric in CLASSIFICATION)


def test_outputs_are_of_the_test_rows(cell, tiny_data):
    scores = scores_of(cell)
    outputs = make_outputs(cell, scores)
    test = np.flatnonzero(tiny_data.is_test)
    assert outputs.names == [tiny_data.names[index] for index in test]
    assert outputs.groups == [tiny_data.groups[index] for index in test]
    assert outputs.losses.tolist() == scores.losses.tolist()
    assert list(outputs.columns) == ["label", "logit_dark", "logit_bright"]
    assert outputs.columns["logit_bright"].tolist() == scores.collected["logit"][:, 1].tolist()


def test_scores_of_other_examples_are_refused(cell):
    scores = scores_of(cell)
    fewer = Scores(scores.values, scores.losses[1:], {k: v[1:] for k, v in scores.collected.items()})
    others = scores_of(cell, label=1 - scores.collected["label"])
    for wrong in (fewer, others):
        with pytest.raises(RuntimeError, match="do not match the 30 test examples"):
            make_outputs(cell, wrong)


@pytest.mark.parametrize(
    ("collect", "names"),
    [
        (lambda n: np.ones((n, 1)), ["output"]),
        (lambda n: np.ones(n), ["output"]),
        (lambda n: np.ones((n, 3)), ["output_0", "output_1", "output_2"]),
        (
            lambda n: (np.ones((n, 1)), np.ones((n, 3))),
            ["output_0", "output_1_0", "output_1_1", "output_1_2"],
        ),
        (lambda n: {"loss": np.ones((n, 1)), "z": np.ones((n, 1, 1))}, ["output_loss"]),
    ],
)
def test_only_several_columns_have_numbers_in_their_names(cell, collect, names):
    count = int(cell.data.is_test.sum())
    outputs = make_outputs(cell, Scores({}, np.ones(count), collect(count)))
    assert list(outputs.columns) == names
    assert {column.shape for column in outputs.columns.values()} == {(count,)}
