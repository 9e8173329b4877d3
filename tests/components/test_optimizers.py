"""Tests that the built-in optimizers accept the gradients and parameters that their specs declare."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xbench import OptimizerSpec
from xbench.components.registry import load, registrations

NAMES = [
    name
    for name, registration in registrations("optimizer").items()
    if any(distribution.startswith("xbench ") for distribution in registration.distributions)
]


def step(spec, parameter: nn.Parameter, loss_of) -> None:
    """Take one step with a closure, as a cell does, with the optimizer's defaults."""
    optimizer = spec.load_factory()([parameter])

    def closure():
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    optimizer.step(closure)


def step_embedding(spec, sparse: bool) -> nn.Embedding:
    torch.manual_seed(0)
    embedding = nn.Embedding(5, 3, sparse=sparse)
    step(spec, embedding.weight, lambda: embedding(torch.tensor([1, 3])).square().sum())
    return embedding


def step_vector(spec, shape=(6,)) -> nn.Parameter:
    parameter = nn.Parameter(torch.linspace(1, 2, 6).reshape(shape))

    def loss_of():
        if spec.gradients == "sparse":
            return (torch.sparse_coo_tensor([[0, 4]], [1.0, 1.0], (6,)) * parameter).sum()
        return parameter.square().sum()

    step(spec, parameter, loss_of)
    return parameter


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("gradients", ["dense", "sparse"])
@pytest.mark.parametrize("name", NAMES)
def test_optimizer_accepts_exactly_the_declared_gradients(name, gradients):
    spec = load("optimizer", name)
    assert spec.gradients in ("dense", "sparse", "any")
    if spec.gradients in (gradients, "any"):
        torch.manual_seed(0)
        before = nn.Embedding(5, 3).weight.detach()
        embedding = step_embedding(spec, sparse=gradients == "sparse")
        assert embedding.weight.grad.is_sparse == (gradients == "sparse")
        assert torch.isfinite(embedding.weight).all()
        assert not torch.equal(embedding.weight[[1, 3]], before[[1, 3]])
    else:
        with pytest.raises(RuntimeError, match=rf"(?i)not support {gradients} gradients"):
            step_embedding(spec, sparse=gradients == "sparse")


@pytest.mark.parametrize("name", NAMES)
def test_optimizer_accepts_exactly_the_declared_parameters(name):
    spec = load("optimizer", name)
    if spec.parameters == "matrices":
        for shape in ((6,), (1, 2, 3)):
            with pytest.raises(ValueError, match="2D"):
                step_vector(spec, shape)
    else:
        assert spec.parameters == "any"
        assert not torch.equal(step_vector(spec), torch.linspace(1, 2, 6))


def test_only_muon_is_for_matrices():
    assert [name for name in NAMES if load("optimizer", name).parameters == "matrices"] == ["muon"]


@pytest.mark.parametrize("name", NAMES)
def test_spec_has_a_summary_and_a_reference(name):
    spec = load("optimizer", name)
    assert spec.reference.startswith("https://docs.pytorch.org/")
    assert spec.factory.removeprefix("torch.optim:") in spec.reference


def test_fields_that_depend_on_settings_are_functions():
    told = r"OptimizerSpec: state_vectors=2 is not a function of the settings, such as lambda settings: 2"
    with pytest.raises(TypeError, match=told):
        OptimizerSpec(factory="torch.optim:Adam", state_vectors=2)
    with pytest.raises(TypeError, match="OptimizerSpec: line_search=True is not a function"):
        OptimizerSpec(factory="torch.optim:LBFGS", line_search=True)
