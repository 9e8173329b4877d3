"""Tests of settings in the signatures of factories, and of checking values against them."""

from __future__ import annotations

import pickle
from functools import partial

import pytest

from xbench.components.registry import load
from xbench.components.settings import Settings, settings_of
from xbench.components.specs import DatasetSpec, ModelSpec, OptimizerSpec


def declare(
    params, lr=1e-3, size=4, act="relu", bias=True, none=None, pair=(1, 2), count: int = 3, flag: bool = False
):
    pass


DECLARED = settings_of(OptimizerSpec(factory=declare))


class Odd:
    def __repr__(self):
        return "<odd>"


ODD = Odd()


def factory(first, second, /, needed, rate=0.5, *, also_needed, pair=(1, [2, ODD]), odd=ODD, nothing=None):
    pass


def open_factory(params, lr=1e-3, **anything):
    pass


def test_names_and_defaults_match_the_signature_without_the_number_of_classes():
    settings = settings_of(ModelSpec(factory=lambda num_classes, width=8, act="relu", bias=True: None))
    assert settings.defaults == {"width": 8, "act": "relu", "bias": True}
    assert list(settings.defaults) == ["width", "act", "bias"]
    assert settings.required == ()
    assert settings.names == ("width", "act", "bias")
    assert not settings.is_open


def test_all_parameters_of_a_dataset_are_settings():
    def build(root, size=3):
        pass

    settings = settings_of(DatasetSpec(factory=build))
    assert (settings.required, settings.defaults) == (("root",), {"size": 3})
    assert settings_of(OptimizerSpec(factory=build)).required == ()


def test_a_models_first_parameter_is_a_setting_like_any_other():
    settings = settings_of(ModelSpec(factory=lambda width=64, n_classes=2, depth=3: None))
    assert settings.defaults == {"width": 64, "depth": 3}
    assert settings_of(ModelSpec(factory=lambda width, num_classes: None)).required == ("width",)


@pytest.mark.parametrize("factory", [lambda num_classes, width=8: None, lambda width=8, **others: None])
def test_the_number_of_classes_is_not_a_setting(factory):
    settings = settings_of(ModelSpec(factory=factory))
    complaint = "'num_classes' is not a setting: xbench passes the dataset's number of classes in it"
    assert settings.unknown("num_classes") == complaint
    assert settings.unknown("width") is None
    assert settings_of(OptimizerSpec(factory=open_factory)).unknown("num_classes") is None


def test_model_without_a_class_count_parameter_has_its_settings():
    def build(width=8):
        pass

    settings = settings_of(ModelSpec(factory=build))
    assert (settings.class_count, settings.takes_facts, settings.names) == ("", False, ("width",))
    assert "num_classes" in settings.unknown("num_classes")


def test_facts_are_not_a_setting_of_a_model_that_asks_for_them():
    def build(facts, width=8):
        pass

    settings = settings_of(ModelSpec(factory=build))
    assert (settings.takes_facts, settings.names, settings.required) == (True, ("width",), ())
    assert settings.unknown("facts").startswith("'facts' is not a setting: xbench passes the facts")


def test_parameters_without_a_default_are_required_and_positional_only_ones_are_ignored():
    settings = settings_of(OptimizerSpec(factory=factory))
    assert settings.required == ("needed", "also_needed")
    assert settings.names == ("needed", "also_needed", "rate", "pair", "odd", "nothing")


def test_defaults_can_be_pickled():
    settings = settings_of(OptimizerSpec(factory=factory))
    assert settings.defaults == {"rate": 0.5, "pair": (1, (2, "<odd>")), "odd": "<odd>", "nothing": None}
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_open_settings_accept_any_keyword():
    settings = settings_of(OptimizerSpec(factory=open_factory))
    assert settings.is_open
    assert settings.names == ("lr",)
    assert settings.unknown("whatever") is None
    assert not settings_of(OptimizerSpec(factory=lambda params, *args: None)).is_open


def test_classes_and_partials_are_factories():
    class Optimizer:
        def __init__(self, params, lr=1e-3):
            pass

    assert settings_of(OptimizerSpec(factory=Optimizer)).defaults == {"lr": 1e-3}
    assert settings_of(OptimizerSpec(factory=partial(open_factory, lr=5.0))).defaults == {"lr": 5.0}


def test_factory_given_as_a_string_is_imported():
    settings = settings_of(load("optimizer", "adam"))
    assert settings.defaults["lr"] == 1e-3
    assert settings.defaults["betas"] == (0.9, 0.999)
    assert "params" not in settings.names
    assert settings_of(load("optimizer", "lbfgs")).defaults["history_size"] == 100


