"""What cannot be combined with an optimizer is found by trying it with the recipe."""

from __future__ import annotations

import tomllib

import pytest
import torch

from xbench import OptimizerSpec
from xbench.components import registry
from xbench.components.optimizers import LBFGS
from xbench.training.optimizer import load_optimizer
from xbench.training.recipe import check_recipe, make_mistake
from xbench.training.recipe_mistakes import PartSettings, RecipeTrial
from xbench.training.recipe_trial import try_recipe
from xbench.training.settings import Choice, TrainingSettings

SCHEDULE, CLIP = {"schedule": "cosine"}, {"clip_norm": 1.0}
WEIGHTS, GROUPS = {"weight_decay_on": "weights"}, {"groups": {"*.bias": {"lr": 1e-4}}}


class Descent(torch.optim.Optimizer):
    """Gradient descent whose parts can be overridden."""

    def __init__(self, params, lr=0.1, weight_decay=0.1):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def step(self, closure):
        closure()
        self.descend(self.param_groups)

    @torch.no_grad()
    def descend(self, groups):
        for group in groups:
            for p in group["params"]:
                p -= group["lr"] * (p.grad + group["weight_decay"] * p)


class FixedRate(Descent):
    """Does not read the rates of its groups after it was built."""

    @torch.no_grad()
    def descend(self, groups):
        for group in groups:
            for p in group["params"]:
                p.sub_(p.grad, alpha=self.defaults["lr"])


class Late(Descent):
    """Does not move in its first steps."""

    def __init__(self, params, lr=0.1, waits=8):
        super().__init__(params, lr)
        self.waits = waits

    def descend(self, groups):
        self.waits -= 1
        if self.waits < 0:
            super().descend(groups)


class FirstGroup(Descent):
    def descend(self, groups):
        super().descend(groups[:1])


class FirstGroupOfPart(FirstGroup):
    """Shares a model with another optimizer, so its steps have no closure."""

    def step(self, closure=None):
        self.descend(self.param_groups)


class Ungrouped:
    """Has a rate of its own, but no param groups."""

    def __init__(self, params, lr=0.1):
        self.params, self.lr = params, lr

    def step(self, closure):
        closure()
        with torch.no_grad():
            for p in self.params:
                p -= self.lr * p.grad


class Fused(Ungrouped):
    def step(self, closure):
        closure.loss().backward()
        with torch.no_grad():
            for p in self.params:
                p -= self.lr * p.grad


def whole_model(model, lr=0.1):
    return Descent(list(model.parameters()), lr=lr)


def broken(params):
    raise ValueError("no such thing")


SPECS = {
    "descent": OptimizerSpec(factory=Descent),
    "fixed": OptimizerSpec(factory=FixedRate),
    "first": OptimizerSpec(factory=FirstGroup),
    "first_of_matrices": OptimizerSpec(factory=FirstGroupOfPart, parameters="matrices"),
    "first_of_rest": OptimizerSpec(factory=FirstGroupOfPart),
    "late": OptimizerSpec(factory=Late),
    "ungrouped": OptimizerSpec(factory=Ungrouped),
    "fused": OptimizerSpec(factory=Fused, backward="fused"),
    "whole": OptimizerSpec(factory=whole_model),
    "broken": OptimizerSpec(factory=broken),
}


@pytest.fixture(autouse=True)
def small_components(monkeypatch):
    real_load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): SPECS.get(name) or real_load(kind, name, dirs)
    )


def trial(optimizer, recipe, **params) -> RecipeTrial:
    return try_recipe(load_optimizer(Choice(optimizer, params)), TrainingSettings(**recipe))


def told(optimizer, recipe, **params) -> list[str]:
    return [mistake.message for mistake in trial(optimizer, recipe, **params).mistakes]


