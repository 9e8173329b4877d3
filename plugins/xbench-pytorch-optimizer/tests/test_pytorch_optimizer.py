"""Tests of the family over all of its members."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pytorch_optimizer")
pytest.importorskip("xbench_pytorch_optimizer")

import torch
from pytorch_optimizer import get_supported_optimizers
from toy_training import Factors, KernelNetwork, Network, Training
from xbench import XbenchError

import xbench_pytorch_optimizer
from xbench_pytorch_optimizer import FAMILY, load_member
from xbench_pytorch_optimizer.catalogue import REFUSED, TORCH

pytestmark = pytest.mark.plugin

MEMBERS = sorted(set(FAMILY.members()) - set(REFUSED))
NETWORKS = {"lorarite": Factors}
STEPS, STOP_AFTER = 12, 5  # AdaShift does not move before its queue of ten gradients is full


# Settings with which a step takes less than a second.
SETTINGS = {"spectralsphere": {"solver_max_iterations": 2}}


def start(name, settings=None, network=None):
    settings = SETTINGS.get(name) if settings is None else settings
    return Training(load_member(name), settings, network or NETWORKS.get(name, Network))


def test_specs_are_listed_without_torch_and_the_package():
    code = (
        "import sys\n"
        "from xbench_pytorch_optimizer import FAMILY\n"
        "from xbench_pytorch_optimizer.catalogue import REFUSED\n"
        "specs = [FAMILY.member(name) for name in FAMILY.members() if name not in REFUSED]\n"
        "print(len(specs), {'torch', 'pytorch_optimizer'} & set(sys.modules))"
    )
    folder = Path(xbench_pytorch_optimizer.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [str(len(MEMBERS)), "set()"], done.stderr


def test_members_are_those_of_the_package():
    assert list(FAMILY.members()) == get_supported_optimizers()


def test_unknown_member_is_an_error_with_a_suggestion():
    with pytest.raises(XbenchError, match=r"no optimizer 'adabelif'. Did you mean 'adabelief'\?"):
        load_member("adabelif")


def test_torch_optimizers_are_those_of_xbench():
    for name in TORCH:
        assert load_member(name).factory.startswith("torch.optim:")


@pytest.mark.parametrize("name", MEMBERS)
def test_spec_is_complete(name):
    spec = load_member(name)
    assert 10 < len(spec.summary) < 100 and not spec.summary.endswith(".")
    assert spec.reference.startswith("https://")


@pytest.mark.parametrize("name", sorted(set(MEMBERS) - set(TORCH)))
def test_misspelt_setting_is_refused(name):
    factory = load_member(name).load_factory()
    kinds = {p.kind for p in inspect.signature(factory).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    with pytest.raises(TypeError, match="learning_rate"):
        start(name, {"learning_rate": 0.1})


@pytest.mark.parametrize("name", MEMBERS)
def test_steps_change_the_weights_and_repeat(name):
    first = start(name)
    before = first.weights()
    first.step(STEPS)
    second = start(name)  # which seeds all generators again
    second.step(STEPS)
    assert first.evaluations >= STEPS and all(map(math.isfinite, first.losses))
    assert not torch.equal(first.weights(), before)
    assert first.losses == second.losses
    assert torch.equal(first.weights(), second.weights())


@pytest.mark.parametrize("name", MEMBERS)
def test_state_has_the_declared_size(name):
    training = start(name)
    spec = load_member(name)
    if spec.fill_state is not None and name in ("adashift", "lbfgs"):  # their state grows with the steps
        spec.load_fill_state()(training.optimizer)
    training.step(3)
    declared = spec.state_vectors(training.optimizer.defaults)
    if declared is None:
        pytest.skip("the size depends on the shapes of the parameters, or on data")
    assert training.count_vectors() == pytest.approx(declared, abs=0.01)


@pytest.mark.parametrize("name", [name for name in MEMBERS if load_member(name).resumable])
def test_resumed_run_is_equal_to_a_whole_one(name):
    whole = start(name)
    whole.step(STEPS)
    stopped = start(name)
    stopped.step(STOP_AFTER)
    saved = stopped.save()
    resumed = start(name)
    resumed.load(saved)
    resumed.step(STEPS - STOP_AFTER)
    assert resumed.losses == whole.losses[STOP_AFTER:]
    assert torch.equal(resumed.weights(), whole.weights())


@pytest.mark.parametrize(
    "name", [n for n in MEMBERS if load_member(n).parameters == "any" and n != "lorarite"]
)
def test_kernels_and_scalars_are_trained(name):
    training = start(name, network=KernelNetwork)
    before = [p.detach().clone() for p in training.model.parameters()]
    training.step(STEPS)
    assert all(map(math.isfinite, training.losses))
    kernel = next(training.model.parameters())
    if name != "sara":  # which trains the weights near zero only
        assert not torch.equal(kernel, before[0])


@pytest.mark.parametrize(
    "name", [n for n in MEMBERS if load_member(n).fill_state is not None and n != "lbfgs"]
)
def test_filled_optimizer_can_step_and_its_state_does_not_grow(name):
    training = start(name)
    load_member(name).load_fill_state()(training.optimizer)
    training.step()
    filled = training.count_vectors()
    training.step(3)
    assert math.isfinite(training.losses[-1])
    assert training.count_vectors() == pytest.approx(filled, abs=0.01)


def test_sparse_gradients_are_accepted_where_a_spec_says_so():
    accepting = [name for name in MEMBERS if load_member(name).gradients == "any"]
    assert accepting == ["lbfgs", "sgd", "sm3"]
    table = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = load_member("sm3").load_factory()(list(table.parameters()))
    before = table.weight.detach().clone()
    table(torch.tensor([1, 3])).sum().backward()
    optimizer.step()
    moved = (table.weight != before).any(1)
    assert moved.tolist() == [False, True, False, True]
