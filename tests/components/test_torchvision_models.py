"""Tests of torchvision's classifiers: last layers, trained parameters and initial weights."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from xbench.components.registry import load
from xbench.components.settings import settings_of
from xbench.components.torchvision_models import (
    build_outline,
    choose_trained,
    find_head,
    find_last_layer,
    initialise_part,
    make_layer_like,
    torchvision_members,
)
from xbench.errors import XbenchError

SMALL = "mobilenet_v3_small"
# One of each architecture; the others are similar.
SAMPLE = {
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet"),
    *("inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf"),
    *(
        "resnet18",
        "shufflenet_v2_x0_5",
        "squeezenet1_1",
        "swin_t",
        "swin_v2_t",
        "vgg11",
        "vgg16_bn",
        "vit_b_32",
    ),
}
MEMBERS = [
    name if name in SAMPLE else pytest.param(name, marks=pytest.mark.slow) for name in torchvision_members()
]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def build(name, num_classes=2, seed=0, **settings):
    torch.manual_seed(seed)
    return load("model", f"torchvision/{name}").load_factory()(num_classes, **settings)


@pytest.fixture(scope="module")
def original():
    """Build torchvision's model for 1,000 classes, with random running statistics."""
    torch.manual_seed(7)
    network = torchvision.models.get_model(SMALL)
    network(torch.rand(4, 3, 64, 64))
    return network.eval()


