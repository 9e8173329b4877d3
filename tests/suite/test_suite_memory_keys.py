"""Keys about memory: what may give way, what is meant to fail, limits, storage, sizes in words."""

from __future__ import annotations

import pytest

from xbench.suite.overrides import SuiteOption
from xbench.units import Limit, parse_limit

SGD = 'optimizer = "sgd"\n'


def test_without_any_of_them(cells, head):
    (cell,) = cells(head + SGD)
    assert (cell.adapt, cell.expect, cell.memory_limits, cell.dataset.storage) == ((), None, (), "uint8")
    assert (cell.training.train_size, cell.training.micro_batch) == ("all", "full")


class TestAdapt:
    @pytest.mark.parametrize(
        "order",
        [
            ["micro_batch", "history_size", "train_size"],
            ["train_size", "micro_batch"],
            ["history_size"],
        ],
    )
    def test_the_order_is_kept(self, cells, head, order):
        (cell,) = cells(head + f"adapt = {order}\n" + SGD)
        assert cell.adapt == tuple(order)

    def test_an_empty_list_is_nothing(self, cells, head):
        (cell,) = cells(head + "adapt = []\n" + SGD)
        assert cell.adapt == ()

    def test_it_is_no_axis(self, cells, head):
        assert len(cells(head + 'adapt = ["micro_batch", "train_size"]\n' + SGD)) == 1

    def test_an_optimizers_own_replaces_the_experiments(self, cells, head):
        found = cells(
            head
            + """adapt = ["train_size", "micro_batch"]
optimizer = [
  "sgd",
  { name = "adam", adapt = ["micro_batch"] },
  { name = "open", adapt = [] },
]
"""
        )
        assert {cell.column: cell.adapt for cell in found} == {
            "sgd": ("train_size", "micro_batch"),
            "adam": ("micro_batch",),
            "open": (),
        }
        assert all(cell.optimizer.params == {} for cell in found)  # not even an open factory is given it

    @pytest.mark.parametrize("value", ['["batch_size"]', '["micro-batch"]', '["train_size", "lr"]', "[1]"])
    def test_an_unknown_word_is_told_with_its_line(self, complaints, head, value):
        (complaint,) = complaints(head + f"adapt = {value}\n" + SGD)
        assert complaint.startswith(
            "my.toml:7: 'adapt' should be 'micro_batch', 'history_size' or 'train_size'"
        )

    def test_a_word_without_its_list_is_told(self, complaints, head):
        (complaint,) = complaints(head + 'adapt = "micro_batch"\n' + SGD)
        assert complaint == "my.toml:7: 'adapt' should be a valid list, not 'micro_batch'"

    @pytest.mark.parametrize("where", ["experiment", "optimizer"])
    def test_the_same_twice_is_told_with_its_line(self, complaints, head, where):
        twice = 'adapt = ["train_size", "micro_batch", "train_size"]\n'
        text = head + (
            twice + SGD if where == "experiment" else "[[experiment.optimizer]]\nname='sgd'\n" + twice
        )
        (complaint,) = complaints(text)
        line = 7 if where == "experiment" else 9
        assert complaint.startswith(f"my.toml:{line}: ")
        assert "'adapt' lists a setting twice" in complaint

    def test_an_override(self, cells, head):
        (cell,) = cells(head + SGD, 'adapt=["micro_batch"]', "sgd.adapt=[]")
        assert cell.adapt == ()


class TestExpect:
    def test_of_an_experiment_and_of_an_optimizer(self, cells, head):
        optimizers = 'optimizer = ["sgd", { name = "adam", expect = "oom" }]\n'
        assert [cell.expect for cell in cells(head + optimizers)] == [None, "oom"]
        assert [cell.expect for cell in cells(head + 'expect = "oom"\n' + optimizers)] == ["oom", "oom"]

    @pytest.mark.parametrize("value", ['"done"', '"OOM"', '"error"', "true", '["oom"]'])
    def test_other_words_are_told_with_their_line(self, complaints, head, value):
        (complaint,) = complaints(head + f"expect = {value}\n" + SGD)
        assert complaint.startswith("my.toml:7: 'expect' should be 'oom', not ")

    def test_other_words_of_an_optimizer(self, complaints, head):
        (complaint,) = complaints(head + '[[experiment.optimizer]]\nname = "sgd"\nexpect = "fine"\n')
        assert complaint == "my.toml:9: 'expect' should be 'oom', not 'fine'"


