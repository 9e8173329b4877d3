"""Say which data and which weights are not what their names promise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xbench.records.schema import CellRecord, Component

STAND_IN_DATA = "STAND-IN DATA"


def describe_stand_in_data(name: str, stand_in: str, requested: str = "") -> str:
    """Say that data is made up, or that it ran in place of other data; "" if neither is so.

    Args:
        stand_in: the note of the dataset, see `DataRecord`.
        requested: the dataset that the suite names; by default the same.
    """
    note = f" ({stand_in})" if stand_in else ""
    if requested and name != requested:
        return (
            f"{STAND_IN_DATA}: {name}{note} ran in place of {requested}; "
            f"these figures say nothing about {requested}"
        )
    return f"{STAND_IN_DATA}: {name}{note}" if stand_in else ""


def describe_stand_in_weights(model: Component) -> str:
    """Say that a model's weights are not what its name promises; "" if they are."""
    return f"STAND-IN WEIGHTS: {model.title}" if model.stand_in else ""


def list_stand_ins(records: Iterable[CellRecord]) -> list[str]:
    """Describe each stand-in of these records once."""
    return list(dict.fromkeys(text for record in records for text in _describe(record)))


def _describe(record: CellRecord) -> Iterator[str]:
    data = record.dataset
    if text := describe_stand_in_data(data.name, data.stand_in, data.requested):
        yield text
    if text := describe_stand_in_weights(record.model):
        yield text
