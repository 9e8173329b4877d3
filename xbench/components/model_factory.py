"""Call a model's factory with the number of classes in the parameter that is meant for it."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from xbench.components.specs import ModelSpec
from xbench.errors import XbenchError
from xbench.text import escape_controls, shorten

if TYPE_CHECKING:
    from torch import nn

# The first of these that a factory has takes the number of classes. Case and underscores do not matter.
CLASS_COUNT_NAMES = (
    "num_classes",
    "n_classes",
    "nb_classes",
    "num_class",
    "n_class",
    "classes",
    "num_labels",
    "n_labels",
    "num_outputs",
    "n_outputs",
    "out_features",
)

_MAX_SIGNATURE = 200


def class_count_parameter(factory: Callable[..., Any]) -> inspect.Parameter:
    """Find the parameter of a model's factory that takes the number of classes.

    It is the one with the first of the `CLASS_COUNT_NAMES`; a factory that has none of them, but takes any
    keyword (`**kwargs`), is given `num_classes`.

    Raises:
        XbenchError: the factory has no such parameter.
    """
    parameters = list(inspect.signature(factory).parameters.values())
    for name in CLASS_COUNT_NAMES:
        for place, parameter in enumerate(parameters):
            if _plain(parameter.name) == _plain(name) and _can_take_count(parameter, place):
                return parameter
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return inspect.Parameter("num_classes", inspect.Parameter.KEYWORD_ONLY)
    shown = signature_of(factory)
    raise XbenchError(
        f"the signature {shown} has no parameter for the number of classes",
        hint="call that parameter `num_classes`, or wrap the model in a function:"
        f" `def build(num_classes): return {shown.partition('(')[0]}(...)`",
    )


def build_network(
    spec: ModelSpec, num_classes: int, image_shape: tuple[int, int, int], settings: Mapping[str, Any]
) -> nn.Module:
    """Build a model for a dataset.

    Parameters that are sized by the first input (`LazyLinear`) are initialised, from torch's generator like
    all others.

    Args:
        image_shape: (channels, height, width) of the dataset's images.
        settings: keyword arguments of the factory.

    Raises:
        XbenchError: the factory has no parameter for the number of classes, or returns no module.
    """
    from torch import nn

    factory = spec.load_factory()
    if isinstance(factory, nn.Module):
        raise XbenchError(
            f"it is a {type(factory).__name__} that was built already, not a function or class to build one",
            hint="write a function that builds it: `def build(num_classes): return ...`",
        )
    parameter = class_count_parameter(factory)
    if parameter.kind is parameter.POSITIONAL_ONLY:
        network = factory(num_classes, **settings)
    else:
        network = factory(**{parameter.name: num_classes}, **settings)
    if not isinstance(network, nn.Module):
        raise XbenchError(
            f"{signature_of(factory)} returns a {type(network).__name__}, not a torch.nn.Module"
        )
    _initialise_lazy_parameters(network, image_shape)
    return network


def signature_of(factory: Callable[..., Any]) -> str:
    """The factory's name and parameters for a message, without annotations: `Wide(width=64)`."""
    named = factory
    while isinstance(named, partial):
        named = named.func
    signature = inspect.signature(factory)
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    bare = signature.replace(parameters=parameters, return_annotation=signature.empty)
    name = getattr(named, "__name__", type(named).__name__)
    return shorten(escape_controls(f"{name}{bare}"), _MAX_SIGNATURE)


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _can_take_count(parameter: inspect.Parameter, place: int) -> bool:
    """Whether a number can be passed to the parameter, judged by its kind and its default."""
    if parameter.kind is parameter.POSITIONAL_ONLY and place > 0:
        return False
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return False
    default = parameter.default  # a sequence holds the names of the classes, a bool switches something
    is_number = isinstance(default, int) and not isinstance(default, bool)
    return default is None or default is parameter.empty or is_number


def _initialise_lazy_parameters(network: nn.Module, image_shape: tuple[int, int, int]) -> None:
    import torch
    from torch.nn.parameter import is_lazy

    lazy = [p for p in itertools.chain(network.parameters(), network.buffers()) if is_lazy(p)]
    if lazy:
        network.eval()  # running statistics stay as they are
        with torch.no_grad():
            network(torch.zeros(1, *image_shape, device=lazy[0].device, dtype=lazy[0].dtype))
        network.train()
