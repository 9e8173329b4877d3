"""Features of rows: the output of a frozen part for each row, and as good to train on as the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.frozen_models import frozen, in_order
from tests.training.row_parts import Listed, loss_and_gradient, prepare
from tests.training.sessions import Session
from xbench import DatasetSpec, Metric, ModelSpec, RowDataset, Task, Term, XbenchError
from xbench.capacity.axes import Axis
from xbench.capacity.workload import TrainingWorkload
from xbench.components import registry
from xbench.data.features import FeatureFile
from xbench.training import features as computing
from xbench.training import row_set
from xbench.training.features import make_features
from xbench.training.job import CellJob
from xbench.training.model import build_model, select_trained_part
from xbench.training.objective import Objective
from xbench.training.open_data import open_loader, open_task
from xbench.training.settings import CellSettings, Choice, TrainingSettings

CPU = torch.device("cpu")
WIDTH = 4
X = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 3)))
Y = X.sum(1, keepdim=True) + 0.1
TOKENS = torch.arange(120).reshape(30, 4) % 7


def squares(outputs, batch):
    return (outputs - batch[1]).square().mean(1)


def hidden_and_head(hidden: nn.Module) -> nn.Module:
    """A frozen part, and a trained one that draws masks."""
    head = nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), nn.Dropout(0.3), nn.Linear(5, 1))
    return in_order(hidden=frozen(hidden), head=head)


class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, WIDTH)

    def forward(self, tokens):
        return self.table(tokens).mean(1)


class Reader:
    """Rows that are read by position."""

    def __len__(self):
        return 24

    def read(self, positions):
        return {"in": X[positions], "out": Y[positions]}


MODELS = {
    "numbers": lambda: hidden_and_head(nn.Sequential(nn.Linear(3, WIDTH), nn.Tanh())),
    "tokens": lambda: hidden_and_head(Embedding()),
    "masked": lambda: in_order(
        hidden=frozen(nn.Linear(3, WIDTH)), masks=nn.Dropout(0.5), head=nn.Linear(WIDTH, 1)
    ),
    "trained": lambda: nn.Linear(3, 1),
    "normed": lambda: in_order(
        hidden=frozen(nn.Linear(3, WIDTH)),
        head=nn.Sequential(nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 1)),
    ),
}
ERROR = Metric(name="error", direction="min", value=lambda out, batch: (out - batch[1]).abs()[:, 0])
WORST = Metric(name="worst", direction="min", function=np.max)


def tuples(inputs=X, **task) -> RowDataset:
    """Rows of all three splits, with a third entry that the loss uses."""
    rows = (inputs, Y, torch.arange(30) / 10)
    train, validation, test = zip(*(tensor.split([20, 5, 5]) for tensor in rows), strict=True)
    task = Task(**{"loss_of": lambda out, batch: squares(out, batch) * batch[2]} | task)
    return RowDataset(train=train, validation=validation, test=test, task=task)


def penalise_trained(model):
    return 0.1 * sum(p.square().sum() for p in model.parameters() if p.requires_grad)


def listed() -> RowDataset:
    return RowDataset(train=Listed(list(zip(X, Y, strict=True))), task=Task(loss_of=squares))


def dicts() -> RowDataset:
    task = Task(
        outputs=lambda model, batch: model(batch["in"]),
        loss_of=lambda out, batch: (out - batch["out"]).square()[:, 0],
    )
    return RowDataset(train=Reader(), task=task)


DATASETS = {
    "tuples": lambda: tuples(metrics=(ERROR, WORST), penalty=penalise_trained),
    "tokens": lambda: tuples(inputs=TOKENS),
    "listed": listed,
    "dicts": dicts,
    "tensors": lambda: RowDataset(train=X, task=Task(loss_of=lambda out, batch: out.square()[:, 0])),
}


@pytest.fixture(autouse=True)
def components(tmp_path, monkeypatch):
    """Specs of the tests' components by name, and an empty cache."""
    specs = {name: ModelSpec(factory=factory) for name, factory in MODELS.items()}
    specs |= {f"{name} rows": DatasetSpec(factory=factory) for name, factory in DATASETS.items()}
    real_load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): specs.get(name) or real_load(kind, name, dirs)
    )
    monkeypatch.setattr("xbench.training.row_set._last", {})
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))
    return specs


class Asked:
    """A job on features of a dataset, and the report on computing them."""

    def __init__(self, dataset, model="numbers", folder=None, indices=None, optimizer="sgd", **training):
        row_set._last.clear()  # as in another process
        rows, self.data = prepare(
            registry.load("dataset", f"{dataset} rows").load_factory()(), f"{dataset} rows"
        )
        self.settings = CellSettings(
            Choice(model, {}),
            Choice(optimizer, {"lr": 0.05}),
            TrainingSettings(**{"epochs": 2, "batch_size": 7, "dtype": "float64", **training}),
            0,
            "cpu",
        )
        self.told = []
        indices = np.arange(len(rows)) if indices is None else indices
        self.report = make_features(self.told.append, self.settings, self.data, indices)
        self.without = CellJob(self.settings, self.data, scratch=folder)
        self.job = replace(self.without, features=self.report.file)


