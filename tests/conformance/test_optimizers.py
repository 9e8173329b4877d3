"""Each check of optimizers finds the optimizer that breaks its rule."""

from __future__ import annotations

import pytest

from tests.conformance import optimizer_parts as parts
from xbench import OptimizerSpec, Unsupported
from xbench.components.registry import load
from xbench.conformance import optimizers
from xbench.conformance.checked_optimizer import CheckedOptimizer, open_optimizer
from xbench.conformance.checks import Inapplicable
from xbench.conformance.child import find_functions
from xbench.conformance.common import Subject


@pytest.fixture
def verdict(tmp_path):
    """Return a function that checks an optimizer: `verdict(check, factory, settings, **fields)`."""

    def check(name, factory, settings=None, **fields):
        spec = factory if isinstance(factory, OptimizerSpec) else OptimizerSpec(factory=factory, **fields)
        function = find_functions("optimizer")[name.replace("_", "-")]
        return function(CheckedOptimizer(spec, settings or {}, tmp_path))

    return check


def test_trial_passes_on_the_complaint(verdict):
    found = verdict("trial", load("optimizer", "sgd"), {"lr": -1.0})
    assert (found.outcome, found.text) == ("fail", "Invalid learning rate: -1.0")


def test_a_lower_loss_passes_and_is_measured(verdict):
    found = verdict("loss", parts.Descent)
    assert found.outcome == "pass"
    assert found.values["last_loss"] < found.values["first_loss"]
    assert found.values["ratio"] == found.values["last_loss"] / found.values["first_loss"]


def test_a_loss_that_does_not_fall_is_a_fact(verdict):
    found = verdict("loss", parts.Idle)
    assert found.outcome == "fact"
    assert found.values["ratio"] == pytest.approx(1)


def test_a_loss_that_diverges_fails(verdict):
    found = verdict("loss", parts.Descent, {"lr": 1e30})
    assert found.outcome == "fail"
    assert "diverges" in found.text


def test_an_exception_fails_one_check(verdict):
    found = verdict("loss", parts.Raising)
    assert found.outcome == "fail"
    assert "ValueError: no tenth step (optimizer_parts.py:" in found.text
    with pytest.raises(Inapplicable, match="see `loss`"):
        verdict("repeats", parts.Raising)


@pytest.mark.parametrize(("factory", "calls"), [(parts.Descent, 1), (load("optimizer", "sam"), 2)])
def test_closure_calls_are_counted(verdict, factory, calls):
    found = verdict("closures", factory)
    assert (found.outcome, found.values["closures_per_step"]) == ("fact", calls)


@pytest.mark.parametrize("factory", [parts.Descent, parts.Drawing, parts.DrawingAtFirst])
def test_a_seeded_run_repeats(verdict, factory):
    assert verdict("repeats", factory).outcome == "pass"


def test_an_unseeded_run_does_not_repeat(verdict):
    found = verdict("repeats", parts.Unseeded)
    assert found.outcome == "fail"
    assert "first in the loss of step 2" in found.text


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (parts.Descent, "uses no global random number generator"),
        (parts.Drawing, "a step draws from the global generator of Python and torch"),
        (parts.Reseeding, "a step seeds the global generator of torch"),
        (parts.DrawingAtFirst, "building draws from the global generator of torch"),
    ],
)
def test_use_of_random_numbers_is_a_fact(verdict, factory, said):
    found = verdict("random_numbers", factory)
    assert found.outcome == "fact"
    assert said in found.text


@pytest.mark.parametrize("factory", [parts.Descent, parts.Momentum, parts.Drawing])
def test_a_complete_state_dict_resumes(verdict, factory):
    assert verdict("resume", factory, resumable=True).outcome == "pass"
    undeclared = verdict("resume", factory)
    assert undeclared.outcome == "fact"
    assert "it could be True" in undeclared.text


def test_a_run_that_does_not_repeat_is_not_resumed(verdict):
    with pytest.raises(Inapplicable, match="see `repeats`"):
        verdict("resume", parts.Unseeded, resumable=True)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (parts.Forgetful, "differs, first in the loss of step 9"),
        (parts.Unsavable, "its state holds Python objects"),
    ],
)
def test_an_incomplete_state_dict_does_not_resume(verdict, factory, said):
    declared = verdict("resume", factory, resumable=True)
    assert declared.outcome == "fail"
    assert said in declared.text
    assert verdict("resume", factory).outcome == "fact"


