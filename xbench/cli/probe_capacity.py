"""`xbench probe-capacity`: find the largest training set, batch, history or model that fits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from xbench.cli import EXIT_CELL_FAILED
from xbench.cli.interrupts import interruptible
from xbench.cli.options import AllowImport, Device, Results, ResultsForm
from xbench.cli.output import (
    Format,
    print_cache_note,
    print_in_form,
    stderr_console,
    tolerate_closed_pipe,
)
from xbench.text import escape_controls

EXAMPLES = """
Examples:

- `xbench probe-capacity --optimizer lbfgs --memory-limit 12GB`
- `xbench probe-capacity --optimizer lbfgs --axis history-size --memory-limit 1GB`
- `xbench probe-capacity --optimizer adam --axis batch-size --set adam.lr=1e-4 --format json`
- `xbench probe-capacity --optimizer adamw --axis width --model gpt-mini --dataset generated-text`
"""


def probe_capacity(
    optimizer: Annotated[str, typer.Option(help="optimizer to probe", show_default=False)],
    model: Annotated[str, typer.Option(help="model to train")] = "report-cnn",
    dataset: Annotated[
        str, typer.Option(help="dataset to train on; synthetic-xray replaces chest-xray if it is missing")
    ] = "chest-xray",
    axis: Annotated[
        list[str] | None,
        typer.Option(
            help="size to probe (repeatable): train-size, batch-size, micro-batch, history-size, or a "
            "setting that the model or the dataset offers, such as width of gpt-mini or sequence-length of "
            "generated-text; default: train-size for full-batch optimizers, else batch-size"
        ),
    ] = None,
    memory_limit: Annotated[
        str | None, typer.Option(help="12GB, 12GiB or 50%; by default all available memory")
    ] = None,
    device: Device = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="change a setting: micro_batch=16, probe.OPTIMIZER.lr=1e-3"
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="ignore the results of earlier probes")] = False,
    allow_import: AllowImport = None,
    out: Results = Path("results"),
    form: ResultsForm = Format.TABLE,
) -> None:
    """Find the largest size that fits into memory by running it.

    Each trial runs whole optimizer steps with the full optimizer state, an evaluation and a copy of the
    weights, in its own process under a hard limit. The size that is printed has run; the next larger one
    tried has failed. The result is kept in a folder under --out, which `xbench report` draws.
    """
    # Imported here, so that other commands start quickly.
    from xbench.cli.progress import ProgressDisplay
    from xbench.execution.probe_axes import default_axis, find_axes
    from xbench.execution.probing import plan_probe, probe
    from xbench.isolation.server import start_server
    from xbench.records.capacity_store import write_capacity
    from xbench.records.store import check_writable
    from xbench.report.capacity import make_capacity_document
    from xbench.suite.overrides import SuiteOption

    print_cache_note()
    check_writable(out)
    given = {"device": device, "memory-limit": memory_limit}
    options = [SuiteOption(name, value) for name, value in given.items() if value is not None]
    import_dirs = [str(directory) for directory in allow_import or []]
    with interruptible(), ProgressDisplay() as display:
        display.working("starting")
        start_server()
        arguments = (set_ or [], options, import_dirs, display.working)
        axes = find_axes(axis, model, dataset, import_dirs) if axis else [default_axis(optimizer)]
        plans = {item: plan_probe(optimizer, model, dataset, item, *arguments) for item in axes}
        report = probe(plans, fresh, display)
    try:
        kept = write_capacity(out, report)
    finally:  # a result that cannot be kept is printed all the same
        with tolerate_closed_pipe():
            print_in_form(make_capacity_document(report), form)
    stderr_console().print(
        Text(escape_controls(f"kept in {kept}; `xbench report {kept}` draws it")), soft_wrap=True
    )
    if any(result.found is None or result.error for result in report.results):
        raise typer.Exit(EXIT_CELL_FAILED)