class TestMemoryLimit:
    @pytest.mark.parametrize("limit", ["12GB", "1.5 GiB", "500MB", "1000000000B", "50%", "33.3 %"])
    def test_a_size_or_a_share(self, cells, head, limit):
        (cell,) = cells(head + f'memory_limit = "{limit}"\n' + SGD)
        assert cell.memory_limits == (parse_limit(limit),)

    @pytest.mark.parametrize("limit", ["lots", "12", "-1GB", "0%", "101%", ""])
    def test_bad_text_is_told_with_its_line(self, complaints, head, limit):
        (complaint,) = complaints(head + f'memory_limit = "{limit}"\n' + SGD)
        assert complaint.startswith(f"my.toml:7: '{limit}' is not a size or share: write 12GB")

    def test_a_number_is_no_size(self, complaints, head):
        (complaint,) = complaints(head + "memory_limit = 12\n" + SGD)
        assert complaint.startswith("my.toml:7: '12' is not a size or share: write 12GB")

    def test_of_the_suite(self, read, complaints):
        text = '[suite]\nname = "s"\nmemory_limit = {}\n[[experiment]]\nname = "e"\nmodel = "net"\n'
        text += 'dataset = "pictures"\n' + SGD
        assert read(text.format('"50%"')).header.memory_limit == Limit(percent=50)
        (complaint,) = complaints(text.format('"much"'))
        assert complaint.startswith("my.toml:3: 'much' is not a size or share")

    def test_of_the_command_line(self, read, complaints, head):
        option = SuiteOption("memory-limit", "2GB")
        suite = read(head + SGD, option)
        assert suite.header.memory_limit == Limit(size_bytes=2 * 10**9)
        assert suite.changes == ("--memory-limit 2GB",)
        (complaint,) = complaints(head + SGD, SuiteOption("memory-limit", "lots"))
        assert complaint.startswith("--memory-limit lots: 'lots' is not a size or share")


class TestStorage:
    @pytest.mark.parametrize("storage", ["uint8", "float32"])
    def test_a_dataset_says_it(self, cells, head, storage):
        (cell,) = cells(head + SGD, f"dataset.storage={storage}")
        assert cell.dataset.storage == storage
        assert cell.dataset.chosen.params == {}

    def test_datasets_that_differ_in_it_alone(self, cells, head):
        table = '{ name = "pictures", storage = "float32" }'
        (cell,) = cells(head.replace('"pictures"', table) + SGD)
        assert cell.dataset.storage == "float32"

    @pytest.mark.parametrize("storage", ['"float64"', "32", '["uint8", "float32"]'])
    def test_a_bad_word_is_told_with_its_line(self, complaints, head, storage):
        table = f'{{ name = "pictures", storage = {storage} }}'
        (complaint,) = complaints(head.replace('"pictures"', table) + SGD)
        assert complaint.startswith("my.toml:6: 'storage' should be 'uint8' or 'float32', not ")


class TestSizesInWords:
    def test_values(self, cells, head):
        (cell,) = cells(head + 'train_size = "largest"\nmicro_batch = "auto"\nbatch_size = "full"\n' + SGD)
        training = cell.training
        assert (training.train_size, training.micro_batch, training.batch_size) == ("largest", "auto", "full")
        assert cell.column == "sgd"

    def test_axes(self, cells, head):
        found = cells(head + 'train_size = [40, "largest"]\nmicro_batch = ["auto", "full", 4]\n' + SGD)
        assert [(cell.training.train_size, cell.training.micro_batch) for cell in found] == [
            (size, part) for size in (40, "largest") for part in ("auto", "full", 4)
        ]
        assert found[3].column == "sgd train_size=largest micro_batch=auto"

    def test_an_optimizers_own(self, cells, head):
        found = cells(head + 'optimizer = ["sgd", { name = "adam", micro_batch = "auto" }]\n')
        assert [cell.training.micro_batch for cell in found] == ["full", "auto"]

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ('train_size = "auto"', "'all' or 'largest'"),
            ('micro_batch = "largest"', "'full' or 'auto'"),
            ('batch_size = "auto"', "'full'"),
            ("train_size = 0", "'all' or 'largest'"),
        ],
    )
    def test_words_of_another_setting_are_told_with_their_line(self, complaints, head, line, words):
        (complaint,) = complaints(head + line + "\n" + SGD)
        assert complaint.startswith(f"my.toml:7: '{line.split()[0]}' should be ")
        assert words in complaint