@pytest.mark.parametrize(("declared", "outcome"), [(1, "pass"), (2, "fail"), (None, "fact")])
def test_the_state_is_measured(verdict, declared, outcome):
    found = verdict("state_size", parts.Momentum, state_vectors=lambda settings: declared)
    assert (found.outcome, found.values["state_vectors"]) == (outcome, 1)


def test_the_declared_state_may_depend_on_settings_of_the_factory(verdict):
    fields = {"state_vectors": lambda settings: settings["buffers"] * (settings["lr"] > 0)}
    assert verdict("state_size", parts.Ema, **fields).outcome == "pass"
    assert verdict("state_size", parts.Ema, {"buffers": 2}, **fields).outcome == "fail"


def test_one_element_tensors_are_not_vectors(verdict):
    found = verdict("state_size", parts.WithNorms, state_vectors=lambda settings: 1)
    assert found.outcome == "pass"
    assert "(without 72 bytes of one-element and other tiny tensors)" in found.text
    found = verdict("state_size", parts.WithView, state_vectors=lambda settings: 0)
    assert (found.outcome, found.values["state_vectors"]) == ("fail", pytest.approx(1, abs=0.1))


@pytest.mark.parametrize(
    ("factory", "fields", "outcome"),
    [
        (parts.Momentum, {}, "pass"),
        (parts.Growing, {}, "fail"),
        (parts.Every, {}, "fail"),
        (parts.Every, {"memory_period": 5}, "pass"),
        (parts.Growing, {"memory_period": 5}, "fail"),
    ],
)
def test_growth_after_the_declared_steps_fails(verdict, factory, fields, outcome):
    found = verdict("state_growth", factory, **fields)
    assert found.outcome == outcome
    if outcome == "fail":
        assert ("the period is too short" if fields else "declare memory_period") in found.text


@pytest.mark.parametrize(
    ("name", "fields", "outcome", "said"),
    [
        ("sgd", {}, "fact", "it also accepts sparse"),
        ("sgd", {"gradients": "any"}, "pass", "dense and sparse"),
        ("adam", {"gradients": "any"}, "fail", "fails on sparse gradients"),
        ("adam", {}, "pass", "accepts dense"),
        ("sparseadam", {"gradients": "sparse"}, "pass", "accepts sparse"),
    ],
)
def test_declared_gradients_are_tried(verdict, name, fields, outcome, said):
    found = verdict("gradients", load("optimizer", name).factory, **fields)
    assert found.outcome == outcome
    assert said in found.text


def test_parameters_of_all_dimensions_are_tried(verdict):
    assert verdict("parameters", parts.Descent).outcome == "pass"
    found = verdict("parameters", parts.NeedsMatrices)
    assert found.outcome == "fail"
    assert "optimizer_parts.py" in found.text


def test_a_comparison_of_losses_is_noticed(verdict):
    assert verdict("line_search", parts.Descent).outcome == "not applicable"
    assert verdict("line_search", parts.Halving).values["compares_losses"]
    assert not verdict("line_search", load("optimizer", "sam")).values["compares_losses"]


@pytest.mark.parametrize(
    ("compares", "factory", "outcome"),
    [
        (True, parts.Halving, "pass"),
        (False, parts.Halving, "fail"),
        (True, load("optimizer", "sam").factory, "fail"),
        (True, parts.Descent, "fail"),
        (True, parts.Insisting, "pass"),
        (True, parts.Strict, "pass"),
    ],
)
def test_a_declared_line_search_is_tried(verdict, compares, factory, outcome):
    found = verdict("line_search", factory, line_search=lambda settings: settings["lr"] > 0 and compares)
    assert found.outcome == outcome


@pytest.mark.parametrize(
    ("factory", "needs_loss", "outcome"),
    [
        (parts.Polyak, True, "pass"),
        (parts.Polyak, False, "fail"),
        (parts.Descent, False, "pass"),
        (parts.Descent, True, "fail"),
        (parts.Halving, False, "not applicable"),
        (parts.Fused, False, "not applicable"),
    ],
)
def test_a_declared_need_for_the_loss_is_tried(verdict, factory, needs_loss, outcome):
    backward = "fused" if factory is parts.Fused else "plain"
    assert verdict("needs_loss", factory, backward=backward, needs_loss=needs_loss).outcome == outcome