@pytest.fixture(scope="module")
def weights(original, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.save(original.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def backbone(original, tmp_path_factory):
    state = {key: value for key, value in original.state_dict().items() if key.startswith("features.")}
    path = tmp_path_factory.mktemp("weights") / "backbone.pth"
    torch.save(state, path)
    return str(path)


def trained(network):
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_gives_logits_and_trains_its_head(name):
    network = build_outline(name)
    last = find_last_layer(network)
    assert network.get_submodule(last).weight.shape[0] == 1000
    network.set_submodule(last, make_layer_like(network.get_submodule(last), 3))
    choose_trained(network, "head", name)
    head = trained(network)
    assert {key for key in head if key.startswith(f"{last}.")}
    assert len({key.split(".")[0] for key in head}) == 1
    # Shapes alone. Only these two could give something else in training.
    network = network.to("meta").train(name in ("googlenet", "inception_v3"))
    side = torchvision.models.get_model_weights(name).DEFAULT.meta["min_size"][0]
    side = max(side, 64)
    with torch.no_grad():
        logits = network(torch.empty(2, 3, side, side, device="meta"))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 3)
    # A file of weights would not restore tensors outside the state dict.
    tensors = {key for key, _ in [*network.named_parameters(), *network.named_buffers()]}
    assert tensors == set(network.state_dict())


def test_there_are_no_quantized_members_and_no_other_tasks():
    names = torchvision_members()
    assert {"resnet18", "vgg16", "vit_b_16", "regnet_y_400mf"} <= set(names)
    assert not [name for name in names if "quantized" in name or "rcnn" in name or "raft" in name]


def test_outline_takes_no_memory_and_does_not_change_the_generator():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    network = build_outline("regnet_y_400mf")
    assert torch.equal(torch.get_rng_state(), before)
    assert next(network.parameters()).is_meta


def test_settings():
    assert settings_of(load("model", "torchvision/resnet18")).defaults == {
        "pretrained": True,
        "weights": "",
        "train": "head",
    }
    assert not settings_of(load("model", "torchvision/resnet18")).is_open


def test_vgg16_equals_the_member_of_the_family():
    own, member = load("model", "vgg16"), load("model", "torchvision/vgg16")
    for attribute in ("summary", "reference", "input_shape", "mean", "std"):
        assert getattr(own, attribute) == getattr(member, attribute), attribute
    for attribute in ("factory", "obtain", "stand_in"):
        theirs = getattr(member, attribute)
        assert (getattr(own, attribute).func, getattr(own, attribute).args) == (theirs.func, theirs.args)
    assert (own.mean, own.std) == IMAGENET
    assert settings_of(own) == settings_of(member)


def test_normalisation_and_shape_are_those_of_the_weights():
    def facts(name):
        spec = load("model", f"torchvision/{name}")
        return spec.input_shape, (spec.mean, spec.std)

    assert facts("resnet18") == (None, IMAGENET)
    assert facts("swin_t") == (None, IMAGENET)
    assert facts("efficientnet_v2_l") == (None, ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    assert facts("vit_b_16") == ((3, 224, 224), IMAGENET)
    assert facts("maxvit_t") == ((3, 224, 224), IMAGENET)
    assert facts("vit_h_14") == ((3, 518, 518), IMAGENET)  # its weights were trained on large images


def test_random_weights_are_a_stand_in():
    spec = load("model", "torchvision/resnet18")
    assert spec.stand_in({"pretrained": True, "weights": "", "train": "head"}) == ""
    assert spec.stand_in({"pretrained": False, "weights": "", "train": "head"}) == "random weights"


def test_all_but_the_last_layer_starts_from_the_file(original, weights):
    network = build(SMALL, weights=weights).eval()
    images = torch.rand(3, 3, 64, 64)
    original.classifier[3], kept = nn.Identity(), original.classifier[3]
    layer, network.classifier[3] = network.classifier[3], nn.Identity()
    try:
        assert torch.equal(network(images), original(images))
    finally:
        original.classifier[3] = kept
    assert layer.weight.shape == (2, 1024)
    assert layer.weight.std() > 0


def test_loaded_parameters_are_ordinary_ones_of_this_process(weights):
    network = build(SMALL, weights=weights, train="all")
    for name, parameter in network.named_parameters():
        assert type(parameter) is nn.Parameter and parameter.is_leaf and parameter.requires_grad, name
        assert parameter.is_contiguous() and parameter.dtype == torch.float32, name
        assert parameter.untyped_storage().nbytes() == parameter.nbytes, name
        assert parameter.untyped_storage().filename is None, name  # a mapped file would have one
    network.train()(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert not any(buffer.is_meta for buffer in network.buffers())


def test_last_layer_depends_only_on_the_seed(weights):
    def last(seed, **settings):
        return build(SMALL, seed=seed, **settings).classifier[3].weight

    first = last(1, weights=weights)
    assert torch.equal(first, last(1, weights=weights))
    assert torch.equal(first, last(1, pretrained=False))
    assert not torch.equal(first, last(2, weights=weights))
    torch.manual_seed(1)
    assert torch.equal(first, nn.Linear(1024, 2).weight)


def test_random_weights_are_drawn_from_the_seed():
    first, again, other = (build(SMALL, seed=seed, pretrained=False) for seed in (1, 1, 2))
    assert torch.equal(first.features[0][0].weight, again.features[0][0].weight)
    assert not torch.equal(first.features[0][0].weight, other.features[0][0].weight)


@pytest.mark.parametrize("name", [SMALL, "squeezenet1_1", "resnet18"])
def test_file_with_the_same_number_of_classes_is_loaded_completely(name, tmp_path):
    finished = build(name, num_classes=5, seed=1, pretrained=False)
    torch.save(finished.state_dict(), tmp_path / "mine.pth")
    network = build(name, num_classes=5, seed=2, weights=str(tmp_path / "mine.pth"))
    assert all(map(torch.equal, network.state_dict().values(), finished.state_dict().values()))
    assert trained(network) == trained(finished)


def test_a_file_of_another_number_of_classes_is_refused(tmp_path):
    torch.save(build(SMALL, num_classes=5, pretrained=False).state_dict(), tmp_path / "five.pth")
    with pytest.raises(XbenchError) as caught:
        build(SMALL, num_classes=2, weights=str(tmp_path / "five.pth"))
    assert "classifier.3.weight is 5 x 1024 in the file, 1000 x 1024 in the model" in caught.value.message
    assert "1000 outputs, or with one output for each class" in caught.value.hint


class TestFileWithoutTheHead:
    """A file that holds only the frozen part, as published feature extractors do."""

    @pytest.mark.parametrize("train", ["head", "all", "features.12.*, classifier.*"])
    def test_the_frozen_part_is_the_files_and_the_head_is_drawn_from_the_seed(
        self, train, original, backbone
    ):
        network = build(SMALL, seed=3, weights=backbone, train=train)
        again = build(SMALL, seed=3, weights=backbone, train=train)
        other = build(SMALL, seed=4, weights=backbone, train=train)
        state = network.state_dict()
        for key, value in original.features.state_dict().items():
            assert torch.equal(state[f"features.{key}"], value), key
        for key in ("classifier.0.weight", "classifier.3.weight"):
            assert torch.equal(again.state_dict()[key], state[key])
            assert not torch.equal(other.state_dict()[key], state[key])
        assert network(torch.rand(2, 3, 64, 64)).shape == (2, 2)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", torchvision_members())
    def test_every_members_head_can_be_drawn(self, name):
        network = build_outline(name)
        head = network.get_submodule(find_head(network))
        initialise_part(head)
        assert all(tensor.isfinite().all() for tensor in head.state_dict().values())
        weights = [p for p in head.parameters() if p.ndim > 1]
        assert all(weight.std() > 0 for weight in weights)

    def test_last_layer_is_the_same_as_with_any_other_file(self, backbone, weights):
        last = build(SMALL, seed=3, weights=backbone).classifier[3].weight
        assert torch.equal(last, build(SMALL, seed=3, weights=weights).classifier[3].weight)

    def test_a_head_that_is_not_trained_must_be_in_the_file(self, backbone):
        with pytest.raises(XbenchError) as caught:
            build(SMALL, weights=backbone, train="classifier.3.*")
        assert "has no weights for 'classifier'" in caught.value.message
        assert 'train = "head"' in caught.value.hint

    def test_a_part_of_the_head_is_not_drawn(self, original, tmp_path):
        state = {k: v for k, v in original.state_dict().items() if not k.startswith("classifier.0.")}
        torch.save(state, tmp_path / "part.pth")
        with pytest.raises(XbenchError, match=r"lacks classifier\.0\.weight and 1 more"):
            build(SMALL, weights=str(tmp_path / "part.pth"))

    def test_frozen_part_must_be_in_the_file(self, original, tmp_path):
        state = {k: v for k, v in original.state_dict().items() if k.startswith("features.1")}
        torch.save(state, tmp_path / "part.pth")
        with pytest.raises(XbenchError, match=r"lacks features\.0\.0\.weight"):
            build(SMALL, weights=str(tmp_path / "part.pth"))

    def test_missing_head_is_a_stand_in(self, backbone, weights):
        spec = load("model", f"torchvision/{SMALL}")
        settings = {"pretrained": True, "train": "head"}
        told = "a randomly initialised head: backbone.pth has no weights for it"
        assert spec.stand_in({**settings, "weights": backbone}) == told
        assert spec.stand_in({**settings, "weights": weights}) == ""


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ("head", {"fc.weight", "fc.bias"}),
        ("fc.*", {"fc.weight", "fc.bias"}),
        ("fc.weight, bn1.*", {"fc.weight", "bn1.weight", "bn1.bias"}),
        ("layer4.1.conv?.weight", {"layer4.1.conv1.weight", "layer4.1.conv2.weight"}),
    ],
)
def test_patterns_select_the_trained_parameters(train, expected):
    network = build("resnet18", pretrained=False, train=train)
    assert trained(network) == expected
    network(torch.rand(2, 3, 32, 32)).sum().backward()
    assert {name for name, parameter in network.named_parameters() if parameter.grad is not None} == expected


def test_all_parameters_can_be_trained():
    network = build("squeezenet1_1", pretrained=False, train="all")
    assert trained(network) == {name for name, _ in network.named_parameters()}
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 2)


