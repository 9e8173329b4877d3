"""Draw figures as PNG and SVG with matplotlib."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from xbench.report.figure import Figure, Series, shorten_labels
from xbench.text import escape_controls, shorten, shorten_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

FORMATS = ("png", "svg")
PNG_DPI = 150

# The palette of Okabe and Ito (2008), which people with colour blindness can tell apart. Its yellow is too
# pale for lines on white paper; grey stands in for it.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*")
# Fills may be paler than lines; the first is for what all bars have in common.
_FILLS = ("#D0D0D0", "#0072B2", "#56B4E9", "#009E73", "#F0E442", "#E69F00", "#D55E00", "#CC79A7")
_HATCHES = ("", "///", "\\\\\\", "...", "xxx", "---", "+++", "ooo")

# A logarithmic axis that spans less has ticks at 1, 2 and 5 times each power of ten.
_MAX_NARROW_RATIO = 500

_SIZE_INCHES = (7.0, 4.4)
_MAX_LEGEND_ROWS = 16
_NAME_WIDTH = 30
# Names of bars are horizontal as long as they take few lines, and their lines have fewer characters in all;
# otherwise they are tilted, and upright if there are many.
_MAX_TICK_LINES, _TICK_WIDTH, _MAX_TICK_CHARS = 3, 16, 70
_MAX_TILTED, _TILTED_WIDTH = 10, 32
_MAX_TEXT_CHARS = 1200
# Lines with fewer points than this have a marker at each point, others a few along the line.
_MAX_MARKED_POINTS = 30
_MARKERS_ALONG_LINE = 8
# Lines with more points are thin, because they are noisy.
_MAX_THICK_POINTS = 500

_STYLE: dict[str, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "font.size": 9,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.3,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "xbench",
    # Names in records may contain dollar signs, which would start a formula.
    "text.parse_math": False,
}


def draw_figure(figure: Figure) -> dict[str, bytes]:
    """Draw a figure.

    Returns:
        `"png"` and `"svg"`, each with the content of a file.
    """
    with _matplotlib():
        canvas = _make_canvas(figure)
        return {form: _save(canvas, form) for form in FORMATS}


def make_canvas(figure: Figure) -> Canvas:
    """Draw a figure as a figure of matplotlib, which notebooks show as a picture."""
    with _matplotlib():
        canvas = _make_canvas(figure)
    # IPython shows figures itself only once pyplot has been imported.
    canvas._repr_png_ = partial(_make_png, canvas)  # type: ignore[attr-defined]
    return canvas


def _make_png(canvas: Canvas) -> bytes:
    with _matplotlib():
        return _save(canvas, "png")


@contextmanager
def _matplotlib() -> Iterator[None]:
    """Use matplotlib's own style, whatever the user's `matplotlibrc` says, and restore theirs afterwards."""
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # drawn as a box
        yield


def _save(canvas: Canvas, form: str) -> bytes:
    buffer = io.BytesIO()
    # Without a date and a version, the same records give the same file.
    metadata = {"Date": None, "Creator": "xbench"} if form == "svg" else {"Software": "xbench"}
    canvas.savefig(buffer, format=form, dpi=PNG_DPI, bbox_inches="tight", metadata=metadata)
    return buffer.getvalue()


def _make_canvas(figure: Figure) -> Canvas:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    figure = shorten_labels(figure)
    canvas = Canvas(figsize=_SIZE_INCHES)
    FigureCanvasAgg(canvas)
    axes = canvas.add_axes((0.1, 0.14, 0.85, 0.7))
    draw = {"lines": _draw_lines, "points": _draw_points, "stacked-bars": _draw_bars}[figure.kind]
    draw(axes, figure)
    _set_axes(axes, figure)
    _draw_limit(axes, figure)
    _draw_x_limit(axes, figure)
    _draw_texts(axes, figure)
    _draw_legend(axes, figure)
    return canvas


def _clean(text: str) -> str:
    return shorten(escape_controls(text), _MAX_TEXT_CHARS)


def _wrap(text: str, width: int) -> str:
    return textwrap.fill(_clean(text), width)


def _wrap_name(name: str) -> str:
    """Wrap a name for the legend. The first character of a label must not be an underscore, which would hide
    it there."""
    wrapped = textwrap.fill(name, _NAME_WIDTH)
    return f" {wrapped}" if wrapped.startswith("_") else wrapped


def _pick(place: int) -> tuple[str, Any, str]:
    """Pick a colour, dashes and a marker, which differ for the first few dozen series."""
    turn = place // len(COLOURS)
    return (
        COLOURS[place % len(COLOURS)],
        _DASHES[(place + turn) % len(_DASHES)],
        _MARKERS[place % len(_MARKERS)],
    )


def _place(series: Sequence[Series]) -> Iterator[tuple[int, Series]]:
    """Yield each series with its place in the palette."""
    for index, one in enumerate(series):
        yield index if one.place is None else one.place, one


def _draw_lines(axes: Axes, figure: Figure) -> None:
    for place, line in _place(figure.series):
        colour, dashes, marker = _pick(place)
        axes.plot(
            line.x,
            line.y,
            color=colour,
            linestyle=dashes,
            linewidth=1.5 if len(line.x) <= _MAX_THICK_POINTS else 0.8,
            marker=marker,
            markersize=4.5,
            markevery=max(1, len(line.x) // _MARKERS_ALONG_LINE) if len(line.x) > _MAX_MARKED_POINTS else 1,
            markerfacecolor=colour if line.is_ranked else "white",
            label=_wrap_name(line.name),
        )
        if line.low:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)


def _draw_points(axes: Axes, figure: Figure) -> None:
    if figure.front is not None:
        axes.plot(
            figure.front.x,
            figure.front.y,
            drawstyle="steps-post",
            color="0.6",
            linewidth=1.2,
            marker="o",
            markersize=13,
            markerfacecolor="none",
            label=figure.front.name,
        )
    for place, points in _place(figure.series):
        colour, _, marker = _pick(place)
        if points.mark != "dot":
            _draw_mark(axes, points, colour)
            continue
        axes.errorbar(
            points.x,
            points.y,
            yerr=_measure_errors(points),
            color=colour,
            linestyle="none",
            marker=marker,
            markersize=7,
            markerfacecolor=colour if points.is_ranked else "none",
            elinewidth=1,
            capsize=3,
            label=_wrap_name(points.name),
        )


def _draw_mark(axes: Axes, points: Series, colour: str) -> None:
    """Draw rings around points of other series, or crosses at a height of the plot."""
    is_ring = points.mark == "ring"
    axes.plot(
        points.x,
        points.y,
        linestyle="none",
        marker="o" if is_ring else "x",
        markersize=13 if is_ring else 7,
        markerfacecolor="none",
        color="0.25" if is_ring else colour,
        transform=axes.transData if is_ring else axes.get_xaxis_transform(),
        label=_wrap_name(points.name),
    )


def _measure_errors(points: Series) -> list[list[float]] | None:
    if not points.low:
        return None
    below = [y - low for y, low in zip(points.y, points.low, strict=True)]
    return [below, [high - y for y, high in zip(points.y, points.high, strict=True)]]


def _draw_bars(axes: Axes, figure: Figure) -> None:
    names = list(dict.fromkeys(str(x) for layer in figure.series for x in layer.x))
    bottoms = dict.fromkeys(names, 0.0)
    for place, layer in _place(figure.series):
        axes.bar(
            [names.index(str(x)) for x in layer.x],
            layer.y,
            bottom=[bottoms[str(x)] for x in layer.x],
            width=0.65,
            color=_FILLS[place % len(_FILLS)],
            hatch=_HATCHES[place % len(_HATCHES)],
            edgecolor="0.2",
            linewidth=0.4,
            label=_wrap_name(layer.name),
        )
        for x, y in zip(layer.x, layer.y, strict=True):
            bottoms[str(x)] += y
    for place, name in enumerate(names):
        axes.annotate(
            _format_number(bottoms[name]),
            (place, bottoms[name]),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
        )
    wrapped = [textwrap.wrap(name, _TICK_WIDTH) or [""] for name in names]
    is_crowded = (
        max(map(len, wrapped), default=0) > _MAX_TICK_LINES
        or sum(max(map(len, lines)) for lines in wrapped) > _MAX_TICK_CHARS
    )
    axes.set_xticks(
        range(len(names)),
        shorten_names(names, _TILTED_WIDTH) if is_crowded else ["\n".join(lines) for lines in wrapped],
        rotation=(90 if len(names) > _MAX_TILTED else 40) if is_crowded else 0,
        ha="right" if is_crowded else "center",
        va="center" if is_crowded else "top",
        rotation_mode="anchor",
    )
    axes.set_xlim(-0.6, max(len(names), 3) - 0.4)
    axes.grid(axis="x", visible=False)


def _format_number(value: float) -> str:
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _format_tick(value: float, _: float) -> str:
    """Format a tick of a logarithmic axis: `0.01`, `20`, `5,000`, `1e+07`."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:g}"


