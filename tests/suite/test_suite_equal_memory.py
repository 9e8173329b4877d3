"""`equal = "memory"`: what must be said beside it, and what contradicts it."""

from __future__ import annotations

import pytest

SGD = 'optimizer = "sgd"\n'
EQUAL = 'equal = "memory"\nmemory_limit = "600MB"\n'


def test_without_it_nothing_is_found(cells, head):
    (cell,) = cells(head + SGD)
    assert (cell.along, cell.along_path) == ("", ())


def test_every_optimizer_has_the_setting_of_the_experiment_or_its_own(cells, head):
    optimizers = 'optimizer = ["sgd", { name = "open", along = "history-size" }]\n'
    found = cells(head + EQUAL + 'along = "batch_size"\n' + optimizers)
    assert [(cell.column, cell.along, cell.along_path) for cell in found] == [
        ("sgd", "batch_size", ("experiment", 0, "along")),
        ("open", "history_size", ("experiment", 0, "optimizer", 1, "along")),
    ]
    assert all(cell.optimizer.params == {} for cell in found)  # not even an open factory is given it


def test_the_limit_may_be_that_of_the_suite(cells, head):
    text = head + 'equal = "memory"\nalong = "batch_size"\n' + SGD
    (cell,) = cells(text, "suite.memory_limit=1GB")
    assert cell.along == "batch_size"


@pytest.mark.parametrize(
    ("keys", "line", "problem"),
    [
        ('equal = "memory"\nalong = "batch_size"', 7, "needs a memory limit"),
        ('memory_limit = "1GB"\nequal = "memory"', 8, "needs 'along' for 'sgd'"),
        ('along = "batch_size"', 7, "'along' has no effect without equal = 'memory'"),
        ('equal = "time"', 7, "'equal' should be 'memory', not 'time'"),
        (EQUAL + 'along = "batch_size"\nbatch_size = 8', 10, "so it has no value of its own"),
        (EQUAL + 'along = "batch_size"\nadapt = ["micro_batch"]', 10, "'adapt' cannot be used"),
        (EQUAL + 'along = "batch_size"\nexpect = "oom"', 10, "'expect' cannot be used"),
        (EQUAL + 'along = "batch_size"\nmicro_batch = 4', 10, "takes no more memory in micro-batches"),
        (EQUAL + 'along = "batch_size"\nmicro_batch = "auto"', 10, "micro_batch = 'auto' cannot be used"),
        (EQUAL + 'along = "batch_size"\ntrain_size = "largest"', 10, "train_size = 'largest' cannot be used"),
        (
            EQUAL + 'along = "batch_size"\ntarget = { metric = "loss", value = 1, bytes = true }',
            10,
            "'bytes' cannot be used",
        ),
        ('equal = "memory"\nalong = "batch_size"\nmemory_limit = "480 bananas"', 9, "480 bananas"),
        (EQUAL + 'along = "train_size"\nbatch_size = 4', 10, "in batches of a fixed size"),
        (EQUAL + 'along = "train_size"\nbatch_size = "full"\nmicro_batch = 4', 11, "in micro-batches"),
    ],
)
def test_a_mistake_is_told_with_its_line(complaints, head, keys, line, problem):
    (complaint,) = complaints(head + keys + "\n" + SGD)
    assert complaint.startswith(f"my.toml:{line}: ")
    assert problem in complaint


def test_it_is_no_axis(complaints, head):
    found = complaints(head + EQUAL + 'along = ["batch_size"]\n' + SGD)
    assert any(complaint.startswith("my.toml:9: 'along' should be a valid string") for complaint in found)


def test_a_value_of_the_optimizer_is_told_with_its_line(complaints, head):
    (complaint,) = complaints(
        head + EQUAL + "[[experiment.optimizer]]\nname = 'open'\nalong = 'history_size'\nhistory_size = 4\n"
    )
    assert complaint.startswith("my.toml:12: 'history_size' is the setting whose largest value is found")


def test_an_optimizers_keys_are_told_at_its_lines(complaints, head):
    table = "[[experiment.optimizer]]\nname = 'sgd'\nalong = 'batch_size'\nadapt = ['micro_batch']\n"
    (complaint,) = complaints(head + EQUAL + table)
    assert complaint.startswith("my.toml:12: 'adapt' cannot be used")
    (complaint,) = complaints(head + "[[experiment.optimizer]]\nname = 'sgd'\nalong = 'batch_size'\n")
    assert complaint.startswith("my.toml:9: 'along' has no effect")


def test_batches_of_optimizers_with_another_setting_are_their_own(cells, head):
    optimizers = """
[[experiment.optimizer]]
name = "sgd"
[[experiment.optimizer]]
name = "open"
along = "history_size"
batch_size = "full"
micro_batch = 4
"""
    found = cells(head + EQUAL + 'along = "batch_size"\n' + optimizers)
    assert [(cell.training.batch_size, cell.training.micro_batch) for cell in found] == [
        (32, "full"),
        ("full", 4),
    ]