@pytest.mark.parametrize(
    ("check", "factory", "said"),
    [
        ("needs_loss", parts.Unseeded, "two equal runs differ"),
        ("needs_loss", parts.Exploding, "the loss of step 6 is nan"),
        ("line_search", parts.UnseededHalving, "two equal runs differ"),
        ("line_search", parts.ExplodingTwice, "the loss of step 6 is nan"),
    ],
)
def test_runs_are_compared_only_if_they_repeat(verdict, check, factory, said):
    with pytest.raises(Inapplicable, match=said):
        verdict(check, factory)


def test_a_backward_pass_is_tried_only_if_runs_repeat(verdict):
    with pytest.raises(Inapplicable, match="two equal runs differ"):
        verdict("backward", parts.Unseeded, backward="create_graph")


@pytest.mark.parametrize(
    ("factory", "backward", "outcome"),
    [
        (parts.Newton, "create_graph", "pass"),
        (parts.Fused, "fused", "pass"),
        (parts.Descent, "create_graph", "fact"),
    ],
)
def test_a_declared_backward_pass_is_tried(verdict, factory, backward, outcome):
    assert verdict("backward", factory, backward=backward).outcome == outcome


@pytest.mark.parametrize(
    ("name", "works"),
    [
        ("sgd", {"schedule": True, "clip_norm": True, "weight_decay_on": True}),
        ("rprop", {"schedule": False, "clip_norm": True, "weight_decay_on": False}),
    ],
)
def test_recipes_that_it_works_with_are_a_fact(verdict, name, works):
    found = verdict("recipe", load("optimizer", name))
    assert (found.outcome, found.values) == ("fact", works)


def test_a_recipe_that_fails_in_training_is_named(verdict):
    found = verdict("recipe", parts.Exact)
    assert found.values == {"schedule": True, "clip_norm": False, "weight_decay_on": False}
    assert "not with clip_norm: ValueError: these gradients are too short" in found.text


def list_checks():
    return [name.replace("-", "_") for name in find_functions("optimizer")]


@pytest.mark.parametrize("check", sorted({*list_checks()} - {"trial", "loss", "gradients", "parameters"}))
def test_other_checks_do_not_apply_to_an_optimizer_that_cannot_be_trained(verdict, check):
    with pytest.raises(Inapplicable, match="see `loss`"):
        verdict(check, parts.RaisingAtOnce, backward="create_graph")


@pytest.mark.parametrize("check", sorted({*list_checks()} - {"trial"}))
def test_an_optimizer_does_not_fail_on_a_model_that_it_does_not_support(verdict, check):
    with pytest.raises(Unsupported, match="needs 2 parameters, not"):
        verdict(check, parts.Choosy, backward="create_graph")


def test_gradients_that_are_not_declared_need_no_support(verdict):
    assert verdict("gradients", parts.DenseOnly).outcome == "pass"
    with pytest.raises(Unsupported, match="needs more than one parameter"):
        verdict("gradients", parts.DenseOnly, gradients="any")


@pytest.mark.parametrize("check", ["trial", "loss", "repeats", "resume", "state_size", "parameters"])
def test_an_optimizer_that_runs_the_backward_pass_itself_is_checked(verdict, check):
    found = verdict(check, parts.Fused, backward="fused", resumable=True, state_vectors=lambda settings: 0)
    assert found.outcome == "pass"


@pytest.mark.parametrize("name", ["adam", "muon", "sparseadam"])
def test_a_built_in_optimizer_passes_all_checks(verdict, name):
    assert len(list_checks()) >= 12
    found = {check: verdict(check, load("optimizer", name)) for check in list_checks()}
    assert {check: one.text for check, one in found.items() if one.outcome == "fail"} == {}


def test_the_optimizer_of_other_parameters_is_part_of_the_run(tmp_path):
    losses = []
    for rest in ("adamw", "sgd", {"name": "sgd", "lr": 1.0}):
        subject = Subject("optimizer", "muon", {"rest": rest})
        tried = open_optimizer(load("optimizer", "muon"), subject, tmp_path)
        losses.append(optimizers.check_loss(tried).values["last_loss"])
    assert len(set(losses)) == 3
