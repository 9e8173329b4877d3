"""Check what an optimizer declares against a recipe: a schedule, clipping, and param groups."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from xbench.components.optimizer_factory import takes_parameters
from xbench.errors import XbenchError
from xbench.training.optimizer import LoadedOptimizer
from xbench.training.recipe_mistakes import RecipeMistake
from xbench.training.settings import TrainingSettings


def check_recipe(optimizer: LoadedOptimizer, training: TrainingSettings) -> None:
    """Check what an optimizer declares against a recipe.

    Raises:
        XbenchError: they do not go together.
    """
    for mistake in find_declared_mistakes(optimizer, training):
        raise XbenchError(mistake.message, mistake.hint)


def find_declared_mistakes(optimizer: LoadedOptimizer, training: TrainingSettings) -> Iterator[RecipeMistake]:
    """Find what in a recipe contradicts what an optimizer declares, without building it."""
    rates = select_keys(training, "schedule", "warmup")
    clips = select_keys(training, "clip_norm", "clip_value")
    groups = select_keys(training, "weight_decay_on", "groups")
    for part in filter(None, (optimizer, optimizer.rest)):
        name = part.name
        if rates and part.compares_losses:
            yield make_mistake(
                rates,
                f"the line search of '{name}' chooses the length of each step, so {rates[0]} would only "
                "change where it starts",
            )
        if clips and part.compares_losses:
            yield make_mistake(
                clips,
                f"the line search of '{name}' compares losses and gradients, and with {clips[0]}, its "
                "gradients would not be those of its losses",
            )
        if clips and part.spec.backward == "fused":
            yield make_mistake(
                clips,
                f"'{name}' runs the backward pass itself, and uses gradients before {clips[0]} could change "
                "them",
            )
        if groups and not takes_parameters(part.spec.load_factory()):
            yield make_mistake(
                groups, f"'{name}' takes the whole model, so {groups[0]} cannot divide its parameters"
            )


def select_keys(training: TrainingSettings, *keys: str) -> tuple[str, ...]:
    """Return those of the keys whose values are not the default."""
    return tuple(key for key in keys if key in training.recipe)


def make_mistake(keys: Sequence[str], message: str) -> RecipeMistake:
    """Make a mistake whose hint says how an optimizer is left out of an experiment's recipe."""
    settings = " and ".join(f"{key} = {_write_default(key)}" for key in keys)
    return RecipeMistake(tuple(keys), message, f"set {settings} in the table of this optimizer")


def _write_default(key: str) -> str:
    """Write the default of a key as it is written in a suite, which has the word "off" for None."""
    default = getattr(TrainingSettings(), key)
    return json.dumps("off" if default is None else default)
