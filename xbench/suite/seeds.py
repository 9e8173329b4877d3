"""Read the key `seeds` of a suite: a number, a list, or a table whose parts vary apart."""

from __future__ import annotations

import itertools
import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from xbench.training.settings import SeedParts

# A cell takes a second or more: a suite with more cells than these has a mistake in an axis or in `seeds`.
MAX_CELLS = 10_000

# A number of seeds, counted from 0, or the seeds.
Seeds = (
    Annotated[int, Field(strict=True, ge=1, le=MAX_CELLS)]
    | Annotated[list[Annotated[int, Field(strict=True, ge=0)]], Field(min_length=1, max_length=MAX_CELLS)]
)


class SeedTable(BaseModel):
    """Seeds whose parts vary apart. A cell runs once for each combination.

    Attributes:
        weights: the seeds of the initial weights, and of what the model and the optimizer draw in training,
            such as dropout masks.
        split: the seeds of the validation split, and of which training examples are drawn or repeated.
        order: the seeds of the order of examples in each epoch, and so of the batches.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Seeds = Field(default_factory=lambda: [0])
    split: Seeds = Field(default_factory=lambda: [0])
    order: Seeds = Field(default_factory=lambda: [0])

    @field_validator("*")
    @classmethod
    def _check_are_unique(cls, value: int | list[int], info: ValidationInfo) -> int | list[int]:
        check_seeds_are_unique(value, str(info.field_name))
        return value

    @property
    def parts(self) -> list[list[int]]:
        """The seeds of each part."""
        return [list_seeds(part) for part in (self.weights, self.split, self.order)]

    @property
    def combinations(self) -> dict[int, SeedParts]:
        """The combinations by their numbers, from 0; the order of examples varies first."""
        return dict(enumerate(itertools.starmap(SeedParts, itertools.product(*self.parts))))


def list_seeds(seeds: int | list[int]) -> list[int]:
    """List the seeds that a number or a list stands for."""
    return list(range(seeds)) if isinstance(seeds, int) else list(seeds)


def check_seeds(seeds: int | list[int] | SeedTable) -> None:
    """Check that the seeds of a suite are unique, and that there are some, but not too many.

    Raises:
        ValueError: they are not.
    """
    if not isinstance(seeds, SeedTable):
        check_seeds_are_unique(seeds, "seeds")
        return
    if not seeds.model_fields_set:
        raise ValueError("'seeds' names no part: set weights, split or order, or give a number of seeds")
    count = math.prod(map(len, seeds.parts))  # combinations are counted, not made
    if count > MAX_CELLS:
        raise ValueError(f"'seeds' has {count:,} combinations: a suite may have at most {MAX_CELLS:,} cells")


def check_seeds_are_unique(seeds: int | list[int], key: str) -> None:
    """Check that a list of seeds names none twice.

    Raises:
        ValueError: it does.
    """
    if isinstance(seeds, list) and len(set(seeds)) < len(seeds):
        raise ValueError(f"'{key}' lists a seed twice")
