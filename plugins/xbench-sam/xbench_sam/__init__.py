"""SAM as an xbench plugin. Importing this module does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbench import OptimizerSpec, SearchRange

if TYPE_CHECKING:
    from torch.optim.optimizer import ParamsT

    from xbench_sam.sam import SAM

__all__ = ["SPEC", "build"]


def build(
    params: ParamsT, lr: float = 1e-2, momentum: float = 0.9, weight_decay: float = 0.0, rho: float = 0.05
) -> SAM:
    """Build the optimizer. The keyword parameters, described in `SAM`, are the settings of a suite."""
    from xbench_sam.sam import SAM

    return SAM(params, lr=lr, momentum=momentum, weight_decay=weight_decay, rho=rho)


SPEC = OptimizerSpec(
    factory=build,
    summary="SGD with momentum on the gradient at the worst point nearby; two closure calls per step",
    reference="https://arxiv.org/abs/2010.01412",
    resumable=True,
    state_vectors=lambda hyperparameters: float(hyperparameters["momentum"] != 0),
    search_space={
        "lr": SearchRange(low=1e-4, high=1.0, scale="log"),
        "rho": SearchRange(low=1e-2, high=0.5, scale="log"),
    },
    memory_free=("lr", "momentum", "weight_decay", "rho"),
)
