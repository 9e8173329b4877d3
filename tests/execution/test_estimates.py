"""Estimates of a cell's time, from what is remembered or from a cost model. No process is started."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests import cell_samples
from xbench import Dataset, Example, ModelSpec
from xbench.capacity.cost_model import CostModel, count_steps
from xbench.components import registry
from xbench.components.code import code_stamp
from xbench.data.features import FeatureFile
from xbench.data.sample import decode_sample
from xbench.execution import estimates
from xbench.execution import shared as keeping
from xbench.execution.estimates import Estimator, remember_time
from xbench.execution.schedule import estimate_s
from xbench.execution.shared import FeatureKeeper
from xbench.isolation.run import ChildResult
from xbench.planning.identity import duration_key
from xbench.planning.planned import Estimate, Skip
from xbench.records.schema import CellRecord, Component, DataRecord, Times
from xbench.storage.cache import save
from xbench.training.events import FeatureReport
from xbench.training.splits import split_examples

MEMORY_PASS_S = CostModel.memory_pass_s


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty one."""
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(CostModel, "memory_pass_s", lambda cost_model, settings: 0.0)


@pytest.fixture
def cell_of(tiny_data):
    return partial(cell_samples.cell_of, tiny_data, batch_size=10)


class CostModels:
    """Stands for children that take steps.

    Attributes:
        ending: of each.
        asked: settings of those that were started.
    """

    def __init__(self):
        self.asked = []
        self.of(start_s=100.0)

    def of(self, **parts):
        none = {"start_s": 0.0, "closure_s": 0.0, "update_s": 0.0, "closures": 1.0, "evaluation_s": 0.0}
        self.ending = ChildResult("returned", value=CostModel(**none | parts))

    def __call__(self, measure, job, limits=None):
        self.asked.append(job.settings)
        return self.ending


@pytest.fixture
def cost_models(monkeypatch) -> CostModels:
    cost_models = CostModels()
    monkeypatch.setattr(estimates, "run_in_child", cost_models)
    return cost_models


class Keeper:
    """Stands for the features of a frozen part.

    Attributes:
        report: on each of its cells.
        skip: what becomes of cells.
    """

    def __init__(self, report=None, skip=None):
        self.report, self.skip = report or FeatureReport(), skip

    def compute(self, cell, images, at_most=None):
        assert at_most is not None, "not all of them are to be computed for an estimate"
        return replace(cell, skip=self.skip), self.report


class Heard:
    """An observer.

    Attributes:
        cells: whose time was told to be estimated.
        waits: how long the run might still wait, each time that it did.
        is_busy: other programs were told to be at work.
    """

    def __init__(self):
        self.cells, self.waits, self.is_busy = [], [], False

    def estimating(self, cell, done, total):
        self.cells.append(cell)

    def machine_is_busy(self):
        self.is_busy = True

    def waiting_for_quiet(self, may_wait_s):
        self.waits.append(may_wait_s)


def seconds(*cells, keeper=None):
    return [cell.estimate.seconds for cell in Estimator(keeper or Keeper(), Heard()).estimate(list(cells))]


def whole_seconds(*cells, keeper):
    """With the features that they miss."""
    return estimate_s(Estimator(keeper, Heard()).estimate(list(cells)))


def record_of(cell, status="done", **times) -> CellRecord:
    return CellRecord(
        cell_id="a",
        experiment="exp",
        column="opt",
        model=Component(name="net"),
        dataset=DataRecord(requested="d", name="d", fingerprint="", counts={}),
        optimizer=Component(name="opt"),
        seed=cell.declared.seed,
        status=status,
        settings={},
        requested={},
        time=Times(**times),
        device={},
        started_at="",
        ended_at="",
    )


TOOK = {"prepare_s": 1.0, "training_s": 20.0, "evaluation_s": 300.0}


