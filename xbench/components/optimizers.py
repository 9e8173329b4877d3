"""All optimizers of `torch.optim`, registered in the same way as a plugin's optimizers.

`gradients` says whether an optimizer's `step` in torch accepts sparse gradients.
`tests/components/test_optimizers.py` checks this for all of them, and the size of their state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xbench.components.search_range import SearchRange, SearchSpace
from xbench.components.specs import OptimizerSpec

_DOCS = "https://docs.pytorch.org/docs/stable/generated/torch.optim.{}.html"


def _search_rate(low: float, high: float) -> SearchSpace:
    return {"lr": SearchRange(low=low, high=high, scale="log")}


# Four decades each, around the rates that papers and torch's documentation use.
_ADAM_RATES, _SGD_RATES = _search_rate(1e-5, 1e-1), _search_rate(1e-4, 1.0)
_ADAM_FREE = ("lr", "betas", "eps", "weight_decay")


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


ADADELTA = _make_spec(
    "Adadelta",
    "adaptive steps from running averages; no learning rate to tune",
    2,
    search_space=_search_rate(1e-2, 1e1),  # the rate is a factor of the method's own, which is meant to be 1
    memory_free=("lr", "rho", "eps", "weight_decay"),
)
ADAFACTOR = _make_spec(
    "Adafactor",
    "Adam with the second moment factored into row and column averages",
    search_space=_search_rate(1e-4, 1.0),
    memory_free=("lr", "beta2_decay", "eps", "d", "weight_decay"),
)
ADAGRAD = _make_spec(
    "Adagrad",
    "steps scaled by accumulated squared gradients",
    1,
    gradients="any",
    search_space=_SGD_RATES,
    memory_free=("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"),
)
ADAM = _make_spec(
    "Adam",
    "first and second moment estimates",
    state_vectors=_count_adam_vectors,
    search_space=_ADAM_RATES,
    memory_free=_ADAM_FREE,
)
ADAMAX = _make_spec(
    "Adamax", "Adam with the infinity norm", 2, search_space=_ADAM_RATES, memory_free=_ADAM_FREE
)
ADAMW = _make_spec(
    "AdamW",
    "Adam with decoupled weight decay",
    state_vectors=_count_adam_vectors,
    search_space=_ADAM_RATES,
    memory_free=_ADAM_FREE,
)
ASGD = _make_spec(
    "ASGD",
    "averaged stochastic gradient descent",
    1,
    search_space=_SGD_RATES,
    memory_free=("lr", "lambd", "alpha", "t0", "weight_decay"),
)


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
    # The first step of each line search has the length `lr`, so that memory depends on it: how many vectors a
    # search keeps depends on how it goes.
    search_space={
        "lr": SearchRange(low=1e-2, high=1.0, scale="log"),
        "max_iter": SearchRange(low=2, high=20, scale="log"),
    },
)
MUON = _make_spec(
    "Muon",
    "orthogonalised momentum for weight matrices",
    1,
    parameters="matrices",
    search_space=_search_rate(1e-4, 1e-1),
    memory_free=("lr", "weight_decay", "momentum", "ns_coefficients", "eps"),
)
NADAM = _make_spec(
    "NAdam",
    "Adam with Nesterov momentum",
    2,
    search_space=_ADAM_RATES,
    memory_free=(*_ADAM_FREE, "momentum_decay"),
)
RADAM = _make_spec(
    "RAdam", "Adam with a rectified adaptive rate", 2, search_space=_ADAM_RATES, memory_free=_ADAM_FREE
)
RMSPROP = _make_spec(
    "RMSprop",
    "gradients divided by their running root mean square",
    state_vectors=_count_rmsprop_vectors,
    search_space=_ADAM_RATES,
    memory_free=("lr", "alpha", "eps", "weight_decay", "momentum"),
)
RPROP = _make_spec(
    "Rprop",
    "steps from gradient signs alone; meant for the full batch",
    2,
    full_batch=True,
    search_space=_ADAM_RATES,
    memory_free=("lr", "etas", "step_sizes"),
)
SGD = _make_spec(
    "SGD",
    "stochastic gradient descent, with optional momentum",
    gradients="any",
    state_vectors=_count_sgd_vectors,
    search_space=_SGD_RATES,
    memory_free=("lr", "momentum", "dampening", "weight_decay"),
)
SPARSE_ADAM = _make_spec(
    "SparseAdam",
    "Adam for sparse gradients",
    2,
    gradients="sparse",
    search_space=_ADAM_RATES,
    memory_free=("lr", "betas", "eps"),
)