# Optimizers of torch that a key cannot be used with, and why.
NO_DECAY = "have no 'weight_decay'"
REFUSED = {
    ("lbfgs", "weight_decay_on"): NO_DECAY,
    ("lbfgs", "groups"): "takes no param groups: LBFGS doesn't support per-parameter options",
    ("rprop", "schedule"): "do not depend on the 'lr'",
    ("rprop", "weight_decay_on"): NO_DECAY,
    ("sparseadam", "weight_decay_on"): NO_DECAY,
}


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("recipe", [SCHEDULE, CLIP, WEIGHTS, GROUPS], ids=lambda recipe: next(iter(recipe)))
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in registry.registrations("optimizer")
        if registry.origin("optimizer", name).startswith("xbench ")
    ],
)
def test_every_optimizer(name, recipe):
    expected = REFUSED.get((name, next(iter(recipe))))
    found = told(name, recipe)
    if expected is None:
        assert found == []
    else:
        assert len(found) == 1
        assert expected in found[0]


@pytest.mark.parametrize("recipe", [SCHEDULE, {"warmup": 3}, CLIP, {"clip_value": 1.0}])
def test_a_line_search_goes_with_neither_schedules_nor_clipping(recipe):
    key = next(iter(recipe))
    (mistake,) = trial("lbfgs", recipe, line_search_fn="strong_wolfe").mistakes
    assert mistake.message.startswith("the line search of 'lbfgs' ")
    assert mistake.keys == (key,)
    assert f"set {key} = " in mistake.hint
    assert told("lbfgs", recipe) == []


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("schedule", '"constant"'),
        ("warmup", "0"),
        ("clip_norm", '"off"'),
        ("clip_value", '"off"'),
        ("weight_decay_on", '"all"'),
        ("groups", "{}"),
    ],
)
def test_hints_write_defaults_as_suites_do(key, written):
    assert f"set {key} = {written} in" in make_mistake((key,), "").hint
    read = tomllib.loads(f"{key} = {written}")
    assert TrainingSettings(**read) == TrainingSettings()


def test_an_optimizer_says_whether_it_compares_losses():
    searching, plain = ({"line_search_fn": "strong_wolfe"}, {})
    assert load_optimizer(Choice("lbfgs", searching)).compares_losses
    assert not load_optimizer(Choice("lbfgs", plain)).compares_losses


def test_what_an_optimizer_declares_is_checked_again_in_its_cell():
    optimizer = load_optimizer(Choice("lbfgs", {"line_search_fn": "strong_wolfe"}))
    with pytest.raises(Exception, match="line search"):
        check_recipe(optimizer, TrainingSettings(**CLIP))
    check_recipe(optimizer, TrainingSettings())
    assert LBFGS.line_search({"line_search_fn": "strong_wolfe"})


class TestRates:
    def test_that_are_used_in_every_step(self):
        assert trial("descent", SCHEDULE | {"min_lr": 0.1, "warmup": 5}) == RecipeTrial()

    def test_that_were_copied(self):
        assert told("fixed", {"warmup": 5}) == [
            "the steps of 'fixed' do not depend on the 'lr' of its param groups, so warmup has no effect"
        ]

    @pytest.mark.parametrize("waits", [8, 100])
    def test_that_are_not_used_in_the_first_steps(self, waits):
        """Nothing can be said of an optimizer that does not move in the trial."""
        assert told("late", SCHEDULE, waits=waits) == []

    def test_without_groups(self):
        assert told("ungrouped", SCHEDULE) == [
            "'ungrouped' has no param_groups, whose learning rates a schedule changes"
        ]

    def test_a_minimum_above_the_rate(self):
        (mistake,) = trial("descent", SCHEDULE | {"min_lr": 0.2}).mistakes
        assert mistake.message == "min_lr = 0.2 is above the lr of 'descent', 0.1"
        assert mistake.keys == ("min_lr",)

    def test_a_minimum_above_the_rate_of_a_group(self):
        found = told("descent", SCHEDULE | {"min_lr": 0.05, "groups": {"head.*": {"lr": 0.01}}})
        assert found == ["min_lr = 0.05 is above the lr of the group 'head.*', 0.01"]

    def test_of_both_parts_of_a_pair(self):
        assert told("muon", SCHEDULE, rest={"name": "sgd"}) == []
        (found,) = told("muon", SCHEDULE, rest={"name": "rprop"})
        assert found.startswith("the steps of 'rprop' do not depend")

    def test_that_are_tensors(self):
        SPECS["tensor"] = OptimizerSpec(factory=lambda params: torch.optim.Adam(params, lr=torch.tensor(0.1)))
        assert told("tensor", SCHEDULE) == []


