"""Check, before a run, that a model returns what the loss takes: a logit for each class of each image.

A model that returns something else fails in its first step, after every image was decoded, or trains on
another objective without a word.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from xbench.components.specs import ModelSpec
from xbench.components.tracebacks import in_one_line
from xbench.errors import XbenchError
from xbench.memory.exhaustion import evidence_of, exhaustion
from xbench.training.frozen import set_training

# Heights and widths that models of one size are commonly made for.
_COMMON_SIDES = (224, 32, 28, 64, 96, 128, 227, 256, 299, 384)

# Rows of float32 probabilities of a thousand classes add up to 1 within a tenth of this.
_SUM_TOLERANCE = 1e-4


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
        XbenchError: the model normalises another number of channels.
    """
    channels, height, width = shape
    normalised = {len(spec.mean), len(spec.std)}
    if not normalised <= {1, channels}:
        raise XbenchError(
            f"its spec normalises {max(normalised)} channels (mean, std), and images have {channels}"
        )
    pixels = torch.rand(count, height, width, channels, dtype=dtype)
    images = (pixels - torch.tensor(spec.mean, dtype=dtype)) / torch.tensor(spec.std, dtype=dtype)
    images = images.permute(0, 3, 1, 2)
    return images.contiguous() if memory_format == "contiguous" else images


@torch.no_grad()
def check_logits(model: nn.Module, name: str, images: torch.Tensor, num_classes: int) -> str:
    """Run a model on one image in evaluation mode, and on the other images in training mode.

    What it raises in training mode alone is not looked at: only a batch of its data shows what it makes of
    that. It is left in any mode, and its running statistics may have moved.

    Args:
        model: on the device and of the type of the images.
        name: of the model, for messages.
        images: (n, channels, height, width), n > 2.

    Returns:
        A warning, if its output looks like probabilities; else "".

    Raises:
        XbenchError: it fails, or its output is not (n, num_classes) finite floating-point numbers.
        MemoryError, RuntimeError: memory ran out.
    """
    one, more = images[:1], images[1:]
    model.eval()
    try:
        output = model(one)
    except Exception as error:
        raise _failure(model, name, one, num_classes, error) from error
    _raise_if_wrong(output, name, 1, num_classes)
    if not torch.isfinite(output).all():
        raise XbenchError(
            f"model '{name}' gives {_values(output)} for one image of random pixels, before any training",
            hint="look for a division by zero, a logarithm of 0, or weights that are never initialised",
        )
    set_training(model)
    mode = " in training mode"
    try:
        with torch.enable_grad():  # which a model may need: for a penalty on its gradients, say
            outputs = model(more)
    except Exception as error:
        _raise_if_exhausted(error)
        model.eval()
        mode = ""
        try:
            outputs = model(more)
        except Exception as error:
            raise _failure(model, name, more, num_classes, error) from error
    _raise_if_wrong(outputs, name, len(more), num_classes, mode)
    if _are_probabilities(output) and _are_probabilities(model.eval()(more)):
        return (
            f"model '{name}' gives what looks like probabilities (they add up to 1 for each image); the loss"
            " takes logits, so leave out its last softmax"
        )
    return ""


def why_not_alone(model: nn.Module, image: torch.Tensor) -> str:
    """Run a model in training mode on a batch of one image, as the last batch of an epoch may be.

    Returns:
        What it raises, in one line, as batch normalisation over single values does; "" if nothing.

    Raises:
        MemoryError, RuntimeError: memory ran out.
    """
    set_training(model)
    try:
        model(image)
    except Exception as error:
        _raise_if_exhausted(error)
        return in_one_line(error)
    return ""


def has_batch_normalisation(model: nn.Module) -> bool:
    """Tell whether a part of a model that is trained has batch normalisation, as torch's own class."""
    set_training(model)
    return any(isinstance(module, _BatchNorm) and module.training for module in model.modules())


def _raise_if_wrong(output: Any, name: str, count: int, num_classes: int, mode: str = "") -> None:
    expected = f"({count}, {num_classes}) is expected: one logit per class"
    images = "one image" if count == 1 else f"{count} images"
    if not isinstance(output, torch.Tensor):
        raise XbenchError(
            f"model '{name}' gives {_describe(output)} for {images}{mode}, not a tensor; {expected}",
            hint="wrap the model in a module whose `forward` returns the logits alone",
        )
    if output.shape != (count, num_classes):
        hint = "an output has a row for each image and a column for each class"
        if output.shape[:-1] == (count,):
            hint = "its last layer needs as many outputs as there are classes"
            hint += "; two classes take two logits, too" if (output.shape[1], num_classes) == (1, 2) else ""
        raise XbenchError(
            f"model '{name}' gives {tuple(output.shape)} for {images}{mode}, and {expected}", hint
        )
    if not output.is_floating_point():
        dtype = str(output.dtype).removeprefix("torch.")
        raise XbenchError(
            f"model '{name}' gives {dtype} for {images}{mode}, and floating-point numbers are expected:"
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


def _values(output: torch.Tensor) -> str:
    return "NaN" if output.isnan().any() else "infinite numbers"


def _are_probabilities(output: torch.Tensor) -> bool:
    sums_to_one = (output.sum(dim=1) - 1).abs() < _SUM_TOLERANCE
    return bool(((output >= 0) & (output <= 1)).all() and sums_to_one.all())


def _failure(
    model: nn.Module, name: str, images: torch.Tensor, num_classes: int, error: Exception
) -> XbenchError:
    """The error for a forward pass that raised. For want of memory, the exception itself is raised again."""
    _raise_if_exhausted(error)
    if isinstance(error, XbenchError):
        return error
    shape = tuple(images.shape)
    return XbenchError(
        f"model '{name}' fails on {'one image' if len(images) == 1 else 'images'} of shape {shape}:"
        f" {in_one_line(error)}",
        hint=_describe_input(model, images, num_classes),
    )


def _raise_if_exhausted(error: Exception) -> None:
    if exhaustion(evidence_of(error)):
        raise error


def _describe_input(model: nn.Module, images: torch.Tensor, num_classes: int) -> str:
    """Tell which other images the model takes, found by trying."""
    count, channels, height, width = images.shape
    if _takes(model, images.contiguous(), num_classes):
        return 'set `memory_format = "contiguous"`, or use `flatten` or `reshape` for `view` in the model'
    sides = [(height, width), *((side, side) for side in _COMMON_SIDES)]
    for other in dict.fromkeys((channels, 1, 3)):
        for side in sides:
            if _takes(model, images.new_zeros(count, other, *side), num_classes):
                advice = []
                if side != (height, width):
                    advice.append(f"set the dataset's `image_size` to {side[0]}")
                if other != channels:
                    advice.append(f"let the model's first layer take {channels} channels in place of {other}")
                return " and ".join(advice)
    return (
        f"images come as floating-point tensors (N, {channels}, {height}, {width}): number, channels, height,"
        " width"
    )


def _takes(model: nn.Module, images: torch.Tensor, num_classes: int) -> bool:
    try:
        _raise_if_wrong(model.eval()(images), "", len(images), num_classes)
        return True
    except Exception:
        return False