class TestFromACostModel:
    def test_is_of_each_job_in_its_order(self, cell_of, cost_models):
        heard = Heard()
        cells = [cell_of("one"), cell_of("two", seed=1)]
        result = Estimator(Keeper(), heard).estimate(cells)
        assert [cell.estimate.seconds for cell in result] == [100, 100]
        assert [replace(cell, estimate=Estimate()) for cell in result] == cells
        assert heard.cells == [cell.key for cell in cells]

    def test_is_measured_once_for_seeds_epochs_and_sizes(self, cell_of, cost_models):
        """They change how many steps there are, and not what one takes."""
        cells = [cell_of(seed=seed, train_size=size) for seed in (0, 1) for size in (30, 60)]
        seconds(*cells, cell_of(epochs=7))
        assert len(cost_models.asked) == 1
        seconds(cell_of(column="other"), cell_of(dtype="float64"))
        assert len(cost_models.asked) == 3

    def test_few_examples_are_trained_on(self, cell_of, cost_models):
        seconds(cell_of(epochs=500))
        (settings,) = cost_models.asked
        assert settings.training.epochs == 1
        assert settings.training.train_size == settings.training.batch_size == 10

    def test_counts_every_step(self, cell_of, cost_models):
        cost_models.of(update_s=1.0)
        assert seconds(cell_of(train_size=45, epochs=3)) == [3 * 5]
        assert seconds(cell_of(train_size=45, epochs=1)) == [5]

    def test_counts_every_example_of_every_closure(self, cell_of, cost_models):
        cost_models.of(closure_s=0.5, closures=4.0)
        assert seconds(cell_of(train_size=40, epochs=3)) == [3 * 40 * 4 * 0.5]

    @pytest.mark.parametrize("balance", ["none", "oversample"])
    def test_counts_every_evaluation(self, cell_of, cost_models, tiny_data, balance):
        """Of validation after each epoch, and of test and distinct training images at the end."""
        cost_models.of(evaluation_s=1.0)
        cell = cell_of(epochs=3, balance=balance, validation=0.2)
        split = split_examples(tiny_data, cell.settings.training, 0)
        once = len(split.test) + len(set(split.train.tolist()))
        assert seconds(cell) == [3 * len(split.validation) + once]

    def test_counts_the_test_set_after_each_epoch_where_it_selects(self, cell_of, cost_models):
        cost_models.of(evaluation_s=1.0)
        (by_test,) = seconds(cell_of(epochs=3, selection="test_loss", validation=0.0))
        (last,) = seconds(cell_of(epochs=3, selection="last", validation=0.0))
        assert by_test - last == 3 * 30

    def test_nothing_is_known_where_no_step_can_be_taken(self, cell_of, cost_models):
        cost_models.ending = ChildResult("failed", reason="it is broken")
        (cell,) = Estimator(Keeper(), Heard()).estimate([cell_of()])
        assert (cell.estimate.seconds, cell.skip) == (None, None)
        cost_models.of(start_s=3.0)
        assert seconds(cell_of()) == [3]  # a failure is not remembered

    def test_what_does_not_run_is_not_asked_about(self, cell_of, cost_models):
        skipped = cell_of(skip=Skip("skipped", "for a reason"))
        heard = Heard()
        assert Estimator(Keeper(), heard).estimate([skipped]) == [skipped]
        assert (heard.cells, cost_models.asked) == ([], [])

    def test_is_taken_again_when_the_users_code_has_changed(self, cell_of, cost_models, tmp_path):
        code = tmp_path / "mine.py"
        cell = cell_of(model="mine:net", import_dirs=(str(tmp_path),))
        code.write_text("def net(num_classes): ...")
        assert seconds(cell) == [100]
        cost_models.of(start_s=1.0)
        assert seconds(cell) == [100]
        code.write_text("def net(num_classes): ...  # otherwise")
        code_stamp.cache_clear()  # as in another process
        assert seconds(cell) == [1]


