"""A cell that was stopped and goes on from its checkpoint is the cell that was never stopped."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.sessions import Session
from xbench import ModelSpec, OptimizerSpec
from xbench.components import registry
from xbench.training.cell import train_cell
from xbench.training.checkpoint import _map_to
from xbench.training.events import CheckpointWritten
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings, Choice, TrainingSettings

STEPS_AN_EPOCH = 17


class Net(nn.Module):
    """Draws masks, normalises with running statistics, and counts in a buffer."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.front = nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4), nn.MaxPool2d(3), nn.ReLU())
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(64, num_classes, bias=False)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images):
        if self.training:
            self.seen += 1
        return self.head(self.drop(self.front(images).flatten(1))) * (1 + 1e-3 * self.seen)


def matrix_net(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, num_classes, bias=False))


def layered_net(num_classes: int) -> nn.Module:
    layers = (nn.Linear(3 * 16 * 16, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, num_classes))
    return nn.Sequential(nn.Flatten(), *layers)


class Drawing(torch.optim.SGD):
    """Draws from every generator in each step."""

    def step(self, closure):
        loss = super().step(closure)
        noise = random.random() + np.random.random() + torch.rand(()).item()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.add_(1e-3 * noise)
        return loss


class Wide(torch.optim.Optimizer):
    """Keeps state of more digits than its parameters have."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure):
        loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["sum"] = state.get("sum", torch.zeros_like(parameter, dtype=torch.float64))
                state["sum"] += parameter.grad.double() / 3
                parameter.add_(-group["lr"] * (state["sum"] * 1e9 % 1))
        return loss


def adam_of_tensor(params, lr=1e-3):
    return torch.optim.Adam(params, lr=torch.tensor(lr))


class Widest(Wide):
    """Loads its state in a way of its own, and keeps some that is not of a parameter."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, lr)
        self.state["steps"] = {"count": 0}

    def step(self, closure):
        self.state["steps"]["count"] += 1
        return super().step(closure)

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)


class Wrapper(torch.optim.SGD):
    """Has a state dict without the keys of torch's own."""

    def state_dict(self):
        return {"wrapped": super().state_dict()}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict["wrapped"])


@pytest.fixture(autouse=True)
def small_components(monkeypatch):
    specs = {
        "net": ModelSpec(factory=Net),
        "matrix": ModelSpec(factory=matrix_net),
        "layers": ModelSpec(factory=layered_net),
        "not-resumable": ModelSpec(factory=Net, resumable=False),
        "drawing": OptimizerSpec(factory=Drawing, resumable=True),
        "wide": OptimizerSpec(factory=Wide, resumable=True),
        "widest": OptimizerSpec(factory=Widest, resumable=True),
        "wrapper": OptimizerSpec(factory=Wrapper, resumable=True),
        "tensor": OptimizerSpec(factory=adam_of_tensor, resumable=True),
        "forgetful": OptimizerSpec(factory=torch.optim.SGD),
    }
    real_load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): specs.get(name) or real_load(kind, name, dirs)
    )


@pytest.mark.parametrize(
    ("location", "expected"),
    [("cuda:0", "cuda:1"), ("cuda:1", "cuda:1"), ("cuda:7", "cuda:1"), ("cpu", "cpu")],
)
def test_a_run_may_go_on_on_a_device_of_another_number(location, expected):
    places = _map_to(torch.device("cuda:1"))
    assert places.get(location, location) == expected
    assert str(places.get(torch.device(location), location)) == expected  # of tensors that wrap others


def train_part(settings, data, scratch, stop_after=None, resume_from=None) -> Session:
    scratch.mkdir(exist_ok=True)
    return Session(CellJob(settings, data, scratch=scratch), stop_after, resume_from)


def cell(optimizer, params, model="net", **training) -> CellSettings:
    defaults = {"epochs": 3, "batch_size": 5, "threads": 1}
    return CellSettings(
        Choice(model, {}), Choice(optimizer, params), TrainingSettings(**defaults | training), 3, "cpu"
    )


