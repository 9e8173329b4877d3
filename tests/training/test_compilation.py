"""Compiled models: the same training as without, with every shape compiled before the first step."""

from __future__ import annotations

import math
import os
import shutil
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from xbench import ModelSpec, XbenchError
from xbench.capacity.axes import Axis
from xbench.capacity.workload import TrainingWorkload
from xbench.components import registry
from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child
from xbench.memory.host import host_peak_meter, resident_bytes
from xbench.memory.limits import calibrate_host_limit_again, limit_host_memory
from xbench.training import compilation
from xbench.training.cell import train_cell
from xbench.training.compilation import (
    Compilation,
    compile_model,
    compile_trainer,
    list_evaluation_sizes,
    run_uncompiled,
)
from xbench.training.events import Compiling, StepsDone
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.splits import Split

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler"
)


class Masked(nn.Module):
    """Draws masks, and counts the batches that it is trained on in a buffer."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(768, num_classes))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.batches.add_(1)
        return self.inner(images)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache for all tests, so that a graph is compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("compiled")
        patch.setenv("XBENCH_CACHE_DIR", str(folder))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
        real_load, specs = registry.load, {"masked": ModelSpec(factory=Masked)}
        patch.setattr(
            registry, "load", lambda kind, name, dirs=(): specs.get(name) or real_load(kind, name, dirs)
        )
        yield


LBFGS = Choice("lbfgs", {"max_iter": 3, "history_size": 2, "line_search_fn": "strong_wolfe"})


def job_of(data, folder, optimizer=LBFGS, **training) -> CellJob:
    training = {"epochs": 2, "batch_size": 10, "train_size": 20, "validation": 0.0, **training}
    chosen = TrainingSettings(selection="last", **training)
    return CellJob(CellSettings(Choice("masked", {}), optimizer, chosen, 0, "cpu"), data, scratch=folder)


def run(job: CellJob):
    messages = []
    result = train_cell(messages.append, job)
    return result, messages, [row for m in messages if isinstance(m, StepsDone) for row in m.rows]


def list_children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


@pytest.fixture(scope="module")
def children() -> set[psutil.Process]:
    """The processes that earlier tests have left in this one, such as a fork server."""
    return list_children()


@pytest.fixture(scope="module")
def runs(tiny_data, tmp_path_factory, children):
    """A cell without compiling and one with it, each as (result, messages, rows of the trace)."""
    folder = tmp_path_factory.mktemp("runs")
    return [run(job_of(tiny_data, folder, compile=choice)) for choice in (False, True)]


@pytest.mark.slow
@needs_compiler
class TestCell:
    def test_trains_as_without(self, runs):
        """With the same masks in all closure calls of a step, which a line search relies on."""
        (eager, _, eager_rows), (compiled, _, rows) = runs
        assert compiled.status == "done"
        assert [row.closures for row in rows] == [row.closures for row in eager_rows]
        assert [row.loss for row in rows] == pytest.approx([row.loss for row in eager_rows], rel=1e-3)
        assert compiled.scores.values == pytest.approx(eager.scores.values, rel=1e-3)
        assert max(row.closures for row in rows) > 1

    def test_says_how_long_compiling_took(self, runs):
        (eager, _, _), (compiled, messages, _) = runs
        time = compiled.time
        assert (eager.time.compile_s, eager.time.compiled_graphs) == (None, None)
        assert 0 < time.compile_s <= time.prepare_s
        assert (time.compiled_graphs, time.untimed_graphs, time.late_compile_s) == (2, 0, 0.0)
        assert [m for m in messages if isinstance(m, Compiling)] == [Compiling(0, 2), Compiling(1, 2)]

    def test_reads_graphs_that_were_compiled_before(self, runs, tiny_data, tmp_path):
        hits, misses = compilation.count_cached()
        again = run(job_of(tiny_data, tmp_path, compile=True))[0].time
        assert compilation.count_cached() == (hits + 3, misses), "two forward passes and a backward pass"
        assert (again.compiled_graphs, again.untimed_graphs) == (2, 0)

    def test_leaves_no_process_behind(self, children, runs):
        assert list_children() <= children

    def test_takes_a_memory_pass(self, runs, tiny_data, tmp_path):
        """Its weights are compared with those of a new model, whose outputs round differently."""
        job = job_of(tiny_data, tmp_path, compile=True)
        measured = TrainingWorkload(job, Axis.MICRO_BATCH).take_pass(10)
        assert measured.not_resumable == ""
        assert measured.steps >= 3

    def test_does_not_change_the_model_beforehand(self, runs, tiny_data, tmp_path):
        workload = TrainingWorkload(job_of(tiny_data, tmp_path, compile=True), Axis.MICRO_BATCH)
        trainer = workload.trainer(10, tmp_path)
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        state = torch.get_rng_state()
        compile_trainer(trainer, {10})
        after = trainer.model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert torch.equal(torch.get_rng_state(), state)
        assert trainer.model.training

    def test_notes_a_shape_that_was_not_expected(self, runs, tiny_data, tmp_path):
        workload = TrainingWorkload(job_of(tiny_data, tmp_path, compile=True), Axis.MICRO_BATCH)
        trainer = workload.trainer(10, tmp_path)
        compile_trainer(trainer, {10})
        assert trainer.compilation.late_s == 0
        trainer.evaluate(trainer.split.train[:7], "train")
        assert trainer.compilation.graphs == 3
        assert trainer.compilation.late_s > 0

    def test_that_never_calls_the_model_is_refused(self, runs, tiny_data, tmp_path):
        workload = TrainingWorkload(job_of(tiny_data, tmp_path, compile=True), Axis.MICRO_BATCH)
        trainer = workload.trainer(10, tmp_path)
        inner = trainer.model.inner
        trainer.objective.outputs = lambda model, batch: inner(batch[0])
        with pytest.raises(XbenchError, match="the task never calls the model itself"):
            compile_trainer(trainer, {10})


def compile_and_fill(send, headroom, folder):
    """Compile under a limit, with an empty cache, and then allocate until nothing is left.

    Returns:
        The limit and the resident peak afterwards, in bytes, and whether the graph computes the right thing.
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.environ["XBENCH_CACHE_DIR"] = str(folder)
    limit = resident_bytes() + headroom
    limit_host_memory(limit)
    model, x = nn.Tanh(), torch.linspace(-1, 1, 64)
    compile_model(model)
    is_right = torch.allclose(model(x), x.tanh())
    calibrate_host_limit_again()
    meter, blocks = host_peak_meter(), []
    meter.reset()
    with suppress(MemoryError):
        while True:
            blocks.append(np.ones(500_000, dtype=np.uint8))
    peak = meter.peak_bytes()
    return limit, peak, is_right