class TestParts:
    """What the trials of a search are charged with."""

    def parts(self, cell):
        (cell,) = Estimator(Keeper(), Heard()).estimate([cell])
        return cell.estimate.seconds, cell.estimate.training_s, cell.estimate.closures

    def test_are_those_of_the_steps(self, cell_of, cost_models):
        cost_models.of(start_s=7.0, update_s=1.0, closures=3)
        cell = cell_of(epochs=2)
        steps = count_steps(cell.sized)
        assert self.parts(cell) == (7.0 + steps, steps, 3 * steps)

    def test_are_those_that_the_same_job_had(self, cell_of, cost_models):
        remember_time(cell_of(), record_of(cell_of(), **TOOK).model_copy(update={"closures": 50}))
        assert self.parts(cell_of()) == (321, TOOK["training_s"], 50)

    def test_are_not_known_of_a_job_that_an_older_version_remembered(self, cell_of, cost_models):
        save("duration", duration_key(cell_of()), {"seconds": 321})
        assert self.parts(cell_of()) == (321, None, None)


class TestRemembered:
    def test_is_what_the_same_job_took(self, cell_of, cost_models):
        remember_time(cell_of(), record_of(cell_of(), **TOOK))
        assert seconds(cell_of(), cell_of(seed=5)) == [321, 321]
        assert cost_models.asked == []

    @pytest.mark.parametrize(
        "other",
        [{"epochs": 2}, {"train_size": 30}, {"batch_size": 5}, {"column": "adam"}, {"features": "off"}],
    )
    def test_is_not_of_another(self, cell_of, cost_models, other):
        remember_time(cell_of(), record_of(cell_of(), **TOOK))
        assert seconds(cell_of(**other)) == [100]

    def test_is_not_of_another_processor(self, cell_of, cost_models):
        cell = cell_of()
        facts = {"type": "cpu", "name": "another"}
        other = replace(cell, machine=replace(cell.machine, device_facts=facts))
        remember_time(other, record_of(other, **TOOK))
        assert other.key.cell_id == cell.key.cell_id
        assert seconds(cell, other) == [100, 321]

    def test_is_not_of_other_data(self, cell_of, cost_models, tiny_data):
        remember_time(cell_of(), record_of(cell_of(), **TOOK))
        other = replace(cell_of(), data=replace(tiny_data, fingerprint="other"))
        assert seconds(other) == [100]

    @pytest.mark.parametrize("status", ["oom", "error", "diverged", "skipped"])
    def test_is_only_of_what_was_done(self, cell_of, cost_models, status):
        remember_time(cell_of(), record_of(cell_of(), status, **TOOK))
        assert seconds(cell_of()) == [100]

    def test_is_the_last(self, cell_of, cost_models):
        for training_s in (20, 30):
            remember_time(cell_of(), record_of(cell_of(), **TOOK | {"training_s": training_s}))
        assert seconds(cell_of()) == [331]


class TestFeatures:
    """Of which 16 took 4 s, and 80 are missing still."""

    FILE = FeatureFile(Path("features"), (5,), "float32", 120)
    REPORT = FeatureReport(file=FILE, computed=16, missing=80, seconds=4.0, example_s=0.25)

    def test_are_counted_once_for_the_optimizers_of_a_seed(self, cell_of, cost_models):
        cells = [cell_of(column=column) for column in ("a", "b")]
        assert seconds(*cells, keeper=Keeper(self.REPORT)) == [100, 100]
        assert whole_seconds(*cells, keeper=Keeper(self.REPORT)) == 220

    def test_are_added_to_what_is_remembered(self, cell_of, cost_models):
        remember_time(cell_of(), record_of(cell_of(), **TOOK))
        assert whole_seconds(cell_of(), keeper=Keeper(self.REPORT)) == 341

    def test_that_are_there_take_no_time(self, cell_of, cost_models):
        assert whole_seconds(cell_of(), keeper=Keeper(FeatureReport())) == 100

    def test_that_were_there_tell_nothing_of_those_that_are_not(self, cell_of, cost_models):
        """Another seed has another front, of which nothing has been computed."""
        assert whole_seconds(cell_of(seed=0), keeper=Keeper(FeatureReport())) == 100
        assert whole_seconds(cell_of(seed=1), keeper=Keeper(self.REPORT)) == 120

    def test_a_reason_not_to_run_is_kept(self, cell_of, cost_models):
        """Who asks before a run is to be told that it would be skipped."""
        skip = Skip("skipped", "features cannot be kept: it draws")
        (cell,) = Estimator(Keeper(skip=skip), Heard()).estimate([cell_of()])
        assert cell.estimate.seconds is None
        assert cell.skip == skip
        assert cost_models.asked == []