PAIRS = [(name, "tokens" if name == "tokens" else "numbers") for name in DATASETS]


class TestFeatures:
    def test_are_computed_once_for_each_row_of_any_split(self):
        first = Asked("tuples", indices=np.arange(15, 30))
        assert (first.report.computed, first.report.missing, first.report.note) == (15, 0, "")
        assert first.told[-1] == (15, 15)
        more = Asked("tuples")
        assert (more.report.computed, more.report.file) == (15, first.report.file)
        assert Asked("tuples").report.computed == 0
        file = more.report.file
        assert (file.rows, file.shape, file.precision) == (30, (WIDTH,), "float64")

    @pytest.mark.parametrize(("dataset", "model"), PAIRS)
    def test_take_the_place_of_the_first_tensor_of_a_batch_alone(self, dataset, model):
        asked = Asked(dataset, model)
        chosen = np.array([7, 2, 11])
        spec = registry.load("model", model)
        inputs, *others = _tensors(open_loader(asked.settings, asked.data, spec, None).load(chosen))
        found, *rest = _tensors(open_loader(asked.settings, asked.data, spec, asked.report.file).load(chosen))
        hidden = build_model(spec, asked.settings, asked.data).hidden
        torch.testing.assert_close(found, hidden(inputs), rtol=1e-12, atol=0)
        assert all(map(torch.equal, rest, others))
        assert len(rest) == len(others)

    def test_are_those_of_a_precision(self):
        files = [
            Asked("tuples", **training).report.file
            for training in ({}, {"dtype": "float32"}, {"features": "bfloat16"})
        ]
        assert [file.precision for file in files] == ["float64", "float32", "bfloat16"]
        assert len({file.folder for file in files}) == 3

    def test_of_other_rows_or_weights_are_others(self, components):
        first = Asked("tuples").report.file
        components["tuples rows"] = DatasetSpec(factory=lambda: tuples(inputs=X + 1))
        assert Asked("tuples").report.file.folder != first.folder


def _tensors(batch):
    if isinstance(batch, torch.Tensor):
        return [batch]
    return list(batch.values() if isinstance(batch, dict) else batch)


class TestTraining:
    @pytest.mark.parametrize("micro_batch", [None, 3])
    @pytest.mark.parametrize(("dataset", "model"), PAIRS)
    def test_loss_and_gradient_of_a_batch_are_the_same(self, dataset, model, micro_batch):
        asked = Asked(dataset, model)
        spec, batch = registry.load("model", model), np.array([3, 1, 4, 15, 9, 2, 6])
        objective = Objective(open_task(asked.data), asked.data, {}, CPU, torch.float64)
        values = []
        for file in (None, asked.report.file):
            loader = open_loader(asked.settings, asked.data, spec, file)
            network = select_trained_part(build_model(spec, asked.settings, asked.data), file).model
            values.append(loss_and_gradient((loader, objective), network, batch, micro_batch))
        (loss, gradient), (expected_loss, expected) = values
        assert loss == pytest.approx(expected_loss, rel=1e-12)
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)
        assert gradient.norm() > 0

    @pytest.mark.parametrize("optimizer", ["sgd", "lbfgs"])
    @pytest.mark.parametrize(("dataset", "model"), PAIRS)
    def test_a_cell_has_the_same_losses_and_scores(self, tmp_path, dataset, model, optimizer):
        kept = (
            {"validation": 0.0, "selection": "last"}
            if dataset in ("tokens", "tuples")
            else {"validation": 0.2}
        )
        asked = Asked(dataset, model, tmp_path, optimizer=optimizer, **kept)
        whole, session = Session(asked.without), Session(asked.job)
        assert [row.loss for row in session.rows] == pytest.approx([row.loss for row in whole.rows], rel=1e-9)
        assert session.result.scores.values == pytest.approx(whole.result.scores.values, rel=1e-9)
        assert [e.values for e in session.epochs] == [pytest.approx(e.values, rel=1e-9) for e in whole.epochs]
        starts = [(s.prepared.weights_sha256, s.prepared.order_sha256) for s in (whole, session)]
        assert starts[0] == starts[1]

    @pytest.mark.parametrize(
        "precision", [{"dtype": "bfloat16"}, {"dtype": "float32", "autocast": "bfloat16"}]
    )
    @pytest.mark.parametrize(("dataset", "model"), PAIRS[:2])
    def test_a_cell_in_bfloat16_has_the_same_losses_up_to_rounding(self, tmp_path, dataset, model, precision):
        asked = Asked(dataset, model, tmp_path, validation=0.0, selection="last", **precision)
        spec, chosen = registry.load("model", model), np.array([7, 2, 11])
        features, *others = _tensors(
            open_loader(asked.settings, asked.data, spec, asked.report.file).load(chosen)
        )
        is_rounded = "autocast" not in precision or dataset == "tuples"  # autocast leaves embeddings alone
        assert features.dtype is (torch.bfloat16 if is_rounded else torch.float32)
        assert {t.dtype for t in others if t.is_floating_point()} == {torch.float32}
        whole, session = Session(asked.without), Session(asked.job)
        assert [row.loss for row in session.rows] == pytest.approx([row.loss for row in whole.rows], rel=0.02)

    def test_only_the_trained_part_is_held(self, tmp_path):
        asked = Asked("listed", folder=tmp_path, validation=0.2)
        head_bytes = 8 * (WIDTH * 5 + 5 + 5 + 1)
        assert Session(asked.job).result.memory.parameters_bytes == head_bytes
        measured = TrainingWorkload(asked.job, Axis.MICRO_BATCH).take_pass(7)
        assert (measured.parameters_bytes, measured.not_resumable) == (head_bytes, "")

    def test_a_memory_pass_needs_the_features_of_a_few_rows_only(self, tmp_path):
        few = np.array([2, 5, 11])
        asked = Asked("listed", folder=tmp_path, indices=few, validation=0.0, selection="last")
        trainer = TrainingWorkload(asked.job, Axis.MICRO_BATCH).trainer(7, tmp_path)
        assert set(trainer.split.train) == set(few)
        measured = TrainingWorkload(asked.job, Axis.MICRO_BATCH).take_pass(7)
        assert measured.steps >= 3

    def test_a_cell_refuses_features_that_are_missing(self, tmp_path):
        asked = Asked("listed", folder=tmp_path, indices=np.arange(20), validation=0.2)
        with pytest.raises(RuntimeError, match="lacks features of examples"):
            Session(asked.job)


