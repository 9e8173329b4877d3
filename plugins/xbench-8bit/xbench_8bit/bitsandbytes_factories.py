"""Factories of bitsandbytes' optimizers, with the settings that have an effect."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

import bitsandbytes
import torch

# Parameters that are not settings, for all classes and for those whose name begins in this way. Most of them
# are ignored; of the others, all values but the default are refused.
_HIDDEN = {
    "": {"amsgrad", "args", "centered", "is_paged"},
    "Adagrad": {"initial_accumulator_value", "lr_decay"},
    "LAMB": {"adam_w_mode", "bias_correction"},
    "LAMB8bit": {"max_unorm"},
    "LARS": {"dampening", "nesterov"},
    "RMSprop": {"momentum"},
    "SGD": {"dampening", "nesterov"},
}

# The default of `momentum` is 0, with which all optimizers that have it fail.
_MOMENTUM = 0.9


def make_factory(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Make the factory of an optimizer.

    Args:
        name: a class of `bitsandbytes.optim`.
    """
    cls = getattr(bitsandbytes.optim, name)
    first, *parameters = inspect.signature(cls).parameters.values()
    hidden = set().union(*(names for prefix, names in _HIDDEN.items() if name.startswith(prefix)))
    if name.endswith("bit"):
        hidden.add("optim_bits")  # which has one value only
    if name.endswith("32bit"):
        hidden.add("min_8bit_size")
    settings = [_convert(name, parameter) for parameter in parameters if parameter.name not in hidden]
    defaults = {setting.name: setting.default for setting in settings if setting.default is not setting.empty}

    def build(params: Any, **chosen: Any) -> torch.optim.Optimizer:
        optimizer = cls(params, **{**defaults, **chosen})
        optimizer.defaults.update({**defaults, **chosen})
        return optimizer

    build.__signature__ = inspect.Signature([first, *settings])  # type: ignore[attr-defined]
    return build


def _convert(name: str, parameter: inspect.Parameter) -> inspect.Parameter:
    """Make a setting of a class's parameter."""
    kind, default = parameter.annotation, parameter.default
    if parameter.name == "optim_bits":
        kind = Literal[8, 32]
    if parameter.name == "momentum":
        default = _MOMENTUM
    return inspect.Parameter(parameter.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
