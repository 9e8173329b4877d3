"""Write the notes, titles and labels of figures."""

from __future__ import annotations

from collections.abc import Sequence

from xbench.records.schema import MetricRecord
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


def capitalize(title: str) -> str:
    """Begin a title with a capital, and leave the rest as it is."""
    return title[:1].upper() + title[1:]


def label_metric(metric: MetricRecord) -> str:
    """Label an axis with a metric, its unit and its direction."""
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.title}{unit}, {'higher' if metric.direction == 'max' else 'lower'} is better"
