"""Tell outputs that differ by rounding alone from those that differ."""

from __future__ import annotations

import torch

# Shares of the largest value, by type. A model in float64 may compute some of its layers in float32.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}


def same_but_for_rounding(one: torch.Tensor, other: torch.Tensor, share: float | None = None) -> bool:
    """Check whether two tensors of one type have one shape and differ by rounding at most.

    NaN equals NaN, and an infinite value itself.

    Args:
        share: of the largest finite value, by which they may differ; by default what is usual for their type.
    """
    if one.shape != other.shape:
        return False
    finite = one.abs().nan_to_num(nan=0.0, posinf=0.0)
    scale = finite.max().clamp(min=torch.finfo(one.dtype).tiny).item()
    share = _ROUNDING[one.dtype] if share is None else share
    return torch.allclose(one, other, rtol=0, atol=share * scale, equal_nan=True)
