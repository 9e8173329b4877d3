"""Each check of models finds the model that breaks its rule."""

from __future__ import annotations

import pytest

from tests.conformance import model_parts as parts
from xbench import ModelSpec, Scale, WeightsNotFound, register_model
from xbench.components.code_files import ImportDirs
from xbench.components.registered import pack
from xbench.components.registry import load
from xbench.conformance import models
from xbench.conformance.checks import Inapplicable, not_applicable
from xbench.conformance.common import Subject
from xbench.conformance.models import CheckedModel
from xbench.errors import XbenchError


@pytest.fixture
def verdict(tmp_path):
    """Return a function that checks a model: `verdict(check, factory, **fields)`."""

    def check(name, factory, **fields):
        spec = ModelSpec(factory=factory, **fields)
        register_model("tried", spec)
        dirs = ImportDirs(packed=pack([("model", "tried")], tmp_path))
        tried = CheckedModel(spec, Subject("model", "tried", {}, dirs), tmp_path)
        return getattr(models, f"check_{name}")(tried)

    return check


def never_here(settings, may_download, on_progress):
    raise WeightsNotFound("no weights")


def needs_a_file(settings, may_download, on_progress):
    if settings["width"] > 2:
        raise WeightsNotFound("no weights")
    return ""


def test_a_classifier_passes_on_images(verdict):
    found = verdict("outputs", parts.Small)
    assert found.outcome == "pass"
    assert found.values["input_shape"] == [3, 32, 32]


@pytest.mark.parametrize(
    ("name", "shape"), [("gpt-mini", [16]), ("mlp", [8]), ("factorisation", [2]), ("point", [4])]
)
def test_a_model_of_rows_passes_on_rows_that_suit_it(tmp_path, name, shape):
    tried = CheckedModel(load("model", name), Subject("model", name, {}), tmp_path)
    found = models.check_outputs(tried)
    assert (found.outcome, found.values["input_shape"]) == ("pass", shape)


@pytest.mark.parametrize(
    ("model", "dataset", "shape"), [("mlp", "quadratic", [50]), ("mlp", "synthetic-xray", [3, 224, 224])]
)
def test_the_data_of_a_model_can_be_named(tmp_path, model, dataset, shape):
    tried = CheckedModel(load("model", model), Subject("model", model, {}, partner=dataset), tmp_path)
    found = models.check_outputs(tried)
    assert (found.outcome, found.values["input_shape"]) == ("pass", shape)


def test_a_model_with_the_wrong_number_of_outputs_fails(verdict):
    found = verdict("outputs", parts.OneLogit)
    assert found.outcome == "fail"
    assert "returns shape (1, 1) for one image; expected (1, 3)" in found.text
    assert "--with" in found.text


def test_other_checks_do_not_apply_to_a_model_that_suits_no_data(verdict):
    with pytest.raises(Inapplicable, match="see `outputs`"):
        verdict("state_dict", parts.OneLogit)


@pytest.mark.parametrize(("factory", "outcome"), [(parts.Small, "pass"), (parts.Unseeded, "fail")])
def test_weights_must_follow_from_the_seed(verdict, factory, outcome):
    assert verdict("repeats", factory).outcome == outcome


@pytest.mark.parametrize(
    ("factory", "resumable", "outcome", "said"),
    [
        (parts.Small, True, "pass", "holds all of its state"),
        (parts.Small, False, "fact", "it could be True"),
        (parts.Normalised, True, "pass", "holds all of its state"),
        (parts.Forgetful, True, "fail", "keeps state elsewhere"),
        (parts.Forgetful, False, "fact", "resumable=False is correct"),
    ],
)
def test_the_state_dict_must_hold_all_state(verdict, factory, resumable, outcome, said):
    found = verdict("state_dict", factory, resumable=resumable)
    assert found.outcome == outcome
    assert said in found.text


@pytest.mark.parametrize(("factory", "exact"), [(parts.Small, True), (parts.Normalised, False)])
def test_whether_micro_batches_are_exact_is_a_fact(verdict, factory, exact):
    found = verdict("micro_batches", factory)
    assert (found.outcome, found.values["exact"]) == ("fact", exact)


def test_roles_are_counted(verdict):
    found = verdict("roles", parts.Small, roles={"front.*": "embedding"})
    assert found.outcome == "pass"
    assert found.values == {"embedding": 3 * 9 * 4 + 4, "output": 4 * 3 + 3}


def test_a_pattern_that_matches_nothing_fails(verdict):
    found = verdict("outputs", parts.Small, roles={"tail.*": "output"})
    assert found.outcome == "fail"
    assert "'tail.*' does not match any parameter" in found.text


def test_scalable_settings_are_doubled(verdict):
    assert "width = 8: 508 B -> 1" in verdict("scales", parts.Small, scalable={"width": Scale()}).text
    assert verdict("scales", parts.Small, scalable={"depth": Scale()}).outcome == "fail"
    with pytest.raises((ValueError, XbenchError), match="width is 8, and at most 4"):
        verdict("scales", parts.Limited, scalable={"width": Scale()})


def test_scalable_settings_must_take_memory(verdict):
    found = verdict("scales", parts.Fixed, scalable={"depth": Scale()})
    assert found.outcome == "fail"
    assert "with depth = 4 rather than 2, neither the model nor its activations grow" in found.text
    found = verdict("scales", parts.Deeper, scalable={"repeats": Scale()})
    assert (found.outcome, "of activations" in found.text) == ("pass", True)


def test_a_setting_at_its_highest_value_is_not_scaled(verdict):
    found = verdict("scales", parts.Fixed, scalable={"depth": Scale(highest=2)})
    assert found == not_applicable("depth = 2 is its highest value")


@pytest.mark.parametrize(
    ("fields", "outcome", "said"),
    [
        ({}, "not applicable", "reads no files"),
        ({"obtain": never_here}, "fact", "cannot be built without files"),
        ({"obtain": never_here, "untrained": lambda settings: settings}, "fail", "need files"),
        ({"obtain": needs_a_file, "untrained": lambda settings: {"width": 2}}, "pass", "without them"),
    ],
)
def test_files_and_settings_without_files_must_agree(verdict, fields, outcome, said):
    found = verdict("weights", parts.Small, **fields)
    assert found.outcome == outcome
    assert said in found.text


def test_a_model_without_its_files_is_checked_untrained(verdict):
    fields = {"obtain": needs_a_file, "untrained": lambda settings: {"width": 2}}
    found = verdict("outputs", parts.Small, **fields)
    assert found.values["model_bytes"] == 4 * (2 * 28 + 3 * 3)
    assert "checked untrained" in found.text
    with pytest.raises(Inapplicable, match="not on this machine: no weights"):
        verdict("outputs", parts.Small, obtain=never_here)
