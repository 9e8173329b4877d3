"""Tests of the members as optimizers."""

from __future__ import annotations

import inspect

import pytest

schedulefree = pytest.importorskip("schedulefree")
pytest.importorskip("xbench_schedulefree")

import torch  # noqa: E402
import xbench  # noqa: E402
from torch import nn  # noqa: E402
from xbench.testing import start_training  # noqa: E402

import xbench_schedulefree  # noqa: E402

pytestmark = pytest.mark.plugin

SERVING = [name for name in xbench_schedulefree.list_members() if not name.endswith("-LBFGS")]
# Rates with which members learn within 30 steps. Others do so with their defaults.
RATES = {
    "-Adam": 0.01,
    "RAdamSchedule": 0.05,
    "-Muon": 0.05,
    "-RAdam": 0.05,
    "-ASGD": 0.3,
    "-SGD": 0.3,
    "-SparseAdam": 0.1,
}


def start(name, dtype="float32", **settings):
    return start_training(xbench_schedulefree.get_spec(name), settings, dtype=dtype)


@pytest.mark.parametrize("name", SERVING)
def test_steps_lower_the_loss_of_the_averaged_weights(name):
    rate = next((rate for part, rate in RATES.items() if part in name), None)
    training = start(name, **({"lr": rate} if rate else {}))
    first = training.step(30)[0]
    assert training.evaluate() < 0.95 * first


@pytest.mark.parametrize("name", SERVING)
def test_resumed_steps_equal_uninterrupted_ones(name):
    whole, resumed = start(name), start(name)
    whole.step(7)
    checkpoint, losses = whole.checkpoint(), whole.step(5)
    resumed.resume(checkpoint)
    assert resumed.step(5) == losses
    assert resumed.evaluate() == whole.evaluate()


@pytest.mark.parametrize("name", SERVING)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_state_has_the_declared_size(name, dtype):
    training = start(name, dtype)
    training.step(2)
    declared = training.declared_vectors()
    assert (declared is None) == name.endswith("-Adafactor")
    assert declared is None or training.count_vectors() == pytest.approx(declared, abs=0.01)


@pytest.mark.parametrize("settings", [{"base_momentum": 0.9}, {"centered": True}])
def test_state_of_a_wrapped_optimizer_depends_on_its_settings(settings):
    training = start("ScheduleFreeWrapper-RMSprop", **settings)
    training.step(2)
    assert training.count_vectors() == training.declared_vectors() == 3


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
    ],
)
def test_names_that_cannot_serve_are_refused_with_the_reason(name, message):
    with pytest.raises(xbench.XbenchError, match=message):
        xbench_schedulefree.get_spec(name)


@pytest.mark.parametrize("name", ["adamwschedulefree", "ScheduleFreeWrapper-Lion", "Wrapper-SGD"])
def test_other_names_have_no_spec(name):
    with pytest.raises(KeyError):
        xbench_schedulefree.get_spec(name)


def test_wrapper_passes_every_setting():
    factory = xbench_schedulefree.get_spec("ScheduleFreeWrapper-RMSprop").load_factory()
    settings = {"lr": 0.3, "base_momentum": 0.4, "momentum": 0.5, "weight_decay_at_y": 0.6, "r": 0.7}
    optimizer = factory([nn.Parameter(torch.ones(2))], **settings)
    (group,) = optimizer.base.param_groups
    assert (group["lr"], group["momentum"]) == (0.3, 0.4)
    assert (optimizer.momentum, optimizer.weight_decay_at_y, optimizer.r) == (0.5, 0.6, 0.7)


def test_wrapped_plain_sgd_takes_the_steps_of_the_integrated_one():
    wrapped, integrated = start("ScheduleFreeWrapper-SGD", lr=0.5), start("SGDScheduleFree", lr=0.5)
    assert wrapped.step(8) == pytest.approx(integrated.step(8), rel=1e-4)


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
    training = start("AdamWScheduleFreeReference")
    training.step()
    training.evaluate()
    assert capsys.readouterr().out == ""
