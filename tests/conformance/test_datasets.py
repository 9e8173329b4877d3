"""Each check of datasets finds the dataset that breaks its rule."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import pytest
import torch

from tests.conftest import bright_and_dark
from xbench import DataNotFound, DatasetSpec, Output, RowDataset, Scale, Task, register_dataset
from xbench.components.code_files import ImportDirs
from xbench.components.registered import pack
from xbench.conformance import datasets
from xbench.conformance.checks import Inapplicable
from xbench.conformance.common import Subject
from xbench.conformance.datasets import CheckedDataset

_calls = itertools.count()


def losses(outputs, batch):
    return (outputs - batch[1]).square().squeeze(1)


def build(rows=20, copies=0):
    inputs = torch.linspace(-1, 1, rows)[:, None]
    train, test = (inputs[5:], inputs[5:] ** 2), (inputs[:5], inputs[:5] ** 2)
    if copies:
        test = tuple(torch.cat([a[copies:], b[:copies]]) for a, b in zip(test, train, strict=True))
    return RowDataset(train=train, test=test, task=Task(loss_of=losses, output=Output("values", 1)))


def build_changing():
    made = build()
    return dataclasses.replace(made, train=(made.train[0] + next(_calls), made.train[1]))


def build_hashed():
    """Order rows as a set of strings, which differs between processes."""
    order = [int(name) for name in {str(number) for number in range(100)}]
    numbers = torch.tensor(order, dtype=torch.float32)[:, None]
    return RowDataset(train=(numbers, numbers), task=Task(loss_of=losses, output=Output("values", 1)))


def build_averaged():
    def average(outputs, batch):
        return losses(outputs, batch).mean().expand(len(outputs))

    made = build()
    return dataclasses.replace(made, task=Task(loss_of=average, output=Output("values", 1)))


def build_images():
    return bright_and_dark(12, 6)


def build_unreadable():
    made = build_images()
    examples = tuple(dataclasses.replace(e, content=f"{e.content} again") for e in made.examples)

    def read(example):
        if example.name.endswith("003"):
            raise ValueError("broken file")
        return made.read(example)

    return dataclasses.replace(made, examples=examples, read=read)


def build_ungrouped():
    made = build_images()
    examples = tuple(dataclasses.replace(example, group="") for example in made.examples)
    return dataclasses.replace(made, examples=examples)


def build_absent():
    raise DataNotFound("no such folder")


@pytest.fixture
def verdict(tmp_path):
    """Return a function that checks a dataset: `verdict(check, factory, settings, **fields)`."""

    def check(name, factory, settings=None, **fields):
        spec = DatasetSpec(factory=factory, **fields)
        register_dataset("tried", spec)
        dirs = ImportDirs(packed=pack([("dataset", "tried")], tmp_path))
        tried = CheckedDataset(spec, Subject("dataset", "tried", settings or {}, dirs), tmp_path)
        return getattr(datasets, f"check_{name}")(tried)

    return check


def test_rows_that_are_the_same_at_each_call_pass(verdict):
    found = verdict("rows", build)
    assert (found.outcome, found.values) == ("pass", {"train": 15, "test": 5})
    assert verdict("rows", build_images).values["train/bright"] == 4


def test_rows_that_change_fail(verdict):
    assert verdict("rows", build_changing).outcome == "fail"


def test_the_fingerprint_is_that_of_another_process(verdict):
    assert verdict("fingerprint", build).outcome == "pass"
    assert verdict("fingerprint", build_hashed).outcome == "fail"


def test_copies_of_training_rows_are_a_fact(verdict):
    assert verdict("splits", build).outcome == "pass"
    found = verdict("splits", build, {"copies": 2})
    assert (found.outcome, found.values) == ("fact", {"copies": 2})


def test_groups_of_images_are_counted(verdict):
    assert verdict("splits", build_images).values == {"groups": 9}
    assert verdict("splits", build_ungrouped).outcome == "fact"


def test_images_must_be_readable(verdict, monkeypatch):
    monkeypatch.setenv("XBENCH_CACHE_DIR", "/nowhere")
    assert "18 of 18 images are readable" in verdict("images", build_images).text
    found = verdict("images", build_unreadable)
    assert found.outcome == "fail"
    assert "broken file" in found.text
    with pytest.raises(Inapplicable):
        verdict("images", build)


def test_a_task_is_tried(verdict):
    assert "with the model 'mlp'" in verdict("task", build).text
    found = verdict("task", build_averaged)
    assert found.outcome == "fail"
    assert "is not additive" in found.text


def test_only_some_of_many_rows_are_compared(verdict):
    assert "compared" not in verdict("rows", build).text
    found = verdict("rows", functools.partial(build, 1001))
    assert found.text == "returns the same at each call (1,000 rows compared): 996 train, 5 test"


def test_a_larger_value_of_a_setting_stays_below_the_highest(verdict):
    found = verdict("scales", build, scalable={"rows": Scale(highest=30, multiple=4)})
    assert found.text == "rows = 28: 20 rows of 8 B -> 28 rows of 8 B"
    found = verdict("scales", build, scalable={"rows": Scale(highest=20)})
    assert (found.outcome, found.text) == ("not applicable", "rows = 20 is its highest value")


def test_scalable_settings_are_doubled(verdict):
    found = verdict("scales", build, scalable={"rows": Scale()})
    assert (found.outcome, found.text) == ("pass", "rows = 40: 20 rows of 8 B -> 40 rows of 8 B")
    assert "neither" in verdict("scales", build, scalable={"copies": Scale()}).text
    assert verdict("scales", build, scalable={"lines": Scale()}).outcome == "fail"
    assert verdict("scales", build_images, scalable={"train": Scale()}).outcome == "fail"


@pytest.mark.parametrize("name", ["rows", "fingerprint", "splits", "images", "task"])
def test_data_that_is_not_here_is_not_checked(verdict, name):
    with pytest.raises(Inapplicable, match="not on this machine: no such folder"):
        verdict(name, build_absent)
