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
from xbench.conformance.problem import build_shapes, build_sparse
from xbench.testing import start_training

import xbench_pytorch_optimizer
from xbench_pytorch_optimizer import FAMILY, load_member
from xbench_pytorch_optimizer.catalogue import ENTRIES, TORCH

pytestmark = pytest.mark.plugin

MEMBERS = sorted(FAMILY.members())
OF_ANY_MODEL = [name for name in ENTRIES if name != "lorarite"]  # which has tests of its own
STEPS, STOP_AFTER = 12, 5  # AdaShift does not move before its queue of ten gradients is full

# Settings with which a step takes less than a second.
SETTINGS = {"spectralsphere": {"solver_max_iterations": 2}}


def start(name, settings=None, **training):
    return start_training(load_member(name), {**SETTINGS.get(name, {}), **(settings or {})}, **training)


def test_specs_are_listed_without_torch_and_the_package():
    code = (
        "import sys\n"
        "from xbench_pytorch_optimizer import FAMILY\n"
        "specs = [FAMILY.member(name) for name in FAMILY.members()]\n"
        "print(len(specs), {'torch', 'pytorch_optimizer'} & set(sys.modules))"
    )
    folder = Path(xbench_pytorch_optimizer.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [str(len(MEMBERS)), "set()"], done.stderr


def test_members_are_those_of_the_package():
    assert list(FAMILY.members()) == get_supported_optimizers()


def test_other_names_have_no_spec():
    with pytest.raises(KeyError):
        load_member("adabelif")


def test_torch_optimizers_are_those_of_xbench():
    for name in TORCH:
        assert load_member(name).factory.startswith("torch.optim:")


@pytest.mark.parametrize("name", MEMBERS)
def test_spec_is_complete(name):
    spec = load_member(name)
    assert 10 < len(spec.summary) < 100 and not spec.summary.endswith(".")
    assert spec.reference.startswith("https://")


@pytest.mark.parametrize("name", ENTRIES)
def test_misspelt_setting_is_refused(name):
    factory = load_member(name).load_factory()
    kinds = {p.kind for p in inspect.signature(factory).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    with pytest.raises(TypeError, match="learning_rate"):
        start(name, {"learning_rate": 0.1})


@pytest.mark.parametrize("name", OF_ANY_MODEL)
def test_steps_change_the_weights_and_repeat(name):
    first = start(name)
    before, losses = first.weights(), first.step(STEPS)
    assert all(map(math.isfinite, losses))
    assert not torch.equal(first.weights(), before)
    second = start(name)  # which seeds all generators again
    assert second.step(STEPS) == losses
    assert torch.equal(first.weights(), second.weights())


@pytest.mark.parametrize("name", [name for name in OF_ANY_MODEL if load_member(name).resumable])
def test_resumed_run_is_equal_to_a_whole_one(name):
    whole, resumed = start(name), start(name)
    whole.step(STOP_AFTER)
    checkpoint, losses = whole.checkpoint(), whole.step(STEPS - STOP_AFTER)
    resumed.resume(checkpoint)
    assert resumed.step(STEPS - STOP_AFTER) == losses
    assert torch.equal(resumed.weights(), whole.weights())


@pytest.mark.parametrize("name", [n for n in OF_ANY_MODEL if load_member(n).parameters == "any"])
def test_kernels_and_scalars_are_trained(name):
    training = start(name, network=build_shapes)
    before = training.model.kernel.weight.detach().clone()
    assert all(map(math.isfinite, training.step(STEPS)))
    if name != "sara":  # which trains the weights near zero only
        assert not torch.equal(training.model.kernel.weight, before)


@pytest.mark.parametrize("name", [n for n in OF_ANY_MODEL if load_member(n).fill_state is not None])
def test_filled_optimizer_can_step_and_its_state_does_not_grow(name):
    training = start(name)
    training.fill_state()
    training.step()
    filled = training.count_vectors()
    assert all(map(math.isfinite, training.step(3)))
    assert training.count_vectors() == pytest.approx(filled, abs=0.01)


# Settings whose other value an optimizer refuses, or cannot use alone.
REFUSED = {
    ("flashadamw", "fused"),
    ("rose", "wd_schedule"),
    ("schedulefreesgd", "momentum"),
    ("scion", "momentum"),
    ("scionlight", "momentum"),
}


def list_flags():
    """List settings that may change the size of the state, with values that are not the default."""
    for name in OF_ANY_MODEL:
        for parameter in inspect.signature(load_member(name).load_factory()).parameters.values():
            if (name, parameter.name) in REFUSED:
                continue
            if isinstance(parameter.default, bool):
                yield name, {parameter.name: not parameter.default}
            if parameter.name == "momentum":
                yield name, {"momentum": 0.0 if parameter.default else 0.9}
    yield from [("bcos", {"mode": mode}) for mode in "gm"]
    yield "adashift", {"keep_num": 3}
    yield "aggmo", {"betas": [0.5, 0.9]}
    yield "grokfastadamw", {"grokfast_lamb": 0.0}


@pytest.mark.parametrize("name", OF_ANY_MODEL)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_state_has_the_declared_size(name, dtype):
    check_size_of_state(start(name, dtype=dtype), name)


@pytest.mark.parametrize(("name", "settings"), list_flags(), ids=str)
def test_state_has_the_declared_size_with_other_settings(name, settings):
    check_size_of_state(start(name, settings), name)


def check_size_of_state(training, name):
    declared = training.declared_vectors()
    if declared is None:
        pytest.skip("the size depends on the shapes of the parameters, or on data")
    if name in ("adashift", "swats"):  # whose state grows in later steps
        training.fill_state()
    training.step(2)
    assert training.count_vectors() == pytest.approx(declared, abs=0.01)


def test_sparse_gradients_are_accepted_where_a_spec_says_so():
    accepting = [name for name in MEMBERS if load_member(name).gradients == "any"]
    assert accepting == ["lbfgs", "sgd", "sm3"]
    training = start("sm3", network=build_sparse)
    before = training.weights()
    training.step()
    assert not torch.equal(training.weights(), before)
