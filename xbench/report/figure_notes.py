"""Write the notes and warnings of figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xbench.records.schema import CellRecord
from xbench.report.columns import Column
from xbench.report.document import UNRANKED

_MAX_LISTED = 4


def list_some(items: Sequence[str]) -> str:
    """List a few items and count the rest."""
    more = len(items) - _MAX_LISTED
    listed = "; ".join(items[:_MAX_LISTED])
    return f"{listed}; and {more:,} more" if more > 0 else listed


def join_notes(*notes: str) -> str:
    """Join sentences; empty ones are left out."""
    return " ".join(filter(None, notes))


def note_unranked(columns: Sequence[Column]) -> str:
    """Say which columns' times are not ranked, and why."""
    marked = [f"{column.name}, because {column.unranked_time}" for column in columns if column.unranked_time]
    return f"{UNRANKED} Times that must not be ranked: {list_some(marked)}." if marked else ""


def make_warning(records: Sequence[CellRecord]) -> str:
    """Say in a few words that an experiment's data or weights are stand-ins; "" if they are not."""
    return "; ".join(dict.fromkeys(text for record in records for text in _list_stand_ins(record)))


def _list_stand_ins(record: CellRecord) -> Iterator[str]:
    data, model = record.dataset, record.model
    if data.name != data.requested:
        yield f"STAND-IN DATA: {data.name} ran in place of {data.requested}"
    elif data.stand_in:
        yield f"STAND-IN DATA: {data.name}, {data.stand_in}"
    if model.stand_in:
        yield f"STAND-IN WEIGHTS: {model.name}, {model.stand_in}"