def test_built_in_datasets_and_models():
    assert settings_of(load("dataset", "chest-xray")).defaults == {
        "root": None,
        "split": "report",
        "image_size": 224,
    }
    assert settings_of(load("dataset", "synthetic-xray")).names == ("train", "test", "image_size", "seed")
    assert settings_of(load("model", "report-cnn")).names == ()


def test_list_is_a_value_if_the_default_is_a_sequence():
    defaults = {"betas": (0.9, 0.999), "sizes": [1], "none": (), "blocks": ((1, 2), (3, 4)), "lr": 1e-3}
    settings = Settings(defaults | {"text": "abc", "nothing": None}, ("rho",))
    depths = {name: settings.list_depth(name) for name in settings.names if settings.list_depth(name)}
    assert depths == {"betas": 1, "sizes": 1, "none": 1, "blocks": 2}
    assert settings.list_depth("absent") == 0


def test_unknown_setting_gets_a_suggestion():
    settings = Settings({"momentum": 0.0}, ("needed",))
    assert settings.unknown("momentum") is None
    assert settings.unknown("needed") is None
    assert settings.unknown("momentun") == "unknown setting 'momentun'. Did you mean 'momentum'?"
    assert settings.unknown("neded") == "unknown setting 'neded'. Did you mean 'needed'?"
    assert Settings({"lr": 0.1}).unknown("learning_rate").endswith("Did you mean 'lr'?")
    assert settings.unknown("epohs") == "unknown setting 'epohs'."
    assert settings.unknown("epohs", ("epochs",)) == "unknown setting 'epohs'. Did you mean 'epochs'?"
    # Other known keys may be in the same table, but they are not settings of this component.
    assert settings.unknown("epochs", ("epochs",)) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.1),
        ("lr", 1),
        ("size", 3),
        ("size", 0.5),
        ("act", "gelu"),
        ("act", ""),
        ("bias", False),
        # A default or a value may mean "off" or "automatic".
        ("bias", 0.5),
        ("bias", [0.5, 1.0]),
        ("bias", {"rate": 0.5}),
        ("lr", False),
        ("act", 3),
        ("act", False),
        ("act", [1]),
        ("pair", "auto"),
        ("pair", False),
        ("none", "anything"),
        ("none", 3),
        ("pair", [1, 2]),
        ("absent", object()),
    ],
)
def test_right_types(name, value):
    assert DECLARED.wrong_type(name, value) is None


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("lr", "1e-3", "'lr' should be a number, not '1e-3'"),
        ("lr", {"a": 1}, "'lr' should be a number, not {'a': 1}"),
        ("size", [1], "'size' should be a number, not [1]"),
        ("flag", 1, "'flag' should be true or false, not 1"),
        ("flag", 1.0, "'flag' should be true or false, not 1.0"),
        ("pair", 1, "'pair' should be a list of numbers, not 1"),
        ("pair", [1, "2"], "'pair' should be a list of numbers, not [1, '2']"),
        ("count", 3.0, "'count' should be an integer, not 3.0"),
        ("bias", "yes", "'bias' should be true or false, not 'yes'"),
    ],
)
def test_wrong_types(name, value, complaint):
    assert DECLARED.wrong_type(name, value) == complaint


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("lr", "0.1", "write lr = 0.1, without quotes"),
        ("bias", "false", "write bias = false, without quotes"),
        ("flag", 0, "write flag = false"),
        ("count", 3.0, "write count = 3, without a decimal point"),
        ("pair", 0.9, "for example pair = [1, 2]"),
        ("lr", "fast", None),
        ("lr", "true", None),
        ("count", 3.5, None),
        ("count", float("inf"), None),
    ],
)
def test_how_to_write_a_value(name, value, advice):
    assert DECLARED.wrong_type(name, value) is not None
    assert DECLARED.how_to_write(name, value) == advice


def test_hint_for_a_sequence_without_a_default_is_a_nested_list():
    def build(params, sizes: tuple[int, ...], more: list[int] | None = None):
        pass

    settings = settings_of(OptimizerSpec(factory=build))
    assert settings.list_depth("sizes") == 0
    assert settings.wrong_type("sizes", 3) == "'sizes' should be a list of integers, not 3"
    assert "[[...]]" in settings.how_to_write("sizes", 3)
    assert "[[...]]" in settings.how_to_write("more", 3)


def test_types_can_be_pickled():
    settings = settings_of(load("optimizer", "adam"))
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert settings.wrong_type("foreach", "false") == "'foreach' should be true or false, not 'false'"
    assert settings.wrong_type("betas", [0.9]) == "'betas' should be a list of 2 numbers, not [0.9]"
    assert settings.wrong_type("betas", [0, 0.9]) is None
    assert settings.wrong_type("lr", 1) is None
