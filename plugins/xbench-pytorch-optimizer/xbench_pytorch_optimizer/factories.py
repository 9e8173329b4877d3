"""Make factories of the optimizers from their classes: `factories.NAME` builds the optimizer `NAME`.

A factory has the signature of the class, with these differences. Keyword arguments that the class accepts and
ignores are left out, so that a misspelt setting is an error; those that it reads are settings. Functions and
process groups, which a suite cannot write, are left out, and so is `maximize`. A dtype is given by its name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin

import torch
from pytorch_optimizer.optimizer import OPTIMIZERS
from torch import Tensor, nn

from xbench_pytorch_optimizer import adapters
from xbench_pytorch_optimizer.catalogue import ENTRIES

_ADAPTED: dict[str, type] = {
    cls.__name__.lower(): cls
    for cls in (
        adapters.AdaLOMO,
        adapters.BSAM,
        adapters.DeMo,
        adapters.DistributedMuon,
        adapters.LOMO,
        adapters.LoRARite,
        adapters.SCIONLight,
    )
}

# What the package calls facts of the run, by xbench's names of them.
_FACTS = {"bsam": {"num_examples": "num_data"}, "ranger21": {"total_steps": "num_iterations"}}

_NOT_SETTINGS = ("self", "params", "model", "optimizer", "maximize")

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


@cache
def build_factory(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Make the factory of an optimizer.

    Args:
        name: the package's name of it, in lower case.
    """
    original, extras, facts = OPTIMIZERS[name], ENTRIES[name].extras, _FACTS.get(name, {})
    cls = _ADAPTED.get(name, original)
    of_class = inspect.signature(original.__init__).parameters
    signature = _make_signature(name, of_class)
    dtypes = {p.name for p in of_class.values() if _takes_dtype(p)}
    # Plain numbers in place of an enumeration's members, which checkpoints cannot hold.
    plain = {p.name: p.default.value for p in of_class.values() if isinstance(p.default, Enum)}

    def factory(first: Any, **given: Any) -> torch.optim.Optimizer:
        signature.bind(first, **given)  # raises TypeError for unknown settings, which many classes ignore
        given = plain | {facts.get(key, key): value for key, value in given.items()}
        given |= {key: _read_dtype(key, given[key]) for key in dtypes & given.keys()}
        if "adamw_lr" in of_class:  # Muon and its relatives, for matrices only
            first = [{**group, "use_muon": True} for group in adapters.list_groups(first)]
        elif "rank" in extras:
            options = {key: given.pop(key, default) for key, default in extras.items()}
            first = _split(first, _is_matrix, options, {})
        elif name == "adamwsn":
            first = _split(first, _is_matrix, {"sn": True}, {"sn": False})
        elif name == "adamc":
            normalised = _find_normalisation(given.pop("model"))
            first = _split(first, lambda p: id(p) in normalised, {"normalized": True}, {})
        return cls(first, **given)

    factory.__signature__ = signature  # type: ignore[attr-defined]
    factory.__name__ = factory.__qualname__ = name
    return factory


def __getattr__(name: str) -> Callable[..., torch.optim.Optimizer]:
    if name not in ENTRIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return build_factory(name)


def _make_signature(name: str, of_class: Mapping[str, inspect.Parameter]) -> inspect.Signature:
    """Make the signature of a factory: what xbench passes, then the settings."""
    entry, facts = ENTRIES[name], _FACTS.get(name, {})
    first = "model" if "model" in of_class else "params"
    passed = (*facts, "model") if name == "adamc" else (*facts,)
    hidden = (*_NOT_SETTINGS, *entry.hidden, *facts.values())
    settings = [p for p in of_class.values() if p.name not in hidden and _is_writable(p)]
    return inspect.Signature(
        [
            inspect.Parameter(first, inspect.Parameter.POSITIONAL_ONLY),
            *(inspect.Parameter(fact, _KEYWORD) for fact in passed),
            *map(_make_plain, settings),
            *(inspect.Parameter(key, _KEYWORD, default=default) for key, default in entry.extras.items()),
        ]
    )


def _make_plain(parameter: inspect.Parameter) -> inspect.Parameter:
    """Make a keyword parameter whose default a suite can write."""
    default, annotation = parameter.default, parameter.annotation
    if _takes_dtype(parameter):
        default, annotation = default and str(default).removeprefix("torch."), str | None
    elif isinstance(default, Enum):
        default, annotation = default.value, int
    return parameter.replace(kind=_KEYWORD, default=default, annotation=annotation)


def _is_writable(parameter: inspect.Parameter) -> bool:
    """Return whether a suite can write values of a parameter, unlike those of functions."""
    if parameter.kind is parameter.VAR_KEYWORD:
        return False
    kinds = [kind for kind in _list_kinds(parameter.annotation) if kind is not NoneType]
    return not all(get_origin(kind) is Callable or kind is Callable for kind in kinds)


def _takes_dtype(parameter: inspect.Parameter) -> bool:
    return torch.dtype in _list_kinds(parameter.annotation)


def _list_kinds(annotation: Any) -> tuple[Any, ...]:
    """Return the types of a union with None; otherwise the annotation itself."""
    return get_args(annotation) if NoneType in get_args(annotation) else (annotation,)


def _read_dtype(setting: str, name: str | None) -> torch.dtype | None:
    dtype = None if name is None else getattr(torch, name, None)
    if name is not None and not isinstance(dtype, torch.dtype):
        raise ValueError(f"{setting} = '{name}' is not a dtype of torch, such as 'float32' or 'bfloat16'")
    return dtype


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim == 2


def _find_normalisation(model: nn.Module) -> set[int]:
    """Find the parameters of normalisation layers, by the names of the layers' classes."""
    layers = [module for module in model.modules() if "Norm" in type(module).__name__]
    return {id(parameter) for layer in layers for parameter in layer.parameters(recurse=False)}


def _split(
    params: Iterable[Any],
    is_special: Callable[[Tensor], bool],
    for_special: Mapping[str, Any],
    for_others: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Split each parameter group in two, and add options to each part. Empty parts are left out."""
    groups = []
    for group in adapters.list_groups(params):
        special = [p for p in group["params"] if is_special(p)]
        others = [p for p in group["params"] if not is_special(p)]
        groups += [{**group, "params": special, **for_special}] if special else []
        groups += [{**group, "params": others, **for_others}] if others else []
    return groups