def derive(model, batch):
    x = batch[0].detach().requires_grad_()
    return torch.autograd.grad(model(x).sum(), x, create_graph=True)[0].square().sum(1)


def penalise_all(model):
    return sum(p.square().sum() for p in model.parameters())


TWICE = Metric(name="m", direction="min", value=lambda out, batch: out[:, 0] * batch[0][:, 0])
LENGTH = Metric(name="m", direction="min", function=np.mean)
OBSTACLES = {
    "terms": (
        lambda: RowDataset(train={"a": X}, task=Task(loss={"a": Term(loss=lambda m, x: m(x)[:, 0])})),
        "the loss has several terms",
    ),
    "derivatives": (
        lambda: tuples(loss_of=None, loss=derive, differentiates=True),
        "the loss takes derivatives with respect to the model's inputs",
    ),
    "the loss reads inputs": (
        lambda: tuples(loss_of=lambda out, batch: (out - batch[0]).square().sum(1)),
        "the task itself uses the model's inputs",
    ),
    "a metric reads inputs": (lambda: tuples(metrics=(TWICE,)), "the task itself uses the model's inputs"),
    "what is collected has inputs": (
        lambda: tuples(metrics=(LENGTH,), collect=lambda out, batch: out + batch[0].sum(1, keepdim=True)),
        "the task itself uses the model's inputs",
    ),
    "labels are made of inputs": (
        lambda: tuples(classes=("a", "b"), label=lambda batch: (batch[0][:, 0] > 0).long()),
        "the task itself uses the model's inputs",
    ),
    "inputs are changed on the way": (
        lambda: tuples(outputs=lambda model, batch: model(2 * batch[0])),
        "the task itself uses the model's inputs",
    ),
    "the second tensor is the input": (
        lambda: tuples(outputs=lambda model, batch: model(batch[1].expand(-1, 3))),
        "the task does not call the model with the first tensor of a batch alone",
    ),
    "a part is called": (
        lambda: tuples(outputs=lambda model, batch: model.head(model.hidden(batch[0]))),
        "the task itself uses the model's inputs",
    ),
    "a part is read": (
        lambda: tuples(
            outputs=lambda model, batch: model(batch[0]) * (1 + model.hidden[0].weight.square().sum())
        ),
        "the task needs more of the model than 'head': AttributeError",
    ),
    "the penalty is of all parameters": (
        lambda: tuples(penalty=penalise_all),
        "the penalty of the task does not depend on 'head' alone",
    ),
    "the loss is of all parameters": (
        lambda: tuples(loss_of=None, loss=lambda model, batch: model(batch[0])[:, 0] + penalise_all(model)),
        "the loss of the task does not depend on 'head' alone",
    ),
    "rows are padded": (
        lambda: RowDataset(
            train=Listed([(torch.ones(1 + i % 3, 3).double(), torch.ones(1)) for i in range(9)]),
            collate=lambda rows: (
                nn.utils.rnn.pad_sequence([row[0] for row in rows], batch_first=True),
                torch.stack([row[1] for row in rows]),
            ),
            task=Task(loss_of=lambda out, batch: out.sum((1, 2))),
        ),
        "rows differ in size",
    ),
    "inputs depend on the batch": (
        lambda: RowDataset(
            train=Listed(list(zip(X, Y, strict=True))),
            collate=lambda rows: (
                torch.stack([row[0] for row in rows]) / len(rows),
                torch.stack([row[1] for row in rows]),
            ),
            task=Task(loss_of=squares),
        ),
        "the inputs of a row depend on the other rows of its batch",
    ),
}


