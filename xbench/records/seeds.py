"""The record of a cell's seeds."""

from __future__ import annotations

from typing import Any

from xbench.records.base import Record, Whole


class SeedPartsRecord(Record):
    """The seeds of what is drawn at random for a cell.

    Attributes:
        weights: seed of the initial weights, and of what the model and the optimizer draw in training.
        split: seed of the validation split, and of which training examples are drawn.
        order: seed of the order of examples.
    """

    weights: Whole
    split: Whole
    order: Whole

    @property
    def key(self) -> tuple[int, int, int]:
        return self.weights, self.split, self.order


def make_equal_parts(fields: dict[str, Any]) -> SeedPartsRecord:
    """Return the parts of a record of a version that had only a seed."""
    return SeedPartsRecord(**dict.fromkeys(SeedPartsRecord.model_fields, fields["seed"]))
