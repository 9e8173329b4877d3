"""Declarations of tasks are checked when they are made: a mistake is one line, not a failure in a run."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from xbench import Metric, Optimum, Output, Task, Term, XbenchError


def losses(*arguments):
    raise AssertionError("only declared")


def metric(**fields) -> Metric:
    return Metric(**{"name": "mae", "direction": "min", "value": losses, **fields})


def score(**fields) -> Metric:
    return Metric(name="auc", direction="max", function=losses, **fields)


@pytest.mark.parametrize(
    ("declare", "message", "hint"),
    [
        (
            lambda: Output("value", 1),
            "an output cannot be of kind 'value'. Did you mean 'values'?",
            "the kinds are 'classes', 'tokens', 'values'",
        ),
        (lambda: Output("classes", "3"), "kind 'classes' cannot have the size '3'", "a whole number"),
        (lambda: Output("classes", 2.5), "kind 'classes' cannot have the size 2.5", "a whole number"),
        (lambda: Output("classes", 0), "kind 'classes' cannot have the size 0", "a whole number"),
        (lambda: metric(name=3), "a metric cannot be named 3", "lower-case letters"),
        (lambda: metric(value="mae"), "metric 'mae': `value` is 'mae', not a function, or 'loss'", None),
        (lambda: metric(finish=2), "metric 'mae': `finish` is 2, not a function", None),
        (
            lambda: metric(on=("tset",)),
            "metric 'mae': `on` names no split 'tset'. Did you mean 'test'?",
            "the splits are 'train', 'validation', 'test'",
        ),
        (lambda: metric(on="test"), "`on` is 'test', not a tuple of splits", 'on=("test",)'),
        (lambda: metric(on=()), "`on` is (), not a tuple of splits", 'on=("test",)'),
        (lambda: score(finish=math.exp), "metric 'auc' has a `function`, to which `finish`", "leave it out"),
        (lambda: score(weighted=True), "metric 'auc' has a `function`, to which `weighted`", "leave it out"),
        (lambda: score(on=("test",)), "metric 'auc' has a `function`, to which `on`", "leave it out"),
        (
            lambda: Metric(name="auc", direction="max", function=3),
            "metric 'auc': `function` is 3, not a function, or its name",
            None,
        ),
        (lambda: Term(loss="mse"), "a term's `loss` is 'mse', not a function", None),
        (lambda: Term(loss=losses, weight=2.0), "a term's `weight` is 2.0, not a function", None),
        (lambda: Term(loss=losses, scale=math.nan), "a term's `scale` is nan", "a finite number"),
        (lambda: Term(loss=losses, scale="1"), "a term's `scale` is '1'", "a finite number"),
        (lambda: Optimum("x"), "an optimum's `value` is 'x'", "a finite number"),
        (lambda: Optimum(math.inf), "an optimum's `value` is inf", "a finite number"),
        (lambda: Optimum(0.0, "x"), "an optimum's `error` is 'x'", "not negative"),
        (lambda: Optimum(0.0, -1.0), "an optimum's `error` is -1.0", "not negative"),
        (lambda: Optimum(0.0, math.nan), "an optimum's `error` is nan", "not negative"),
        (
            lambda: Task(loss=losses, metrics=metric()),
            "a task's `metrics` is a Metric, not a tuple of metrics",
            "metrics=(metric,)",
        ),
        (lambda: Task(loss=losses, metrics=(losses,)), "has a function, not an xbench.Metric", "Metric(name"),
        (
            lambda: Task(loss={"a": losses}),
            "term 'a' of a task is a function, not an xbench.Term",
            "Term(loss",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(declare, message, hint):
    with pytest.raises(XbenchError, match=re.escape(message)) as caught:
        declare()
    assert "\n" not in caught.value.message
    assert hint is None or hint in caught.value.hint


def test_what_is_right_is_accepted():
    Output("values", np.int64(3))
    Optimum(np.float32(0.5), 1)
    Term(loss=losses, scale=np.float32(2.0), weight=losses)
    averages = metric(value="loss", finish=math.exp, weighted=True, on=("validation", "test"))
    Task(loss=losses, metrics=(averages, score()))
    Task(loss=losses, metrics=[Metric(name="r2", direction="max", function="math:fsum")])
