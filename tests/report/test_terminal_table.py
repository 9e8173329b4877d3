"""Tables of a terminal: they fit it, no name is lost, and no figure is broken."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segments

from xbench.report.document import FormattedTable
from xbench.report.terminal_table import MAX_CELL_WIDTH, lay_out_table

LONG_NAMES = [
    *(f"adamw lr=0.001 weight_decay={decay} betas=[0.9, 0.999]" for decay in (0.1, 0.01, 0.001)),
    *(f"a_name_without_any_space_that_is_longer_than_a_column_{number}" for number in range(4)),
    "图像优化器" * 9,
]
TITLES = ("train accuracy", "  above base", "training time", "micro-batch")
FIGURES = ("0.812 ± 0.025 ★", "1,234,567 MB", "2m 05s ± 8.70 s* (3 of 5 seeds)", "16")
TURNED = FormattedTable(("optimizer", *TITLES), tuple((name, *FIGURES) for name in LONG_NAMES))


def printed(table: FormattedTable, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(Segments(lay_out_table(console, table, " ★")), soft_wrap=True, end="")
    return console.file.getvalue().splitlines()


def read(lines: list[str]) -> dict[tuple[str, str], str]:
    """The cells of printed tables by title of row and column, without the blanks at which they were folded.

    A row begins at its first figure: titles are folded, figures of these tables are not.
    """
    cells, header, row, is_header = {}, [], [], False
    for line in [*lines, "┏"]:
        parts = [part.strip().replace(" ", "") for part in line.replace("┃", "│").split("│")[1:-1]]
        if line[0] in "┡└┏" and row:
            if is_header:
                header = row
            else:
                cells |= {(row[0], name): text for name, text in zip(header[1:], row[1:], strict=True)}
            row = []
        if line[0] == "┏":
            is_header = True
        elif line[0] == "┡":
            is_header = False
        elif parts and (is_header or not any(parts[1:])) and row:
            row = [before + part for before, part in zip(row, parts, strict=True)]
        elif parts:
            cells |= (
                {(row[0], name): text for name, text in zip(header[1:], row[1:], strict=True)} if row else {}
            )
            row = parts
    return cells


@pytest.mark.parametrize("is_turned", [True, False], ids=["turned", "ordinary"])
@pytest.mark.parametrize("width", [80, 100, 200])
def test_all_names_and_figures_are_there_and_fit(width, is_turned):
    lines = printed(TURNED if is_turned else TURNED.transpose(), width)
    assert max(map(cell_len, lines)) <= width
    names = [name.replace(" ", "") for name in LONG_NAMES]
    titles = [title.replace(" ", "") for title in TITLES]
    places = [(n, t) if is_turned else (t, n) for n in names for t in titles]
    figures = [figure.replace(" ", "") for figure in FIGURES] * len(names)
    assert read(lines) == dict(zip(places, figures, strict=True))
    assert all(any(figure in line for line in lines) for figure in FIGURES)


def test_titles_of_columns_are_folded_only_where_the_table_is_too_wide():
    table = FormattedTable(("", "sgd lr=0.1", "adam lr=0.1"), (("recall", "0.8", "0.9"),))
    assert "┃ sgd lr=0.1 ┃ adam lr=0.1 ┃" in printed(table, 40)[1]
    assert "┃    sgd ┃   adam ┃" in printed(table, 30)[1]


def test_sentences_in_cells_are_folded():
    words = " ".join(["word"] * 30)
    lines = printed(FormattedTable(("", "sgd"), (("class weights", words),)), 200)
    assert max(map(len, lines)) < MAX_CELL_WIDTH + 30
    assert sum(line.count("word") for line in lines) == 30


@pytest.mark.parametrize("width", [1, 20, 35])
def test_the_narrowest_terminal_loses_nothing(width):
    text = "".join(printed(TURNED, width))
    for part in ("a_name_with", "0.812", "1,234,567", "2m 05s"):
        assert part in text


def test_only_the_best_figures_and_titles_are_bold():
    table = FormattedTable(("", "sgd", "adam"), (("recall", "0.9 ★", "0.8"),))
    segments = list(lay_out_table(Console(width=80), table, " ★"))
    bold = [segment.text.strip() for segment in segments if segment.style and segment.style.bold]
    assert bold == ["", "sgd", "adam", "0.9 ★"]