class TestClipping:
    def test_not_where_the_optimizer_runs_the_backward_pass(self):
        for recipe in (CLIP, {"clip_value": 1.0}):
            (found,) = told("fused", recipe)
            assert found.startswith("'fused' runs the backward pass itself")


class TestGroups:
    def test_weight_decay_that_is_zero_is_warned_of(self):
        found = trial("descent", WEIGHTS, weight_decay=0.0)
        assert found.mistakes == ()
        assert found.warning == "weight_decay_on has no effect on 'descent', whose weight_decay is 0"
        assert trial("descent", WEIGHTS).warning == ""

    def test_a_setting_that_the_optimizer_does_not_have(self):
        (mistake,) = trial("descent", {"groups": {"*": {"momentum": 0.9}, "a": {"lr": 1.0}}}).mistakes
        assert (
            mistake.message == "the param groups of 'descent' have no 'momentum'; they have lr, weight_decay"
        )
        assert (mistake.keys, mistake.pattern) == (("groups",), "*")

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (-1.0, "the group '*' of 'adam': Invalid learning rate: -1.0"),
            ("fast", "the group '*' of 'adam': 'lr' should be a number, not 'fast'"),
        ],
    )
    def test_a_value_that_the_optimizer_refuses(self, value, message):
        assert told("adam", {"groups": {"*": {"lr": value}}}) == [message]

    def test_that_are_ignored(self):
        assert told("first", GROUPS) == ["'first' does not update the parameters of all of its param groups"]

    @pytest.mark.parametrize(("optimizer", "rest"), [("first_of_matrices", "sgd"), ("muon", "first_of_rest")])
    def test_that_one_part_of_a_pair_ignores(self, optimizer, rest):
        found = told(optimizer, GROUPS, rest={"name": rest})
        assert found == [f"'{optimizer}' does not update the parameters of all of its param groups"]
        assert told("muon", GROUPS, rest={"name": "sgd"}) == []

    @pytest.mark.parametrize("recipe", [GROUPS, WEIGHTS])
    def test_an_optimizer_of_the_whole_model(self, recipe):
        (found,) = told("whole", recipe)
        assert found.startswith("'whole' takes the whole model, so ")

    def test_a_setting_of_one_part_of_a_pair(self):
        assert told("muon", {"groups": {"*": {"betas": [0.9, 0.99], "ns_steps": 4}}}) == []
        (found,) = told("muon", {"groups": {"*": {"rho": 0.9}}})
        assert found.startswith("the param groups of 'muon' have no 'rho'; they have lr, ")


def test_the_settings_of_both_parts_of_a_pair():
    pair = trial("muon", GROUPS, rest={"name": "first_of_rest"}).pair
    assert pair.rest == PartSettings("first_of_rest", ("lr", "weight_decay"))
    assert pair.matrices.name == "muon"
    assert "ns_steps" in pair.matrices.known
    assert "betas" not in pair.matrices.known
    assert trial("descent", GROUPS).pair is None


def test_an_optimizer_that_does_not_work_is_left_to_its_own_trial():
    assert trial("broken", SCHEDULE | WEIGHTS) == RecipeTrial()


def test_draws_and_modes_of_the_process_stay():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    trial("adam", SCHEDULE | WEIGHTS)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("key", ["foreach", "fused"])
@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "adagrad"])
def test_implementations_of_torch_are_settings_of_the_optimizer(name, key):
    optimizer = load_optimizer(Choice(name, {key: True}))
    assert try_recipe(optimizer, TrainingSettings(**SCHEDULE, **WEIGHTS, **CLIP)).mistakes == ()
