"""What an optimizer cannot take, it says before training."""

from __future__ import annotations

from torch import nn

from xbench import OptimizerSpec
from xbench.components.optimizers import ADAM, MUON, SGD, SPARSE_ADAM
from xbench.training.requirements import find_unmet_requirement

DENSE = nn.Sequential(nn.Linear(4, 2))
MATRICES = nn.Sequential(nn.Linear(4, 2, bias=False))
SPARSE = nn.Embedding(4, 2, sparse=True)


def test_matrices():
    assert find_unmet_requirement(MUON, "muon", MATRICES) is None
    assert "1 of 2 are not, such as 0.bias (2,)" in find_unmet_requirement(MUON, "muon", DENSE)


def test_frozen_parameters_do_not_count():
    model = nn.Sequential(nn.Linear(4, 2))
    model[0].bias.requires_grad_(False)
    assert find_unmet_requirement(MUON, "muon", model) is None


def test_gradients():
    assert find_unmet_requirement(SPARSE_ADAM, "sparseadam", SPARSE) is None
    assert "2 of 2 are dense" in find_unmet_requirement(SPARSE_ADAM, "sparseadam", DENSE)
    assert "dense gradients only" in find_unmet_requirement(ADAM, "adam", nn.Sequential(SPARSE))
    assert find_unmet_requirement(SGD, "sgd", SPARSE) is None
    assert find_unmet_requirement(OptimizerSpec(factory=dict), "mine", DENSE) is None
