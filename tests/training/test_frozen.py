"""Models with a frozen backbone: what is trained of them, and whether its input can be kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.training.frozen_models import (
    WIDTH,
    backbone,
    build,
    build_maps,
    build_masked,
    frozen,
    head,
    in_order,
)
from xbench.errors import XbenchError
from xbench.training.frozen import Backbone, find_obstacle, find_trained_part, set_training

NUMBER = 5


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(NUMBER, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def linear(outputs: int = WIDTH) -> nn.Module:
    return nn.Linear(WIDTH, outputs)


class TestTrainedPart:
    def name_of(self, model: nn.Module) -> str:
        name, part = find_trained_part(model)
        assert part is model.get_submodule(name)
        return name

    def test_is_the_outermost_that_holds_nothing_frozen(self):
        assert self.name_of(build(2)) == "head"
        wrapped = in_order(outer=in_order(backbone=backbone(), after=in_order(head=head())))
        assert self.name_of(wrapped) == "outer.after"

    def test_is_the_layer_where_its_neighbours_are_frozen(self):
        model = in_order(backbone=backbone(), head=nn.Sequential(frozen(linear()), nn.Dropout(), linear(2)))
        assert self.name_of(model) == "head.2"

    def test_is_the_layer_of_which_a_part_is_frozen(self):
        model = in_order(backbone=backbone(), head=nn.Sequential(linear(), linear(2)))
        frozen(model.head[0])
        model.head[1].bias.requires_grad_(False)
        assert self.name_of(model) == "head.1"

    def test_is_what_holds_both_of_two(self):
        model = in_order(backbone=backbone(), head=in_order(a=linear(), b=frozen(linear()), c=linear(2)))
        assert self.name_of(model) == "head"

    def test_is_the_model_where_they_lie_apart(self):
        assert self.name_of(in_order(first=linear(), middle=frozen(linear()), last=linear(2))) == ""

    def test_is_the_model_where_nothing_is_frozen(self):
        assert self.name_of(in_order(first=linear(), last=linear(2))) == ""

    def test_names_are_not_taken_for_parts_of_each_other(self):
        model = nn.Module()
        model.head, model.head2 = frozen(linear()), linear(2)
        assert self.name_of(model) == "head2"

    def test_a_shared_parameter_is_trained_in_both_places(self):
        model = in_order(first=linear(), middle=frozen(linear()), last=linear())
        frozen(model.first)
        model.first.weight = model.last.weight
        assert self.name_of(model) == ""

    def test_there_must_be_something_to_train(self):
        with pytest.raises(XbenchError, match="all of the model's parameters are frozen"):
            find_trained_part(frozen(build(2)))


class TestSetTraining:
    def test_what_is_frozen_evaluates(self):
        normed = frozen(nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.BatchNorm2d(3, affine=False)))
        model = in_order(normed=normed, backbone=backbone(), head=head()).eval()
        set_training(model)
        assert model.training and model.head.training and model.head[2].training
        assert not any(
            module.training for part in (model.normed, model.backbone) for module in part.modules()
        )

    def test_what_is_frozen_in_part_trains(self):
        model = in_order(backbone=nn.BatchNorm2d(3), head=head())
        model.backbone.bias.requires_grad_(False)
        set_training(model)
        assert model.backbone.training

    def test_statistics_of_a_frozen_normalisation_stand_still(self, images):
        model = in_order(normed=frozen(nn.BatchNorm2d(3)), backbone=backbone(), head=head())
        set_training(model)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        model(images + 7)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class TestFront:
    def test_gives_what_the_trained_part_is_given(self, images):
        model = build(2)
        set_training(model)
        model.eval()
        kept = Backbone(model)
        features = kept(images)
        assert (kept.name, kept.head) == ("head", model.head)
        assert features.shape == (NUMBER, WIDTH)
        assert not features.requires_grad
        assert torch.equal(model.head(features), model(images))

    def test_leaves_the_model_as_it_was(self, images):
        model = build(2)
        expected = model.eval()(images)
        Backbone(model)(images)
        assert torch.equal(model(images), expected)

    def test_what_the_trained_part_is_named_does_not_matter(self, images):
        class Named(nn.Module):
            def __init__(self):
                super().__init__()
                self.backbone, self.last = backbone(), Last()

            def forward(self, images):
                return self.last(features=self.backbone(images))

        class Last(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = linear(2)

            def forward(self, features):
                return self.layer(features)

        model = Named()
        assert torch.equal(Backbone(model)(images), model.backbone(images))
        set_training(model)
        assert find_obstacle(model, images) is None

    def test_state_is_of_the_front_alone(self):
        model = in_order(normed=frozen(nn.BatchNorm2d(3)), backbone=backbone(), head=head())
        model.register_buffer("shift", torch.zeros(3))
        names = set(Backbone(model).state())
        assert names == {key for key in model.state_dict() if not key.startswith("head.")}
        assert {"shift", "normed.running_mean", "backbone.convolution.weight"} <= names


class OfTwo(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = linear(2)

    def forward(self, one, other):
        return self.layer(one + other)


class Given(nn.Module):
    """A frozen part, a trained one, and how they are put together."""

    def __init__(self, forward, last=None):
        super().__init__()
        self.backbone, self.last = backbone(), last or linear(2)
        self._forward = forward

    def forward(self, images):
        return self._forward(self, images)


def slope_of(module: nn.Module, given: torch.Tensor) -> torch.Tensor:
    """The mean slope of a module's outputs, which takes gradients."""
    (slope,) = torch.autograd.grad(module(given).sum(), given)
    return slope.mean()


