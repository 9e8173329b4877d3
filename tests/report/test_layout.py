"""Headers and rows as tables, CSV and Markdown."""

from __future__ import annotations

import csv
import io

from rich.console import Console

from xbench.report.layout import MAX_SHOWN, make_csv, make_markdown, make_table, plain

HEADERS = ("name", "size")
ESCAPE = "\x1b[31m"


def printed(*rows: tuple[object, ...]) -> list[str]:
    """The cells of the last line of a table, with the blanks that pad them."""
    console = Console(file=io.StringIO(), width=1000)
    console.print(make_table("title", HEADERS, rows))
    return console.file.getvalue().splitlines()[-2].strip("│").split("│")


def test_cells_of_a_table_stand_at_the_left():
    assert printed(("a", "1")) == [" a    ", " 1    "]


def test_a_long_cell_of_a_table_is_cut_unless_it_is_rich_text():
    text = "x" * (MAX_SHOWN + 1)
    cut, whole = printed((text, plain(text)))
    assert (cut.count("x"), whole.count("x")) == (MAX_SHOWN, MAX_SHOWN + 1)


def test_markup_of_rich_is_only_text_in_a_table():
    assert printed(("[bold]", "1"))[0] == " [bold] "


def test_markdown():
    assert make_markdown(HEADERS, [("a|b", "1")]) == "| name | size |\n| --- | --- |\n| a\\|b | 1 |"
    assert make_markdown(HEADERS, [], has_numbers=True).splitlines()[-1] == "| --- | ---: |"


def test_csv():
    rows = [{"a,b": 'say "x"', "whole": 1.0, "in": {"part": 0.5}}, {"a,b": "", "in": {"part": 2.0}}]
    assert make_csv(rows) == '"a,b",whole,in.part\n"say ""x""",1,0.5\n,,2.0\n'


FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "=", "-x", "\t=1", "\r=1", "\n=1"]
HARMLESS = ["-", "-0.5", "+2", "-1e-3", -0.5, "a=1", "'=1", ""]


def test_a_spreadsheet_executes_no_text_of_a_csv():
    text = make_csv([{"value": value} for value in FORMULAS])
    cells = [row["value"] for row in csv.DictReader(io.StringIO(text))]
    assert cells == ["'=1+1", "'+1+1", "'-1+1", "'@SUM(A1)", "=", "'-x", "'\\t=1", "'\\r=1", "'\n=1"]
    assert make_csv([{"=1+1": 1}]) == "'=1+1\n1\n"


def test_numbers_and_other_text_of_a_csv_stay_as_they_are():
    text = make_csv([{"value": value, "place": place} for place, value in enumerate(HARMLESS)])
    assert [row["value"] for row in csv.DictReader(io.StringIO(text))] == [str(value) for value in HARMLESS]


def test_no_output_holds_what_a_terminal_would_obey():
    rows = [(ESCAPE, ESCAPE)]
    shown = [*printed(*rows), make_markdown(HEADERS, rows), make_csv([{ESCAPE: ESCAPE}])]
    assert all("\x1b" not in text and "x1b" in text for text in shown)


def test_the_end_of_a_line_can_be_chosen():
    assert make_csv([{"a": 1}], line_end="\r\n") == "a\r\n1\r\n"
