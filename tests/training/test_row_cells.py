"""Whole cells on rows: scores, resumption, pairing, and the memory pass."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.padded_rows import make_padded_dataset, make_token_model
from tests.training.row_parts import Listed, prepare
from tests.training.sessions import Session
from xbench import DatasetSpec, Metric, ModelSpec, Optimum, Output, RowDataset, Task, Term, XbenchError
from xbench.capacity.axes import Axis
from xbench.capacity.workload import TrainingWorkload
from xbench.components import registry
from xbench.components.landscapes import build_rosenbrock
from xbench.components.poisson import build_poisson_1d
from xbench.components.row_models import build_mlp, build_point
from xbench.errors import DependentExamples
from xbench.planning.task_facts import describe_task
from xbench.training.evaluation import evaluate
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings, Choice, TrainingSettings

X = np.random.default_rng(0).normal(size=(20, 3))
Y = X.sum(1, keepdims=True) + 0.1


def squares(outputs, batch):
    return (outputs - batch[1]).square().mean(1)


def build_known_rows() -> RowDataset:
    """Rows without test rows, whose task has a penalty and an optimum of 0.01 (which is not the true one)."""
    return RowDataset(
        train=(torch.from_numpy(X), torch.from_numpy(Y)),
        task=Task(
            loss_of=squares,
            penalty=lambda model: 0.5 * sum(p.square().sum() for p in model.parameters()),
            optimum=Optimum(0.01),
            output=Output("values", 1),
            metrics=(
                Metric(name="error", direction="min", value=lambda out, batch: (out - batch[1]).abs()[:, 0]),
                Metric(name="worst", direction="min", function=np.max),
            ),
        ),
    )


class Masked(nn.Module):
    """Predicts tokens from embeddings of which some are masked in training."""

    def __init__(self):
        super().__init__()
        self.drop, self.model = nn.Dropout(0.2), make_token_model()

    def forward(self, tokens):
        return self.drop(self.model(tokens))


def build_dicts() -> RowDataset:
    """Rows of two entries, neither of which is the first."""
    task = Task(loss=lambda model, batch: (model(batch["x"]) - batch["y"]).square()[:, 0])
    return RowDataset(train={"y": torch.from_numpy(Y), "x": torch.from_numpy(X)}, task=task)


def build_tensors() -> RowDataset:
    """Rows of a single tensor."""
    return RowDataset(train=torch.from_numpy(X), task=Task(loss_of=lambda out, batch: out.square()[:, 0]))


def build_rows_with_roles() -> RowDataset:
    """The task says more of the first layer of `network` than its spec."""
    known = build_known_rows()
    return replace(known, task=replace(known.task, roles={"1.weight": "embedding"}))


def build_unequal_terms(mixes: bool = False) -> RowDataset:
    """20 rows of a term whose rows grow, 100 rows of another, and one row of a third.

    Args:
        mixes: whether losses of the second term depend on the other rows in training.
    """

    def lose(model, batch):
        outputs = model(batch[:, :3])
        return (outputs - outputs.mean() * (mixes and model.training)).square()[:, 0]

    growing = [torch.full((3 + place,), 1.0 + place) for place in range(20)]
    return RowDataset(
        train={
            "edge": Listed(growing),
            "inside": torch.from_numpy(np.random.default_rng(1).normal(size=(100, 3))).float(),
            "start": torch.zeros(1, 3),
        },
        collate=lambda rows: nn.utils.rnn.pad_sequence(rows, batch_first=True),
        task=Task(
            loss={
                "edge": Term(loss=lambda model, batch: (model(batch[:, :3]) - 1).square()[:, 0]),
                "inside": Term(loss=lose),
                "start": Term(loss=lambda model, batch: model(batch).square()[:, 0]),
            }
        ),
        hold_out=False,
    )


SPECS = {
    "unequal terms": DatasetSpec(factory=build_unequal_terms),
    "mixing term": DatasetSpec(factory=lambda: build_unequal_terms(mixes=True)),
    "dicts": DatasetSpec(factory=build_dicts),
    "tensors": DatasetSpec(factory=build_tensors),
    "forgetful": ModelSpec(factory=lambda: Forgetful()),
    "padded": DatasetSpec(factory=make_padded_dataset),
    "known": DatasetSpec(factory=build_known_rows),
    "poisson": DatasetSpec(factory=lambda: build_poisson_1d(points=24)),
    "valley": DatasetSpec(factory=build_rosenbrock),
    "masked": ModelSpec(factory=Masked),
    "linear-one": ModelSpec(factory=lambda: nn.Linear(3, 1, bias=False)),
    "network": ModelSpec(factory=lambda facts: build_mlp(facts, hidden=(6,), activation="tanh")),
    "network-with-roles": ModelSpec(
        factory=lambda facts: build_mlp(facts, hidden=(6,)), roles={"1.*": "output", "*.bias": "hidden"}
    ),
    "rows-with-roles": DatasetSpec(factory=build_rows_with_roles),
    "point-in-valley": ModelSpec(factory=build_point),
}


@pytest.fixture(autouse=True)
def components(monkeypatch):
    real_load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): SPECS.get(name) or real_load(kind, name, dirs)
    )
    monkeypatch.setattr("xbench.training.row_set._last", {})


def job_of(data, model, optimizer, folder, params=None, seed=0, **training) -> CellJob:
    settings = CellSettings(
        Choice(model, {}),
        Choice(optimizer, params or {}),
        TrainingSettings(**{"epochs": 2, "batch_size": 7, "dtype": "float64", **training}),
        seed,
        "cpu",
    )
    folder.mkdir(exist_ok=True)
    return CellJob(settings, prepare(SPECS[data].factory(), data)[1], scratch=folder)


LAST = {"validation": 0.0, "selection": "last"}


class TestScoresWithoutTestRows:
    def test_are_those_of_training_and_say_so(self, tmp_path):
        scores = Session(job_of("known", "linear-one", "sgd", tmp_path, {"lr": 0.1}, **LAST)).result.scores
        assert set(scores.values) == {"train_loss", "train_error", "suboptimality", "gradient_norm"}
        declared = {metric.name: metric for metric in describe_task(build_known_rows().task, False).metrics}
        assert set(declared) == {*scores.values, "worst"}
        assert {metric.split for metric in declared.values()} == {"train"}
        assert declared["worst"].title == "train worst"

    @pytest.mark.parametrize("micro_batch", ["full", 3])
    def test_are_those_of_numpy(self, tmp_path, micro_batch):
        """The loss is the mean squared error and the penalty; its minimum and gradient are of all rows."""
        training = {"batch_size": 20, "epochs": 1, "micro_batch": micro_batch, **LAST}
        job = job_of("known", "linear-one", "sgd", tmp_path, {"lr": 0.1}, **training)
        torch.manual_seed(0)
        start = nn.Linear(3, 1, bias=False).weight.detach().double().numpy().T

        def gradient(w):
            return 2 * X.T @ (X @ w - Y) / len(X) + w

        after = start - 0.1 * gradient(start)
        loss = np.square(X @ after - Y).mean() + 0.5 * np.square(after).sum()
        session = Session(job)
        found = session.result.scores.values
        first = np.square(X @ start - Y).mean() + 0.5 * np.square(start).sum()
        assert session.rows[0].loss == pytest.approx(first, rel=1e-12)
        assert found["train_loss"] == pytest.approx(loss, rel=1e-12)
        assert found["suboptimality"] == pytest.approx(loss - 0.01, rel=1e-12)
        assert found["gradient_norm"] == pytest.approx(np.linalg.norm(gradient(after)), rel=1e-12)
        assert found["train_error"] == pytest.approx(np.abs(X @ after - Y).mean(), rel=1e-12)
        collected = session.result.scores.collected
        np.testing.assert_allclose(collected, X @ after, rtol=1e-12)
        np.testing.assert_allclose(session.result.scores.losses, np.square(X @ after - Y)[:, 0], rtol=1e-12)

    @pytest.mark.parametrize(
        "training",
        [{**LAST, "train_size": 19}, {"validation": 0.2}, {"validation": 0.2, "selection": "last"}],
    )
    def test_lack_the_distance_to_the_optimum_of_all_rows_on_a_part(self, tmp_path, training):
        values = Session(job_of("known", "linear-one", "sgd", tmp_path, **training)).result.scores.values
        assert set(values) == {"train_loss", "train_error"}

    def test_have_it_if_all_are_named_by_their_number(self, tmp_path):
        training = {**LAST, "train_size": 20}
        values = Session(job_of("known", "linear-one", "sgd", tmp_path, **training)).result.scores.values
        assert "suboptimality" in values


class TestTerms:
    def test_are_scored_by_their_mean_losses(self, tmp_path):
        """They add up to the loss."""
        session = Session(job_of("poisson", "network", "sgd", tmp_path, {"lr": 1e-4}, validation=0.2))
        values, dataset = session.result.scores.values, build_poisson_1d(points=24)
        declared = {metric.name for metric in describe_task(dataset.task).metrics} - {"relative_l2_error"}
        assert {*values} == declared | {"train_loss"}
        scales = {name: term.scale for name, term in dataset.task.terms.items()}
        for of in (*(epoch.values for epoch in session.epochs), values):
            for split in {name.split("_")[0] for name in of if name.endswith("_interior_loss")}:
                # Of the boundary, validation has no row.
                total = sum(scale * of.get(f"{split}_{name}_loss", 0) for name, scale in scales.items())
                assert total == pytest.approx(of[f"{split}_loss"], rel=1e-13)
        assert "validation_interior_loss" in session.epochs[0].values


class TestASingleRow:
    def test_is_the_function_of_a_point(self, tmp_path):
        job = job_of("valley", "point-in-valley", "sgd", tmp_path, {"lr": 1e-4}, epochs=1, **LAST)
        session = Session(job)
        start = build_rosenbrock().train[0][0].numpy()

        def value(x):
            return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))

        def gradient(x):
            found = np.zeros_like(x)
            for i in range(len(x) - 1):
                found[i] += -400 * x[i] * (x[i + 1] - x[i] ** 2) - 2 * (1 - x[i])
                found[i + 1] += 200 * (x[i + 1] - x[i] ** 2)
            return found

        after = start - 1e-4 * gradient(start)
        values = session.result.scores.values
        assert session.rows[0].loss == pytest.approx(value(start), rel=1e-12)
        assert values["train_loss"] == values["suboptimality"] == pytest.approx(value(after), rel=1e-12)
        assert values["gradient_norm"] == pytest.approx(np.linalg.norm(gradient(after)), rel=1e-10)
        assert values["train_distance"] == pytest.approx(np.linalg.norm(after - 1), rel=1e-12)

    def test_that_cannot_be_held_out_is_told(self, tmp_path):
        with pytest.raises(XbenchError, match="holds nothing out: there are too few rows") as caught:
            Session(job_of("valley", "point-in-valley", "sgd", tmp_path))
        assert "image" not in caught.value.message


CELLS = {
    "padded": ("padded", "masked", {"validation": 0.2}),
    "padded in parts": ("padded", "masked", {"validation": 0.2, "micro_batch": 3}),
    "terms": ("poisson", "network", {**LAST, "micro_batch": 4}),
    "a point": ("valley", "point-in-valley", {**LAST, "epochs": 6}),
    "no test rows": ("known", "linear-one", {"validation": 0.2}),
}
OPTIMIZERS = {
    "sgd": {"lr": 1e-4, "momentum": 0.9},
    "adam": {},
    "lbfgs": {"lr": 1e-3, "history_size": 3, "max_iter": 3},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_that_is_stopped_and_resumed_is_the_same_bit_for_bit(tmp_path, name, optimizer):
    data, model, training = CELLS[name]
    job = job_of(data, model, optimizer, tmp_path / "parts", OPTIMIZERS[optimizer], **training)
    whole = Session(job_of(data, model, optimizer, tmp_path / "whole", OPTIMIZERS[optimizer], **training))
    first = Session(job, stop_after=2)
    assert first.result is None
    rest = Session(job, resume_from=first.checkpoint)
    assert rest.prepared.resumed_at == 2
    rows = [*first.rows, *rest.rows]
    assert [(r.step, r.loss, r.closures) for r in rows] == [(r.step, r.loss, r.closures) for r in whole.rows]
    assert [*first.epochs, *rest.epochs] == whole.epochs
    scores, expected = rest.result.scores, whole.result.scores
    assert scores.values == expected.values
    assert np.array_equal(scores.losses, expected.losses)
    assert all(math.isfinite(row.loss) for row in rows)


@pytest.mark.parametrize("name", CELLS)
def test_all_optimizers_start_from_the_same_weights_and_rows(tmp_path, name):
    data, model, training = CELLS[name]
    starts = set()
    for optimizer, params in OPTIMIZERS.items():
        prepared = Session(job_of(data, model, optimizer, tmp_path, params, **training)).prepared
        starts.add((prepared.weights_sha256, prepared.order_sha256))
    assert len(starts) == 1
    other = Session(job_of(data, model, "sgd", tmp_path, {"lr": 1e-4}, seed=1, **training)).prepared
    assert (other.weights_sha256, other.order_sha256) not in starts


@pytest.mark.parametrize(
    ("data", "model", "counts"),
    [
        ("known", "network", {"hidden": 24, "output": 7}),
        ("poisson", "network", {"hidden": 12, "output": 7}),
        ("known", "network-with-roles", {"hidden": 1, "output": 30}),
        ("rows-with-roles", "network-with-roles", {"embedding": 18, "hidden": 1, "output": 12}),
    ],
)
def test_trained_parameters_are_counted_by_role(tmp_path, data, model, counts):
    prepared = Session(job_of(data, model, "sgd", tmp_path, {"lr": 1e-3}, **LAST)).prepared
    assert prepared.parameters_by_role == counts


class TestTheLargestRows:
    """A memory pass takes them, since they determine the peak of an epoch."""

    def rows_taken(self, tmp_path, **training):
        job = job_of("padded", "masked", "sgd", tmp_path, validation=0.2, **training)
        trainer = TrainingWorkload(job, Axis.MICRO_BATCH).trainer(3, tmp_path, largest=True)
        return job.data, trainer

    def test_are_all_that_a_memory_pass_takes(self, tmp_path):
        data, trainer = self.rows_taken(tmp_path, batch_size=3)
        sizes = data.row_bytes[trainer.split.train]
        held_out = trainer.split.validation
        allowed = np.delete(np.arange(40), held_out)
        assert sorted(sizes[:3]) == sorted(data.row_bytes[allowed])[-3:]
        assert set(sizes) == set(sizes[:3])
        assert trainer.loader.batch_bytes(3) == 3 * data.row_bytes.max()

    def test_come_first_in_a_full_batch(self, tmp_path):
        data, trainer = self.rows_taken(tmp_path, batch_size="full")
        sizes = data.row_bytes[trainer.split.train]
        assert sizes.tolist() == sorted(sizes, reverse=True)
        assert len(np.unique(trainer.split.train)) == len(trainer.split.train)


class TestTrialsOfTerms:
    """They take rows of all terms in proportion: a first term may need less memory or time than others."""

    def trainer_of(self, tmp_path, axis, value, largest=False, data="unequal terms", **training):
        job = job_of(data, "linear-one", "sgd", tmp_path, **{**LAST, "batch_size": "full", **training})
        return TrainingWorkload(job, axis), TrainingWorkload(job, axis).trainer(value, tmp_path, largest)

    @pytest.mark.parametrize("largest", [False, True])
    @pytest.mark.parametrize(
        ("axis", "value", "counts"),
        [
            (Axis.TRAIN_SIZE, 121, (20, 100, 1)),
            (Axis.TRAIN_SIZE, 242, (40, 200, 2)),
            (Axis.TRAIN_SIZE, 13, (2, 10, 1)),
            (Axis.BATCH_SIZE, 3, (1, 1, 1)),
            (Axis.BATCH_SIZE, 25, (4, 20, 1)),
            (Axis.MICRO_BATCH, 6, (2, 9, 1)),
        ],
    )
    def test_have_all(self, tmp_path, axis, value, counts, largest):
        _, trainer = self.trainer_of(tmp_path, axis, value, largest)
        batch = trainer.objective.by_term(trainer.split.train[: trainer.batch_size])
        assert tuple(map(len, batch.values())) == counts

    def test_have_the_largest_rows_of_each_in_every_batch(self, tmp_path):
        _, trainer = self.trainer_of(tmp_path, Axis.TRAIN_SIZE, 121, largest=True, batch_size=13)
        for start in range(0, 117, 13):
            rows = trainer.objective.by_term(trainer.split.train[start : start + 13])
            assert rows["edge"].tolist() == [19, 18]
            assert (len(rows["inside"]), len(rows["start"])) == (10, 1)

    def test_a_memory_pass_evaluates_chunks_of_each(self, tmp_path, monkeypatch):
        """As large as in evaluation, where a chunk has rows of one term."""
        seen = {}

        def watch(model, loader, objective, indices, chunk, split):
            seen["counts"] = {term: len(rows) for term, rows in objective.by_term(indices).items()}
            return evaluate(model, loader, objective, indices, chunk, split)

        monkeypatch.setattr("xbench.training.memory_pass.evaluate", watch)
        workload, _ = self.trainer_of(tmp_path, Axis.MICRO_BATCH, 30)
        workload.take_pass(30)
        assert seen["counts"] == {"edge": 20, "inside": 30, "start": 1}

    @pytest.mark.parametrize("micro_batch", [1, 2, 40])
    def test_find_that_rows_of_any_depend_on_each_other(self, tmp_path, micro_batch):
        """Also if a trial has a single row of that term."""
        workload, _ = self.trainer_of(tmp_path, Axis.MICRO_BATCH, micro_batch)
        assert workload.check_micro_batches(micro_batch)
        workload, _ = self.trainer_of(tmp_path, Axis.MICRO_BATCH, micro_batch, data="mixing term")
        with pytest.raises(DependentExamples):
            workload.check_micro_batches(micro_batch)


@pytest.mark.parametrize("selection", ["validation_loss", "last"])
@pytest.mark.parametrize("name", [*CELLS, "dicts", "tensors"])
def test_a_memory_pass_finds_that_the_model_can_be_resumed(tmp_path, name, selection):
    """Whatever the structure of a batch is."""
    data, model, training = CELLS.get(name, (name, "linear-one", {}))
    if data != "valley":
        training = {**training, "validation": 0.2, "selection": selection}
    job = job_of(data, model, "adam", tmp_path, **{**training, "micro_batch": "full"})
    measured = TrainingWorkload(job, Axis.MICRO_BATCH).take_pass(4)
    assert measured.not_resumable == ""
    assert measured.steps >= 3


class Forgetful(nn.Module):
    """Keeps a weight outside of its state dict."""

    def __init__(self):
        super().__init__()
        self.layer, self.kept = nn.Linear(3, 1, bias=False), [0.0]

    def forward(self, x):
        self.kept[0] += self.training
        return self.layer(x) + self.kept[0]


@pytest.mark.parametrize("data", ["dicts", "tensors", "known"])
def test_a_memory_pass_finds_that_a_model_cannot_be_resumed(tmp_path, data):
    training = {"validation": 0.2, "selection": "validation_loss", "micro_batch": "full"}
    job = job_of(data, "forgetful", "sgd", tmp_path, **training)
    with pytest.raises(XbenchError, match="the weights of the selected epoch cannot be restored"):
        TrainingWorkload(job, Axis.MICRO_BATCH).take_pass(7)
    measured = TrainingWorkload(
        job_of(data, "forgetful", "sgd", tmp_path, **LAST), Axis.MICRO_BATCH
    ).take_pass(7)
    assert measured.not_resumable
