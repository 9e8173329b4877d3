"""The optimizers of the package schedulefree as an xbench plugin. Importing this module imports neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from xbench import Family, OptimizerSpec, XbenchError

__all__ = ["FAMILY", "get_spec", "list_members"]

_PAPER = "https://arxiv.org/abs/2405.15682"

# Class of schedulefree: (factory, summary, vectors of state).
_OPTIMIZERS: dict[str, tuple[str, str, float]] = {
    "AdamWScheduleFree": (
        "schedulefree:AdamWScheduleFree",
        "AdamW without a schedule: gradients at a point between the last iterate and the average",
        2,
    ),
    "AdamWScheduleFreeClosure": (
        "schedulefree:AdamWScheduleFreeClosure",
        "AdamWScheduleFree that holds the averaged weights between steps, so it needs no modes",
        2,
    ),
    "AdamWScheduleFreePaper": (
        "schedulefree:AdamWScheduleFreePaper",
        "AdamWScheduleFree with the bias correction of the paper's experiments; can be unstable",
        2,
    ),
    "AdamWScheduleFreeReference": (
        "xbench_schedulefree.references:build_adamw",
        "AdamWScheduleFree as the paper writes it down, with a buffer for each of its three points",
        4,
    ),
    "RAdamScheduleFree": (
        "schedulefree:RAdamScheduleFree",
        "RAdam without a schedule and without a warm-up",
        2,
    ),
    "RAdamScheduleFreeClosure": (
        "schedulefree:RAdamScheduleFreeClosure",
        "RAdamScheduleFree that holds the averaged weights between steps, so it needs no modes",
        2,
    ),
    "SGDScheduleFree": (
        "schedulefree:SGDScheduleFree",
        "SGD without a schedule: gradients at a point between the last iterate and the average",
        1,
    ),
    "SGDScheduleFreeClosure": (
        "schedulefree:SGDScheduleFreeClosure",
        "SGDScheduleFree that holds the averaged weights between steps, so it needs no modes",
        1,
    ),
    "SGDScheduleFreeReference": (
        "xbench_schedulefree.references:build_sgd",
        "SGDScheduleFree as the paper writes it down, with a buffer for each of its three points",
        3,
    ),
}

# Wrapper: (summary, vectors of its own state).
_WRAPPERS = {
    "ScheduleFreeWrapper": ("schedule-free averaging around torch.optim.{}", 1),
    "ScheduleFreeWrapperReference": (
        "schedule-free averaging around torch.optim.{}, with a buffer for each of the three points",
        3,
    ),
}

# Optimizer of torch: vectors of its state, with these settings of the wrapped optimizer.
_BASES: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "ASGD": lambda settings: 1,
    "Adadelta": lambda settings: 2,
    "Adafactor": lambda settings: None,  # it depends on the shapes
    "Adagrad": lambda settings: 1,
    "Adam": lambda settings: 2 + bool(settings["amsgrad"]),
    "AdamW": lambda settings: 2 + bool(settings["amsgrad"]),
    "Adamax": lambda settings: 2,
    "Muon": lambda settings: 1,
    "NAdam": lambda settings: 2,
    "RAdam": lambda settings: 2,
    "RMSprop": lambda settings: 1 + bool(settings["base_momentum"]) + bool(settings["centered"]),
    "Rprop": lambda settings: 2,
    "SGD": lambda settings: float(bool(settings["base_momentum"])),
    "SparseAdam": lambda settings: 2,
}

# Optimizers of torch that the wrappers cannot wrap, with the reason.
_UNFIT_BASES = {
    "LBFGS": "the wrappers call the wrapped optimizer without a closure, which LBFGS needs",
}


def list_members() -> list[str]:
    """List the classes of schedulefree; a wrapper's name is followed by that of the optimizer it wraps."""
    wrapped = [f"{wrapper}-{base}" for wrapper in _WRAPPERS for base in sorted({**_BASES, **_UNFIT_BASES})]
    return [*_OPTIMIZERS, *wrapped]


def get_spec(name: str) -> OptimizerSpec:
    """Return the spec of a member.

    Raises:
        KeyError: the member is unknown.
        XbenchError: it cannot serve; the message says why.
    """
    wrapper, _, base = name.partition("-")
    if wrapper in _WRAPPERS and base in _BASES:
        return _make_wrapper_spec(wrapper, base)
    if wrapper in _WRAPPERS and base in _UNFIT_BASES:
        raise XbenchError(f"{wrapper} cannot wrap torch.optim.{base}: {_UNFIT_BASES[base]}")
    if name in _WRAPPERS:
        raise XbenchError(
            f"{name} wraps another optimizer, so its name must say which",
            hint=f"for example `schedulefree/{name}-RMSprop`",
        )
    factory, summary, vectors = _OPTIMIZERS[name]
    return OptimizerSpec(
        factory=factory,
        summary=summary,
        reference=_PAPER,
        resumable=True,
        state_vectors=lambda settings: vectors,
    )


def _make_wrapper_spec(wrapper: str, base: str) -> OptimizerSpec:
    from xbench_schedulefree.wrappers import make_factory

    summary, own_vectors = _WRAPPERS[wrapper]

    def count_vectors(settings: Mapping[str, Any]) -> float | None:
        vectors = _BASES[base](settings)
        return None if vectors is None else own_vectors + vectors

    return OptimizerSpec(
        factory=make_factory(wrapper, base),
        summary=summary.format(base),
        reference=_PAPER,
        resumable=True,
        state_vectors=count_vectors,
        parameters="matrices" if base == "Muon" else "any",
        gradients="sparse" if base == "SparseAdam" else "dense",
    )


FAMILY = Family(
    member=get_spec,
    members=list_members,
    summary="optimizers without a learning rate schedule, of the package schedulefree",
    reference=_PAPER,
)
