"""Optimizers that cannot share a model are reported before a run, with what to do."""

from __future__ import annotations

import pytest
import torch

from tests.run_samples import suite_of
from xbench import OptimizerSpec
from xbench.components import registry
from xbench.errors import Mistakes
from xbench.planning import trials
from xbench.suite.cells import Declared, Expansion
from xbench.training.settings import Choice

TEXT = """\
suite.name = "pairs"
[[experiment]]
name = "exp"
model = "net"
dataset = "data"
optimizer = "opt"
"""
SPECS = {
    "graph": OptimizerSpec(factory=torch.optim.SGD, backward="create_graph"),
    "fused": OptimizerSpec(factory=torch.optim.SGD, backward="fused"),
    "polyak": OptimizerSpec(factory=torch.optim.SGD, needs_loss=True),
}


@pytest.fixture
def find(monkeypatch):
    real_load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): SPECS.get(name) or real_load(kind, name, dirs)
    )

    def ask_here(function, subjects, *args, timeouts):
        sent = []
        function(sent.append, subjects, *args)
        return sent

    monkeypatch.setattr(trials, "ask_each", ask_here)

    def find_mistake(rest):
        suite = suite_of(TEXT)
        path = ("experiment", 0, "optimizer")
        declared = Declared(Choice("muon", {"rest": {"name": rest}}), path, {}, ())
        trials.check_optimizers(Expansion(optimizers=[declared]), "cpu", (), suite.problems)
        with pytest.raises(Mistakes) as caught:
            suite.problems.raise_if_any()
        (mistake,) = caught.value.mistakes
        return mistake

    return find_mistake


def test_both_update_hidden_matrices_only(find):
    mistake = find("muon")
    told = "suite.toml:6: rest = 'muon' updates hidden matrices only, as muon does"
    assert mistake.message == told
    assert mistake.hint == "name an optimizer of all parameters, such as rest = 'adamw'"


@pytest.mark.parametrize(
    ("rest", "needs"),
    [("graph", "gradients that can be differentiated"), ("fused", "a backward pass of its own")],
)
def test_one_needs_another_backward_pass(find, rest, needs):
    told = f"{rest} needs {needs}, so it cannot share a model with another optimizer"
    assert find(rest).message == f"suite.toml:6: optimizer 'muon': {told}"


def test_one_needs_the_loss(find):
    told = "polyak needs the loss of each step, which two optimizers that share a model do not see"
    assert find("polyak").message == f"suite.toml:6: optimizer 'muon': {told}"