@pytest.mark.parametrize("train", ["haed", "fc.*, layer9.*", ""])
def test_pattern_without_a_match_is_refused(train):
    with pytest.raises(XbenchError) as caught:
        build("resnet18", pretrained=False, train=train)
    assert f"'{train.rpartition(' ')[2]}' does not match any parameter of resnet18" in caught.value.message
    assert '"head", "all"' in caught.value.hint
    assert "fc.weight" in caught.value.hint


def test_weights_without_pretrained_are_refused(weights):
    spec = load("model", f"torchvision/{SMALL}")
    settings = {"pretrained": False, "weights": weights, "train": "head"}
    with pytest.raises(XbenchError, match="pretrained = false"):
        spec.load_factory()(2, **settings)
    with pytest.raises(XbenchError, match="pretrained = false"):
        spec.load_obtain()(settings, True, print)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_of_a_file_are_dropped(name, tmp_path):
    torch.manual_seed(0)
    published = torchvision.models.get_model(name, aux_logits=True, init_weights=False)
    torch.save(published.state_dict(), tmp_path / "aux.pth")
    network = build(name, weights=str(tmp_path / "aux.pth")).train()
    assert network(torch.rand(2, 3, 80, 80)).shape == (2, 2)
    assert network.transform_input  # as torchvision sets it with its weights


def test_vgg16_trains_its_fully_connected_part(monkeypatch):
    # Build an outline instead, because only names, shapes and sizes matter here.
    monkeypatch.setattr("xbench.components.torchvision_models._build_network", outline_network)
    network = load("model", "vgg16").load_factory()(2, pretrained=False)
    counted = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert counted == 119_554_050
    assert {name.split(".")[0] for name in trained(network)} == {"classifier"}


def outline_network(name):
    with torch.device("meta"):
        return torchvision.models.get_model(name)
