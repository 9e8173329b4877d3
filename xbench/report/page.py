"""Write runs as one HTML page that opens from disk, without a network.

The page holds plotly.js (compressed), its style, its script and its data. Text from records is only ever
text: jinja2 escapes it, the data is JSON that cannot end its element, and the page's content security policy
names the two scripts that may run by their hashes.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xbench.records.schema import FAILED, CellRecord, RunRecord
from xbench.records.store import RunFolder
from xbench.report.cell_details import describe_cell, describe_mapping, show_time
from xbench.report.comparison import Comparison
from xbench.report.figure import Figure
from xbench.report.page_tables import (
    list_data,
    make_cell_table,
    make_comparison_table,
    make_reference_table,
    make_target_table,
)
from xbench.report.page_tuning import make_tuning_part
from xbench.report.plots import to_plotly
from xbench.report.stand_ins import STAND_IN_DATA, list_stand_ins
from xbench.report.thin_traces import ThinTrace, divide, thin_lines, thin_trace
from xbench.text import escape_controls, pluralize

# The end of a failed cell's log that the page shows.
MAX_LOG_BYTES = 2048

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class RunPage:
    """What the page shows of one run.

    Attributes:
        folder: where the records are, as the page names it.
        records: the records of cells, without trials, which the comparisons have.
        traces: cell ID -> trace, of the cells that have one.
        logs: cell ID -> end of the log, of the cells that failed and have one.
        damaged: cell ID -> why its trace cannot be read.
    """

    folder: str
    run: RunRecord
    records: Sequence[CellRecord]
    comparisons: Sequence[Comparison]
    figures: Sequence[Figure] = ()
    traces: Mapping[str, ThinTrace] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)


def make_run_page(
    folder: RunFolder,
    shown_folder: str,
    run: RunRecord,
    records: Sequence[CellRecord],
    comparisons: Sequence[Comparison],
    figures: Sequence[Figure] = (),
) -> RunPage:
    """Collect what the page shows of a run: read its traces, and the logs of the cells that failed.

    Args:
        shown_folder: how the page names the folder.
    """
    records = [record for record in records if record.trial is None]
    traces, damaged = read_thin_traces(folder, records)
    logs = read_log_tails(folder, records)
    return RunPage(shown_folder, run, records, comparisons, figures, traces, logs, damaged)


def read_thin_traces(
    folder: RunFolder, records: Sequence[CellRecord]
) -> tuple[dict[str, ThinTrace], dict[str, str]]:
    """Read and thin the trace of each cell that has one, and say of the others why it cannot be read."""
    traces, damaged = {}, {}
    for record in records:
        if record.trace_crc32 is None:
            continue
        try:
            if rows := folder.read_trace(record):
                traces[record.cell_id] = thin_trace(rows)
        except (OSError, ValueError, TypeError) as error:  # TypeError: a table with other columns or values
            damaged[record.cell_id] = f"the trace cannot be read: {error}"
    return traces, damaged


def read_log_tails(folder: RunFolder, records: Sequence[CellRecord]) -> dict[str, str]:
    """Read the last `MAX_LOG_BYTES` of the log of each cell that failed, by cell ID."""
    tails = {}
    for record in records:
        if record.status not in FAILED:
            continue
        try:
            with folder.open_log(record.cell_id) as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - MAX_LOG_BYTES))
                text = file.read(MAX_LOG_BYTES).decode(errors="replace")
        except FileNotFoundError:
            continue
        except OSError as error:
            text = f"the log cannot be read: {error.strerror}"
        tails[record.cell_id] = text
    return {cell_id: text for cell_id, text in tails.items() if text}


def make_page(runs: Sequence[RunPage]) -> str:
    """Make the page of one or several runs."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=_clean,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # What is inserted as it stands comes from packages, except for the data.
    plotly, script = get_plotlyjs(), (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    content = _Content()
    return environment.get_template("report.html.jinja").render(
        title=f"{', '.join(dict.fromkeys(page.run.suite for page in runs))}: comparison of optimizers",
        runs=[_describe_run(page, number, content) for number, page in enumerate(runs, start=1)],
        stand_in_data=STAND_IN_DATA,
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        plotly=Markup(_compress(plotly)),
        script=Markup(script),
        script_hashes=" ".join(f"'sha256-{_hash(text)}'" for text in (plotly, script)),
        data=Markup(content.to_json()),
    )


class _Content:
    """The data of the page's script. Parts of cells that are equal are stored once.

    Attributes:
        figures: plotly's data and layout of each figure.
        cells: ID of a row of the table of cells -> its groups by number, its log, and its trace.
        groups: what cells refer to.
    """

    def __init__(self) -> None:
        self.figures: list[dict[str, Any]] = []
        self.cells: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, int] = {}

    def add_figure(self, figure: Figure) -> int:
        plot = to_plotly(figure, has_title=False)
        self.figures.append({**plot, "data": _pack_arrays(plot["data"])})
        return len(self.figures) - 1

    def add_cell(self, place: str, record: CellRecord, page: RunPage) -> None:
        cell: dict[str, Any] = {"groups": []}
        for title, lines in describe_cell(record, page.run.metrics_of(record.experiment)):
            group = json.dumps([_clean(title), [[_clean(name), _clean(value)] for name, value in lines]])
            cell["groups"].append(self.groups.setdefault(group, len(self.groups)))
        if record.cell_id in page.logs:
            cell["log"] = escape_controls(page.logs[record.cell_id], keep="\n\t")
        if record.cell_id in page.traces:
            cell["trace"] = _pack_trace(page.traces[record.cell_id])
        if record.cell_id in page.damaged:
            cell["note"] = _clean(page.damaged[record.cell_id])
        self.cells[place] = cell

    def to_json(self) -> str:
        """Write the data as JSON that cannot end a script element."""
        figures = json.dumps(self.figures, allow_nan=False, separators=(",", ":"))
        cells = json.dumps(self.cells, allow_nan=False, separators=(",", ":"))
        text = f'{{"figures":{figures},"cells":{cells},"groups":[{",".join(self.groups)}]}}'
        return text.replace("<", "\\u003c")


