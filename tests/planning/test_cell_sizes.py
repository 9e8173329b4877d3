"""A cell's sizes: as asked for, as they will run, and why they differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xbench.capacity.axes import Axis, with_size
from xbench.components.classification import classification
from xbench.planning.datasets import DatasetFacts
from xbench.planning.describe import ModelFacts
from xbench.planning.machine import Machine
from xbench.planning.planned import MemoryPlan, PlannedCell
from xbench.planning.resolution import ResolvedData
from xbench.planning.task_facts import describe_task
from xbench.suite.cells import Cell, DatasetChoice
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.units import Limit

AVAILABLE = 90
VERSIONS = {"xbench": "1", "torch": "2", "torchvision": "1", "numpy": "2"}
MACHINE = Machine("cpu", {"type": "cpu", "name": "a processor"}, 2, VERSIONS, {}, ())


@pytest.fixture
def cell_of(tiny_data):
    def cell(cell_fields=None, history_size=None, **training):
        params = {} if history_size is None else {"history_size": history_size}
        data = Choice("bright-and-dark", {})
        declared = Cell(
            experiment="exp",
            column="opt",
            model=Choice("net", {}),
            dataset=DatasetChoice(data, None, False),
            optimizer=Choice("opt", params),
            training=TrainingSettings(**training),
            seed=0,
            path=("experiment", 0, "optimizer", 0),
            **(cell_fields or {}),
        )
        task = describe_task(classification(tiny_data.classes, tiny_data.positive))
        facts = DatasetFacts(tiny_data.facts, task, {}, True, "")
        return PlannedCell(
            declared=declared,
            settings=CellSettings(declared.model, declared.optimizer, declared.training, 0, "cpu"),
            resolved=ResolvedData("bright-and-dark", data, False, facts, ""),
            data=tiny_data,
            model=ModelFacts(None, ""),
            available=AVAILABLE,
            default_history=None,
            machine=MACHINE,
            memory=MemoryPlan(10**9),
            import_dirs=(),
        )

    return cell


def words(cell: PlannedCell) -> tuple:
    training = cell.settings.training
    return training.train_size, training.batch_size, training.micro_batch


class TestSizes:
    def test_words_become_numbers(self, cell_of):
        cell = cell_of(train_size="all", batch_size="full", micro_batch="full", history_size=7)
        assert cell.sizes == {"train_size": 90, "history_size": 7, "batch_size": 90, "micro_batch": 90}
        assert words(cell) == ("all", "full", "full")

    def test_none_is_larger_than_what_holds_it(self, cell_of):
        cell = cell_of(train_size=20, batch_size=64, micro_batch=32)
        assert cell.sizes == {"train_size": 20, "history_size": None, "batch_size": 20, "micro_batch": 20}

    def test_what_is_asked_for_stays_as_it_was_written(self, cell_of):
        cell = cell_of(train_size="largest", batch_size="full", micro_batch="auto", history_size=7)
        asked = {"train_size": "largest", "history_size": 7, "batch_size": "full", "micro_batch": "auto"}
        assert cell.requested_sizes == asked
        fitted = cell.with_sizes(with_size(cell.sized, Axis.HISTORY_SIZE, 2), "why")
        assert fitted.requested_sizes == asked


class TestDefaultHistory:
    """An optimizer's own, where a suite sets none."""

    def test_is_its_size(self, cell_of):
        cell = replace(cell_of(), default_history=100)
        assert cell.sizes["history_size"] == 100
        assert cell.requested_sizes["history_size"] is None

    def test_stays_unwritten_until_it_changes(self, cell_of):
        cell = replace(cell_of(), default_history=100)
        assert cell.with_sizes(cell.sized, "why").settings.optimizer.params == {}
        smaller = cell.with_sizes(with_size(cell.sized, Axis.HISTORY_SIZE, 7), "adapted")
        assert smaller.settings.optimizer.params == {"history_size": 7}
        assert smaller.fit.reasons == {"history_size": "adapted"}


