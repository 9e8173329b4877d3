"""Find out which kinds of components an object stands for."""

from __future__ import annotations

import inspect

from xbench.components.optimizer_factory import IN_PLACE_OF_PARAMETERS
from xbench.components.registry import Kind
from xbench.components.settings import settings_of
from xbench.components.specs import DatasetSpec, ModelSpec, OptimizerSpec, Spec
from xbench.components.tasks import Problem
from xbench.errors import XbenchError

_SPEC_KINDS: dict[type[Spec], Kind] = {
    ModelSpec: "model",
    OptimizerSpec: "optimizer",
    DatasetSpec: "dataset",
}


def list_kinds(name: str, found: object) -> tuple[Kind, ...]:
    """List the kinds of components that an object stands for.

    A suite says what a factory makes. Here its parameters tell, because the kind decides which of them are
    settings.

    Args:
        name: how messages name the object.

    Raises:
        XbenchError: it is not a component, or its parameters are not known.
    """
    if isinstance(found, Problem):
        return "model", "dataset"
    for spec_type, kind in _SPEC_KINDS.items():
        if isinstance(found, spec_type):
            return (kind,)
    if not callable(found):
        raise XbenchError(f"'{name}' is a {type(found).__name__}, not a factory, a spec or a problem")
    try:
        as_model = settings_of(ModelSpec(factory=found))
        first = next(iter(inspect.signature(found).parameters), "")
    except (TypeError, ValueError) as error:  # a function of C may have no signature
        raise XbenchError(f"the parameters of '{name}' are not known: {error}") from error
    if first in ("params", "parameters", *IN_PLACE_OF_PARAMETERS):
        return ("optimizer",)
    return ("model",) if as_model.takes_facts or as_model.class_count else ("dataset",)
