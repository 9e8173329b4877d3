"""Check before a run that a model returns what the loss takes: one logit per class for each image.

Otherwise a model that returns something else would fail in its first step, after every image was decoded, or
would silently train on another objective.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from xbench.components.specs import ModelSpec
from xbench.components.tracebacks import describe_error
from xbench.errors import XbenchError
from xbench.memory.exhaustion import raise_if_exhausted
from xbench.training.frozen import set_training

# Common heights and widths of the images that models take.
_COMMON_SIDES = (224, 32, 28, 64, 96, 128, 227, 256, 299, 384)

# The float32 probabilities of a thousand classes add up to 1 within a tenth of this.
_SUM_TOLERANCE = 1e-4
# The same for 16-bit probabilities.
_NARROW_SUM_TOLERANCE = 2e-2


def random_images(
    spec: ModelSpec, count: int, shape: tuple[int, int, int], dtype: torch.dtype, memory_format: str
) -> torch.Tensor:
    """Make images of random pixels, normalised and laid out in memory as the loader does for the model.

    Args:
        shape: (channels, height, width).
        memory_format: `"channels_last"` or `"contiguous"`.

    Returns:
        (count, channels, height, width).

    Raises:
        XbenchError: the model normalises a different number of channels.
    """
    channels, height, width = shape
    normalised = {len(spec.mean), len(spec.std)}
    if not normalised <= {1, channels}:
        raise XbenchError(
            f"its spec normalises {max(normalised)} channels (mean, std), but the images have {channels}"
        )
    pixels = torch.rand(count, height, width, channels, dtype=dtype)
    images = (pixels - torch.tensor(spec.mean, dtype=dtype)) / torch.tensor(spec.std, dtype=dtype)
    images = images.permute(0, 3, 1, 2)
    return images.contiguous() if memory_format == "contiguous" else images


@torch.no_grad()
def check_logits(
    model: nn.Module, name: str, images: torch.Tensor, num_classes: int, count_hint: str = ""
) -> str:
    """Run a model on one image in evaluation mode, and on the other images in training mode.

    Exceptions in training mode alone are ignored: only a batch of real data shows whether the model fails in
    training. The model is left in either mode, and its running statistics may change.

    Args:
        model: the model, on the images' device and with their dtype.
        name: the model's name, for messages.
        images: (n, channels, height, width), n > 2.
        count_hint: hint for a model with another number of outputs; "" for the usual one.

    Returns:
        A warning if the output looks like probabilities; otherwise "".

    Raises:
        XbenchError: the model fails, or its output is not (n, num_classes) finite floating-point numbers.
        MemoryError, RuntimeError: memory ran out.
    """
    one, more = images[:1], images[1:]
    model.eval()
    try:
        output = model(one)
    except Exception as error:
        raise _make_error(model, name, one, num_classes, error) from error
    _raise_if_wrong(output, name, 1, num_classes, count_hint=count_hint)
    if not torch.isfinite(output).all():
        raise XbenchError(
            f"model '{name}' returns {_describe_values(output)} for one image of random pixels, before any "
            "training",
            hint="look for a division by zero, a logarithm of 0, or weights that are never initialised",
        )
    set_training(model)
    mode = " in training mode"
    try:
        with torch.enable_grad():  # a model may need gradients, for example to penalise them
            outputs = model(more)
    except Exception as error:
        raise_if_exhausted(error)
        model.eval()
        mode = ""
        try:
            outputs = model(more)
        except Exception as error:
            raise _make_error(model, name, more, num_classes, error) from error
    _raise_if_wrong(outputs, name, len(more), num_classes, mode, count_hint)
    if _are_probabilities(output) and _are_probabilities(model.eval()(more)):
        return (
            f"model '{name}' returns what looks like probabilities (they add up to 1 for each image), but the"
            " loss takes logits: remove the model's last softmax"
        )
    return ""


def explain_single_image_failure(model: nn.Module, image: torch.Tensor) -> str:
    """Run a model in training mode on a batch of one image, as the last batch of an epoch may be.

    Returns:
        The exception in one line (batch normalisation over single values raises one); "" if there is none.

    Raises:
        MemoryError, RuntimeError: memory ran out.
    """
    set_training(model)
    try:
        model(image)
    except Exception as error:
        raise_if_exhausted(error)
        return describe_error(error)
    return ""


def has_batch_normalisation(model: nn.Module) -> bool:
    """Return whether a trained part of a model has batch normalisation of torch's own class."""
    set_training(model)
    return any(isinstance(module, _BatchNorm) and module.training for module in model.modules())


