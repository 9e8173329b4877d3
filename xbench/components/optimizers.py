"""All optimizers of `torch.optim`, registered in the same way as a plugin's optimizers.

`gradients` says whether an optimizer's `step` in torch accepts sparse gradients.
`tests/components/test_optimizers.py` checks this for all of them, and the size of their state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xbench.components.specs import OptimizerSpec

_DOCS = "https://docs.pytorch.org/docs/stable/generated/torch.optim.{}.html"


def _make_spec(class_name: str, summary: str, vectors: float | None = None, **more: Any) -> OptimizerSpec:
    return OptimizerSpec(
        factory=f"torch.optim:{class_name}",
        summary=summary,
        reference=_DOCS.format(class_name),
        resumable=True,
        **({"state_vectors": lambda hyperparameters: vectors} | more),
    )


def _count_adam_vectors(hyperparameters: Mapping[str, Any]) -> float:
    return 2 + bool(hyperparameters.get("amsgrad"))  # two moments, and the maximum of the second


def _count_rmsprop_vectors(hyperparameters: Mapping[str, Any]) -> float:
    return 1 + bool(hyperparameters.get("momentum")) + bool(hyperparameters.get("centered"))


def _count_sgd_vectors(hyperparameters: Mapping[str, Any]) -> float:
    return float(bool(hyperparameters.get("momentum")))


def _count_lbfgs_vectors(hyperparameters: Mapping[str, Any]) -> float:
    """Count a pair of vectors for each entry of the history, the direction, and the previous gradient.

    Within a step, a strong Wolfe line search takes up to eight vectors more. torch's documentation counts one
    vector for each entry of the history instead of two.
    """
    return 2 * hyperparameters["history_size"] + 2


ADADELTA = _make_spec("Adadelta", "adaptive steps from running averages; no learning rate to tune", 2)
ADAFACTOR = _make_spec("Adafactor", "Adam with the second moment factored into row and column averages")
ADAGRAD = _make_spec("Adagrad", "steps scaled by accumulated squared gradients", 1, gradients="any")
ADAM = _make_spec("Adam", "first and second moment estimates", state_vectors=_count_adam_vectors)
ADAMAX = _make_spec("Adamax", "Adam with the infinity norm", 2)
ADAMW = _make_spec("AdamW", "Adam with decoupled weight decay", state_vectors=_count_adam_vectors)
ASGD = _make_spec("ASGD", "averaged stochastic gradient descent", 1)


def _has_line_search(hyperparameters: Mapping[str, Any]) -> bool:
    return hyperparameters.get("line_search_fn") is not None


LBFGS = _make_spec(
    "LBFGS",
    "limited-memory quasi-Newton method; meant for the full batch",
    gradients="any",
    full_batch=True,
    line_search=_has_line_search,
    state_vectors=_count_lbfgs_vectors,
    fill_state="xbench.components.lbfgs:fill_history",
)
MUON = _make_spec("Muon", "orthogonalised momentum for weight matrices", 1, parameters="matrices")
NADAM = _make_spec("NAdam", "Adam with Nesterov momentum", 2)
RADAM = _make_spec("RAdam", "Adam with a rectified adaptive rate", 2)
RMSPROP = _make_spec(
    "RMSprop", "gradients divided by their running root mean square", state_vectors=_count_rmsprop_vectors
)
RPROP = _make_spec("Rprop", "steps from gradient signs alone; meant for the full batch", 2, full_batch=True)
SGD = _make_spec(
    "SGD",
    "stochastic gradient descent, with optional momentum",
    gradients="any",
    state_vectors=_count_sgd_vectors,
)
SPARSE_ADAM = _make_spec("SparseAdam", "Adam for sparse gradients", 2, gradients="sparse")
