"""`xbench runs`: list the runs of a folder of results."""

from __future__ import annotations

from pathlib import Path

from xbench.cli.options import Results, ResultsForm
from xbench.cli.output import Format, print_in_form, shorten_path, tolerate_closed_pipe
from xbench.errors import XbenchError
from xbench.records.runs import find_runs

EXAMPLES = """
Examples:

- `xbench runs`
- `xbench runs --out /data/results --format json`
"""


def runs(out: Results = Path("results"), form: ResultsForm = Format.TABLE) -> None:
    """List runs, latest first, with how their cells ended."""
    # Imported here: most commands need none of it, and answer at once.
    from xbench.records.summary import summarize_run
    from xbench.report.runs_document import make_runs_document

    found, unreadable = [], []
    for folder in find_runs(out):
        try:
            found.append(summarize_run(folder))
        except XbenchError as error:
            unreadable.append(error.message)
    if not found and not unreadable:
        raise XbenchError(
            f"no run in {out}", hint="create one, for example with `xbench run suites/report.toml`"
        )
    with tolerate_closed_pipe():
        print_in_form(make_runs_document(found, shorten_path(out), unreadable), form)
