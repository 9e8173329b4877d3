"""The contents of a figure, before a renderer draws it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from xbench.text import escape_controls, shorten_names

# A limit more than this many times as high as everything else is written down instead of drawn: to scale, it
# would leave no room for the rest.
MAX_LIMIT_RATIO = 3.0

# Longer names of series, points and bars are cut in the middle.
MAX_LABEL_CHARS = 80

_MAX_FILE_NAME_CHARS = 80


@dataclass(frozen=True)
class Series:
    """Values of a figure that belong together, such as those of one optimizer.

    Attributes:
        x: positions; names in a bar chart.
        y: values.
        low, high: ends of a band (in `"lines"`) or of error bars (in `"points"`) around `y`; empty for none.
        labels: a label for each point; empty for none.
        is_ranked: whether the values may be compared with those of other series. Renderers draw a series that
            is not ranked with hollow markers.
        place: place in the palette, which is the same in all figures of an experiment; by default the index
            of the series.
        mark: how `"points"` are drawn: `"ring"` around points of other series, and `"cross"` for points
            without a value, whose `y` is a part of the height of the plot, 0 to 1.
    """

    name: str
    x: tuple[float | str, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    is_ranked: bool = True
    place: int | None = None
    mark: Literal["dot", "ring", "cross"] = "dot"


@dataclass(frozen=True)
class Figure:
    """What one figure of an experiment shows.

    Attributes:
        key: the figure's name in files and in Python, such as `"loss-steps"`.
        experiment: the name of its experiment.
        subtitle: the title of its experiment.
        kind: `"lines"`, `"stacked-bars"` (a series is a layer) or `"points"`.
        x_label, y_label: titles of the axes, with units.
        warning: what must stand in the picture, such as that the data is a stand-in; "" for nothing.
        note: how to read the figure.
        limit: the value of a horizontal line, with its label.
        is_x_whole: whether only whole numbers have ticks on the x axis.
        x_limit: the value of a vertical line, with its label.
        front: the points of the Pareto front, from left to right; None without one. Between two points the
            front stays at the value of the left one.
    """

    key: str
    experiment: str
    title: str
    kind: Literal["lines", "stacked-bars", "points"]
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    is_x_log: bool = False
    is_y_log: bool = False
    is_x_whole: bool = False
    warning: str = ""
    note: str = ""
    limit: tuple[float, str] | None = None
    front: Series | None = None
    subtitle: str = ""
    x_limit: tuple[float, str] | None = None

    @property
    def highest(self) -> float:
        """The highest value that is drawn, without the limit; 0 if there is none."""
        if self.kind == "stacked-bars":
            totals: dict[float | str, float] = {}
            for layer in self.series:
                for x, y in zip(layer.x, layer.y, strict=True):
                    totals[x] = totals.get(x, 0.0) + y
            return max(totals.values(), default=0.0)
        values = (y for s in self.series if s.mark != "cross" for y in (*s.y, *s.high))
        return max(values, default=0.0)

    @property
    def is_limit_in_view(self) -> bool:
        """Whether the limit is drawn to scale; otherwise its label is all that fits."""
        return self.limit is not None and self.limit[0] <= MAX_LIMIT_RATIO * self.highest

    @property
    def is_x_limit_in_view(self) -> bool:
        """Whether the limit of the horizontal axis is drawn to scale; otherwise only its label is."""
        furthest = max((x for series in self.series for x in series.x if not isinstance(x, str)), default=0.0)
        return self.x_limit is not None and self.x_limit[0] <= MAX_LIMIT_RATIO * furthest


def shorten_labels(figure: Figure) -> Figure:
    """Escape control characters in the names of series, points and bars, and cut long names to
    `MAX_LABEL_CHARS`. Different names stay different, and a name is the same wherever it occurs."""
    lines = [*figure.series, *([figure.front] if figure.front else [])]
    names = dict.fromkeys(
        text
        for line in lines
        for text in (line.name, *line.labels, *(x for x in line.x if isinstance(x, str)))
    )
    short = shorten_names([escape_controls(name) for name in names], MAX_LABEL_CHARS)
    shown = dict(zip(names, short, strict=True))

    def rename(line: Series) -> Series:
        xs = tuple(shown[x] if isinstance(x, str) else x for x in line.x)
        return replace(line, name=shown[line.name], x=xs, labels=tuple(shown[text] for text in line.labels))

    return replace(
        figure,
        series=tuple(map(rename, figure.series)),
        front=None if figure.front is None else rename(figure.front),
    )


def name_figures(figures: Sequence[Figure]) -> tuple[str, ...]:
    """Give each figure a distinct file name without an ending, such as `"table-2-loss-steps"`."""
    names: list[str] = []
    for figure in figures:
        parts = filter(None, (figure.experiment, figure.key))
        plain = (
            re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower())[-_MAX_FILE_NAME_CHARS:].strip("-") or "figure"
        )
        name, number = plain, 2
        while name in names:
            name, number = f"{plain}-{number}", number + 1
        names.append(name)
    return tuple(names)
