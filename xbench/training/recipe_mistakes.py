"""Results of trying an optimizer with a recipe.

The parent process reads them, so this module must not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RecipeMistake:
    """A reason why an optimizer cannot be used with a recipe.

    Attributes:
        keys: the keys of the recipe that are at fault.
        pattern: the pattern of the group that is at fault; None if no group is.
    """

    keys: tuple[str, ...]
    message: str
    hint: str | None = None
    pattern: str | None = None


@dataclass(frozen=True)
class PartSettings:
    """The settings that the param groups of one optimizer have, with the optimizer's name."""

    name: str
    known: tuple[str, ...]


@dataclass(frozen=True)
class PairSettings:
    """The settings that the param groups of two optimizers have that share a model.

    Attributes:
        matrices: the optimizer of the hidden matrices.
        rest: the optimizer of all other parameters.
        flattens_kernels: whether the optimizer of the hidden matrices also updates hidden kernels.
    """

    matrices: PartSettings
    rest: PartSettings
    flattens_kernels: bool = False


@dataclass(frozen=True)
class RecipeTrial:
    """The result of trying an optimizer with a recipe.

    Attributes:
        mistakes: what is wrong.
        warning: a key that has no effect; "" if there is none.
        pair: the settings of both parts; None for an optimizer of all parameters, or one that fails.
    """

    mistakes: tuple[RecipeMistake, ...] = ()
    warning: str = ""
    pair: PairSettings | None = None
