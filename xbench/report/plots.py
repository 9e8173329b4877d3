"""Turn a figure into an interactive plot: the JSON that plotly.js draws."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from xbench.report.figure import Figure, Series, shorten_labels
from xbench.report.plot_marks import make_cross_axes, make_mark
from xbench.text import escape_controls, shorten

# The colours of Okabe and Ito, "Color Universal Design" (2008), which colour-blind people can tell apart.
# Black is left out: it would not be visible on a dark page.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")

# Readable on white and on black (a contrast of 4.5 to 1 with either).
_GREY = "#767676"
_GRID = "rgba(128,128,128,0.25)"
_CLEAR = "rgba(0,0,0,0)"
_WARNING_BACKGROUND, _WARNING_TEXT = "#A34700", "#FFFFFF"

# Series beyond the last colour differ in these.
_DASHES = ("solid", "dash", "dot", "dashdot")
_PATTERNS = ("", "/", "x", ".")
_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "triangle-down", "star")

# Lines with more points have no markers, and more points have their labels only on hover.
_MAX_MARKED = 20
_MAX_LABELLED = 12

# A line of a warning fits a plot on a phone.
_WARNING_CHARS = 34
_WARNING_LINE_PX = 17
# Room below a warning for the label of a limit.
_WARNING_GAP_PX = 16
_TITLE_PX = 40

_HOVER = "%{xaxis.title.text}: %{x}<br>%{yaxis.title.text}: %{y:.4~g}<extra>%{fullData.name}</extra>"
_HOVER_LABEL = "<b>%{text}</b><br>" + _HOVER


def to_plotly(figure: Figure, has_title: bool = True) -> dict[str, Any]:
    """Make a plotly figure as JSON values: `{"data": [...], "layout": {...}}`.

    The background is transparent, and the text is readable on white and on black. Text of the figure is shown
    literally. Values that are not finite are left out.

    Args:
        has_title: whether to draw the figure's title.
    """
    figure = shorten_labels(figure)
    draw = _DRAW[figure.kind]
    traces = [
        trace
        for index, series in enumerate(figure.series)
        for trace in draw(figure, series, index if series.place is None else series.place)
    ]
    if figure.front is not None:
        traces.append(_draw_front(figure.front))
    return {"data": traces, "layout": _lay_out(figure, has_title)}


def _draw_lines(figure: Figure, series: Series, index: int) -> list[dict[str, Any]]:
    colour, name = COLOURS[index % len(COLOURS)], _literal(series.name)
    line = {
        "type": "scatter",
        "mode": "lines+markers" if len(series.x) <= _MAX_MARKED else "lines",
        "name": name,
        "legendgroup": str(index),
        "x": _positions(series.x),
        "y": _numbers(series.y),
        "line": {"color": colour, "width": 2, "dash": _DASHES[index // len(COLOURS) % len(_DASHES)]},
        "marker": {"color": colour, "symbol": _choose_symbol(series, index), "size": 7},
        "hovertemplate": _HOVER,
        **_make_labels(series),
    }
    return [*_draw_band(figure, series, index), line]


def _draw_band(figure: Figure, series: Series, index: int) -> list[dict[str, Any]]:
    """Draw the band around a line as one outline, there and back."""
    points = zip(series.x, series.low, series.high, strict=False)
    ends = [(x, low, high) for x, low, high in points if math.isfinite(low) and math.isfinite(high)]
    if figure.is_y_log:
        floor = min((y for y in series.y if y > 0), default=1.0) / 10
        ends = [(x, max(low, floor), high) for x, low, high in ends if high > 0]
    if not ends:
        return []
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "legendgroup": str(index),
            "showlegend": False,
            "hoverinfo": "skip",
            "x": _positions([*(x for x, _, _ in ends), *(x for x, _, _ in reversed(ends))]),
            "y": [*(low for _, low, _ in ends), *(high for _, _, high in reversed(ends))],
            "fill": "toself",
            "fillcolor": _make_clear(COLOURS[index % len(COLOURS)]),
            "line": {"width": 0},
        }
    ]


def _draw_points(figure: Figure, series: Series, index: int) -> list[dict[str, Any]]:
    if series.mark != "dot":
        colour = COLOURS[index % len(COLOURS)]
        return [
            {
                "type": "scatter",
                "mode": "markers",
                "name": _literal(series.name),
                "x": _positions(series.x),
                "y": _numbers(series.y),
                **_make_labels(series),
                **make_mark(series.mark, colour, bool(series.labels)),
            }
        ]
    has_marks = any(each.mark != "dot" for each in figure.series)
    shows_text = not has_marks and sum(len(each.x) for each in figure.series) <= _MAX_LABELLED
    return [
        {
            "type": "scatter",
            "mode": "markers+text" if series.labels and shows_text else "markers",
            "name": _literal(series.name),
            "x": _positions(series.x),
            "y": _numbers(series.y),
            "marker": {
                "color": COLOURS[index % len(COLOURS)],
                "symbol": _choose_symbol(series, index),
                "size": 10,
                "line": {"width": 1, "color": _GREY},
            },
            "hovertemplate": _HOVER,
            **_make_labels(series),
            **({"textposition": _place_labels(figure, series), "cliponaxis": False} if shows_text else {}),
            **_make_errors(series),
        }
    ]


def _draw_bars(figure: Figure, series: Series, index: int) -> list[dict[str, Any]]:
    return [
        {
            "type": "bar",
            "name": _literal(series.name),
            "x": _positions(series.x),
            "y": _numbers(series.y),
            "marker": {
                "color": COLOURS[index % len(COLOURS)],
                "pattern": {"shape": _PATTERNS[index // len(COLOURS) % len(_PATTERNS)]},
            },
            "hovertemplate": _HOVER,
            **_make_labels(series),
            **_make_errors(series),
        }
    ]


_DRAW: dict[str, Callable[[Figure, Series, int], list[dict[str, Any]]]] = {
    "lines": _draw_lines,
    "points": _draw_points,
    "stacked-bars": _draw_bars,
}


def _choose_symbol(series: Series, index: int) -> str:
    """Choose a marker, which is hollow if the series must not be ranked."""
    return f"{_SYMBOLS[index % len(_SYMBOLS)]}{'' if series.is_ranked else '-open'}"


def _draw_front(front: Series) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": _literal(front.name),
        "x": _positions(front.x),
        "y": _numbers(front.y),
        "line": {"color": _GREY, "width": 1.5, "dash": "dash", "shape": "hv"},
        "hovertemplate": _HOVER,
    }


def _lay_out(figure: Figure, has_title: bool) -> dict[str, Any]:
    warning = _wrap(figure.warning)
    warning_px = _WARNING_LINE_PX * len(warning) + _WARNING_GAP_PX + 4 if warning else 0
    layout: dict[str, Any] = {
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR,
        "font": {"color": _GREY, "family": "system-ui, sans-serif", "size": 12},
        "colorway": list(COLOURS),
        "barmode": "stack",
        "hovermode": "closest",
        "showlegend": True,
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
            "traceorder": "normal",
        },
        "margin": {"l": 60, "r": 16, "t": 16 + warning_px + (_TITLE_PX if has_title else 0), "b": 60},
        "modebar": {"bgcolor": _CLEAR, "color": _GREY, "activecolor": COLOURS[0]},
        "xaxis": _make_axis(figure.x_label, figure.is_x_log, _has_names(figure)),
        "yaxis": _make_axis(figure.y_label, figure.is_y_log),
        "shapes": [
            *([_make_limit(figure.limit[0])] if figure.limit and figure.is_limit_in_view else []),
            *([_make_x_limit(figure.x_limit[0])] if figure.x_limit and figure.is_x_limit_in_view else []),
        ],
        "annotations": [
            *([_make_x_limit_label(figure, *figure.x_limit)] if figure.x_limit else []),
            *([_make_limit_label(figure, *figure.limit)] if figure.limit else []),
            *([_make_warning(warning)] if warning else []),
        ],
    }
    if figure.is_x_whole:
        layout["xaxis"]["dtick"] = _choose_whole_step(figure)
    for name, settings in make_cross_axes(figure).items():
        layout[name] = layout.get(name, {}) | settings
    if has_title:
        layout["title"] = {
            "text": _literal(figure.title),
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 14},
            "font": {"size": 15},
        }
    return layout


def _choose_whole_step(figure: Figure) -> int:
    """Choose a whole distance of ticks, of which there are about ten."""
    known = [x for series in figure.series for x in series.x if not isinstance(x, str) and math.isfinite(x)]
    return max(1, math.ceil((max(known, default=0) - min(known, default=0)) / 10))


def _has_names(figure: Figure) -> bool:
    return any(isinstance(x, str) for series in figure.series for x in series.x)


def _make_axis(label: str, is_log: bool, has_names: bool = False) -> dict[str, Any]:
    return {
        # Without a type, plotly would take names such as "1e-3" or "2026-01" for numbers and dates.
        "type": "category" if has_names else "log" if is_log else "linear",
        "title": {"text": _literal(label), "standoff": 8},
        "automargin": True,
        "gridcolor": _GRID,
        "linecolor": _GREY,
        "zeroline": False,
        # Without a format, plotly writes bare digits between the powers of ten.
        **({"tickformat": "~g"} if is_log and not has_names else {}),
    }


def _make_limit(value: float) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "yref": "y",
        "y0": value,
        "y1": value,
        "line": {"color": COLOURS[3], "width": 1.5, "dash": "dash"},
    }


def _make_limit_label(figure: Figure, value: float, label: str) -> dict[str, Any]:
    """Label the line of a limit above its right end, or above the plot if the line is not drawn.

    An annotation is not cut off at the top of the plot.
    """
    place: dict[str, Any] = {"yref": "paper", "y": 1}
    if figure.is_limit_in_view:
        # Plotly takes the exponent here, unlike for the line.
        place = {"yref": "y", "y": math.log10(value) if figure.is_y_log else value}
    return {
        **place,
        "text": _literal(label),
        "showarrow": False,
        "xref": "paper",
        "x": 1,
        "xanchor": "right",
        "yanchor": "bottom",
        "borderpad": 0,
    }


def _make_x_limit(value: float) -> dict[str, Any]:
    place = {"xref": "x", "x0": value, "x1": value, "yref": "paper", "y0": 0, "y1": 1}
    return {**_make_limit(value), **place}


def _make_x_limit_label(figure: Figure, value: float, label: str) -> dict[str, Any]:
    """Label the line of a limit beside its lower end, or the right end of the axis if it is not drawn."""
    place: dict[str, Any] = {"xref": "paper", "x": 1}
    if figure.is_x_limit_in_view:
        place = {"xref": "x", "x": math.log10(value) if figure.is_x_log else value, "textangle": -90}
    return {
        **place,
        "text": _literal(label),
        "showarrow": False,
        "xanchor": "right",
        "yref": "paper",
        "y": 0,
        "yanchor": "bottom",
        "borderpad": 2,
    }


def _make_warning(lines: Sequence[str]) -> dict[str, Any]:
    return {
        "text": "<br>".join(f"<b>{line}</b>" for line in lines),
        "showarrow": False,
        "align": "left",
        "xref": "paper",
        "x": 0,
        "xanchor": "left",
        "yref": "paper",
        "y": 1,
        "yanchor": "bottom",
        "yshift": _WARNING_GAP_PX,
        "borderpad": 4,
        "bgcolor": _WARNING_BACKGROUND,
        "font": {"color": _WARNING_TEXT, "size": 12},
    }


def _wrap(text: str) -> list[str]:
    return [_literal(line) for line in textwrap.wrap(escape_controls(text), _WARNING_CHARS)]


def _make_labels(series: Series) -> dict[str, Any]:
    if not series.labels:
        return {}
    return {"text": [_literal(label) for label in series.labels], "hovertemplate": _HOVER_LABEL}


def _place_labels(figure: Figure, series: Series) -> list[str]:
    """Place labels beside their points, towards the middle of the plot: error bars are above and below."""
    known = [x for each in figure.series for x in each.x if not isinstance(x, str) and math.isfinite(x)]
    low, high = min(known, default=0), max(known, default=0)
    middle = math.sqrt(low * high) if figure.is_x_log and low > 0 else (low + high) / 2
    return ["middle left" if not isinstance(x, str) and x > middle else "middle right" for x in series.x]


def _make_errors(series: Series) -> dict[str, Any]:
    if not series.low or not series.high:
        return {}
    above = [high - y for y, high in zip(series.y, series.high, strict=True)]
    below = [y - low for y, low in zip(series.y, series.low, strict=True)]
    return {
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": _numbers(above),
            "arrayminus": _numbers(below),
            "thickness": 1.5,
            "color": _GREY,
        }
    }


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _positions(values: Sequence[float | str]) -> list[float | str | None]:
    return [
        _escape(value) if isinstance(value, str) else value if math.isfinite(value) else None
        for value in values
    ]


def _literal(text: str) -> str:
    return _escape(shorten(text))


def _escape(text: str) -> str:
    """Escape text that plotly would otherwise take for its own small HTML."""
    return escape_controls(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _make_clear(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.2)"