def frozen_front(num_classes: int):
    from torch import nn

    front = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5)).requires_grad_(False)
    return nn.Sequential(front, nn.Linear(5, num_classes))


def listed(train: int, test: int) -> Dataset:
    examples = tuple(
        Example(name=f"{split}/{i:03d}", label=i % 2, split=split, content=f"estimates {split} {i}")
        for split, count in (("train", train), ("test", test))
        for i in range(count)
    )
    read = lambda example: np.full((4, 4, 3), 90 * example.label, dtype=np.uint8)  # noqa: E731
    return Dataset(("dark", "bright"), "bright", (3, 4, 4), examples, read)


class TestOfASample:
    """A few images stand for all: what is computed of them is of no use to a run."""

    @pytest.fixture(autouse=True)
    def children(self, monkeypatch):
        """They work in this process, and each look at the clock takes a second."""
        import xbench.training.features as computing

        spec = ModelSpec(factory=frozen_front)
        monkeypatch.setattr(registry, "load", lambda kind, name, dirs=(): spec)
        ticks = itertools.count()
        monkeypatch.setattr(computing, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
        monkeypatch.setattr(computing.ContentionWatch, "conditions", lambda watch, durations_s: "quiet")

        def run(work, *args, on_message, stderr_path, limits):
            return ChildResult("returned", value=work(on_message, *args))

        monkeypatch.setattr(keeping, "run_in_child", run)

    @pytest.fixture
    def heard(self):
        return SimpleNamespace(
            estimating=lambda cell, done, total: None,
            computing_features=lambda cell, done, total: None,
            features_computed=lambda cell: None,
        )

    def test_every_preview_counts_all_features(self, cost_models, heard):
        few = decode_sample(listed(300, 100), "listed", "made up")
        cost_models.of()
        cell = cell_samples.cell_of(few, validation=0.0, selection="last")
        previews = [estimate_s(Estimator(FeatureKeeper(heard), heard).estimate([cell])) for _ in range(4)]
        assert previews[0] > 0
        assert previews == pytest.approx([previews[0]] * 4, rel=0.2)


class TestMemoryPass:
    @pytest.fixture(autouse=True)
    def counted(self, monkeypatch):
        monkeypatch.setattr(CostModel, "memory_pass_s", MEMORY_PASS_S)

    def test_is_of_the_first_seed_of_a_configuration(self, cell_of, cost_models):
        """Three steps of a batch, each one and a half times as long."""
        cost_models.of(update_s=1.0)
        first, second = seconds(cell_of(seed=0, epochs=1), cell_of(seed=1, epochs=1))
        assert first == second + 4.5

    def test_takes_two_micro_batches(self, cell_of, cost_models):
        cost_models.of(closure_s=1.0, closures=2)
        (whole,), (parts,) = seconds(cell_of(batch_size=40)), seconds(cell_of(batch_size=40, micro_batch=5))
        assert whole - parts == 4.5 * 2 * (40 - 10)

    def test_takes_as_long_as_the_last_time(self, cell_of, cost_models):
        cell = cell_of()
        remember_time(cell, record_of(cell, **TOOK, memory_pass_s=7.0))
        assert seconds(cell) == [321.0 + 7.0]


class Clock:
    """Time that passes only in `sleep`."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class TestBusyMachine:
    @pytest.fixture
    def clock(self):
        return Clock()

    @pytest.fixture
    def heard(self):
        return Heard()

    @pytest.fixture
    def estimator(self, heard, clock):
        return Estimator(Keeper(), heard, may_wait_s=60, clock=clock, sleep=clock.sleep)

    def becomes_quiet(self, monkeypatch, clock, at_s, fast_s=10.0):
        """Steps take the longer the earlier it is, until other programs have ended."""

        def measure(*args, limits=None):
            disturbed = clock.now < at_s
            seconds = fast_s * (20.0 - clock.now / 10) if disturbed else fast_s
            cost_model = CostModel(seconds, 0.0, 0.0, 1, 0.0, is_disturbed=disturbed)
            return ChildResult("returned", value=cost_model)

        monkeypatch.setattr(estimates, "run_in_child", measure)

    def test_an_estimate_is_rough_and_not_remembered(self, cell_of, cost_models, estimator, heard):
        cost_models.of(start_s=70.0, is_disturbed=True)
        (cell,) = estimator.estimate([cell_of()])
        assert (cell.estimate.seconds, cell.estimate.is_rough, heard.is_busy) == (70.0, True, True)
        cost_models.of(start_s=7.0)
        (cell,) = Estimator(Keeper(), heard).estimate([cell_of()])
        assert (cell.estimate.seconds, cell.estimate.is_rough) == (7.0, False)

    def test_features_are_rough_too(self, cell_of, cost_models, heard):
        report = replace(TestFeatures.REPORT, is_disturbed=True)
        (cell,) = Estimator(Keeper(report), heard).estimate([cell_of()])
        assert cell.estimate.is_rough
        assert heard.is_busy

    def test_a_quiet_moment_is_waited_for(self, cell_of, estimator, heard, clock, monkeypatch):
        self.becomes_quiet(monkeypatch, clock, at_s=30)
        (cell,) = estimator.remeasure([cell_of()], lambda cells: False)
        assert (cell.estimate.seconds, cell.estimate.is_rough) == (10.0, False)
        assert clock.now == 30
        assert heard.waits[0] == 60

    def test_a_run_waits_for_a_minute_in_all(self, cell_of, estimator, clock, monkeypatch):
        self.becomes_quiet(monkeypatch, clock, at_s=1000)
        for _ in range(3):
            (cell,) = estimator.remeasure([cell_of()], lambda cells: False)
            assert cell.estimate.is_rough
        assert clock.now == 60

    def test_the_fastest_counts(self, cell_of, cost_models, estimator, clock, monkeypatch):
        taken = iter([40.0, 90.0, 30.0, *[80.0] * 20])

        def measure(*args, limits=None):
            return ChildResult("returned", value=CostModel(next(taken), 0.0, 0.0, 1, 0.0, is_disturbed=True))

        monkeypatch.setattr(estimates, "run_in_child", measure)
        (cell,) = estimator.remeasure([cell_of()], lambda cells: False)
        assert cell.estimate.seconds == 30.0

    def test_nobody_waits_for_what_is_low_enough(self, cell_of, estimator, clock, monkeypatch):
        self.becomes_quiet(monkeypatch, clock, at_s=1000)
        estimator.remeasure([cell_of()], lambda cells: True)
        assert clock.now == 0


class TestAnew:
    def test_an_estimate_stays_if_no_step_can_be_taken_any_more(self, cell_of, cost_models):
        """An unknown time would count as none, and be admitted."""
        estimator = Estimator(Keeper(), Heard())
        cells = estimator.estimate([cell_of()])
        cost_models.ending = ChildResult("failed", reason="its process was killed")
        (cell,) = Estimator(Keeper(), Heard()).remeasure(cells, lambda cells: True)
        assert cell.estimate.seconds == 100

    def test_what_a_checkpoint_has_done_is_not_to_be_done(self, cell_of, cost_models):
        estimator = Estimator(Keeper(), Heard(), done_share=lambda cell: 0.75)
        (cell,) = estimator.estimate([cell_of()])
        assert cell.estimate.seconds == 25
        remember_time(cell_of(), record_of(cell_of(), **TOOK))
        (cell,) = estimator.estimate([cell_of()])
        assert cell.estimate.seconds == 321 / 4

    def test_a_remembered_cost_model_is_measured_again(self, cell_of, cost_models):
        cost_models.of(start_s=100.0)
        seconds(cell_of())
        cost_models.of(start_s=5.0)
        assert seconds(cell_of()) == [100]
        (cell,) = Estimator(Keeper(), Heard()).remeasure([cell_of()], lambda cells: True)
        assert cell.estimate.seconds == 5

    def test_what_it_took_another_day_may_have_been_too_long(self, cell_of, cost_models):
        remember_time(cell_of(), record_of(cell_of(), **TOOK))
        (cell,) = Estimator(Keeper(), Heard()).remeasure([cell_of()], lambda cells: True)
        assert cell.estimate.seconds == 100
        cost_models.of(start_s=1000.0)
        (cell,) = Estimator(Keeper(), Heard()).remeasure([cell_of(epochs=2)], lambda cells: True)
        assert cell.estimate.seconds == 1000

    def test_what_was_just_measured_undisturbed_is_not(self, cell_of, cost_models):
        clock = Clock()
        estimator = Estimator(Keeper(), Heard(), clock=clock)
        estimator.estimate([cell_of()])
        estimator.remeasure([cell_of()], lambda cells: True)
        assert len(cost_models.asked) == 1
        clock.now = 100
        estimator.remeasure([cell_of()], lambda cells: True)
        assert len(cost_models.asked) == 2

    def test_a_quiet_cost_model_of_another_day_counts_beside_what_is_disturbed_now(
        self, cell_of, cost_models
    ):
        cost_models.of(start_s=50.0)
        seconds(cell_of())
        for disturbed_s, expected_s in ((1000.0, 50.0), (20.0, 20.0)):
            cost_models.of(start_s=disturbed_s, is_disturbed=True)
            (cell,) = Estimator(Keeper(), Heard()).remeasure([cell_of()], lambda cells: True)
            assert (cell.estimate.seconds, cell.estimate.is_rough) == (expected_s, True)


class TestCorrection:
    """By how long the cells of this run took."""

    def test_is_none_at_first(self):
        assert Estimator(Keeper(), Heard()).correction == 1

    @pytest.mark.parametrize("ratio", [0.5, 3.0])
    def test_follows_long_cells(self, cell_of, ratio):
        estimator = Estimator(Keeper(), Heard())
        cell = cell_of(estimated_s=3000.0)
        estimator.learn(cell, record_of(cell, prepare_s=0.0, training_s=3000 * ratio, evaluation_s=0.0))
        assert estimator.correction == pytest.approx(ratio, rel=0.02)

    def test_hardly_follows_a_short_one(self, cell_of):
        estimator = Estimator(Keeper(), Heard())
        cell = cell_of(estimated_s=1.0)
        estimator.learn(cell, record_of(cell, prepare_s=0.0, training_s=3.0, evaluation_s=0.0))
        assert 1 < estimator.correction < 1.1

    def test_counts_the_memory_pass(self, cell_of):
        estimator = Estimator(Keeper(), Heard())
        cell = cell_of(estimated_s=1000.0)
        times = {"prepare_s": 0.0, "training_s": 900.0, "evaluation_s": 0.0, "memory_pass_s": 100.0}
        estimator.learn(cell, record_of(cell, **times))
        assert estimator.correction == 1

    @pytest.mark.parametrize("status", ["oom", "diverged", "skipped"])
    def test_ignores_what_was_not_done(self, cell_of, status):
        estimator = Estimator(Keeper(), Heard())
        cell = cell_of(estimated_s=1000.0)
        estimator.learn(cell, record_of(cell, status, **TOOK))
        assert estimator.correction == 1

    def test_ignores_what_other_programs_slowed_down(self, cell_of):
        estimator = Estimator(Keeper(), Heard())
        cell = cell_of(estimated_s=1000.0)
        estimator.learn(cell, record_of(cell, **TOOK, waiting_share=0.5))
        assert estimator.correction == 1
        estimator.learn(cell, record_of(cell, **TOOK, waiting_share=0.05))
        assert estimator.correction < 0.5

    def test_ignores_rough_estimates(self, cell_of):
        estimator = Estimator(Keeper(), Heard())
        cell = cell_of(estimated_s=1000.0, is_rough=True)
        estimator.learn(cell, record_of(cell, **TOOK))
        assert estimator.correction == 1
