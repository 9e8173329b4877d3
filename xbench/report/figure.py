"""The contents of a figure, before a renderer draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Series:
    """Values of a figure that belong together, such as those of one optimizer.

    Attributes:
        x: positions; names in a bar chart.
        y: values.
        low, high: ends of a band or of error bars around `y`; empty for none.
        labels: a label for each point; empty for none.
    """

    name: str
    x: tuple[float | str, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """What one figure of an experiment shows.

    Attributes:
        key: the figure's name in files and in Python, such as `"loss-steps"`.
        experiment: the name of its experiment.
        kind: `"lines"`, `"stacked-bars"` (a series is a layer) or `"points"`.
        x_label, y_label: titles of the axes, with units.
        warning: what must stand in the picture, such as that the data is a stand-in; "" for nothing.
        note: how to read the figure.
        limit: the value of a horizontal line, with its label.
        front: the series of points on the Pareto front, as a line; None without one.
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
    warning: str = ""
    note: str = ""
    limit: tuple[float, str] | None = None
    front: Series | None = None
