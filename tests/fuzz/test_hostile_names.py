"""Records with names that mean harm, through `xbench show`."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from pathlib import Path

import pytest

from tests.fuzz.fuzz_records import complaint_about, in_a_folder, run_and_cells, show

EVIL = "\x1b[31m\x1b]0;t\x07\u202e\u2028a\tb\r[red]x[/]:warning:|`*<b>[a](b)"
SEEN = r"\x1b[31m\x1b]0;t\x07\u202e\u2028a\tb\r[red]x[/]:warning:|`*<b>[a](b)"


@pytest.fixture
def shown():
    """`shown(*flags)`: what `xbench show` prints of a run in which every text is hostile."""
    run, cells = run_and_cells()
    run |= {"suite": EVIL, "device": EVIL, "hardware": {"cpu": EVIL, "cores": EVIL}}
    run["versions"] = {"torch": EVIL}
    run["warnings"] = [f"warning {EVIL}"]
    run["experiments"][0] |= {"title": f"title {EVIL}", "reference_note": EVIL, "reference_name": EVIL}
    for planned, cell in zip(run["cells"], cells, strict=True):
        planned["column"] = cell["column"] = f"{cell['column']} {EVIL}"
        cell |= {"reason": f"reason {EVIL}", "fitted": {"micro_batch": EVIL}}
        cell["requested"]["micro_batch"] = EVIL
        cell["model"]["name"] = cell["dataset"]["name"] = EVIL
        cell["dataset"] |= {"notes": [EVIL], "counts": {EVIL: 3}}
    with in_a_folder():
        folder = Path("results/tiny/1")
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(run))
        (folder / "cells.jsonl").write_text("".join(f"{json.dumps(cell)}\n" for cell in cells))

        def printed(*flags: str) -> str:
            code, out, err = show(*flags)
            assert (code, err) == (0, "")
            assert complaint_about(code, out, err, flags) == ""
            return out

        yield printed


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def tables(text: str, marks: tuple[str, ...]) -> list[list[str]]:
    """Stretches of consecutive lines that begin with one of the marks."""
    groups = itertools.groupby(text.splitlines(), lambda line: line.startswith(marks))
    return [list(lines) for is_table, lines in groups if is_table]


@pytest.mark.parametrize("flags", [(), ("--memory",)])
def test_tables_show_what_is_there(shown, flags):
    out = shown(*flags)
    for what in ("title", "warning", "reason"):
        assert f"{what} {SEEN}" in one_line(out)
    for table in tables(out, ("│", "┃", "┡")):
        assert len(set(map(len, table))) == 1


def test_markdown_keeps_its_tables(shown):
    out = shown("--format", "markdown")
    for table in tables(out, ("|",)):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table}) == 1
    assert re.findall(r"(?<!\\)([`<]|\][(:])", out) == []
    assert r"\\x1b[31m" in out
    assert r"[red]x[/\]:warning:\|\`\*\<b>[a\](b)" in out


def test_csv_keeps_its_lines(shown):
    rows = list(csv.DictReader(io.StringIO(shown("--format", "csv"))))
    assert len(rows) == 5
    assert {row["reason"] for row in rows} == {f"reason {SEEN}"}


def test_json_is_exact(shown):
    document = json.loads(shown("--format", "json"))
    assert document["warnings"] == [f"warning {EVIL}"]
    assert document["experiments"][0]["title"] == f"title {EVIL}"
    assert document["experiments"][0]["cells"][0]["reason"] == f"reason {EVIL}"
