"""Schedule-free wrappers that work with any optimizer of torch and can be resumed.

schedulefree's own wrappers keep their points in the state of the wrapped optimizer. Most optimizers of torch
initialise their state only if it is empty, so they fail with a KeyError in the first step. The wrappers'
state dict also lacks the mode, so a wrapper that loads it takes the point at which gradients are computed for
the average. One of the wrappers cannot swap scalars and tensors whose last dimension is not contiguous. Here
the points are kept apart, the state dict has everything, and all parameters can be trained.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import schedulefree
import torch


class _SeparateState:
    """Mixin for the wrappers of schedulefree that holds their points, and their part of the state dict."""

    def __init__(self, base: torch.optim.Optimizer, **settings: Any):
        self._points: dict[torch.Tensor, dict[str, torch.Tensor]] = defaultdict(dict)
        super().__init__(base, **settings)

    @property
    def state(self) -> dict[torch.Tensor, dict[str, torch.Tensor]]:
        """The wrapper's points (`z`, and `x` and `y` in the reference implementation) of each parameter."""
        return self._points

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the wrapper and of the wrapped optimizer."""
        return {
            "base": self.base.state_dict(),
            "points": [dict(self._points[p]) for p in self._list_parameters()],
            "train_mode": self.train_mode,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.base.load_state_dict(state_dict["base"])
        self._points.clear()
        self._points.update(zip(self._list_parameters(), state_dict["points"], strict=True))
        self.train_mode = state_dict["train_mode"]

    def _list_parameters(self) -> list[torch.Tensor]:
        return [p for group in self.base.param_groups for p in group["params"]]


class ScheduleFreeWrapper(_SeparateState, schedulefree.ScheduleFreeWrapper):
    """Wrapper that swaps two of its points in place, and so holds one buffer."""

    @staticmethod
    def swap(x: torch.Tensor, y: torch.Tensor) -> None:
        """Swap the contents of two tensors of the same shape and strides."""
        if x.ndim and x.stride(-1) == 1:
            schedulefree.ScheduleFreeWrapper.swap(x, y)
        else:  # whose bytes cannot be viewed
            copy = x.clone()
            x.copy_(y)
            y.copy_(copy)


class ScheduleFreeWrapperReference(_SeparateState, schedulefree.ScheduleFreeWrapperReference):
    """Wrapper with a buffer for each of its three points."""


_WRAPPERS = {wrapper.__name__: wrapper for wrapper in (ScheduleFreeWrapper, ScheduleFreeWrapperReference)}


def make_factory(wrapper: str, base: str) -> Callable[..., Any]:
    """Make the factory of a wrapped optimizer.

    Its settings are those of the wrapper and of the wrapped optimizer. Where both have one of the same name,
    `base_` precedes that of the wrapped optimizer.

    Args:
        wrapper: name of a wrapper in this module.
        base: name of an optimizer in `torch.optim`.
    """
    wrapper_class, base_class = _WRAPPERS[wrapper], getattr(torch.optim, base)
    own = _list_settings(getattr(schedulefree, wrapper))
    names = {
        parameter.name: f"base_{parameter.name}" if parameter.name in own else parameter.name
        for parameter in _list_settings(base_class).values()
    }

    def build(params: Iterable[Any], **settings: Any) -> Any:
        settings = {**defaults, **settings}
        base_settings = {name: settings[shown] for name, shown in names.items()}
        optimizer = wrapper_class(
            base_class(params, **base_settings), **{name: settings[name] for name in own}
        )
        optimizer.defaults = settings
        return optimizer

    shown = [parameter.replace(name=names[name]) for name, parameter in _list_settings(base_class).items()]
    shown = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*shown, *own.values())]
    defaults = {parameter.name: parameter.default for parameter in shown}
    first = inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    build.__signature__ = inspect.Signature([first, *shown])
    return build


def _list_settings(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """List the parameters after the first one, by name, with evaluated annotations."""
    _, *settings = inspect.signature(factory, eval_str=True).parameters.values()
    return {parameter.name: parameter for parameter in settings}
