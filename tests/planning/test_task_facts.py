"""What tasks declare."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from xbench import Metric, Task, Term
from xbench.components.classification import classification
from xbench.planning.task_facts import describe_task, merge_metrics
from xbench.records.metrics import CLASSIFICATION, CLASSIFICATION_EPOCHS
from xbench.records.schema import MetricRecord


def _drop_units(metrics: Sequence[MetricRecord]) -> tuple[MetricRecord, ...]:
    return tuple(metric.model_copy(update={"unit": ""}) for metric in metrics)


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c")])
def test_a_classification_declares_what_records_of_version_1_imply(classes):
    """But for the unit of the loss, which they lack, and the method of the train accuracy."""
    facts = describe_task(classification(classes))
    assert _drop_units(facts.epoch_metrics) == CLASSIFICATION_EPOCHS
    old = {metric.name: metric for metric in CLASSIFICATION}
    assert [metric.name for metric in facts.metrics] == list(old)
    for metric in _drop_units(facts.metrics):
        if metric.name == "train_accuracy":  # its method named the training examples
            metric = metric.model_copy(update={"method": old[metric.name].method})
        assert metric == old[metric.name]


@pytest.mark.parametrize(
    ("title", "has_test", "shown"),
    [
        ("", True, "test r2"),
        ("", False, "train r2"),
        ("R2", True, "R2"),
        ("R2", False, "R2 (training rows)"),
    ],
)
def test_the_title_of_a_function_says_its_split_as_that_of_an_average_does(title, has_test, shown):
    metric = Metric(name="r2", direction="max", title=title, function=float)
    declared = describe_task(Task(loss_of=float, metrics=(metric,)), has_test=has_test).metrics
    assert (declared[0].name, declared[0].title) == ("r2", shown)


def test_the_positive_class_is_a_fact_if_there_are_two():
    assert describe_task(classification(("a", "b"), "a")).shown == {"positive": "a"}
    assert describe_task(classification(("a", "b"))).shown == {"positive": "b"}
    assert describe_task(classification(("a", "b", "c"))).shown == {}


def name_metrics(metrics: Sequence[MetricRecord]) -> list[tuple[str, str, str]]:
    return [(metric.name, metric.title, metric.split) for metric in metrics]


def test_terms_declare_their_metrics_after_the_loss_on_the_splits_that_have_their_rows():
    error = Metric(name="max_error", direction="min", value=len, unit="K")
    terms = {"pde": Term(loss=len), "outer_edge": Term(loss=len, scale=10.0, metrics=(error,))}
    task = Task(loss=terms, metrics=(Metric(name="a", direction="max", function=len),), loss_unit="J")
    facts = describe_task(task, terms={"train": {*terms}, "validation": {"pde"}, "test": {"pde"}})
    assert name_metrics(facts.metrics) == [
        ("a", "test a", "test"),
        ("test_loss", "test loss", "test"),
        ("train_pde_loss", "train pde loss", "train"),
        ("test_pde_loss", "test pde loss", "test"),
        ("train_outer_edge_max_error", "train outer edge max error", "train"),
        ("train_outer_edge_loss", "train outer edge loss", "train"),
    ]
    loss = facts.metrics[-1]
    assert (loss.unit, loss.direction) == ("J", "min")
    assert loss.method == "mean loss of the rows of the term 'outer_edge', before its scale of 10"
    assert facts.metrics[-2].unit == "K"
    assert name_metrics(facts.epoch_metrics)[1:3] == [
        ("validation_loss", "validation loss", "validation"),
        ("validation_pde_loss", "validation pde loss", "validation"),
    ]


def test_metrics_of_several_tasks_keep_their_order_and_the_first_of_a_name():
    def declare(*names: str, method: str) -> list[MetricRecord]:
        return [
            MetricRecord(name=name, title=name, direction="min", split="test", method=method)
            for name in names
        ]

    merged = merge_metrics([declare("a", "loss", method="first"), declare("b", "loss", method="second")])
    assert [(metric.name, metric.method) for metric in merged] == [
        ("a", "first"),
        ("loss", "first"),
        ("b", "second"),
    ]
    same = declare("a", "b", method="")
    assert merge_metrics([same, same]) == tuple(same)
