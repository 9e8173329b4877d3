"""Distinguish outputs that differ only by rounding from those that really differ."""

from __future__ import annotations

import torch

# Tolerances by dtype, as shares of the largest value. A float64 model may compute some layers in float32.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}


def usual_share(dtype: torch.dtype) -> float:
    """Return the usual rounding of a model's outputs in a dtype, as a share of the largest value."""
    return _ROUNDING[dtype]


def equal_up_to_rounding(one: torch.Tensor, other: torch.Tensor, share: float | None = None) -> bool:
    """Return whether two tensors of the same dtype have the same shape and differ at most by rounding.

    NaN equals NaN, and an infinite value equals itself. Integers and truth values have no rounding.

    Args:
        share: the maximum difference, as a share of the largest finite value; by default, as is usual for the
            dtype.
    """
    if one.shape != other.shape:
        return False
    if not (one.is_floating_point() or one.is_complex()):
        return torch.equal(one, other)
    finite = one.abs().nan_to_num(nan=0.0, posinf=0.0)
    scale = finite.max().clamp(min=torch.finfo(one.dtype).tiny).item()
    share = usual_share(one.dtype) if share is None else share
    return torch.allclose(one, other, rtol=0, atol=share * scale, equal_nan=True)
