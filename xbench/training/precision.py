"""Compute in bfloat16: in a model of that dtype, or in the operations that autocast chooses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from xbench.training.nested import convert, map_tensors

# Dtypes that are too coarse for sums of many numbers.
NARROW_DTYPES = (torch.bfloat16, torch.float16)


def cast_model(model: nn.Module, device: str | torch.device, dtype: torch.dtype) -> nn.Module:
    """Move a model to a device and a dtype, in place.

    A bfloat16 model also casts the floating-point inputs of its forward pass. Everything else in a batch,
    such as the targets of a regression, keeps its precision.
    """
    model = model.to(device, dtype)
    if dtype is torch.bfloat16:
        model.register_forward_pre_hook(_cast_inputs, with_kwargs=True)
    return model


def _cast_inputs(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    # Looked up each time: a check may have converted the model to another dtype.
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.bfloat16)
    return convert(args, dtype), convert(kwargs, dtype)


def widen(nested: Any) -> Any:
    """Convert tensors of 16-bit floating-point numbers to float32; others stay as they are."""
    if isinstance(nested, torch.Tensor):  # the usual case
        return nested.float() if nested.dtype in NARROW_DTYPES else nested
    return map_tensors(widen, nested)


def autocast(device: torch.device, setting: str) -> AbstractContextManager[Any]:
    """Return a context in which torch's operations run in the precision of an `autocast` setting."""
    return nullcontext() if setting == "off" else torch.autocast(device.type, getattr(torch, setting))


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Give a bfloat16 model float32 parameters and buffers within the context, which loses nothing.

    What a model computes can then be compared more closely than bfloat16 rounds.
    """
    if next(model.parameters()).dtype is not torch.bfloat16:
        yield
        return
    model.float()
    try:
        yield
    finally:
        model.bfloat16()
