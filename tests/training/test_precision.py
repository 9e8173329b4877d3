"""Training in bfloat16 and under autocast: what is computed in 16 bits, and what is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tests.training import frozen_models
from tests.training.frozen_models import WIDTH
from tests.training.row_parts import prepare
from xbench import Metric, ModelSpec, RowDataset, Task
from xbench.capacity.axes import Axis
from xbench.capacity.workload import TrainingWorkload
from xbench.components import registry
from xbench.components.classification import classification
from xbench.components.regression import penalise_squares, regression
from xbench.data.features import FeatureFile
from xbench.training.cell import train_cell
from xbench.training.closure import AccumulatingClosure
from xbench.training.evaluation import evaluate
from xbench.training.events import StepsDone
from xbench.training.features import make_features
from xbench.training.job import CellJob
from xbench.training.loader import ImageLoader
from xbench.training.micro_batches import check_examples_are_independent
from xbench.training.objective import Objective
from xbench.training.precision import autocast, cast_model, in_float32, widen
from xbench.training.row_loader import RowLoader
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.task_checks import check_task

CPU = torch.device("cpu")
BFLOAT16 = [{"dtype": "bfloat16"}, {"autocast": "bfloat16"}]


def rows_of(task: Task, **tensors: torch.Tensor) -> RowDataset:
    return RowDataset(train=tuple(tensors.values()), task=task, hold_out=False)


def opened(dataset: RowDataset, training: TrainingSettings) -> tuple[RowLoader, Objective]:
    rows, data = prepare(dataset)
    dtype = getattr(torch, training.loss_dtype)
    return (
        RowLoader(rows, data, CPU, dtype),
        Objective(rows.task, data, {}, CPU, dtype, autocast=training.autocast),
    )


class TestSettings:
    @pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
    def test_autocast_needs_float32(self, dtype):
        with pytest.raises(ValidationError, match=f"autocast = 'bfloat16' has no effect on {dtype}"):
            TrainingSettings(autocast="bfloat16", dtype=dtype)

    def test_losses_of_bfloat16_are_float32(self):
        dtypes = ("float32", "float64", "bfloat16")
        assert [TrainingSettings(dtype=d).loss_dtype for d in dtypes] == ["float32", "float64", "float32"]

    def test_features_keep_the_dtype_that_autocast_gives_them(self):
        assert TrainingSettings(autocast="bfloat16").feature_precision == "auto"
        assert TrainingSettings(autocast="bfloat16", features="float32").feature_precision == "float32"
        assert TrainingSettings(dtype="bfloat16").feature_precision == "bfloat16"


class TestModel:
    def test_casts_its_inputs_and_leaves_the_batch(self):
        seen = []

        class Model(nn.Linear):
            def forward(self, x, *, tokens):
                seen.extend([x.dtype, tokens.dtype])
                return super().forward(x)

        x = torch.ones(2, 3)
        output = cast_model(Model(3, 1), CPU, torch.bfloat16)(x, tokens=torch.arange(2))
        assert seen == [torch.bfloat16, torch.int64]
        assert (output.dtype, x.dtype) == (torch.bfloat16, torch.float32)

    def test_takes_inputs_of_the_dtype_that_it_has_now(self):
        model = cast_model(nn.Linear(3, 1), CPU, torch.bfloat16).double()
        assert model(torch.ones(2, 3)).dtype is torch.float64

    def test_is_the_same_after_float32(self):
        model = cast_model(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), CPU, torch.bfloat16)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with in_float32(model):
            assert {p.dtype for p in model.parameters()} == {torch.float32}
        after = model.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert after["0.weight"].dtype is torch.bfloat16

    def test_widening_leaves_wide_numbers_and_integers(self):
        wide, tokens, narrow = torch.ones(1).double(), torch.arange(2), torch.ones(1).bfloat16()
        found = widen({"a": wide, "b": (tokens, narrow)})
        assert found["a"] is wide
        assert found["b"][0] is tokens
        assert found["b"][1].dtype is torch.float32


class TestLosses:
    @pytest.mark.parametrize("settings", BFLOAT16)
    def test_of_built_in_tasks_are_float32(self, settings):
        training = TrainingSettings(**settings)
        x, y, label = torch.randn(6, 4), torch.randn(6, 1), torch.arange(6) % 2
        for task, target, width in ((regression(), y, 1), (classification(["a", "b"]), label, 2)):
            loader, objective = opened(rows_of(task, x=x, y=target), training)
            model = cast_model(nn.Linear(4, width), CPU, getattr(torch, training.dtype))
            losses, outputs = objective.losses_of(model, loader.load(np.arange(6)))
            assert losses.dtype is outputs.dtype is torch.float32
            in_16_bits = outputs.bfloat16().float()
            assert torch.equal(outputs, in_16_bits), "the model itself computes in bfloat16"
            assert not torch.equal(losses, losses.bfloat16().float())

    def test_targets_are_not_rounded(self):
        target = torch.full((3, 1), 1 + 2**-12)
        loader, objective = opened(
            rows_of(regression(), x=torch.ones(3, 2), y=target), TrainingSettings(dtype="bfloat16")
        )
        model = cast_model(nn.Linear(2, 1), CPU, torch.bfloat16)
        with torch.no_grad():
            model.weight.fill_(0.5)
            model.bias.zero_()
        losses, _ = objective.losses_of(model, loader.load(np.arange(3)))
        assert losses.tolist() == [2**-24] * 3

    @pytest.mark.parametrize("settings", BFLOAT16)
    def test_of_a_task_in_16_bits_are_summed_in_32(self, settings):
        """A sum of ones in bfloat16 ends at 256."""
        task = Task(loss=lambda model, batch: 1 + 0 * model(batch[0])[:, 0].bfloat16())
        training = TrainingSettings(**settings)
        loader, objective = opened(rows_of(task, x=torch.ones(1000, 1)), training)
        model = cast_model(nn.Linear(1, 1), CPU, getattr(torch, training.dtype))
        rows = np.arange(1000)
        closure = AccumulatingClosure(model, loader, objective, None, seed=0)
        closure.start(1, rows)
        assert closure().item() == 1
        assert evaluate(model, loader, objective, rows, 1000, "train").loss == 1

    def test_of_a_summed_shortcut_are_float32(self):
        training = TrainingSettings(autocast="bfloat16")
        task = classification(["a", "b"])
        loader, objective = opened(rows_of(task, x=torch.ones(4, 2), y=torch.arange(4) % 2), training)
        assert objective.part_loss(nn.Linear(2, 2), loader.load(np.arange(4)), 4.0).dtype is torch.float32

    def test_a_penalty_is_summed_in_32_bits(self):
        model = nn.Linear(1000, 1, bias=False).bfloat16()
        with torch.no_grad():
            model.weight.fill_(1)
        penalty = penalise_squares(model, l2=2.0)
        assert penalty.item() == 1000
        penalty.backward()
        assert model.weight.grad.dtype is torch.bfloat16

    def test_metrics_see_wide_outputs(self):
        seen = []
        task = Task(
            loss_of=lambda outputs, batch: outputs[:, 0],
            metrics=(
                Metric(
                    name="first", direction="min", value=lambda out, b: seen.append(out.dtype) or out[:, 0]
                ),
            ),
        )
        loader, objective = opened(rows_of(task, x=torch.ones(3, 2)), TrainingSettings(dtype="bfloat16"))
        model = cast_model(nn.Linear(2, 1), CPU, torch.bfloat16)
        evaluate(model, loader, objective, np.arange(3), 3, "train")
        assert seen == [torch.float32]


class Noted(torch.autograd.Function):
    """The identity, which notes whether its passes run under autocast."""

    passes: list[tuple[str, bool]] = []  # noqa: RUF012 - cleared by the tests

    @staticmethod
    def forward(ctx, x):
        Noted.passes.append(("forward", torch.is_autocast_enabled("cpu")))
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Noted.passes.append(("backward", torch.is_autocast_enabled("cpu")))
        return gradient


class TestAutocast:
    @pytest.fixture(autouse=True)
    def cleared(self):
        Noted.passes.clear()

    @staticmethod
    def closure(training: TrainingSettings) -> tuple[AccumulatingClosure, nn.Module]:
        task = Task(loss=lambda model, batch: Noted.apply(model(batch[0]))[:, 0])
        parts = opened(rows_of(task, x=torch.ones(4, 2)), training)
        model = nn.Linear(2, 1)
        closure = AccumulatingClosure(model, *parts, None, seed=0)
        closure.start(1, np.arange(4))
        return closure, model

    def test_is_on_in_the_forward_pass_and_off_in_the_backward_pass(self):
        closure, model = self.closure(TrainingSettings(autocast="bfloat16"))
        closure()
        assert Noted.passes == [("forward", True), ("backward", False)]
        assert model.weight.grad.dtype is torch.float32

    def test_is_off_by_default(self):
        self.closure(TrainingSettings())[0]()
        assert ("forward", False) in Noted.passes

    def test_is_off_for_an_objective_without_it(self):
        training = TrainingSettings(autocast="bfloat16")
        loader, objective = opened(rows_of(regression(), x=torch.ones(2, 2), y=torch.ones(2, 1)), training)
        model, batch = nn.Linear(2, 1), loader.load(np.arange(2))
        exact = objective.without_autocast().losses_of(model, batch)[1]
        assert torch.equal(exact, model(batch[0]))
        assert not torch.equal(objective.losses_of(model, batch)[1], exact)

    def test_off_is_no_context(self):
        with autocast(CPU, "off"):
            assert not torch.is_autocast_enabled("cpu")


def test_images_are_normalised_before_they_are_rounded(tiny_data):
    spec = ModelSpec(factory=nn.Identity, mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.4))
    rows = np.arange(40)
    wide, narrow = (
        ImageLoader(tiny_data, spec, CPU, dtype, "channels_last").load(rows)[0]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert torch.equal(narrow, wide.bfloat16())
    assert narrow.stride() == wide.stride()


@pytest.mark.parametrize("settings", BFLOAT16)
def test_rows_are_found_to_be_independent(settings):
    """Although rounding of bfloat16 differs between batches."""
    training, generator = TrainingSettings(**settings), torch.Generator().manual_seed(0)
    x = torch.randn(8, 32, generator=generator)
    loader, objective = opened(rows_of(regression(), x=x, y=x[:, :1]), training)
    model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    cast_model(model, CPU, getattr(torch, training.dtype))
    check_examples_are_independent(model, loader, objective, np.arange(8))


@pytest.mark.parametrize("settings", [*BFLOAT16, {}])
def test_a_task_is_checked_in_its_precision(settings):
    seen = []

    class Model(nn.Linear):
        def forward(self, x):
            output = super().forward(x)
            seen.append(output.dtype)
            return output

    training = TrainingSettings(**settings)
    rows, data = prepare(rows_of(regression(), x=torch.randn(9, 3), y=torch.randn(9, 1)))
    check_task(Model(3, 1), "mine", rows, data, getattr(torch, training.dtype), autocast=training.autocast)
    assert seen[0] is (torch.bfloat16 if settings else torch.float32)


class TestCells:
    """Cells on images, of models with a frozen part."""

    @pytest.fixture(autouse=True)
    def small_components(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))
        specs = {
            "frozen": ModelSpec(factory=frozen_models.build),
            "trained": ModelSpec(factory=frozen_models.build_trained),
        }
        real_load = registry.load
        monkeypatch.setattr(
            registry, "load", lambda kind, name, dirs=(): specs.get(name) or real_load(kind, name, dirs)
        )

    @staticmethod
    def settings(model: str, **training) -> CellSettings:
        adam = Choice("adam", {"lr": 0.01})
        return CellSettings(
            Choice(model, {}), adam, TrainingSettings(epochs=2, batch_size=16, **training), 0, "cpu"
        )

    def train(self, data, tmp_path, settings: CellSettings, features: FeatureFile | None = None):
        messages = []
        result = train_cell(messages.append, CellJob(settings, data, features=features, scratch=tmp_path))
        return result, [row.loss for m in messages if isinstance(m, StepsDone) for row in m.rows]

    @pytest.mark.parametrize(("settings", "bytes_each"), [(BFLOAT16[0], 2), (BFLOAT16[1], 4)])
    def test_hold_parameters_and_state_in_the_dtype(self, tiny_data, tmp_path, settings, bytes_each):
        result, losses = self.train(tiny_data, tmp_path, self.settings("trained", **settings))
        memory = result.memory
        assert result.status == "done"
        assert losses[-1] < losses[0]
        count = WIDTH * 75 + WIDTH + WIDTH * 16 + 16 + 16 * 2 + 2
        assert memory.parameters_bytes == count * bytes_each
        assert memory.state_vectors == pytest.approx(2.0, abs=0.1)

    @pytest.mark.parametrize("settings", BFLOAT16)
    def test_with_features_are_those_without(self, tiny_data, tmp_path, settings):
        with_features = self.settings("frozen", **settings)
        report = make_features(lambda progress: None, with_features, tiny_data, np.arange(120))
        assert report.file is not None, report.note
        assert report.file.precision == "bfloat16"
        _, cached = self.train(tiny_data, tmp_path, with_features, report.file)
        without = self.settings("frozen", features="off", **settings)
        _, computed = self.train(tiny_data, tmp_path, without)
        assert cached == pytest.approx(computed, rel=0.02)  # rounding depends on the size of a batch

    @pytest.mark.parametrize("settings", BFLOAT16)
    def test_with_features_can_restore_the_selected_epoch(self, tiny_data, settings):
        chosen = self.settings("frozen", **settings)
        assert chosen.training.selection != "last"
        report = make_features(lambda progress: None, chosen, tiny_data, np.arange(120))
        job = CellJob(chosen, tiny_data, features=report.file)
        assert TrainingWorkload(job, Axis.MICRO_BATCH).take_pass(16).not_resumable == ""

    def test_share_no_features_with_other_precisions(self, tiny_data):
        folders = set()
        for settings in ({}, *BFLOAT16, {"autocast": "bfloat16", "features": "float32"}):
            chosen = self.settings("frozen", **settings)
            report = make_features(lambda progress: None, chosen, tiny_data, np.arange(10))
            folders.add(report.file.folder)
            again = make_features(lambda progress: None, chosen, tiny_data, np.arange(10))
            assert (again.file.folder, again.computed) == (report.file.folder, 0)
        assert len(folders) == 4
