"""What an optimizer cannot take, it says before training."""

from __future__ import annotations

import pytest
from torch import nn

from xbench import OptimizerSpec
from xbench.components.optimizers import ADAM, MUON, SGD, SPARSE_ADAM
from xbench.components.roles import find_roles
from xbench.errors import DependentExamples, Unsupported
from xbench.training.optimizer import with_rest
from xbench.training.requirements import check_parts_are_allowed, check_requirements
from xbench.training.settings import Choice

LAYERS = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
ONE_LAYER = nn.Sequential(nn.Linear(4, 2))
KERNELS = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(4, 2))
SPARSE = nn.Embedding(4, 2, sparse=True)


def told(spec: OptimizerSpec, called: str, model: nn.Module, **rest) -> str:
    """Why an optimizer cannot train a model; "" if it can."""
    *_, last = model.modules()
    roles = find_roles(model, last=list(last.parameters()))
    optimizer = with_rest(Choice(called, {"rest": rest} if rest else {}), spec)
    try:
        check_requirements(optimizer, model, roles)
    except Unsupported as error:
        return error.message
    return ""


def test_matrices():
    assert told(MUON, "muon", LAYERS) == ""
    expected = (
        "muon updates the matrices of hidden layers, and this model has none: all 2 parameters would be left "
        "to sgd"
    )
    assert told(MUON, "muon", ONE_LAYER, name="sgd") == expected


def test_kernels_are_matrices_only_for_an_optimizer_that_flattens_them():
    flattening = OptimizerSpec(factory="torch.optim:SGD", parameters="matrices", flattens_kernels=True)
    assert "; it does not take the 1 kernels of convolutions: " in told(MUON, "muon", KERNELS)
    assert told(flattening, "mine", KERNELS) == ""


def test_frozen_parameters_do_not_count():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model[0].weight.requires_grad_(False)
    assert "all 3 parameters would be left to adamw" in told(MUON, "muon", model)


def test_gradients():
    assert told(SPARSE_ADAM, "sparseadam", SPARSE) == ""
    assert "2 of 2 are dense" in told(SPARSE_ADAM, "sparseadam", ONE_LAYER)
    assert "dense gradients only" in told(ADAM, "adam", nn.Sequential(SPARSE))
    assert told(SGD, "sgd", SPARSE) == ""
    assert told(OptimizerSpec(factory=dict), "mine", ONE_LAYER) == ""


def test_gradients_of_the_parameters_that_are_left():
    model = nn.Sequential(nn.Embedding(4, 4, sparse=True), nn.Linear(4, 3), nn.Linear(3, 2))
    assert told(MUON, "muon", model) == "adamw takes dense gradients only, but 0.weight has sparse ones"
    assert told(MUON, "muon", model, name="sgd") == ""


@pytest.mark.parametrize("backward", ["create_graph", "fused"])
def test_micro_batches(backward):
    check_parts_are_allowed(with_rest(Choice("sgd", {}), SGD))
    special = OptimizerSpec(factory="torch.optim:SGD", backward=backward)
    with pytest.raises(DependentExamples, match=r"^mine .*, so batches cannot be divided into"):
        check_parts_are_allowed(with_rest(Choice("mine", {}), special))
