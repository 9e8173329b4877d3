"""Call the factory of an optimizer with what it asks of the run, by the names of its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# What a factory may ask for in place of a list of parameters, by the name of its first parameter.
IN_PLACE_OF_PARAMETERS = ("model", "named_parameters")


@dataclass(frozen=True)
class RunFacts:
    """Facts about a run that the factory of an optimizer may ask for, by the names of its parameters.

    Attributes:
        total_steps: number of steps of the whole run.
        steps_per_epoch: number of steps in an epoch.
        num_examples: number of training examples in an epoch.
    """

    total_steps: int
    steps_per_epoch: int
    num_examples: int


# The names of parameters that xbench passes to a factory, besides the first one.
PASSED = (*IN_PLACE_OF_PARAMETERS, *RunFacts.__dataclass_fields__)


def list_passed(factory: Callable[..., Any]) -> tuple[str, ...]:
    """List the parameters of an optimizer's factory, besides the first one, that xbench passes."""
    keywords = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(p.name for p in _list_parameters(factory)[1:] if p.name in PASSED and p.kind in keywords)


def takes_parameters(factory: Callable[..., Any]) -> bool:
    """Return whether the first parameter is for parameters, which may be in groups, and not for a model."""
    return not any(p.name in IN_PLACE_OF_PARAMETERS for p in _list_parameters(factory)[:1])


def call_factory(
    factory: Callable[..., Any],
    model: nn.Module,
    named_parameters: Sequence[tuple[str, nn.Parameter]],
    run: RunFacts,
    settings: Mapping[str, Any],
    groups: Sequence[dict[str, Any]] | None = None,
) -> Any:
    """Build an optimizer.

    Args:
        model: the model that is trained.
        named_parameters: the parameters that the optimizer is to update.
        groups: the same parameters in groups with settings of their own; None for a list of parameters.
        settings: the optimizer's settings.
    """
    known = {"model": model, "named_parameters": list(named_parameters), **asdict(run)}
    passed = {name: known[name] for name in list_passed(factory)}
    if takes_parameters(factory):
        parameters = [parameter for _, parameter in named_parameters] if groups is None else list(groups)
        return factory(parameters, **passed, **settings)
    return factory(known[_list_parameters(factory)[0].name], **passed, **settings)


def _list_parameters(factory: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):  # a callable without a signature
        return []