def assert_same(data, tmp_path, settings, *stops):
    """The cell in one go, and stopped at these steps, are the same bit for bit."""
    whole = train_part(settings, data, tmp_path / "whole")
    rows, epochs, checkpoint, done = [], [], None, 0
    for stop in (*stops, None):
        part = train_part(settings, data, tmp_path / "parts", stop and stop - done, checkpoint)
        assert part.prepared.resumed_at == done
        rows, epochs, checkpoint, done = [*rows, *part.rows], [*epochs, *part.epochs], part.checkpoint, stop
    assert [row.step for row in rows] == list(range(1, len(whole.rows) + 1))
    assert np.isfinite([row.loss for row in whole.rows]).all()
    assert [row.loss for row in rows] == [row.loss for row in whole.rows]
    assert [row.closures for row in rows] == [row.closures for row in whole.rows]
    assert epochs == whole.epochs
    assert part.result.status == whole.result.status == "done"
    assert part.result.selected_epoch == whole.result.selected_epoch
    assert np.array_equal(part.result.scores.collected["logit"], whole.result.scores.collected["logit"])
    assert np.array_equal(part.result.scores.losses, whole.result.scores.losses)
    assert part.result.scores.values == whole.result.scores.values
    assert part.result.memory.optimizer_state_bytes == whole.result.memory.optimizer_state_bytes


PARAMS = {
    "sgd": {"lr": 0.01, "momentum": 0.9, "nesterov": True},
    "adam": {"amsgrad": True},
    "rmsprop": {"momentum": 0.5, "centered": True},
    # On batches of five its line search ends anywhere, in NaN on some processors: short steps end nowhere.
    "lbfgs": {"lr": 1e-3, "history_size": 3, "max_iter": 3},
    "drawing": {"lr": 0.01},
    "wrapper": {"lr": 0.01, "momentum": 0.9},
}
WITHOUT_DENSE_GRADIENTS = {"sparseadam"}
REGISTERED = {
    name
    for name in registry.registrations("optimizer")
    if registry.origin("optimizer", name).startswith("xbench ") and registry.load("optimizer", name).resumable
}
OPTIMIZERS = sorted({*REGISTERED, "drawing", "wide", "widest", "wrapper"} - WITHOUT_DENSE_GRADIENTS)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer(tiny_data, tmp_path, optimizer):
    model = "layers" if optimizer == "muon" else "net"
    assert_same(tiny_data, tmp_path, cell(optimizer, PARAMS.get(optimizer, {}), model), 5, 2 * STEPS_AN_EPOCH)


@pytest.mark.parametrize(
    "stop", [1, 2, STEPS_AN_EPOCH - 1, STEPS_AN_EPOCH, STEPS_AN_EPOCH + 1, 3 * STEPS_AN_EPOCH]
)
def test_wherever_it_is_stopped(tiny_data, tmp_path, stop):
    assert_same(tiny_data, tmp_path, cell("adam", {}), stop)


@pytest.mark.parametrize("selection", ["validation_loss", "last", "test_loss"])
def test_whatever_selects(tiny_data, tmp_path, selection):
    assert_same(tiny_data, tmp_path, cell("sgd", {"lr": 0.05}, selection=selection), 20, 40)


RECIPE = {
    "schedule": "cosine",
    "warmup": 0.2,
    "min_lr": 1e-5,
    "clip_norm": 0.5,
    "weight_decay_on": "weights",
    "groups": {"*bias": {"lr": 1e-2}},
}


@pytest.mark.parametrize("stop", [3, STEPS_AN_EPOCH, 2 * STEPS_AN_EPOCH + 5])
def test_recipes(tiny_data, tmp_path, stop):
    """A state dict holds the rates of one step, and a schedule starts from the full ones."""
    assert_same(tiny_data, tmp_path, cell("adamw", {}, **RECIPE), stop)


@pytest.mark.parametrize(("optimizer", "params"), [("muon", {}), ("lbfgs", {"lr": 1e-3, "max_iter": 3})])
def test_schedules_of_other_rates(tiny_data, tmp_path, optimizer, params):
    model = "layers" if optimizer == "muon" else "net"
    settings = cell(optimizer, params, model, schedule="wsd", warmup=5, clip_value=0.1)
    assert_same(tiny_data, tmp_path, settings, 3, 45)


def test_a_schedule_of_a_rate_that_is_a_tensor(tiny_data, tmp_path):
    settings = cell("tensor", {}, schedule="linear")
    whole = train_part(settings, tiny_data, tmp_path / "whole")
    first = train_part(settings, tiny_data, tmp_path / "parts", 20)
    second = train_part(settings, tiny_data, tmp_path / "parts", resume_from=first.checkpoint)
    assert [row.loss for row in (*first.rows, *second.rows)] == [row.loss for row in whole.rows]


def test_full_batches_of_parts(tiny_data, tmp_path):
    settings = cell("lbfgs", PARAMS["lbfgs"], "matrix", batch_size="full", micro_batch=16, epochs=6)
    assert_same(tiny_data, tmp_path, settings, 1, 4)


