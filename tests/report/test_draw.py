"""Figures become PNG and SVG files that show what is in them, and nothing that a name smuggles in."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from PIL import Image

from xbench.report.draw import COLOURS, _make_canvas, _matplotlib, _pick, _save, draw_figure
from xbench.report.figure import Figure, Series

LINES = Figure(
    key="loss-steps",
    experiment="first",
    title="Training loss against steps",
    subtitle="First",
    kind="lines",
    x_label="steps",
    y_label="training loss (nats)",
    series=(
        Series("sgd", (1.0, 2.0, 3.0), (3.0, 2.0, 1.0), (2.0, 1.0, 0.5), (4.0, 3.0, 2.0)),
        Series("adam", (1.0,), (2.0,)),
    ),
    note="How to read it.",
)
POINTS = Figure(
    key="metric-time",
    experiment="first",
    title="Test accuracy against training time",
    kind="points",
    x_label="training time (s)",
    y_label="test accuracy",
    series=(
        Series("sgd", (10.0,), (0.8,), (0.7,), (0.9,)),
        Series("adam *", (30.0,), (0.9,), is_ranked=False),
    ),
    front=Series("Pareto front", (10.0,), (0.8,)),
)
BARS = Figure(
    key="memory",
    experiment="first",
    title="Peak memory",
    kind="stacked-bars",
    x_label="optimizer",
    y_label="memory (GB)",
    series=(
        Series("process", ("sgd", "adam"), (0.4, 0.4)),
        Series("activations", ("sgd", "adam"), (0.8, 0.9)),
    ),
    limit=(1.5, "limit: 1.50 GB"),
)
KINDS = [pytest.param(figure, id=figure.kind) for figure in (LINES, POINTS, BARS)]


def texts_of(figure: Figure) -> list[str]:
    """All texts of the SVG file, in lines as they are drawn."""
    with _matplotlib():  # the picture is not needed
        root = ElementTree.fromstring(_save(_make_canvas(figure), "svg"))
    return ["".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("figure", KINDS)
def test_the_png_is_a_picture(figure):
    with Image.open(io.BytesIO(draw_figure(figure)["png"])) as picture:
        assert picture.format == "PNG"
        assert picture.width > 900 and picture.height > 500
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 10


@pytest.mark.parametrize("figure", KINDS)
def test_the_svg_holds_its_texts(figure):
    texts = texts_of(figure)
    for text in (figure.title, figure.x_label, figure.y_label, *(series.name for series in figure.series)):
        assert text in texts


def test_the_note_and_the_subtitle_are_in_the_picture():
    assert {"First", "How to read it."} <= set(texts_of(LINES))


@pytest.mark.parametrize("figure", KINDS)
def test_the_warning_is_in_the_picture(figure):
    warning = "STAND-IN DATA: made-up images"
    assert warning not in texts_of(figure)
    assert warning in texts_of(replace(figure, warning=warning))


def test_bars_carry_their_totals_and_the_limit():
    assert {"sgd", "adam", "1.2", "1.3", "limit: 1.50 GB"} <= set(texts_of(BARS))


def test_a_limit_out_of_view_is_written_down():
    assert "limit: 9.00 GB, far above" in texts_of(replace(BARS, limit=(9.0, "limit: 9.00 GB")))


def test_the_front_is_in_the_legend():
    assert "Pareto front" in texts_of(POINTS)
    assert "Pareto front" not in texts_of(replace(POINTS, front=None))


def test_logarithmic_axes_have_plain_numbers():
    line = Series("sgd", (1.0, 10_000.0, 10_000_000.0), (0.02, 0.1, 3.0))
    texts = texts_of(replace(LINES, series=(line,), is_x_log=True, is_y_log=True))
    assert {"10,000", "1e+06", "0.02", "0.1", "0.5", "2"} <= set(texts)
    assert not any("$" in text or "mathdefault" in text for text in texts)


@pytest.mark.parametrize(
    "name", ["$x^2$", r"\$x\$", "a & <b>", "_hidden", "\\frac{1}{2}", "$\\undefined{", "100%", "{0}"]
)
@pytest.mark.parametrize("figure", KINDS)
def test_names_are_drawn_as_they_are(figure, name):
    series = (replace(figure.series[0], name=name), *figure.series[1:])
    assert name in texts_of(replace(figure, series=series, title=name, note=name, warning=name))


def test_names_of_bars_are_drawn_as_they_are():
    assert "$x_1$" in texts_of(replace(BARS, series=(Series("process", ("$x_1$",), (1.0,)),)))


@pytest.mark.parametrize("count", [2, 12], ids=["tilted", "upright"])
def test_bars_with_long_names_that_are_alike_have_different_labels(count):
    names = tuple(f"adamw lr=0.001 weight_decay=0.{number:02} betas=[0.9, 0.999]" for number in range(count))
    texts = texts_of(replace(BARS, series=(Series("process", names, (1.0,) * count),)))
    labels = [text for text in texts if text.startswith("adamw")]
    assert len(set(labels)) == len(labels) == count
    assert max(map(len, labels)) <= 32


def test_series_with_long_names_that_are_alike_have_different_labels():
    names = [f"{'a' * 60} lr={rate} {'b' * 60}" for rate in (0.1, 0.2)]
    series = tuple(Series(name, (1.0,), (1.0,)) for name in names)
    text = " ".join(texts_of(replace(LINES, series=series)))
    assert text.count("lr=0.1") == text.count("lr=0.2") == 1 and "b" * 60 not in text


def test_control_characters_are_escaped():
    assert "\\x1b[31mred\\x00" in texts_of(replace(LINES, title="\x1b[31mred\x00"))
    assert "\\ud800" in texts_of(replace(LINES, subtitle="\ud800"))


def test_characters_that_the_font_lacks_are_no_trouble():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "优化器" in texts_of(replace(LINES, title="优化器"))


def test_long_texts_are_shortened():
    long = replace(
        LINES, title="x " * 5000, note="y " * 5000, series=(replace(LINES.series[0], name="z " * 5000),)
    )
    assert sum(map(len, texts_of(long))) < 4000


def test_the_same_figure_gives_the_same_files():
    assert draw_figure(LINES) == draw_figure(LINES)


def test_settings_of_matplotlib_are_neither_used_nor_changed():
    import matplotlib

    own = {"text.parse_math": True, "svg.fonttype": "path", "figure.facecolor": "red"}
    plain = draw_figure(LINES)
    with matplotlib.rc_context(own):
        assert draw_figure(LINES) == plain
        assert {key: matplotlib.rcParams[key] for key in own} == own


def test_pyplot_is_not_needed():
    code = (
        "import sys\n"
        "from xbench.report.draw import draw_figure\n"
        "from xbench.report.figure import Figure\n"
        "draw_figure(Figure('key', 'first', 'title', 'lines', 'x', 'y', ()))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dozens_of_series_look_different():
    looks = [_pick(place) for place in range(32)]
    assert len({(colour, str(dashes)) for colour, dashes, _ in looks}) == 32
    assert len({colour for colour, _, _ in looks}) == len(COLOURS)


def test_many_series_and_bars_can_be_drawn():
    names = tuple(f"optimizer {number}" for number in range(24))
    lines = replace(LINES, series=tuple(Series(name, (1.0, 2.0), (1.0, 2.0)) for name in names))
    assert set(names) <= set(texts_of(lines))
    bars = replace(BARS, series=(Series("process", names, tuple(range(1, 25))),))
    assert set(names) <= set(texts_of(bars))
