"""Three variants of L-BFGS as an xbench plugin. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from xbench import OptimizerSpec

if TYPE_CHECKING:
    from torch.optim.optimizer import ParamsT

    from xbench_lbfgs_variants.base import PairOptimizer

__all__ = ["DAMPED", "ONLINE", "WOLFE", "build_damped", "build_online", "build_wolfe"]


def build_online(
    params: ParamsT,
    lr: float = 0.1,
    history_size: int = 10,
    tau: float | None = None,
    damping: float = 0.0,
    c: float = 1.0,
    initial_scale: float = 1e-3,
    pairs_dtype: Literal["float32", "bfloat16"] | None = None,
    pairs_on: Literal["device", "host"] = "device",
) -> PairOptimizer:
    """Build an online L-BFGS. The keyword parameters are described in `OnlineLBFGS`."""
    from xbench_lbfgs_variants.online import OnlineLBFGS

    return OnlineLBFGS(params, lr, history_size, tau, damping, c, initial_scale, pairs_dtype, pairs_on)


def build_damped(
    params: ParamsT,
    lr: float = 0.1,
    history_size: int = 10,
    delta: float = 1.0,
    decay: float = 0.0,
    initial_scale: float = 1.0,
    pairs_dtype: Literal["float32", "bfloat16"] | None = None,
    pairs_on: Literal["device", "host"] = "device",
) -> PairOptimizer:
    """Build a damped L-BFGS. The keyword parameters are described in `DampedLBFGS`."""
    from xbench_lbfgs_variants.damped import DampedLBFGS

    return DampedLBFGS(params, lr, history_size, delta, decay, initial_scale, pairs_dtype, pairs_on)


def build_wolfe(
    params: ParamsT,
    lr: float = 1.0,
    max_iter: int = 20,
    max_eval: int | None = None,
    tolerance_grad: float = 1e-7,
    tolerance_change: float = 1e-9,
    history_size: int = 100,
    pairs_dtype: Literal["float32", "bfloat16"] | None = None,
    pairs_on: Literal["device", "host"] = "device",
) -> PairOptimizer:
    """Build a full-batch L-BFGS. The keyword parameters are described in `WolfeLBFGS`."""
    from xbench_lbfgs_variants.wolfe import WolfeLBFGS

    return WolfeLBFGS(
        params,
        lr,
        max_iter,
        max_eval,
        tolerance_grad,
        tolerance_change,
        history_size,
        pairs_dtype,
        pairs_on,
    )


_BYTES = {"float32": 4, "bfloat16": 2}


def _count_vectors(settings: Mapping[str, Any]) -> float:
    """Count the vectors of a full history, in units of the parameters' size."""
    element_bytes = settings["element_bytes"]
    return 2 * settings["history_size"] * _BYTES.get(settings["pairs_dtype"], element_bytes) / element_bytes


def fill_history(optimizer: PairOptimizer) -> None:
    """Fill the history of a fresh optimizer, to measure the memory of a step with all of it."""
    optimizer.fill_history()


def _make_spec(factory: Any, summary: str, reference: str, **more: Any) -> OptimizerSpec:
    return OptimizerSpec(
        factory=factory,
        summary=summary,
        reference=reference,
        resumable=True,
        state_vectors=_count_vectors,
        fill_state=fill_history,
        **more,
    )


ONLINE = _make_spec(
    build_online,
    "L-BFGS for mini-batches of convex problems; two closure calls per step",
    "https://proceedings.mlr.press/v2/schraudolph07a.html",
)
DAMPED = _make_spec(
    build_damped,
    "L-BFGS for mini-batches of nonconvex problems; two closure calls per step",
    "https://arxiv.org/abs/1607.01231",
)
WOLFE = _make_spec(
    build_wolfe,
    "L-BFGS with a strong Wolfe line search; meant for the full batch",
    "https://doi.org/10.1007/BF01589116",
    full_batch=True,
    line_search=lambda defaults: True,
)
