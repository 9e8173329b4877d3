"""Write cells as runs of an MLflow experiment that has the suite's name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from xbench.errors import XbenchError
from xbench.report.export.contents import ExportedCell
from xbench.text import escape_controls, format_value, shorten

# The most that MLflow takes in one batch, and the longest value and name of a parameter.
_MAX_METRICS, _MAX_PARAMS, _MAX_PARAM_CHARS = 1000, 100, 6000
_MAX_NAME_CHARS = 250

_HINT = (
    "check the address, and that the server is running; a database, such as sqlite:///mlflow.db, needs "
    "`pip install mlflow`"
)


def write_mlflow(cells: Iterable[ExportedCell], uri: str, suite: str, run_id: str) -> int:
    """Write a run for each cell: settings as parameters; final values and those by step and epoch as metrics.

    Args:
        uri: address of a tracking server or of a database, such as `sqlite:///mlflow.db`.
        run_id: the run's ID, which becomes the tag `xbench.run`.

    Returns:
        The number of cells written.

    Raises:
        XbenchError: mlflow is not installed, or the server refuses the data.
    """
    try:
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        hint = "`pip install mlflow-skinny`, or `pip install 'xbench[mlflow]'`"
        raise XbenchError("mlflow is not installed", hint) from error

    count = 0
    try:
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(suite)
        if found and found.lifecycle_stage == "deleted":
            raise XbenchError(
                f"MLflow at {uri}: the experiment '{suite}' is deleted",
                hint=f"restore it with `mlflow experiments restore -x {found.experiment_id}`",
            )
        experiment_id = found.experiment_id if found else client.create_experiment(suite)
        for cell in cells:
            tags = {"xbench.run": run_id, "xbench.cell": cell.record.cell_id, "xbench.status": cell.status}
            run = client.create_run(
                experiment_id, start_time=_to_ms(cell.started_s), tags=tags, run_name=_escape(cell.title)
            )
            status = "KILLED"  # unless all of it is written
            try:
                names = _make_names(cell.hyperparameters)
                params = [Param(names[n], _format_param(v)) for n, v in cell.hyperparameters.items()]
                for batch in _split(params, _MAX_PARAMS):
                    client.log_batch(run.info.run_id, params=batch)
                names = _make_names((*cell.metrics, *cell.series))
                metrics = [Metric(names[n], v, s, t) for n, v, s, t in _list_metrics(cell)]
                for batch in _split(metrics, _MAX_METRICS):
                    client.log_batch(run.info.run_id, metrics=batch)
                status = "FINISHED" if cell.status == "done" else "FAILED"
            finally:
                client.set_terminated(run.info.run_id, status=status, end_time=_to_ms(cell.ended_s))
            count += 1
    except (MlflowException, OSError) as error:
        raise XbenchError(f"MLflow at {uri} failed: {error}", _HINT) from error
    return count


def _list_metrics(cell: ExportedCell) -> Iterator[tuple[str, float, int, int]]:
    """List name, value, time in milliseconds and step of each value. A trace has no times of day."""
    time_ms = _to_ms(cell.ended_s)
    for name, value in cell.metrics.items():
        yield name, value, time_ms, 0
    for name, points in cell.series.items():
        for point in points:
            yield name, point.value, time_ms, point.step


def _format_param(value: Any) -> str:
    text = _escape(value if isinstance(value, str) else format_value(value))
    return shorten(text, _MAX_PARAM_CHARS - 100)


def _escape(text: str) -> str:
    """Escape characters that a database or a web page may not take."""
    return escape_controls(text, keep="\n\t")


def _make_names(names: Iterable[str]) -> dict[str, str]:
    """Make names that MLflow allows and that stay different. They are paths to MLflow, of few characters.

    Returns:
        Name -> name in MLflow.
    """
    made: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        parts = re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII).split("/")
        allowed = "/".join(part for part in parts if part.strip("."))[: _MAX_NAME_CHARS - 10] or "_"
        unique = allowed
        while unique in taken:
            unique = f"{allowed}-{len(taken)}"
        taken.add(unique)
        made[name] = unique
    return made


def _split(items: Sequence[Any], most: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while batch := list(islice(rest, most)):
        yield batch


def _to_ms(seconds: float) -> int:
    return round(seconds * 1000)
