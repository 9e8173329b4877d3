"""A cell is known by what was asked for: by all that can change its result, and by nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from job_samples import MACHINE, job_of

from xbench.components import code
from xbench.execution import identity
from xbench.training.settings import Choice


def on(versions=None, **fields):
    """This machine, but for some of it."""
    known = {"xbench": "1", "torch": "2", "torchvision": "1", "numpy": "2"} | (versions or {})
    return replace(MACHINE, versions=known, **fields)


@pytest.fixture
def job(tiny_data):
    return replace(job_of(tiny_data, batch_size=5), machine=on())


def with_cell(job, **fields):
    """The job of a cell that was declared otherwise."""
    cell = replace(job.cell, **fields)
    settings = replace(
        job.settings, model=cell.model, optimizer=cell.optimizer, training=cell.training, seed=cell.seed
    )
    return replace(job, cell=cell, settings=settings)


def training(job, **fields):
    return with_cell(job, training=job.cell.training.model_copy(update=fields))


OTHERS = {
    "hyperparameter": lambda job: with_cell(job, optimizer=Choice("opt", {"lr": 0.1})),
    "optimizer": lambda job: with_cell(job, optimizer=Choice("another", {})),
    "model": lambda job: with_cell(job, model=Choice("another", {})),
    "model's setting": lambda job: with_cell(job, model=Choice("net", {"width": 3})),
    "seed": lambda job: with_cell(job, seed=1),
    "epochs": lambda job: training(job, epochs=7),
    "batch size": lambda job: training(job, batch_size=6),
    "micro-batch": lambda job: training(job, micro_batch=3),
    "train size": lambda job: training(job, train_size=20),
    "dtype": lambda job: training(job, dtype="float64"),
    "TF32": lambda job: training(job, tf32=True),
    "memory format": lambda job: training(job, memory_format="contiguous"),
    "threads": lambda job: training(job, threads=7),
    "storage": lambda job: replace(job, settings=replace(job.settings, storage="float32")),
    "memory limit": lambda job: replace(job, asked_limits=("1000000000",)),
    "expect": lambda job: with_cell(job, expect="oom"),
    "adapt": lambda job: with_cell(job, adapt=("micro_batch",)),
    "order of adapt": lambda job: with_cell(job, adapt=("train_size", "micro_batch")),
    "company": lambda job: replace(job, company=("adam",)),
    "data": lambda job: replace(job, data=replace(job.data, fingerprint="other")),
    "weights": lambda job: replace(job, model=replace(job.model, weights="other")),
    "torch": lambda job: replace(job, machine=on({"torch": "3"})),
    "xbench": lambda job: replace(job, machine=on({"xbench": "2"})),
    "numpy": lambda job: replace(job, machine=on({"numpy": "3"})),
    "Python": lambda job: replace(job, machine=on({"python": "3.99.0"})),
    "CUDA": lambda job: replace(job, machine=on({"cuda": "13.9"})),
    "cuDNN": lambda job: replace(job, machine=on({"cudnn": "99999"})),
    "device": lambda job: replace(job, machine=on(device_facts={"type": "cuda", "name": "a processor"})),
    "GPU": lambda job: replace(job, machine=on(device_facts={"type": "cuda", "name": "another"})),
    "allocator": lambda job: replace(job, machine=on(allocator={"MALLOC_ARENA_MAX": "4"})),
    "column": lambda job: with_cell(job, column="renamed"),
}
SAME = {
    "experiment": lambda job: with_cell(job, experiment="renamed"),
    "processor": lambda job: replace(job, machine=on(device_facts={"type": "cpu", "name": "z"})),
    "place": lambda job: with_cell(job, path=("experiment", 3, "optimizer", 2)),
    "timeout": lambda job: replace(with_cell(job, timeout_s=300.0), timeout_s=300.0),
    "checkpoint interval": lambda job: replace(job, checkpoint_every_s=1.0),
    "estimate": lambda job: replace(job, estimated_s=3.0),
    "what the machine has": lambda job: replace(job, memory_limit_bytes=10**10),
    "hardware": lambda job: replace(job, machine=on(hardware={"cores": 64})),
    "other packages": lambda job: replace(job, machine=on({"pandas": "3"})),
    "what was fitted": lambda job: replace(
        job,
        settings=replace(job.settings, training=job.settings.training.model_copy(update={"micro_batch": 2})),
    ),
    "malloc": lambda job: replace(job, gives_back=True),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_cell(job, what):
    assert OTHERS[what](job).planned.cell_id != job.planned.cell_id


@pytest.mark.parametrize("what", SAME)
def test_the_same_cell(job, what):
    assert SAME[what](job).planned.cell_id == job.planned.cell_id


def test_all_of_them_are_different(job):
    assert len({other(job).planned.cell_id for other in OTHERS.values()}) == len(OTHERS)


def test_it_bears_its_names(job):
    planned = with_cell(job, experiment="renamed", column="label", seed=3).planned
    assert (planned.experiment, planned.column, planned.seed) == ("renamed", "label", 3)


class TestCode:
    @pytest.fixture
    def mine(self, job, tmp_path):
        """The cell of a model in a folder of the user's."""
        (tmp_path / "mine.py").write_text("import part\n")
        (tmp_path / "part.py").write_text("a = 1\n")

        def of():
            code.code_stamp.cache_clear()
            return replace(with_cell(job, model=Choice("mine:net", {})), import_dirs=(str(tmp_path),)).planned

        yield of
        code.code_stamp.cache_clear()

    @pytest.mark.parametrize("name", ["mine.py", "part.py", "new.json"])
    def test_changed(self, mine, tmp_path, name):
        before = mine()
        (tmp_path / name).write_text("import part\na = 2\n")
        assert mine().cell_id != before.cell_id

    def test_the_same(self, mine, tmp_path):
        before = mine()
        (tmp_path / "suite.toml").write_text("[suite]\n[[experiment]]\n")
        assert mine() == before

    def test_of_xbench_where_it_lies(self, job, monkeypatch):
        stamps = set()
        for stamp in ("", "one", "two"):
            monkeypatch.setattr(identity, "own_stamp", lambda stamp=stamp: stamp)
            stamps.add(job.planned.cell_id)
        assert len(stamps) == 3
