"""Parameters divided into groups, and what an optimizer must know of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xbench.errors import XbenchError
from xbench.training.param_groups import (
    check_settings,
    find_idle_patterns,
    list_settings,
    make_param_groups,
)
from xbench.training.settings import TrainingSettings

MODEL = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(8, 2))
NAMED = list(MODEL.named_parameters())


def make(**training):
    """The groups, with names in place of parameters."""
    names = {id(parameter): name for name, parameter in NAMED}
    groups = make_param_groups(NAMED, TrainingSettings(**training))
    return [group | {"params": [names[id(p)] for p in group["params"]]} for group in groups]


def test_weight_decay_on_weights_only():
    assert make(weight_decay_on="weights") == [
        {"params": ["0.weight", "3.weight"]},
        {"params": ["0.bias", "1.weight", "1.bias", "3.bias"], "weight_decay": 0.0},
    ]


def test_the_first_pattern_that_matches_counts():
    assert make(groups={"3.*": {"lr": 1.0}, "*.bias": {"lr": 2.0, "momentum": 0.5}}) == [
        {"params": ["0.weight", "1.weight"]},
        {"params": ["0.bias", "1.bias"], "lr": 2.0, "momentum": 0.5},
        {"params": ["3.weight", "3.bias"], "lr": 1.0},
    ]


def test_a_group_with_its_own_weight_decay_has_it_for_all_of_its_parameters():
    groups = {"1.*": {"weight_decay": 0.1}, "3.*": {"lr": 1.0}}
    assert make(weight_decay_on="weights", groups=groups) == [
        {"params": ["0.weight"]},
        {"params": ["0.bias"], "weight_decay": 0.0},
        {"params": ["1.weight", "1.bias"], "weight_decay": 0.1},
        {"params": ["3.weight"], "lr": 1.0},
        {"params": ["3.bias"], "lr": 1.0, "weight_decay": 0.0},
    ]


def test_an_optimizer_does_not_change_the_settings():
    training = TrainingSettings(groups={"*": {"lr": 1.0}})
    torch.optim.Adam(make_param_groups(NAMED, training))
    assert training.groups == {"*": {"lr": 1.0}}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*.bias", "3.*"], []),
        (["*.bias", "4.*"], ["4.*"]),
        (["3.*", "3.bias"], ["3.bias"]),
        (["*.BIAS"], ["*.BIAS"]),
    ],
)
def test_patterns_that_apply_to_nothing(patterns, expected):
    assert find_idle_patterns(dict.fromkeys(patterns), [name for name, _ in NAMED]) == expected


class Wrapper(torch.optim.Optimizer):
    """Has settings that are not its defaults, like SAM around another optimizer."""

    def __init__(self, params, rho=0.1):
        super().__init__(params, {"rho": rho})
        self.inner = torch.optim.SGD(self.param_groups)


class TestSettingsThatAnOptimizerHas:
    def build(self, factory, **training):
        groups = make_param_groups(NAMED, TrainingSettings(**training))
        given = [set(group) for group in groups]
        return factory(groups), given

    def test_known_ones(self):
        optimizer, given = self.build(torch.optim.SGD, groups={"3.*": {"lr": 1.0, "nesterov": False}})
        check_settings(optimizer, given, "sgd")

    @pytest.mark.parametrize("pattern", ["3.*", "*"])
    def test_an_unknown_one(self, pattern):
        optimizer, given = self.build(torch.optim.Adagrad, groups={pattern: {"momentum": 1.0, "lr": 1.0}})
        with pytest.raises(XbenchError) as caught:
            check_settings(optimizer, given, "adagrad")
        assert caught.value.message == (
            "the param groups of 'adagrad' have no 'momentum'; they have lr, lr_decay, eps, weight_decay, "
            "initial_accumulator_value, foreach, maximize, differentiable, fused"
        )

    @pytest.mark.parametrize("pattern", ["3.*", "*"])
    def test_those_of_a_wrapped_optimizer(self, pattern):
        optimizer, given = self.build(Wrapper, groups={pattern: {"lr": 1.0, "rho": 0.5}})
        check_settings(optimizer, given, "wrapper")

    def test_one_that_a_wrapper_does_not_know(self):
        optimizer, given = self.build(Wrapper, groups={"3.*": {"betas": [0.9, 0.99]}})
        with pytest.raises(XbenchError, match="have no 'betas'; they have rho, lr, momentum"):
            check_settings(optimizer, given, "wrapper")

    def test_those_of_groups_that_the_factory_divides(self):
        def divide(groups):
            divided = [{**group, "params": [p]} for group in groups for p in group["params"]]
            return torch.optim.SGD(divided)

        optimizer, given = self.build(divide, groups={"3.*": {"lr": 1.0}})
        assert len(optimizer.param_groups) > len(given)
        check_settings(optimizer, given, "sgd")
        optimizer, given = self.build(divide, groups={"3.*": {"betas": [0.9, 0.99]}})
        with pytest.raises(XbenchError, match="have no 'betas'; they have lr, momentum"):
            check_settings(optimizer, given, "sgd")

    def test_list(self):
        assert list_settings(Wrapper([torch.zeros(1)]))[:3] == ["rho", "lr", "momentum"]
