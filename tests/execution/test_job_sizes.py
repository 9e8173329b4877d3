"""A job's sizes: as asked for, as they will run, and why they differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xbench.capacity.axes import Axis, with_size
from xbench.execution.component_trials import ResolvedData
from xbench.execution.inspection import DatasetFacts, Machine, ModelFacts
from xbench.execution.job import Job
from xbench.suite.grid import Cell, DatasetChoice
from xbench.training.settings import CellSettings, Choice, TrainingSettings

AVAILABLE = 90
VERSIONS = {"xbench": "1", "torch": "2", "torchvision": "1", "numpy": "2"}
MACHINE = Machine("cpu", {"type": "cpu", "name": "a processor"}, 2, VERSIONS, {}, ())


@pytest.fixture
def job_of(tiny_data):
    def job(cell_fields=None, history_size=None, **training):
        params = {} if history_size is None else {"history_size": history_size}
        data = Choice("bright-and-dark", {})
        cell = Cell(
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
        facts = DatasetFacts(tiny_data.classes, tiny_data.shape, {}, "")
        return Job(
            cell=cell,
            settings=CellSettings(cell.model, cell.optimizer, cell.training, cell.seed, "cpu"),
            resolved=ResolvedData("bright-and-dark", data, False, facts, ""),
            data=tiny_data,
            model=ModelFacts(None, ""),
            available=AVAILABLE,
            default_history=None,
            machine=MACHINE,
            memory_limit_bytes=10**9,
            import_dirs=(),
        )

    return job


def words(job: Job) -> tuple:
    training = job.settings.training
    return training.train_size, training.batch_size, training.micro_batch


class TestSizes:
    def test_words_become_numbers(self, job_of):
        job = job_of(train_size="all", batch_size="full", micro_batch="full", history_size=7)
        assert job.sizes == {"train_size": 90, "history_size": 7, "batch_size": 90, "micro_batch": 90}
        assert words(job) == ("all", "full", "full")

    def test_none_is_larger_than_what_holds_it(self, job_of):
        job = job_of(train_size=20, batch_size=64, micro_batch=32)
        assert job.sizes == {"train_size": 20, "history_size": None, "batch_size": 20, "micro_batch": 20}

    def test_what_is_asked_for_stays_as_it_was_written(self, job_of):
        job = job_of(train_size="largest", batch_size="full", micro_batch="auto", history_size=7)
        asked = {"train_size": "largest", "history_size": 7, "batch_size": "full", "micro_batch": "auto"}
        assert job.requested == asked
        fitted = job.with_settings(with_size(job.sized, Axis.HISTORY_SIZE, 2), "why")
        assert fitted.requested == asked


class TestDefaultHistory:
    """An optimizer's own, where a suite sets none."""

    def test_is_its_size(self, job_of):
        job = replace(job_of(), default_history=100)
        assert job.sizes["history_size"] == 100
        assert job.requested["history_size"] is None

    def test_stays_unwritten_until_it_changes(self, job_of):
        job = replace(job_of(), default_history=100)
        assert job.with_settings(job.sized, "why").settings.optimizer.params == {}
        smaller = job.with_settings(with_size(job.sized, Axis.HISTORY_SIZE, 7), "adapted")
        assert smaller.settings.optimizer.params == {"history_size": 7}
        assert smaller.fitted == {"history_size": "adapted"}


