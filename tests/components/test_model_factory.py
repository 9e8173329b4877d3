"""Tests of building models, and of the parameter for the number of classes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from xbench.components.facts import Facts, Output, TensorFacts
from xbench.components.model_factory import (
    CLASS_COUNT_NAMES,
    advise_class_count,
    build_network,
    find_class_count_parameter,
    format_signature,
)
from xbench.components.registry import load
from xbench.components.specs import ModelSpec
from xbench.components.tasks import RowDataset, Task
from xbench.data.decoded import image_facts
from xbench.errors import XbenchError

SHAPE = (3, 8, 8)
TWO_CLASSES = image_facts(SHAPE, 2, 10)


class Wide(nn.Module):
    def __init__(self, width=64, num_classes=2):
        super().__init__()
        self.width, self.num_classes = width, num_classes


class Forwarding(Wide):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


def positional(num_classes, /, width=4):
    return Wide(width, num_classes)


def open_to_all(*, width=5, **others):
    return Wide(width, **others)


def both(out_features=7, n_classes=2):
    return Wide(out_features, n_classes)


def needs_width(width, num_classes):
    return Wide(width, num_classes)


def build(factory, **settings):
    network = build_network(ModelSpec(factory=factory), image_facts(SHAPE, 3, 10), settings)
    return network.width, network.num_classes


@pytest.mark.parametrize(
    ("factory", "settings", "width"),
    [
        (Wide, {}, 64),
        (Wide, {"width": 16}, 16),
        (Forwarding, {"width": 16}, 16),
        (positional, {"width": 16}, 16),
        (open_to_all, {}, 5),
        (both, {}, 7),
        (partial(Wide, 9), {}, 9),
        (partial(Wide, num_classes=5), {}, 64),
        (partial(needs_width, width=6), {}, 6),
    ],
)
def test_factory_receives_the_number_of_classes_and_settings(factory, settings, width):
    assert build(factory, **settings) == (width, 3)


@pytest.mark.parametrize("name", [*CLASS_COUNT_NAMES, "numClasses", "nClasses", "NUM_CLASSES"])
def test_every_known_name_is_found_behind_other_parameters(name):
    found = {}
    exec(f"def factory(width=8, {name}=2): pass", found)
    assert find_class_count_parameter(found["factory"]).name == name


def test_built_in_models_have_num_classes():
    assert find_class_count_parameter(load("model", "vgg16").load_factory()).name == "num_classes"
    assert find_class_count_parameter(load("model", "report-cnn").load_factory()).name == "num_classes"


def nothing_at_all():
    pass


def channels_first(in_channels, depth=2):
    pass


def names_of_classes(classes=("a", "b")):
    pass


def has_a_switch(classes=True):
    pass


def late_positional(width, num_classes, /):
    pass


def any_number(*num_classes):
    pass


@pytest.mark.parametrize(
    ("factory", "signature"),
    [
        (nothing_at_all, "nothing_at_all()"),
        (channels_first, "channels_first(in_channels, depth=2)"),
        (names_of_classes, "names_of_classes(classes=('a', 'b'))"),
        (has_a_switch, "has_a_switch(classes=True)"),
        (late_positional, "late_positional(width, num_classes, /)"),
        (any_number, "any_number(*num_classes)"),
    ],
)
def test_unsuitable_parameter_does_not_receive_it(factory, signature):
    assert find_class_count_parameter(factory) is None
    advice = advise_class_count(factory)
    assert advice.startswith(f"the signature {signature} has no parameter for the number of classes: ")
    assert f"def build(num_classes): return {factory.__name__}(...)" in advice


def test_a_factory_without_such_a_parameter_is_called_without_the_number():
    def fixed(width=6, classes=True):
        return Wide(width, 5 if classes is True else classes)

    assert build(fixed) == (6, 5)
    assert build(fixed, width=7) == (7, 5)


@pytest.mark.parametrize("factory", [Wide, positional, open_to_all, lambda facts: None])
def test_a_factory_that_is_told_the_number_needs_no_advice(factory):
    assert advise_class_count(factory) == ""


ROWS = Facts(TensorFacts((7,), "float32"), Output("values", 4), 20)


def test_a_factory_may_ask_for_facts():
    def told(facts, width=2):
        return Wide(facts.input_shape[0] * facts.rows, facts.output.size)

    def told_twice(facts, num_classes):
        return Wide(facts.rows, num_classes)

    def told_others(facts, **others):
        return Wide(facts.rows, len(others))

    built = [build_network(ModelSpec(factory=f), ROWS, {}) for f in (told, told_twice, told_others)]
    assert [(network.width, network.num_classes) for network in built] == [(140, 4), (20, 4), (20, 0)]


def test_without_a_known_output_no_number_is_passed():
    network = build_network(ModelSpec(factory=Wide), Facts(ROWS.row, None, 20), {})
    assert network.num_classes == 2


def test_signatures_are_short_and_without_annotations():
    def annotated(width: int = 3, **others: object) -> nn.Module: ...

    assert format_signature(annotated) == "annotated(width=3, **others)"
    assert format_signature(partial(Wide, 4)) == "Wide(num_classes=2)"
    assert len(format_signature(partial(annotated, width="w" * 1000))) < 300


def test_built_module_or_wrong_return_type_is_refused():
    with pytest.raises(XbenchError, match="an already built Sequential"):
        build_network(ModelSpec(factory=nn.Sequential()), TWO_CLASSES, {})
    rows = RowDataset(train=torch.ones(2, 1), task=Task(loss_of=lambda out, batch: out[:, 0]))
    with pytest.raises(XbenchError, match="returns a RowDataset, not a") as caught:
        build_network(ModelSpec(factory=lambda: rows), TWO_CLASSES, {})
    assert "set it as `dataset`; `problem` needs an xbench.Problem" in caught.value.hint
    with pytest.raises(XbenchError, match=r"<lambda>\(num_classes\) returns a int, not a torch.nn.Module"):
        build_network(ModelSpec(factory=lambda num_classes: 3), TWO_CLASSES, {})


def lazy(num_classes):
    return nn.Sequential(nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(num_classes))


def test_lazy_layers_are_initialised_from_the_seed():
    def built(seed):
        torch.manual_seed(seed)
        return build_network(ModelSpec(factory=lazy), TWO_CLASSES, {})

    assert built(1)[2].weight.shape == (2, 3 * 8 * 8)
    assert torch.equal(built(1)[2].weight, built(1)[2].weight)
    assert not torch.equal(built(1)[2].weight, built(2)[2].weight)
    assert built(1).training
    assert built(1)[0].num_batches_tracked == 0
