"""Marks of points in interactive plots: rings around points, and crosses for points without a value."""

from __future__ import annotations

import math
from typing import Any, Literal

from xbench.report.figure import Figure

# Readable on white and on black.
_RING = "#767676"

# Room at both ends of an axis with crosses, as a part of the range of its values.
_ROOM = 0.25

_HOVER = "%{xaxis.title.text}: %{x}<extra>%{fullData.name}</extra>"


def make_mark(mark: Literal["ring", "cross"], colour: str, has_labels: bool) -> dict[str, Any]:
    """Make the part of plotly's trace that draws marks."""
    hover = "<b>%{text}</b><br>" + _HOVER if has_labels else _HOVER
    if mark == "ring":
        line = {"width": 2, "color": _RING}
        return {"marker": {"symbol": "circle-open", "size": 18, "line": line}, "hovertemplate": hover}
    line = {"width": 2, "color": colour}
    marker = {"symbol": "x-thin", "size": 9, "color": colour, "line": line}
    return {"marker": marker, "yaxis": "y2", "cliponaxis": False, "hovertemplate": hover}


def make_cross_axes(figure: Figure) -> dict[str, dict[str, Any]]:
    """Make what a plot with crosses needs: an axis for them, from 0 to 1, and room for them on the other one.

    Returns:
        Settings of plotly's axes by the names of these; empty without crosses.
    """
    if all(series.mark != "cross" for series in figure.series):
        return {}
    axes: dict[str, dict[str, Any]] = {
        "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
    }
    values = [y for series in figure.series if series.mark != "cross" for y in series.y]
    shown = [y for y in values if math.isfinite(y) and (y > 0 or not figure.is_y_log)]
    if shown:
        # Plotly takes the exponents of a logarithmic axis.
        low, high = (math.log10(y) if figure.is_y_log else y for y in (min(shown), max(shown)))
        room = _ROOM * ((high - low) or abs(high) or 1)
        axes["yaxis"] = {"range": [low - room, high + room]}
    return axes
