"""Contradictions in a dataset of images are errors, whoever lists it."""

from __future__ import annotations

import pytest

from xbench import Dataset, Example
from xbench.errors import XbenchError


def dataset_of(*examples: Example, classes: tuple[str, ...] = ("a", "b")) -> Dataset:
    return Dataset(classes, "b", (3, 8, 8), examples, read=print)


def test_images_of_a_group_may_be_on_one_side_only():
    anna = [Example(f"anna {i}", i, "train", group="anna") for i in range(2)]
    assert len(dataset_of(*anna, Example("bert", 0, "test", group="bert")).examples) == 3
    with pytest.raises(XbenchError, match="group 'anna' is in both train and test"):
        dataset_of(*anna, Example("anna 3", 0, "test", group="anna"))


def test_images_without_a_group_may_be_on_both_sides():
    assert len(dataset_of(Example("1", 0, "train"), Example("2", 0, "test")).examples) == 2


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (Example("1", 2, "train"), "has label 2, not one of 0 to 1"),
        (Example("1", 0, "val"), "is in split 'val', not in train or test"),
        (Example("0", 0, "train"), "two examples are named '0'"),
    ],
)
def test_examples_that_contradict_the_dataset(example, message):
    with pytest.raises(XbenchError, match=message):
        dataset_of(Example("0", 0, "train"), example)


@pytest.mark.parametrize(
    ("classes", "message"), [(("a", "c"), "class 'b' is not one of a, c"), (("b",), "at least 2 classes")]
)
def test_classes_that_cannot_be_told_apart(classes, message):
    with pytest.raises(XbenchError, match=message):
        dataset_of(classes=classes)
