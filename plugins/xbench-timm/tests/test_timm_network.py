"""Tests of the networks: classifiers, trained parameters, random weights and rates of dropout."""

from __future__ import annotations

import pytest

timm = pytest.importorskip("timm")
pytest.importorskip("xbench_timm")

import torch  # noqa: E402
from xbench import XbenchError  # noqa: E402

from xbench_timm.members import make_spec  # noqa: E402
from xbench_timm.network import build, build_outline, find_classifier  # noqa: E402

pytestmark = pytest.mark.plugin

# An architecture of each kind of classifier, with the modules that compute the logits.
CLASSIFIERS = {
    "test_resnet": ["fc"],
    "test_vit": ["head"],
    "test_convnext": ["head.fc"],
    "densenet121": ["classifier"],
    "dla46_c": ["fc"],  # a convolution
    "deit_tiny_distilled_patch16_224": ["head", "head_dist"],
    "crossvit_tiny_240": ["head"],  # one layer for each of two sizes of patches
    "levit_128s": ["head", "head_dist"],
    "repvit_m1": ["head"],  # two layers in one module
}


def make(name, seed=0, num_classes=2, **settings):
    torch.manual_seed(seed)
    return build(name, num_classes, **{"pretrained": False, **settings})


def list_trained(network):
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_logits_come_from_the_classifier_which_alone_is_trained(name):
    network = make(name, num_classes=3)
    assert find_classifier(network) == CLASSIFIERS[name]
    trained = list_trained(network)
    assert {key for part in CLASSIFIERS[name] for key in trained if key.startswith(f"{part}.")} == trained
    for part in CLASSIFIERS[name]:
        assert any(key.startswith(f"{part}.") for key in trained)
    # Shapes alone. In training, some could return the logits of each classifier.
    shape = timm.get_pretrained_cfg(name).input_size
    with torch.no_grad():
        logits = network.to("meta").train()(torch.empty(2, *shape, device="meta"))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 3)


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ("head", {"fc.weight", "fc.bias"}),
        ("fc.weight, bn1.*", {"fc.weight", "bn1.weight", "bn1.bias"}),
        ("layer4.0.conv?.weight", {"layer4.0.conv1.weight", "layer4.0.conv2.weight"}),
    ],
)
def test_patterns_select_the_trained_parameters(train, expected):
    network = make("resnet10t", train=train)
    assert list_trained(network) == expected


def test_all_parameters_can_be_trained():
    network = make("test_resnet", train="all")
    network(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("train", ["haed", "fc.*, layer9.*", ""])
def test_pattern_without_a_match_is_refused(train):
    with pytest.raises(XbenchError) as caught:
        make("test_resnet", train=train)
    pattern = train.rpartition(" ")[2]
    assert f"'{pattern}' does not match any parameter of timm's test_resnet" in caught.value.message
    assert '"head", "all"' in caught.value.hint


def test_classifier_and_other_weights_are_drawn_from_the_seed():
    first, again, other = (make("test_resnet", seed=seed) for seed in (1, 1, 2))
    for key in ("fc.weight", "conv1.0.weight"):
        weights = [network.state_dict()[key] for network in (first, again, other)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])


def test_outline_takes_no_memory_and_does_not_change_the_generator():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    network = build_outline("regnetx_002")
    assert torch.equal(torch.get_rng_state(), before)
    assert next(network.parameters()).is_meta


def test_rates_reach_the_network():
    assert make("test_vit", drop_rate=0.25).head_drop.p == 0.25
    highest = [
        max((module.drop_prob for module in network.modules() if hasattr(module, "drop_prob")), default=0)
        for network in (make("test_vit", drop_path_rate=0.25), make("test_vit"))
    ]
    assert highest == [0.25, 0]


def test_rate_that_a_model_does_not_have_is_refused():
    for name in ("densenet121", "hrnet_w18_small"):
        with pytest.raises(XbenchError, match=f"^timm's {name} has no drop_path_rate"):
            make(name, drop_path_rate=0.1)


@pytest.mark.parametrize("rate", [-0.1, 1, float("nan")])
def test_rate_out_of_range_is_refused(rate):
    with pytest.raises(XbenchError, match=r"drop_rate = .* is not a probability"):
        make("test_resnet", drop_rate=rate)


def test_random_weights_are_a_stand_in_and_need_no_files():
    spec = make_spec("test_resnet")
    settings = {"pretrained": True, "weights": "mine.pth", "train": "all"}
    untrained = spec.untrained(settings)
    assert untrained == {"pretrained": False, "weights": "", "train": "all"}
    assert spec.stand_in(settings) == ""
    assert spec.stand_in(untrained) == "random weights"
    assert spec.obtain(untrained, True, print) == ""