class TestObstacle:
    @pytest.mark.parametrize("name", OBSTACLES)
    def test_is_told_and_the_cell_trains_without(self, components, tmp_path, name):
        make, expected = OBSTACLES[name]
        components["hard rows"] = DatasetSpec(factory=make)
        asked = Asked("hard", folder=tmp_path, validation=0.0, selection="last")
        assert asked.report.file is None
        assert asked.report.note.startswith(expected)
        assert "\n" not in asked.report.note
        assert Session(asked.job).result.status == "done"

    def test_of_the_model_is_told_as_for_images(self):
        note = Asked("tuples", "masked").report.note
        assert note.startswith("the frozen part before 'head' does not always give the same output")
        assert note.endswith("in training mode: masks (Dropout)")
        report = Asked("tuples", "trained").report
        assert (report.file, report.note) == (None, "")

    def test_is_not_that_statistics_of_the_trained_part_move(self):
        assert Asked("tuples", "normed").report.note == ""

    def test_is_looked_for_in_each_task_on_the_same_rows(self, components):
        first = components["tuples rows"]
        assert Asked("tuples").report.computed == 30
        components["tuples rows"] = DatasetSpec(factory=OBSTACLES["a metric reads inputs"][0])
        assert Asked("tuples").report.note == "the task itself uses the model's inputs"
        components["tuples rows"] = first
        assert Asked("tuples").report.computed == 0

    @pytest.mark.parametrize("uneven", [{1}, {25}, set(range(15, 30))])
    def test_is_an_uneven_row_wherever_it_is(self, components, tmp_path, uneven):
        """Sizes of rows are not known if the dataset declares its fingerprint."""

        def pad(rows):
            longest = max(x.shape[1] for x, _ in rows)
            padded = [nn.functional.pad(x, (0, longest - x.shape[1])) for x, _ in rows]
            return torch.stack(padded), torch.stack([y for _, y in rows])

        def make():
            rows = [(X[i, :, None].expand(3, 1 + (i in uneven)), Y[i]) for i in range(30)]
            task = Task(loss_of=squares)
            return RowDataset(train=Listed(rows), task=task, collate=pad, fingerprint="mine")

        components["late rows"] = DatasetSpec(factory=make)
        components["flat"] = ModelSpec(
            factory=lambda: in_order(
                hidden=frozen(nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, WIDTH))),
                head=nn.Linear(WIDTH, 1),
            )
        )
        asked = Asked("late", "flat")
        assert asked.data.row_bytes is None
        assert (asked.report.file, asked.report.note) == (None, "rows differ in shape")
        assert list((tmp_path / "cache" / "features").glob("*/values")) == []


def test_features_of_other_code_are_made_anew(monkeypatch):
    first = Asked("tuples").report
    monkeypatch.setattr(nn.Tanh, "forward", lambda own, x: 2 * torch.tanh(x))
    again = Asked("tuples").report
    assert (again.computed, again.file) == (30, first.file)
    assert FeatureFile.find(again.file.folder) == again.file


def test_no_room_is_a_reason(monkeypatch):

    def refuse(folder, needed_bytes, what):
        raise XbenchError(f"{what} needs {needed_bytes} bytes")

    monkeypatch.setattr(computing, "require_space", refuse)
    assert Asked("tuples").report.note == f"caching features needs {30 * 8 * WIDTH} bytes"


def test_patterns_of_groups_are_of_names_in_the_whole_model(tmp_path):
    """With features, only a part of the model is trained."""
    losses = []
    for groups in ({"head.*": {"lr": 0.01}}, {}):
        asked = Asked("tuples", folder=tmp_path, groups=groups)
        for job in (asked.job, asked.without):
            session = Session(job)
            assert session.result.status == "done"
            losses.append([row.loss for row in session.rows])
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    assert losses[2] == pytest.approx(losses[3], rel=1e-10)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)