class WithSlope(nn.Module):
    """A head that needs gradients in training mode."""

    def __init__(self):
        super().__init__()
        self.layer = linear(2)

    def forward(self, features):
        if not self.training:
            return self.layer(features)
        return self.layer(features) + slope_of(self.layer, features.detach().requires_grad_())


OBSTACLES = {
    "gradients in front": (
        lambda: Given(
            lambda own, images: own.last(
                own.backbone(images) + slope_of(own.backbone, images.requires_grad_())
            )
        ),
        "the frozen part before 'last' fails without gradients: RuntimeError: element 0 of tensors does not",
    ),
    "dropout in front": (
        lambda: build_masked(2),
        "the frozen part before 'head' does not always give the same output for an example; in training "
        "mode: masks (Dropout)",
    ),
    "few masks": (
        lambda: in_order(
            backbone=backbone(),
            reduced=frozen(nn.Linear(WIDTH, 2)),
            masks=nn.Dropout(0.05),
            last=nn.Linear(2, 2),
        ),
        "in training mode: masks (Dropout)",
    ),
    "batch statistics in front": (
        lambda: in_order(normed=nn.BatchNorm2d(3, affine=False), backbone=backbone(), head=head()),
        "in training mode: normed (BatchNorm2d)",
    ),
    "trained in two places": (
        lambda: in_order(first=nn.Conv2d(3, 3, 3), backbone=backbone(), head=head()),
        "the trained parameters are not in one part of the model",
    ),
    "it draws": (
        lambda: Given(lambda own, images: own.last(own.backbone(images + torch.rand(images.shape)))),
        "the frozen part before 'last' does not always give the same output",
    ),
    "something comes after": (
        lambda: Given(lambda own, images: 2 * own.last(own.backbone(images))),
        "'last' is not the last part of the model",
    ),
    "another shape comes after": (
        lambda: Given(lambda own, images: own.last(own.backbone(images))[:, :1]),
        "'last' is not the last part of the model",
    ),
    "images go past it": (
        lambda: Given(lambda own, images: own.last(own.backbone(images)) + images.mean((1, 2, 3))[:, None]),
        "'last' is not the last part of the model",
    ),
    "it is called twice": (
        lambda: Given(lambda own, images: own.last(own.backbone(images)) + own.last(own.backbone(-images))),
        "'last' is not the last part of the model",
    ),
    "it is called with two": (
        lambda: Given(lambda own, images: own.last(own.backbone(images), own.backbone(-images)), OfTwo()),
        "the input of 'last' is not one tensor with a row for each example",
    ),
    "rows are not images": (
        lambda: Given(lambda own, images: own.last(own.backbone(images).repeat(2, 1))),
        "the input of 'last' is not one tensor with a row for each example",
    ),
    "it is not called": (
        lambda: Given(lambda own, images: nn.functional.linear(own.backbone(images), own.last.weight)),
        "a forward pass does not call 'last'",
    ),
}


class TestObstacle:
    @pytest.mark.parametrize("make", [build, build_maps])
    def test_there_is_none(self, images, make):
        model = make(2)
        set_training(model)
        assert find_obstacle(model, images) is None

    def test_what_is_frozen_and_would_draw_is_none(self, images):
        masked = frozen(nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)))
        model = in_order(masked=masked, backbone=backbone(), head=head())
        set_training(model)
        assert find_obstacle(model, images) is None

    def test_a_head_may_need_gradients(self, images):
        model = Given(lambda own, images: own.last(own.backbone(images)), WithSlope())
        set_training(model)
        assert find_obstacle(model, images) is None

    def test_want_of_memory_is_none(self, images):
        def run_out(own, images):
            raise MemoryError

        model = Given(run_out)
        set_training(model)
        with pytest.raises(MemoryError):
            find_obstacle(model, images)

    @pytest.mark.parametrize("name", OBSTACLES)
    def test_is_told_in_a_line(self, images, name):
        make, expected = OBSTACLES[name]
        torch.manual_seed(0)
        model = make()
        set_training(model)
        reason = find_obstacle(model, images)
        assert reason is not None
        assert "\n" not in reason
        assert expected in reason

    def test_it_leaves_no_hook(self, images):
        for make, _ in OBSTACLES.values():
            model = make()
            set_training(model)
            find_obstacle(model, images)
            assert not any(module._forward_pre_hooks for module in model.modules())