@pytest.mark.slow
@needs_compiler
def test_compiling_under_a_limit_leaves_it_as_it_was(tmp_path):
    headroom = 600 << 20
    limit, peak, is_right = run_in_child(compile_and_fill, headroom, tmp_path, limits=Limits()).get()
    assert is_right
    assert limit - 0.2 * headroom < peak <= limit


def trainer_of(train: int, batch: int, part: int, others: tuple[int, ...] = (0, 0), **fields):
    """What the sizes depend on."""
    validation, test = (np.arange(size) for size in others)
    task = SimpleNamespace(additive=fields.pop("additive", True), optimum=fields.pop("optimum", None))
    return SimpleNamespace(
        split=Split(np.arange(train), validation, test),
        batch_size=batch,
        micro_batch=part,
        evaluation_chunk=part if task.additive else batch,
        settings=SimpleNamespace(drop_last=fields.pop("drop_last", False)),
        objective=SimpleNamespace(task=task, covers=lambda rows: True),
    )


class TestSizes:
    @pytest.mark.parametrize(
        ("train", "batch", "part", "drop_last", "expected"),
        [
            (20, 10, 10, False, {10}),
            (23, 10, 10, False, {10, 3}),
            (23, 10, 10, True, {10}),
            (23, 10, 4, False, {4, 2, 3}),
            (26, 10, 4, False, {4, 2}),
            (10, 10, 10, False, {10}),
            (10, 10, 3, False, {3, 1}),
        ],
    )
    def test_of_steps(self, train, batch, part, drop_last, expected):
        trainer = trainer_of(train, batch, part, drop_last=drop_last)
        assert compilation._list_step_sizes(trainer) == expected

    @pytest.mark.parametrize(
        ("others", "additive", "expected"),
        [
            ((0, 0), True, {10, 3}),
            ((9, 30), True, {9, 10, 3}),
            ((12, 0), True, {10, 2, 3}),
            ((9, 30), False, {9, 10}),
        ],
    )
    def test_of_evaluation(self, others, additive, expected):
        trainer = trainer_of(23, 10, 10, others, additive=additive)
        assert list_evaluation_sizes(trainer) == expected

    def test_of_gradients_are_those_of_known_minima(self):
        assert compilation._list_gradient_sizes(trainer_of(23, 10, 10)) == set()
        assert compilation._list_gradient_sizes(trainer_of(23, 10, 10, optimum=0.0)) == {10, 3}


def test_a_cached_graph_counts_for_what_compiling_it_took():
    first, second, third = Compilation(), Compilation(), Compilation()
    first.add("graph", 20.0, was_cached=False)
    first.finish(21.0)
    second.add("graph", 0.5, was_cached=True)
    second.finish(1.5)
    assert (first.seconds, second.seconds, second.untimed) == (21.0, 21.0, 0)
    third.add("another", 0.5, was_cached=True)
    third.finish(1.5)
    assert (third.seconds, third.untimed) == (1.5, 1)
    third.add("graph", 0.25, was_cached=True)
    assert (third.graphs, third.late_s, third.seconds) == (2, 0.25, 1.5)


def test_a_model_can_be_run_without_its_graphs():
    model = nn.Linear(2, 1)
    model._compiled_call_impl = lambda x: math.pi
    with run_uncompiled(model):
        assert isinstance(model(torch.ones(1, 2)), torch.Tensor)
    assert model(torch.ones(1, 2)) == math.pi
