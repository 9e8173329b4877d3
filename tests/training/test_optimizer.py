"""Optimizers of a cell: what their factories are told, pairs of them, and backward passes of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.sessions import Session
from xbench import ModelSpec, OptimizerSpec, Unsupported
from xbench.components import registry
from xbench.planning.datasets import prepare_dataset
from xbench.training.composite import Composite
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings, Choice, TrainingSettings


def layers(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=3), nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, num_classes)
    )


class Told(torch.optim.SGD):
    """Keeps what its factory was told."""

    last: dict

    def __init__(self, params, total_steps, steps_per_epoch, num_examples, lr=0.1, named_parameters=()):
        super().__init__(params, lr=lr)
        Told.last = {
            "steps": (total_steps, steps_per_epoch),
            "examples": num_examples,
            "names": [name for name, _ in named_parameters],
        }


class Newton(torch.optim.SGD):
    """Multiplies each gradient by the Hessian, as a method of the second order would divide by it."""

    graphs: list

    def step(self, closure):
        loss = closure()
        parameters = [p for group in self.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters]
        products = torch.autograd.grad(gradients, parameters, [g.detach() for g in gradients])
        Newton.graphs.append([g.grad_fn is not None for g in gradients])
        with torch.no_grad():
            for parameter, product in zip(parameters, products, strict=True):
                parameter -= 1e-3 * product
        Newton.kept = parameters
        return loss


class Fused:
    """Updates each parameter as soon as its gradient is there, and drops that gradient."""

    def __init__(self, model, lr=0.1):
        self.lr = lr
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(self.update)

    @torch.no_grad()
    def update(self, parameter):
        parameter -= self.lr * parameter.grad
        parameter.grad = None

    def step(self, closure):
        loss = closure.loss()
        loss.backward()
        return loss.detach()


class Twice(Fused):
    def step(self, closure):
        closure.loss()
        closure.loss()


class Modal(torch.optim.SGD):
    modes: list

    def train(self):
        Modal.modes.append("train")

    def eval(self):
        Modal.modes.append("eval")


class Averaged(torch.optim.SGD):
    """Has a setting that is not among its `defaults`."""

    def __init__(self, params, lr=0.1, averages=1):
        super().__init__(params, lr=lr)


class Wide(torch.optim.SGD):
    """Keeps a buffer in float32 for each parameter, whatever its dtype."""

    def step(self, closure):
        loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["buffer"] = torch.zeros_like(parameter, dtype=torch.float32)
        return loss


@pytest.fixture(autouse=True)
def components(monkeypatch):
    specs = {
        "layers": ModelSpec(factory=layers),
        "told": OptimizerSpec(factory=Told),
        "newton": OptimizerSpec(factory=Newton, backward="create_graph"),
        "fused": OptimizerSpec(factory=Fused, backward="fused"),
        "twice": OptimizerSpec(factory=Twice, backward="fused"),
        "modal": OptimizerSpec(factory=Modal),
        "averaged": OptimizerSpec(factory=Averaged, state_vectors=lambda settings: settings["averages"]),
        "wide": OptimizerSpec(factory=Wide, state_vectors=lambda settings: 4 / settings["element_bytes"]),
        "flat": OptimizerSpec(factory="torch.optim:SGD", parameters="matrices", flattens_kernels=True),
    }
    real_load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): specs.get(name) or real_load(kind, name, dirs)
    )
    Newton.graphs, Modal.modes = [], []


def run(data, folder, optimizer, params=None, **training) -> Session:
    folder.mkdir(exist_ok=True)
    training = {
        "epochs": 2,
        "batch_size": 20,
        "threads": 1,
        "validation": 0.0,
        "selection": "last",
    } | training
    settings = CellSettings(
        Choice("layers", {}), Choice(optimizer, params or {}), TrainingSettings(**training), 3, "cpu"
    )
    return Session(CellJob(settings, data, scratch=folder))


def run_rows(folder, optimizer) -> Session:
    folder.mkdir()
    training = TrainingSettings(
        epochs=2, batch_size="full", dtype="float64", validation=0.0, selection="last", threads=1
    )
    settings = CellSettings(Choice("linear", {}), Choice(optimizer, {"lr": 0.1}), training, 0, "cpu")
    rows = Choice("least-squares", {"rows": 20, "features": 3})
    data = prepare_dataset(lambda progress: None, rows, False, ())
    return Session(CellJob(settings, data, scratch=folder))


class TestFactory:
    def test_is_told_about_the_run(self, tiny_data, tmp_path):
        run(tiny_data, tmp_path, "told", train_size=50)
        assert Told.last["steps"] == (6, 3)
        assert Told.last["examples"] == 50
        assert Told.last["names"] == ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]


class TestSettings:
    def test_state_vectors_sees_those_that_the_optimizer_does_not_keep(self, tiny_data, tmp_path):
        memory = run(tiny_data, tmp_path / "default", "averaged").result.memory
        assert memory.expected_state_vectors == 1
        memory = run(tiny_data, tmp_path / "set", "averaged", {"averages": 3}).result.memory
        assert memory.expected_state_vectors == 3

    @pytest.mark.parametrize(("dtype", "vectors"), [("float32", 1), ("bfloat16", 2), ("float64", 0.5)])
    def test_state_vectors_sees_the_size_of_an_element(self, tiny_data, tmp_path, dtype, vectors):
        memory = run(tiny_data, tmp_path, "wide", dtype=dtype).result.memory
        assert memory.expected_state_vectors == memory.state_vectors == vectors


class TestModelThatDoesNotSuit:
    def test_is_skipped_if_the_factory_says_so(self, tiny_data, tmp_path, monkeypatch):
        def refuse(named_parameters):
            raise Unsupported(f"{named_parameters[0][0]} is not a matrix")

        spec, load = OptimizerSpec(factory=refuse), registry.load
        monkeypatch.setattr(
            registry, "load", lambda kind, name, dirs=(): spec if name == "refuse" else load(kind, name, dirs)
        )
        result = run(tiny_data, tmp_path, "refuse").result
        assert (result.status, result.reason) == ("skipped", "0.weight is not a matrix")


class TestComposite:
    def by_hand(self, data, folder):
        """Losses of the same run with the two optimizers in one class."""

        class Both(torch.optim.Optimizer):
            def __init__(self, model, lr=1e-2):
                hidden = [model[2].weight]
                others = [p for p in model.parameters() if p is not hidden[0]]
                self.parts = [torch.optim.Muon(hidden, lr=lr), torch.optim.AdamW(others, lr=3e-3)]
                super().__init__(list(model.parameters()), {})

            def step(self, closure):
                loss = closure()
                for part in self.parts:
                    part.step()
                return loss

        return OptimizerSpec(factory=Both)

    def test_is_the_same_as_two_optimizers(self, tiny_data, tmp_path, monkeypatch):
        spec, load = self.by_hand(tiny_data, tmp_path), registry.load
        monkeypatch.setattr(
            registry, "load", lambda kind, name, dirs=(): spec if name == "both" else load(kind, name, dirs)
        )
        expected = run(tiny_data, tmp_path / "by-hand", "both", {"lr": 1e-2})
        params = {"lr": 1e-2, "rest": {"name": "adamw", "lr": 3e-3}}
        found = run(tiny_data, tmp_path / "found", "muon", params)
        assert [row.loss for row in found.rows] == [row.loss for row in expected.rows]
        assert {row.closures for row in found.rows} == {1}

    def test_counts_the_state_of_both(self, tiny_data, tmp_path):
        memory = run(tiny_data, tmp_path, "muon").result.memory
        hidden, rest = 64 * 6, (3 * 4 * 25 + 4) + 6 + (6 * 2 + 2)
        vectors = (hidden + 2 * rest) / (hidden + rest)  # Muon's momentum, and the two moments of AdamW
        assert memory.expected_state_vectors == pytest.approx(vectors)
        counters = 5 * 4 / (4 * (hidden + rest))
        assert memory.state_vectors == pytest.approx(vectors + counters, abs=1e-6)

    def test_kernels_go_to_the_rest_unless_they_are_flattened(self, tiny_data, tmp_path):
        params = {"momentum": 0.9, "rest": {"name": "sgd"}}
        found = run(tiny_data, tmp_path, "flat", params).result.memory
        assert found.optimizer_state_bytes == 4 * (3 * 4 * 25 + 64 * 6)

    def test_modes_reach_every_part(self, tiny_data, tmp_path):
        assert run(tiny_data, tmp_path, "muon", {"rest": {"name": "modal"}}).result.status == "done"
        assert Modal.modes == ["train", "eval"]

    def test_groups_are_those_of_its_parts(self):
        one, other = (torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=lr) for lr in (0.1, 0.2))
        both = Composite({"matrices": one, "rest": other})
        assert [group["lr"] for group in both.param_groups] == [0.1, 0.2]
        both.param_groups[1]["lr"] = 0.3
        assert other.param_groups[0]["lr"] == 0.3


class TestBackward:
    def test_gradients_can_be_differentiated_and_are_dropped_after_the_step(self, tiny_data, tmp_path):
        found = run(tiny_data, tmp_path, "newton")
        assert found.result.status == "done"
        assert found.rows[-1].loss < found.rows[0].loss
        assert all(map(all, Newton.graphs))
        assert all(p.grad is None for p in Newton.kept)

    def test_a_fused_one_is_gradient_descent(self, tiny_data, tmp_path):
        fused = run(tiny_data, tmp_path / "fused", "fused", {"lr": 0.05}, dtype="float64")
        plain = run(tiny_data, tmp_path / "plain", "sgd", {"lr": 0.05}, dtype="float64")
        assert np.allclose([row.loss for row in fused.rows], [row.loss for row in plain.rows], rtol=1e-12)
        assert {row.closures for row in fused.rows} == {1}

    def test_the_gradient_at_the_end_is_measured_without_its_hooks(self, tmp_path):
        folders = [tmp_path / name for name in ("fused", "sgd")]
        fused, plain = (run_rows(folder, folder.name).result.scores.values for folder in folders)
        assert fused["gradient_norm"] == pytest.approx(plain["gradient_norm"], rel=1e-12)
        assert fused["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-12)

    def test_the_loss_is_computed_once_a_step(self, tiny_data, tmp_path):
        with pytest.raises(RuntimeError, match="called twice in a step"):
            run(tiny_data, tmp_path, "twice")
