"""Tests of the members as optimizers: they learn, hold the state they declare, and can be resumed."""

from __future__ import annotations

import inspect
import io

import pytest

schedulefree = pytest.importorskip("schedulefree")
pytest.importorskip("xbench_schedulefree")

import torch  # noqa: E402
import xbench  # noqa: E402
from torch import nn  # noqa: E402

import xbench_schedulefree  # noqa: E402

pytestmark = pytest.mark.plugin

SERVING = [name for name in xbench_schedulefree.list_members() if not name.endswith("-LBFGS")]
# Rates with which members learn within 30 steps. Others do so with their defaults.
RATES = {"RAdamSchedule": 0.05, "-Muon": 0.05, "-RAdam": 0.05, "-ASGD": 0.3, "-SGD": 0.3, "-SparseAdam": 0.1}


class Problem:
    """A classification problem with a closure like that of xbench, and an optimizer for it."""

    def __init__(self, name, **settings):
        self.spec = xbench_schedulefree.get_spec(name)
        torch.manual_seed(0)
        bias, self.inputs = self.spec.parameters == "any", torch.randn(64, 8)
        self.labels = self.inputs[:, :3].argmax(1)
        self.model = nn.Sequential(nn.Linear(8, 16, bias), nn.Tanh(), nn.Linear(16, 3, bias))
        if self.spec.gradients == "sparse":
            self.model = nn.Embedding(64, 3, sparse=True)
            self.inputs = torch.arange(64)
        rate = next((rate for part, rate in RATES.items() if part in name), None)
        settings = {"lr": rate, **settings} if rate else settings
        self.optimizer = self.spec.load_factory()(list(self.model.parameters()), **settings)

    def closure(self):
        for parameter in self.model.parameters():
            parameter.grad = None
        with torch.enable_grad():
            loss = nn.functional.cross_entropy(self.model(self.inputs), self.labels)
            loss.backward()
        return loss.detach().double()

    def set_mode(self, mode):
        if hasattr(self.optimizer, "train"):
            getattr(self.optimizer, mode)()

    def train(self, steps):
        self.set_mode("train")
        return [self.optimizer.step(self.closure).item() for _ in range(steps)]

    def evaluate(self):
        self.set_mode("eval")
        return self.closure().item()

    def save(self):
        file = io.BytesIO()
        torch.save([self.model.state_dict(), self.optimizer.state_dict()], file)
        file.seek(0)
        return file

    def load(self, file):
        weights, state = torch.load(file, weights_only=True)
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(state)


@pytest.mark.parametrize("name", SERVING)
def test_steps_lower_the_loss_of_the_averaged_weights(name):
    problem = Problem(name)
    first = problem.train(30)[0]
    assert problem.evaluate() < 0.95 * first


@pytest.mark.parametrize("name", SERVING)
def test_resumed_steps_equal_uninterrupted_ones(name):
    whole, resumed = Problem(name), Problem(name)
    whole.train(7)
    resumed.load(whole.save())
    assert whole.train(5) == resumed.train(5)
    assert whole.evaluate() == resumed.evaluate()


@pytest.mark.parametrize("name", SERVING)
def test_state_has_the_declared_size(name):
    problem = Problem(name)
    expected = problem.spec.state_vectors(problem.optimizer.defaults)
    if expected is None:
        assert name.endswith("-Adafactor")
        return
    problem.train(2)
    elements = sum(parameter.numel() for parameter in problem.model.parameters())
    assert count_elements(problem.optimizer) == expected * elements


@pytest.mark.parametrize("settings", [{"base_momentum": 0.9}, {"centered": True}])
def test_state_of_a_wrapped_optimizer_depends_on_its_settings(settings):
    problem = Problem("ScheduleFreeWrapper-RMSprop", **settings)
    assert problem.spec.state_vectors(problem.optimizer.defaults) == 3


def count_elements(optimizer):
    """Count the elements of all tensors in the state that are not scalars."""
    states = [optimizer.state, *([optimizer.base.state] if hasattr(optimizer, "base") else [])]
    tensors = [value for state in states for entry in state.values() for value in entry.values()]
    return sum(value.numel() for value in tensors if isinstance(value, torch.Tensor) and value.ndim)


def test_every_optimizer_of_the_package_is_a_member():
    classes = [
        name
        for name, value in vars(schedulefree).items()
        if inspect.isclass(value) and hasattr(value, "step") and not name.startswith("ScheduleFreeWrapper")
    ]
    members = xbench_schedulefree.list_members()
    assert sorted(classes) == sorted(name for name in members if "-" not in name)
    wrapped = {name.partition("-")[2] for name in members if "-" in name}
    assert wrapped == {name for name in torch.optim.__all__ if name[0].isupper()} - {"Optimizer"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ScheduleFreeWrapper-LBFGS", "without a closure, which LBFGS needs"),
        ("ScheduleFreeWrapper", "its name must say which"),
        ("adamwschedulefree", "Did you mean 'AdamWScheduleFree'"),
        ("ScheduleFreeWrapper-Lion", "no optimizer 'ScheduleFreeWrapper-Lion'"),
    ],
)
def test_names_that_cannot_serve_are_refused_with_the_reason(name, message):
    with pytest.raises(xbench.XbenchError, match=message):
        xbench_schedulefree.get_spec(name)


def test_wrapper_passes_every_setting():
    factory = xbench_schedulefree.get_spec("ScheduleFreeWrapper-RMSprop").load_factory()
    settings = {"lr": 0.3, "base_momentum": 0.4, "momentum": 0.5, "weight_decay_at_y": 0.6, "r": 0.7}
    optimizer = factory([nn.Parameter(torch.ones(2))], **settings)
    (group,) = optimizer.base.param_groups
    assert (group["lr"], group["momentum"]) == (0.3, 0.4)
    assert (optimizer.momentum, optimizer.weight_decay_at_y, optimizer.r) == (0.5, 0.6, 0.7)


def test_wrapped_plain_sgd_takes_the_steps_of_the_integrated_one():
    wrapped, integrated = Problem("ScheduleFreeWrapper-SGD", lr=0.5), Problem("SGDScheduleFree", lr=0.5)
    assert wrapped.train(8) == pytest.approx(integrated.train(8), rel=1e-4)


@pytest.mark.parametrize("wrapper", ["ScheduleFreeWrapper", "ScheduleFreeWrapperReference"])
def test_wrappers_train_parameters_of_any_layout(wrapper):
    parameters = [
        nn.Parameter(torch.tensor(3.0)),
        nn.Parameter(torch.ones(4, 3).T),
        nn.Parameter(torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)),
    ]
    optimizer = xbench_schedulefree.get_spec(f"{wrapper}-SGD").load_factory()(parameters, lr=0.1)

    def closure():
        loss = sum((parameter**2).sum() for parameter in parameters)
        for parameter in parameters:
            parameter.grad = 2 * parameter.detach()
        return loss.detach()

    optimizer.train()
    for _ in range(3):
        optimizer.step(closure)
    optimizer.eval()
    # From x = z = y = 1, SGD takes z to 0.8; then x is the mean of all z, and gradients are taken at y.
    scale = parameters[0].item() / 3
    assert 0 < scale < 0.8
    assert all(torch.allclose(p, torch.full_like(p, scale)) for p in parameters[1:])


def test_reference_prints_nothing(capsys):
    problem = Problem("AdamWScheduleFreeReference")
    problem.train(1)
    problem.evaluate()
    assert capsys.readouterr().out == ""