def _raise_if_wrong(
    output: Any, name: str, count: int, num_classes: int, mode: str = "", count_hint: str = ""
) -> None:
    expected = f"expected ({count}, {num_classes}): one logit per class"
    images = "one image" if count == 1 else f"{count} images"
    if not isinstance(output, torch.Tensor):
        raise XbenchError(
            f"model '{name}' returns {_describe(output)} for {images}{mode}, not a tensor; {expected}",
            hint="wrap the model in a module whose `forward` returns the logits alone",
        )
    if output.shape != (count, num_classes):
        hint = "return one row per image and one column per class"
        if output.shape[:-1] == (count,):
            hint = count_hint or "give the model's last layer as many outputs as there are classes"
            hint += "; two classes also need two logits" if (output.shape[1], num_classes) == (1, 2) else ""
        raise XbenchError(
            f"model '{name}' returns shape {tuple(output.shape)} for {images}{mode}; {expected}", hint
        )
    if not output.is_floating_point():
        dtype = str(output.dtype).removeprefix("torch.")
        raise XbenchError(
            f"model '{name}' returns {dtype} for {images}{mode}; expected floating-point numbers:"
            " logits, not predicted classes",
        )


def _describe(output: Any) -> str:
    kind = f"a {type(output).__name__}"
    if isinstance(output, dict):
        keys = ", ".join(repr(key) for key in itertools.islice(output, 5))
        return f"{kind} with {keys}"
    if isinstance(output, Sequence) and not isinstance(output, str):
        return f"{kind} of {len(output)}"
    return "None" if output is None else kind


def _describe_values(output: torch.Tensor) -> str:
    return "NaN" if output.isnan().any() else "infinite numbers"


def _are_probabilities(output: torch.Tensor) -> bool:
    tolerance = _SUM_TOLERANCE if output.dtype.itemsize >= 4 else _NARROW_SUM_TOLERANCE
    sums_to_one = (output.float().sum(dim=1) - 1).abs() < tolerance
    return bool(((output >= 0) & (output <= 1)).all() and sums_to_one.all())


def _make_error(
    model: nn.Module, name: str, images: torch.Tensor, num_classes: int, error: Exception
) -> XbenchError:
    """Return the error for a forward pass that raised an exception.

    Raises:
        Exception: the exception itself, if memory ran out.
    """
    raise_if_exhausted(error)
    if isinstance(error, XbenchError):
        return error
    shape = tuple(images.shape)
    return XbenchError(
        f"model '{name}' fails on {'one image' if len(images) == 1 else 'images'} of shape {shape}:"
        f" {describe_error(error)}",
        hint=_describe_input(model, images, num_classes),
    )


def _describe_input(model: nn.Module, images: torch.Tensor, num_classes: int) -> str:
    """Describe which images the model takes, found by trying others."""
    count, channels, height, width = images.shape
    if _takes(model, images.contiguous(), num_classes):
        return 'set `memory_format = "contiguous"`, or replace `view` by `flatten` or `reshape` in the model'
    with torch.enable_grad():
        if _takes(model, images, num_classes):
            return (
                "models are evaluated without gradients: compute them in training mode only, or within "
                "`torch.enable_grad()`"
            )
    sides = [(height, width), *((side, side) for side in _COMMON_SIDES)]
    for other in dict.fromkeys((channels, 1, 3)):
        for side in sides:
            if _takes(model, images.new_zeros(count, other, *side), num_classes):
                advice = []
                if side != (height, width):
                    advice.append(f"set the dataset's `image_size` to {side[0]}")
                if other != channels:
                    advice.append(f"let the model's first layer take {channels} channels instead of {other}")
                return " and ".join(advice)
    return (
        f"images are floating-point tensors (N, {channels}, {height}, {width}): number, channels, height,"
        " width"
    )


def _takes(model: nn.Module, images: torch.Tensor, num_classes: int) -> bool:
    try:
        _raise_if_wrong(model.eval()(images), "", len(images), num_classes)
        return True
    except Exception:
        return False