class TestWithSettings:
    def test_the_same_sizes_in_numbers_change_no_word(self, cell_of):
        cell = cell_of(train_size="all", batch_size="full", micro_batch="full")
        same = cell.with_sizes(cell.sized, "why")
        assert words(same) == ("all", "full", "full")
        assert same.fit.reasons == {}
        assert same.key == cell.key

    def test_only_what_changed_becomes_a_number(self, cell_of):
        cell = cell_of(train_size="all", batch_size="full", micro_batch="full")
        smaller = cell.with_sizes(with_size(cell.sized, Axis.MICRO_BATCH, 16), "adapted")
        assert words(smaller) == ("all", "full", 16)
        assert smaller.fit.reasons == {"micro_batch": "adapted"}
        assert smaller.sizes == {**cell.sizes, "micro_batch": 16}

    def test_a_full_batch_follows_the_training_set(self, cell_of):
        cell = cell_of(train_size="all", batch_size="full", micro_batch="full")
        smaller = cell.with_sizes(with_size(cell.sized, Axis.TRAIN_SIZE, 50), "adapted")
        assert words(smaller) == (50, "full", "full")
        assert smaller.sizes["batch_size"] == smaller.sizes["micro_batch"] == 50
        assert smaller.fit.reasons == {"train_size": "adapted"}

    @pytest.mark.parametrize(
        ("axis", "word", "whole"), [(Axis.TRAIN_SIZE, "largest", 90), (Axis.MICRO_BATCH, "auto", 32)]
    )
    def test_words_that_a_machine_settles_become_numbers_in_any_case(self, cell_of, axis, word, whole):
        """Also where the number is all that there is: another run must not settle them otherwise."""
        cell = cell_of(batch_size=32, **{axis.setting: word})
        settled = cell.with_sizes(with_size(cell.settings, axis, whole), "found")
        assert settled.sizes == cell.sizes
        assert getattr(settled.settings.training, axis.setting) == whole
        assert settled.fit.reasons == {axis.setting: "found"}

    def test_the_history(self, cell_of):
        cell = cell_of(history_size=100)
        smaller = cell.with_sizes(with_size(cell.sized, Axis.HISTORY_SIZE, 7), "adapted")
        assert smaller.settings.optimizer.params == {"history_size": 7}
        assert smaller.declared.optimizer.params == {"history_size": 100}
        assert smaller.fit.reasons == {"history_size": "adapted"}

    def test_reasons_gather_and_the_last_of_a_size_stands(self, cell_of):
        cell = cell_of(micro_batch="auto", batch_size="full")
        cell = cell.with_sizes(with_size(cell.settings, Axis.MICRO_BATCH, 64), "the fastest")
        cell = cell.with_sizes(with_size(cell.sized, Axis.TRAIN_SIZE, 80), "the largest")
        assert cell.fit.reasons == {"micro_batch": "the fastest", "train_size": "the largest"}
        cell = cell.with_sizes(with_size(cell.sized, Axis.MICRO_BATCH, 32), "again")
        assert cell.fit.reasons == {"micro_batch": "again", "train_size": "the largest"}
        assert words(cell) == (80, "full", 32)


class TestPlace:
    def test_what_was_fitted_is_another_cell_than_what_was_asked_for_in_numbers(self, cell_of):
        auto = cell_of(batch_size=32, micro_batch="auto")
        fitted = auto.with_sizes(with_size(auto.settings, Axis.MICRO_BATCH, 16), "the fastest")
        asked = cell_of(batch_size=32, micro_batch=16)
        assert fitted.settings == asked.settings
        assert fitted.key.cell_id != asked.key.cell_id

    @pytest.mark.parametrize(
        "fields",
        [{"expect": "oom"}, {"adapt": ("micro_batch",)}, {"memory_limits": (Limit(size_bytes=10**9),)}],
    )
    def test_conditions_of_an_experiment_make_another_cell(self, cell_of, fields):
        assert cell_of(fields).key.cell_id != cell_of().key.cell_id

    def test_so_do_those_who_share_a_size(self, cell_of):
        assert replace(cell_of(), peers=("adam", "sgd")).key.cell_id != cell_of().key.cell_id

    def test_what_the_machine_has_to_give_and_the_experiment_do_not(self, cell_of):
        cell = cell_of()
        other = replace(cell_of(), memory=MemoryPlan(2 * 10**9))
        renamed = replace(other, declared=replace(other.declared, experiment="renamed"))
        assert renamed.key.cell_id == cell.key.cell_id
        assert renamed.key.experiment == "renamed"