def _describe_run(page: RunPage, number: int, content: _Content) -> dict[str, Any]:
    """Collect what the template shows of a run, and add its figures and cells to the data."""
    run = page.run
    figures: dict[str, list[tuple[int, Figure]]] = {}
    for figure in map(thin_lines, page.figures):
        figures.setdefault(figure.experiment, []).append((content.add_figure(figure), figure))
    for record in page.records:
        content.add_cell(f"cell-{number}-{record.cell_id}", record, page)
    cells = make_cell_table(run, page.records)
    trials = [t for c in page.comparisons if c.tuning for column in c.tuning.columns for t in column.trials]
    searched = f" and {pluralize(len(trials), 'trial')} of searches" if trials else ""
    optimizers = dict.fromkeys(column.name for c in page.comparisons for column in c.columns)
    return {
        "number": number,
        "folder": page.folder,
        "run": run,
        "started_at": show_time(run.started_at),
        "summary": (
            f"{pluralize(len(optimizers), 'optimizer')} in {pluralize(len(run.experiments), 'experiment')}, "
            f"{pluralize(len(cells.rows), 'cell')}{searched}"
        ),
        "stand_ins": list_stand_ins([*page.records, *trials]),
        "experiments": [
            {
                "id": f"run-{number}-experiment-{place}",
                "comparison": comparison,
                "table": make_comparison_table(comparison),
                "target": make_target_table(comparison),
                "reference": make_reference_table(comparison),
                "tuning": make_tuning_part(comparison),
                "figures": figures.get(comparison.experiment.name, []),
            }
            for place, comparison in enumerate(page.comparisons, start=1)
        ],
        "figures": figures.get("", []),
        "cells": cells,
        "datasets": list_data([*page.records, *trials]),
        "hardware": describe_mapping(run.hardware),
        "versions": [(name, value) for name, value in run.versions.items() if value],
    }


def _clean(value: Any) -> Any:
    """Escape control characters, and characters that would reorder the text around them."""
    return escape_controls(value) if type(value) is str else value


def _pack_trace(trace: ThinTrace) -> dict[str, Any]:
    count, points = trace.steps[-1], len(trace.steps)
    # Nearly all traces hold every step, so that the page's script can tell the steps from their number.
    steps: Any = count if list(trace.steps) == divide(count, points) else _pack(trace.steps)
    return {
        "steps": steps,
        "loss": _pack(trace.losses),
        "ms": _pack(trace.step_ms),
        "mb": _pack([size / 1e6 for size in trace.peak_bytes]),
        "stretch": trace.stretch,
    }


def _pack_arrays(value: Any) -> Any:
    """Pack each list of numbers in the data of a plotly figure, which takes most of its space."""
    if isinstance(value, dict):
        return {key: _pack_arrays(item) for key, item in value.items()}
    if isinstance(value, list):
        if value and all(item is None or isinstance(item, int | float) for item in value):
            return _pack([float("nan") if item is None else item for item in value])
        return [_pack_arrays(item) for item in value]
    return value


def _pack(values: Sequence[float]) -> dict[str, str]:
    """Write numbers as plotly's base64 of float32, in which NaN stands for an absent value."""
    packed = array("f", [_to_float32(value) for value in values])
    return {"dtype": "f4", "bdata": base64.b64encode(packed.tobytes()).decode()}


def _to_float32(value: float) -> float:
    return value if abs(value) < _MAX_FLOAT32 else float("nan")


_MAX_FLOAT32 = 3.4e38


def _compress(script: str) -> str:
    """Compress a script by gzip, and write it in base64: plotly.js takes 2 MB in place of 5."""
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
