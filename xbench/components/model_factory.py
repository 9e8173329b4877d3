"""Build a model, passing what it asks of the data to the parameters that are meant for it."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from xbench.components.facts import Facts
from xbench.components.roles import check_patterns
from xbench.components.specs import ModelSpec
from xbench.components.tasks import RowDataset
from xbench.errors import XbenchError
from xbench.text import escape_controls, shorten

if TYPE_CHECKING:
    from torch import nn

# The parameter for `Facts`.
FACTS = "facts"

# Names of the parameter for the size of the output, by priority. Case and underscores do not matter.
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

_MAX_SIGNATURE_CHARS = 200


def find_class_count_parameter(factory: Callable[..., Any]) -> inspect.Parameter | None:
    """Find the parameter of a model's factory for the number of classes, or of other outputs.

    If several parameters have one of the `CLASS_COUNT_NAMES`, the first name in that list wins. If none has,
    but the factory takes any keyword argument (`**kwargs`) and no `facts`, the parameter is `num_classes`.

    Returns:
        None if the factory has no such parameter.
    """
    parameters = list(inspect.signature(factory).parameters.values())
    for name in CLASS_COUNT_NAMES:
        for place, parameter in enumerate(parameters):
            if _normalise(parameter.name) == _normalise(name) and _can_take_count(parameter, place):
                return parameter
    if any(p.kind is p.VAR_KEYWORD for p in parameters) and not takes_facts(factory):
        return inspect.Parameter("num_classes", inspect.Parameter.KEYWORD_ONLY)
    return None


def takes_facts(factory: Callable[..., Any]) -> bool:
    """Return whether a model's factory has a parameter for `Facts`."""
    return FACTS in inspect.signature(factory).parameters


def advise_class_count(factory: Callable[..., Any]) -> str:
    """Return the hint for a model with the wrong number of outputs, if its factory is never told it."""
    if find_class_count_parameter(factory) is not None or takes_facts(factory):
        return ""
    shown = format_signature(factory)
    return (
        f"the signature {shown} has no parameter for the number of classes: name it `num_classes`, or wrap "
        f"the model in a function: `def build(num_classes): return {shown.partition('(')[0]}(...)`"
    )


def build_network(
    spec: ModelSpec,
    facts: Facts,
    settings: Mapping[str, Any],
    run_once: Callable[[nn.Module], object] | None = None,
) -> nn.Module:
    """Build a model for a dataset.

    Parameters whose size depends on the first input (`LazyLinear`) are initialised too, from torch's
    generator like all others.

    Args:
        facts: the facts about the data.
        settings: keyword arguments of the factory.
        run_once: runs the model on an input, which initialises its lazy parameters. By default, the input is
            zeros of `facts.input_shape`.

    Raises:
        XbenchError: the factory does not return a module, or the spec declares roles of parameters that the
            module does not have.
    """
    from torch import nn

    factory = spec.load_factory()
    if isinstance(factory, nn.Module):
        raise XbenchError(
            f"it is an already built {type(factory).__name__}, not a function or class that builds one",
            hint="write a function that builds it: `def build(num_classes): return ...`",
        )
    positional, named = [], dict(settings)
    parameter = find_class_count_parameter(factory)
    if parameter is not None and facts.output is not None:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(facts.output.size)
        else:
            named[parameter.name] = facts.output.size
    if takes_facts(factory):
        named[FACTS] = facts
    network = factory(*positional, **named)
    if not isinstance(network, nn.Module):
        is_data = isinstance(network, RowDataset)
        raise XbenchError(
            f"{format_signature(factory)} returns a {type(network).__name__}, not a torch.nn.Module",
            hint="it is the factory of a dataset: set it as `dataset`; `problem` needs an xbench.Problem"
            if is_data
            else "",
        )
    _initialise_lazy_parameters(network, facts, run_once)
    check_patterns(network, spec.roles)
    return network


def format_signature(factory: Callable[..., Any]) -> str:
    """Format a factory's name and parameters, without annotations, for a message: `Wide(width=64)`."""
    named = factory
    while isinstance(named, partial):
        named = named.func
    signature = inspect.signature(factory)
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    bare = signature.replace(parameters=parameters, return_annotation=signature.empty)
    name = getattr(named, "__name__", type(named).__name__)
    return shorten(escape_controls(f"{name}{bare}"), _MAX_SIGNATURE_CHARS)


def _normalise(name: str) -> str:
    return name.replace("_", "").lower()


def _can_take_count(parameter: inspect.Parameter, place: int) -> bool:
    """Check whether a number can be passed to a parameter, judging by its kind and its default."""
    if parameter.kind is parameter.POSITIONAL_ONLY and place > 0:
        return False
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return False
    default = parameter.default  # a sequence probably holds class names, and a bool is a switch
    is_number = isinstance(default, int) and not isinstance(default, bool)
    return default is None or default is parameter.empty or is_number


def _initialise_lazy_parameters(
    network: nn.Module, facts: Facts, run_once: Callable[[nn.Module], object] | None
) -> None:
    import torch
    from torch.nn.parameter import is_lazy

    lazy = [p for p in itertools.chain(network.parameters(), network.buffers()) if is_lazy(p)]
    if lazy:
        network.eval()  # so that running statistics do not change
        with torch.no_grad():
            if run_once is None:
                network(torch.zeros(1, *facts.input_shape, device=lazy[0].device, dtype=lazy[0].dtype))
            else:
                run_once(network)
        network.train()
