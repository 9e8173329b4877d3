"""Models are built and run on images in a child, before a run."""

from __future__ import annotations

import sys
from textwrap import dedent

import pytest

from xbench.data.decoded import image_facts
from xbench.errors import XbenchError
from xbench.planning.describe import ModelTrial, TriedModel, try_models
from xbench.training.settings import Choice

NETS = """
import torch
from torch import nn
from xbench import ModelSpec, XbenchError


def plain(num_classes, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, width), nn.Linear(width, num_classes))


def convolution(num_classes):
    return nn.Sequential(nn.Conv2d(3, 2, 8), nn.Flatten(), nn.Linear(2, 4), nn.Linear(4, num_classes))


def frozen(num_classes):
    model = plain(num_classes)
    model[1].requires_grad_(False)
    return model


def softmaxed(num_classes):
    return nn.Sequential(plain(num_classes), nn.Softmax(1))


def thousand(num_classes):
    return plain(1000)


def raising(num_classes):
    raise ValueError("no such width")


def refusing(num_classes):
    raise XbenchError("weights are of another network", "take others")


def nothing(num_classes):
    pass


with_roles = ModelSpec(factory=plain, roles={"1.weight": "embedding"})
with_wrong_roles = ModelSpec(factory=plain, roles={"3.*": "output"})


def fixed(outputs=3, width=3):
    return plain(outputs, width)


def fixed_for_small_images():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2))


class Greedy(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.last = nn.Linear(1, num_classes)

    def forward(self, images):
        return torch.empty(1 << 58, dtype=torch.uint8)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "trial_nets.py").write_text(dedent(NETS))
    monkeypatch.syspath_prepend(tmp_path)
    yield str(tmp_path)
    sys.modules.pop("trial_nets", None)


@pytest.fixture
def outcome(folder):
    def try_one(name, dtype="float32", finds_matrices=False, **settings):
        sent = []
        choice, facts = Choice(f"trial_nets:{name}", settings), image_facts((3, 8, 8), 2, 10)
        trial = ModelTrial(choice, facts, None, dtype, "channels_last", finds_matrices=finds_matrices)
        try_models(sent.append, [trial], "cpu", (folder,))
        (answer,) = sent
        return answer

    return try_one


def test_a_model_that_suits_the_data(outcome):
    assert outcome("plain", width=3) == TriedModel(is_frozen=False)
    assert outcome("plain", dtype="float64") == TriedModel(is_frozen=False)
    assert outcome("frozen") == TriedModel(is_frozen=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("thousand", "returns shape (1, 1000) for one image; expected (1, 2): one logit per class"),
        ("raising", "cannot be built: ValueError: no such width (trial_nets.py:"),
    ],
)
def test_a_mistake_names_the_model(outcome, name, message):
    error = outcome(name)
    assert isinstance(error, XbenchError)
    assert error.message.startswith(f"model 'trial_nets:{name}' {message}")


def test_errors_without_the_models_name_get_it(outcome):
    error = outcome("refusing")
    assert error.message == "model 'trial_nets:refusing': weights are of another network"
    assert error.hint == "take others"
    told = "model 'trial_nets:nothing': nothing(num_classes) returns a NoneType, not a torch.nn.Module"
    assert outcome("nothing").message == told


def test_the_names_of_trained_parameters(outcome):
    names = ("1.weight", "1.bias", "2.weight", "2.bias")
    assert outcome("plain").parameters == names
    assert outcome("frozen").parameters == names[2:]
    assert outcome("Greedy").parameters == ("last.weight", "last.bias")


def test_the_names_of_hidden_matrices_are_found_if_they_are_needed(outcome):
    assert outcome("plain").matrices is None
    tried = outcome("plain", finds_matrices=True)
    assert (tried.matrices, tried.kernels) == (("1.weight",), ())
    tried = outcome("convolution", finds_matrices=True)
    assert (tried.matrices, tried.kernels) == (("2.weight",), ("0.weight",))
    assert outcome("with_roles", finds_matrices=True).matrices == ()
    assert outcome("frozen", finds_matrices=True).matrices == ()
    assert outcome("Greedy", finds_matrices=True).matrices is None


def test_declared_roles_are_of_parameters_that_the_model_has(outcome):
    assert outcome("with_roles") == TriedModel(is_frozen=False)
    error = outcome("with_wrong_roles")
    told = "model 'trial_nets:with_wrong_roles': roles: '3.*' does not match any parameter of the model"
    assert error.message == told
    assert "'1.weight'" in error.hint


def test_a_warning_goes_with_the_facts(outcome):
    tried = outcome("softmaxed")
    assert not tried.is_frozen
    assert tried.warning.startswith("model 'trial_nets:softmaxed' returns what looks like probabilities")


def test_one_that_has_too_little_memory_is_left_to_its_cells(outcome):
    told = "model 'trial_nets:Greedy' was not tried on an image: out of memory"
    assert outcome("Greedy") == TriedModel(is_frozen=False, warning=told)


def test_a_model_without_a_parameter_for_the_number_of_classes_may_have_the_right_number(outcome):
    assert outcome("fixed", outputs=2) == TriedModel(is_frozen=False)


def test_a_model_without_a_parameter_for_the_number_of_classes_is_told_by_name(outcome):
    error = outcome("fixed")
    assert error.message.startswith("model 'trial_nets:fixed' returns shape (1, 3) for one image")
    assert error.hint.startswith("the signature fixed(outputs=3, width=3) has no parameter for the number")
    assert "def build(num_classes): return fixed(...)" in error.hint


def test_other_mistakes_of_such_a_model_keep_their_hints(outcome):
    error = outcome("fixed_for_small_images")
    assert "fails on one image of shape (1, 3, 8, 8)" in error.message
    assert "the signature" not in error.hint