class TestWithSettings:
    def test_the_same_sizes_in_numbers_change_no_word(self, job_of):
        job = job_of(train_size="all", batch_size="full", micro_batch="full")
        same = job.with_settings(job.sized, "why")
        assert words(same) == ("all", "full", "full")
        assert same.fitted == {}
        assert same.planned == job.planned

    def test_only_what_changed_becomes_a_number(self, job_of):
        job = job_of(train_size="all", batch_size="full", micro_batch="full")
        smaller = job.with_settings(with_size(job.sized, Axis.MICRO_BATCH, 16), "adapted")
        assert words(smaller) == ("all", "full", 16)
        assert smaller.fitted == {"micro_batch": "adapted"}
        assert smaller.sizes == {**job.sizes, "micro_batch": 16}

    def test_a_full_batch_follows_the_training_set(self, job_of):
        job = job_of(train_size="all", batch_size="full", micro_batch="full")
        smaller = job.with_settings(with_size(job.sized, Axis.TRAIN_SIZE, 50), "adapted")
        assert words(smaller) == (50, "full", "full")
        assert smaller.sizes["batch_size"] == smaller.sizes["micro_batch"] == 50
        assert smaller.fitted == {"train_size": "adapted"}

    @pytest.mark.parametrize(
        ("axis", "word", "whole"), [(Axis.TRAIN_SIZE, "largest", 90), (Axis.MICRO_BATCH, "auto", 32)]
    )
    def test_words_that_a_machine_settles_become_numbers_in_any_case(self, job_of, axis, word, whole):
        """Also where the number is all that there is: another run must not settle them otherwise."""
        job = job_of(batch_size=32, **{axis.setting: word})
        settled = job.with_settings(with_size(job.settings, axis, whole), "found")
        assert settled.sizes == job.sizes
        assert getattr(settled.settings.training, axis.setting) == whole
        assert settled.fitted == {axis.setting: "found"}

    def test_the_history(self, job_of):
        job = job_of(history_size=100)
        smaller = job.with_settings(with_size(job.sized, Axis.HISTORY_SIZE, 7), "adapted")
        assert smaller.settings.optimizer.params == {"history_size": 7}
        assert smaller.cell.optimizer.params == {"history_size": 100}
        assert smaller.fitted == {"history_size": "adapted"}

    def test_reasons_gather_and_the_last_of_a_size_stands(self, job_of):
        job = job_of(micro_batch="auto", batch_size="full")
        job = job.with_settings(with_size(job.settings, Axis.MICRO_BATCH, 64), "the fastest")
        job = job.with_settings(with_size(job.sized, Axis.TRAIN_SIZE, 80), "the largest")
        assert job.fitted == {"micro_batch": "the fastest", "train_size": "the largest"}
        job = job.with_settings(with_size(job.sized, Axis.MICRO_BATCH, 32), "again")
        assert job.fitted == {"micro_batch": "again", "train_size": "the largest"}
        assert words(job) == (80, "full", 32)


class TestPlace:
    def test_what_was_fitted_is_another_cell_than_what_was_asked_for_in_numbers(self, job_of):
        auto = job_of(batch_size=32, micro_batch="auto")
        fitted = auto.with_settings(with_size(auto.settings, Axis.MICRO_BATCH, 16), "the fastest")
        asked = job_of(batch_size=32, micro_batch=16)
        assert fitted.settings == asked.settings
        assert fitted.planned.cell_id != asked.planned.cell_id

    @pytest.mark.parametrize("fields", [{"expect": "oom"}, {"adapt": ("micro_batch",)}])
    def test_conditions_of_an_experiment_make_another_cell(self, job_of, fields):
        assert job_of(fields).planned.cell_id != job_of().planned.cell_id

    @pytest.mark.parametrize("fields", [{"asked_limits": ("1000000000",)}, {"company": ("adam", "sgd")}])
    def test_so_do_limits_that_were_asked_for_and_who_shares_a_size(self, job_of, fields):
        assert replace(job_of(), **fields).planned.cell_id != job_of().planned.cell_id

    def test_what_the_machine_has_to_give_and_the_experiment_do_not(self, job_of):
        job = job_of()
        other = replace(job_of(), memory_limit_bytes=2 * 10**9)
        renamed = replace(other, cell=replace(other.cell, experiment="renamed"))
        assert renamed.planned.cell_id == job.planned.cell_id
        assert renamed.planned.experiment == "renamed"