def test_double_precision_and_oversampling(tiny_data, tmp_path):
    settings = cell("adam", {}, dtype="float64", balance="oversample", class_weights={"dark": 2.0})
    assert_same(tiny_data, tmp_path, settings, 7)


def test_times_go_on(tiny_data, tmp_path):
    first = train_part(cell("sgd", {}), tiny_data, tmp_path / "s", stop_after=20)
    between = train_part(cell("sgd", {}), tiny_data, tmp_path / "s", 1, first.checkpoint)
    second = train_part(cell("sgd", {}), tiny_data, tmp_path / "s", resume_from=between.checkpoint)
    of_first_s = sum(row.wall_s for row in first.rows)
    assert second.result.time.training_s > of_first_s + sum(row.wall_s for row in second.rows)
    assert second.result.time.checkpoints_s > 0


def test_what_torch_has_is_resumable():
    assert len(REGISTERED) >= 15


def test_a_model_that_is_declared_not_resumable_begins_anew(tiny_data, tmp_path):
    settings = cell("sgd", {"lr": 0.01}, "not-resumable")
    first = train_part(settings, tiny_data, tmp_path / "s", stop_after=20)
    assert (first.result.status, first.checkpoint) == ("done", None)  # nobody asked whether to stop
    other = train_part(cell("sgd", {"lr": 0.01}), tiny_data, tmp_path / "s", stop_after=20).checkpoint
    second = train_part(settings, tiny_data, tmp_path / "s", resume_from=other)
    assert second.prepared.resumed_at == 0


def test_an_optimizer_that_does_not_say_so_begins_anew(tiny_data, tmp_path):
    first = train_part(cell("forgetful", {"lr": 0.01}), tiny_data, tmp_path / "s", stop_after=20)
    assert (first.result.status, first.checkpoint) == ("done", None)  # nobody asked whether to stop
    other = train_part(cell("sgd", {"lr": 0.01}), tiny_data, tmp_path / "s", stop_after=20).checkpoint
    second = train_part(cell("forgetful", {"lr": 0.01}), tiny_data, tmp_path / "s", resume_from=other)
    assert second.prepared.resumed_at == 0


@pytest.mark.parametrize("name", ["model.pt", "state.pt", "selected.pt"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise"])
def test_a_damaged_checkpoint_begins_anew(tiny_data, tmp_path, name, damage):
    settings = cell("adam", {})
    checkpoint = train_part(settings, tiny_data, tmp_path / "s", stop_after=20).checkpoint
    path = checkpoint / name
    content = path.read_bytes()
    path.unlink()  # and not written to: other files may be links to it
    if damage != "missing":
        path.write_bytes(
            {"empty": b"", "cut": content[: len(content) // 2], "noise": b"\x80\x02" * 500}[damage]
        )
    again = train_part(settings, tiny_data, tmp_path / "s", resume_from=checkpoint)
    whole = train_part(settings, tiny_data, tmp_path / "whole")
    assert again.result.status == "done"
    assert [row.loss for row in again.rows][-10:] == [row.loss for row in whole.rows][-10:]
    assert np.array_equal(again.result.scores.collected["logit"], whole.result.scores.collected["logit"])


class Evil:
    """What a pickle would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["model.pt", "state.pt"])
def test_nothing_in_a_checkpoint_is_run(tiny_data, tmp_path, name):
    checkpoint = train_part(cell("adam", {}), tiny_data, tmp_path / "s", stop_after=20).checkpoint
    torch.save({"state": Evil(str(tmp_path / "run"))}, checkpoint / name)
    again = train_part(cell("adam", {}), tiny_data, tmp_path / "s", resume_from=checkpoint)
    assert again.prepared.resumed_at == 0
    assert not (tmp_path / "run").exists()


def test_saved_now_and_then(tiny_data, tmp_path, monkeypatch):
    steps = []

    def hear(message):
        if isinstance(message, CheckpointWritten):
            steps.append(message.step)
            message.aside.rename(message.place)

    monkeypatch.setattr("xbench.training.checkpoint._MAX_TIME_SHARE", 1e9)  # or a slow disk saves it once
    train_cell(hear, CellJob(cell("sgd", {}), tiny_data, scratch=tmp_path, checkpoint_every_s=1e-9))
    assert len(steps) >= 2
    assert steps == sorted(set(steps))


def test_a_disk_that_is_full_stops_nothing(tiny_data, tmp_path, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xbench.training.checkpoint.sync_file", full)
    result = train_cell(
        lambda message: None, CellJob(cell("sgd", {}), tiny_data, scratch=tmp_path, checkpoint_every_s=1e-9)
    )
    assert result.status == "done"
    assert "no checkpoint at step 1: " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["selected.pt"]
