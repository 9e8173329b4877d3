"""What a model returns is compared with what the loss takes, before a run."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from xbench.components.specs import ModelSpec
from xbench.errors import XbenchError
from xbench.training.logits import check_logits, explain_single_image_failure, random_images

SHAPE = (3, 32, 32)
CLASSES = 2
Pair = namedtuple("Pair", "logits aux")


def body(outputs: int = CLASSES) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, outputs))


class Wrapped(nn.Module):
    """Changes its output: in every mode, or in training mode alone."""

    def __init__(self, change, only_in_training=False):
        super().__init__()
        self.body, self.change, self.only_in_training = body(), change, only_in_training

    def forward(self, images):
        logits = self.body(images)
        return self.change(logits) if self.training or not self.only_in_training else logits


def check(model, shape=SHAPE, memory_format="channels_last"):
    torch.manual_seed(0)
    images = random_images(ModelSpec(factory=body), 3, shape, torch.float32, memory_format)
    return check_logits(model, "net", images, CLASSES)


def refusal(*args, **kwargs) -> XbenchError:
    with pytest.raises(XbenchError) as caught:
        check(*args, **kwargs)
    return caught.value


def raise_in(message):
    def change(logits):
        raise ValueError(message)

    return change


@pytest.mark.parametrize(
    "model",
    [
        body(),
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), body(8)[0], nn.Flatten(), nn.Linear(16, CLASSES)
        ),
        Wrapped(lambda logits: logits.log_softmax(1)),
        Wrapped(lambda logits: logits.bfloat16()),
        Wrapped(raise_in("only in training"), only_in_training=True),
    ],
    ids=["plain", "batch norm", "log-softmax", "bfloat16", "raises in training"],
)
def test_what_the_loss_takes_is_accepted(model):
    assert check(model) == ""


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (body(1000), "shape (1, 1000) for one image; expected (1, 2): one logit per class"),
        (body(1), "shape (1, 1) for one image; expected (1, 2)"),
        (Wrapped(lambda y: y[:, 0]), "shape (1,) for one image"),
        (Wrapped(lambda y: y.squeeze()), "shape (2,) for one image"),
        (Wrapped(lambda y: y[..., None, None]), "shape (1, 2, 1, 1) for one image"),
        (Wrapped(lambda y: y.view(1, -1)), "shape (1, 4) for 2 images in training mode; expected (2, 2)"),
        (Wrapped(lambda y: (y, y)), "a tuple of 2 for one image, not a tensor; expected (1, 2)"),
        (Wrapped(lambda y: [y]), "a list of 1 for one image"),
        (Wrapped(lambda y: {"logits": y, "aux": y}), "a dict with 'logits', 'aux' for one image"),
        (Wrapped(lambda y: SimpleNamespace(logits=y)), "a SimpleNamespace for one image, not a tensor"),
        (Wrapped(lambda y: None), "None for one image, not a tensor"),
        (Wrapped(lambda y: Pair(y, y), only_in_training=True), "a Pair of 2 for 2 images in training mode"),
        (Wrapped(lambda y: y.long()), "int64 for one image; expected floating-point numbers"),
        (Wrapped(lambda y: y / 0 * 0), "NaN for one image of random pixels"),
        (Wrapped(lambda y: y + torch.inf), "infinite numbers for one image of random pixels"),
    ],
)
def test_something_else_is_refused_with_what_is_expected(model, given):
    assert refusal(model).message.startswith(f"model 'net' returns {given}")


def test_one_output_for_two_classes_is_explained():
    assert refusal(body(1)).hint.endswith("two classes also need two logits")
    assert "two classes" not in refusal(body(3)).hint


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(3 * 96 * 96, CLASSES)),
            "set the dataset's `image_size` to 96",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 3, 3), *body()),
            "let the model's first layer take 3 channels instead of 1",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, CLASSES)),
            "set the dataset's `image_size` to 28"
            " and let the model's first layer take 3 channels instead of 1",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(7, CLASSES)),
            "images are floating-point tensors (N, 3, 32, 32): number, channels, height, width",
        ),
    ],
    ids=["size", "channels", "size and channels", "neither"],
)
def test_a_model_for_other_images_is_told_with_what_it_takes(model, hint):
    error = refusal(model)
    assert error.message.startswith("model 'net' fails on one image of shape (1, 3, 32, 32): RuntimeError: ")
    assert error.hint == hint


class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3 * 32 * 32, CLASSES)

    def forward(self, images):
        return self.last(images.view(len(images), -1))


def test_images_are_laid_out_as_in_the_run():
    assert refusal(Viewing()).hint.startswith('set `memory_format = "contiguous"`')
    assert check(Viewing(), memory_format="contiguous") == ""


def test_an_exception_of_the_users_code_is_told_with_its_line():
    message = refusal(Wrapped(raise_in("width\n  is 0"))).message
    line = raise_in.__code__.co_firstlineno + 2
    assert message.endswith(f"(1, 3, 32, 32): ValueError: width is 0 (test_logits.py:{line})")


def test_a_model_for_single_images_is_refused():
    def only_one(logits):
        if len(logits) > 1:
            raise ValueError("one at a time")
        return logits

    assert "fails on images of shape (2, 3, 32, 32)" in refusal(Wrapped(only_one)).message


def test_an_error_of_xbench_is_passed_on():
    def change(logits):
        raise XbenchError("its own words", "its own hint")

    error = refusal(Wrapped(change))
    assert (error.message, error.hint) == ("its own words", "its own hint")


def test_want_of_memory_is_no_mistake_of_the_model():
    with pytest.raises(RuntimeError, match="allocate"):
        check(Wrapped(lambda logits: torch.empty(1 << 58, dtype=torch.uint8)))


def test_probabilities_are_warned_of():
    assert check(Wrapped(lambda logits: logits.softmax(1))).startswith(
        "model 'net' returns what looks like probabilities"
    )


def test_one_image_that_looks_like_probabilities_is_not_enough():
    def first_alone(logits):
        return logits.softmax(1) if len(logits) == 1 else logits

    assert check(Wrapped(first_alone)) == ""
    # Each is between 0 and 1, as of independent labels, and they do not add up to 1.
    assert check(Wrapped(lambda logits: logits.sigmoid())) == ""


def test_random_images_are_normalised_for_the_model():
    spec = ModelSpec(factory=body, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    images = random_images(spec, 4, SHAPE, torch.float64, "channels_last")
    assert images.shape == (4, *SHAPE)
    assert images.dtype == torch.float64
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert random_images(spec, 4, SHAPE, torch.float64, "contiguous").is_contiguous()
    for channel, (low, high) in enumerate([(0, 1), (-1, 1), (-4, 0)]):
        values = images[:, channel]
        assert low <= values.min() < values.max() <= high
        assert values.max() - values.min() > 0.9 * (high - low)


def test_a_model_that_normalises_other_channels_is_refused():
    spec = ModelSpec(factory=body, mean=(0.5, 0.5, 0.5))
    with pytest.raises(XbenchError, match=r"normalises 3 channels \(mean, std\), but the images have 1"):
        random_images(spec, 1, (1, 8, 8), torch.float32, "contiguous")


class Penalised(nn.Module):
    """Needs gradients in training mode, and is wrong there alone."""

    def __init__(self, outputs: int):
        super().__init__()
        self.body = body(outputs)

    def forward(self, images):
        logits = self.body(images)
        if not self.training:
            return logits[:, :CLASSES]
        given = images.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.body(given).sum(), given)
        return logits + slope.sum()


def test_a_model_that_needs_gradients_has_them_in_training_mode():
    assert check(Penalised(CLASSES)) == ""
    with pytest.raises(XbenchError, match=r"returns shape \(2, 3\) for 2 images in training mode"):
        check(Penalised(CLASSES + 1))
    assert explain_single_image_failure(Penalised(CLASSES), torch.rand(1, *SHAPE)) == ""


class Sloping(nn.Module):
    """Needs gradients in every mode."""

    def __init__(self):
        super().__init__()
        self.body = body()

    def forward(self, images):
        given = images.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.body(given).sum(), given)
        return self.body(images) + slope.mean()


def test_a_model_that_needs_gradients_in_evaluation_is_told_that_there_are_none():
    assert "models are evaluated without gradients" in refusal(Sloping()).hint