def _set_axes(axes: Axes, figure: Figure) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    if figure.kind == "points":
        has_crosses = any(series.mark == "cross" for series in figure.series)
        axes.margins(x=0.08, y=0.25 if has_crosses else 0.08)
    if figure.is_x_whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(_wrap(figure.x_label, 90))
    axes.set_ylabel(_wrap(figure.y_label, 50))
    for axis, is_log, scale in (
        (axes.xaxis, figure.is_x_log, axes.set_xscale),
        (axes.yaxis, figure.is_y_log, axes.set_yscale),
    ):
        if is_log:
            scale("log")
            low, high = axis.get_view_interval()
            if high < _MAX_NARROW_RATIO * low:
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(_format_tick)
            axis.set_minor_formatter(NullFormatter())
        elif figure.kind != "stacked-bars" and max(map(abs, axis.get_view_interval())) >= 10_000:
            axis.set_major_formatter("{x:,.0f}")
    if figure.kind == "stacked-bars":
        axes.set_ylim(0, 1.12 * figure.highest or 1)


def _draw_limit(axes: Axes, figure: Figure) -> None:
    if figure.limit is None:
        return
    value, label = figure.limit
    if figure.is_limit_in_view:
        axes.axhline(value, color="black", linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(
            _clean(label),
            (0, value),
            xycoords=("axes fraction", "data"),
            xytext=(4, 3),
            textcoords="offset points",
            ha="left",
            fontsize=8,
        )
        axes.set_ylim(top=max(axes.get_ylim()[1], 1.1 * value))
    else:
        axes.annotate(f"{_clean(label)}, far above", (1, 1), xycoords="axes fraction", ha="right", fontsize=8)


def _draw_x_limit(axes: Axes, figure: Figure) -> None:
    if figure.x_limit is None:
        return
    value, label = figure.x_limit
    if figure.is_x_limit_in_view:
        axes.axvline(value, color="black", linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(
            _clean(label),
            (value, 0),
            xycoords=("data", "axes fraction"),
            xytext=(-3, 4),
            textcoords="offset points",
            ha="right",
            va="bottom",
            rotation=90,
            fontsize=8,
        )
    else:
        axes.annotate(
            f"{_clean(label)}, far to the right", (1, 0.01), xycoords="axes fraction", ha="right", fontsize=8
        )


def _draw_texts(axes: Axes, figure: Figure) -> None:
    """Write the warning, the title and the subtitle above the axes, and the note below everything else."""
    height = 8.0  # points above the axes
    for text, width, size, look in (
        (figure.subtitle, 95, 9, {"color": "0.35"}),
        (figure.title, 70, 12, {"weight": "bold"}),
        (figure.warning, 80, 9, {"color": "white", "weight": "bold", "bbox": _WARNING_BOX}),
    ):
        if not text:
            continue
        wrapped = _wrap(text, width)
        at: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
        place = (0, height + (6 if "bbox" in look else 0))
        axes.annotate(wrapped, (0, 1), xytext=place, ha="left", va="bottom", fontsize=size, **at, **look)
        height += (wrapped.count("\n") + 1) * size * 1.25 + 3
    canvas = axes.get_figure(root=True)
    below = axes.get_tightbbox()
    if figure.note and canvas is not None and below is not None:
        left, bottom = canvas.transFigure.inverted().transform((axes.bbox.x0, below.y0))
        canvas.text(left, bottom - 0.02, _wrap(figure.note, 110), va="top", fontsize=7.5, color="0.35")


_WARNING_BOX = {"facecolor": "#A40000", "edgecolor": "none", "boxstyle": "square,pad=0.4"}


def _draw_legend(axes: Axes, figure: Figure) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if figure.kind == "stacked-bars":  # in the order in which the layers lie on each other
        handles, labels = handles[::-1], labels[::-1]
    elif figure.kind == "points":  # matplotlib lists points with error bars last
        places = {_wrap_name(series.name): place for place, series in enumerate(figure.series)}
        order = sorted(range(len(labels)), key=lambda index: places.get(labels[index], -1))
        handles, labels = [handles[index] for index in order], [labels[index] for index in order]
    axes.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        ncols=max(1, math.ceil(len(labels) / _MAX_LEGEND_ROWS)),
        fontsize=8,
        handlelength=3.2 if figure.kind == "lines" else 1.8,
        labelspacing=0.7,
    )
