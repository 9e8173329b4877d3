"""Every optimizer of `torch.optim`, registered as a third party would register its own.

What an optimizer cannot take is part of its spec; which gradients each takes is what its `step` in torch
does with a sparse one (`tests/components/test_optimizers.py` tries them all, and their state's size).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xbench.components.specs import OptimizerSpec

_DOCS = "https://docs.pytorch.org/docs/stable/generated/torch.optim.{}.html"


def _torch_optimizer(
    class_name: str, summary: str, vectors: float | None = None, **more: Any
) -> OptimizerSpec:
    return OptimizerSpec(
        factory=f"torch.optim:{class_name}",
        summary=summary,
        reference=_DOCS.format(class_name),
        resumable=True,
        **({"state_vectors": lambda hyperparameters: vectors} | more),
    )


def _adam_vectors(given: Mapping[str, Any]) -> float:
    return 2 + bool(given.get("amsgrad"))  # two moments, and the maximum of the second


def _rmsprop_vectors(given: Mapping[str, Any]) -> float:
    return 1 + bool(given.get("momentum")) + bool(given.get("centered"))


def _sgd_vectors(given: Mapping[str, Any]) -> float:
    return float(bool(given.get("momentum")))


def _lbfgs_vectors(given: Mapping[str, Any]) -> float:
    """A pair for each step remembered, the direction and the previous gradient (within a step up to eight
    more, with a strong Wolfe line search; torch's documentation gives half of the pairs)."""
    return 2 * given["history_size"] + 2


ADADELTA = _torch_optimizer("Adadelta", "adaptive steps from running averages; no learning rate to tune", 2)
ADAFACTOR = _torch_optimizer("Adafactor", "Adam's second moment factored into row and column averages")
ADAGRAD = _torch_optimizer("Adagrad", "steps scaled by accumulated squared gradients", 1, gradients="any")
ADAM = _torch_optimizer("Adam", "first and second moment estimates", state_vectors=_adam_vectors)
ADAMAX = _torch_optimizer("Adamax", "Adam with the infinity norm", 2)
ADAMW = _torch_optimizer("AdamW", "Adam with decoupled weight decay", state_vectors=_adam_vectors)
ASGD = _torch_optimizer("ASGD", "averaged stochastic gradient descent", 1)
LBFGS = _torch_optimizer(
    "LBFGS",
    "limited-memory quasi-Newton; meant for the full batch",
    gradients="any",
    full_batch=True,
    state_vectors=_lbfgs_vectors,
    fill_state="xbench.components.lbfgs:fill_history",
)
MUON = _torch_optimizer("Muon", "orthogonalised momentum for weight matrices", 1, parameters="matrices")
NADAM = _torch_optimizer("NAdam", "Adam with Nesterov momentum", 2)
RADAM = _torch_optimizer("RAdam", "Adam with a rectified adaptive rate", 2)
RMSPROP = _torch_optimizer(
    "RMSprop", "gradients divided by their running root mean square", state_vectors=_rmsprop_vectors
)
RPROP = _torch_optimizer(
    "Rprop", "steps from gradient signs alone; meant for the full batch", 2, full_batch=True
)
SGD = _torch_optimizer(
    "SGD", "stochastic gradient descent, with momentum if asked", gradients="any", state_vectors=_sgd_vectors
)
SPARSE_ADAM = _torch_optimizer("SparseAdam", "Adam for sparse gradients", 2, gradients="sparse")
