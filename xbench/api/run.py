"""Run suites and capacity probes from Python."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbench.api.progress import make_observer
from xbench.api.results import Results
from xbench.api.session import PathLike, list_of, suite_options, worker_processes
from xbench.errors import XbenchError
from xbench.storage.paths import expand_user
from xbench.suite.overrides import SuiteOption

if TYPE_CHECKING:
    from xbench.records.capacity import CapacityReport
    from xbench.suite.reader import Suite


def run(
    suite: PathLike | Mapping[str, Any],
    *,
    only: str | Iterable[str] = (),
    set: str | Iterable[str] = (),
    device: str | None = None,
    memory_limit: str | None = None,
    time_limit: str | None = None,
    timeout: str | None = None,
    seeds: int | Sequence[int] | Mapping[str, int | Sequence[int]] | None = None,
    out: PathLike = "results",
    fresh: bool = False,
    baseline: str | None = None,
    allow_import: PathLike | Iterable[PathLike] = (),
    progress: bool = True,
) -> Results:
    """Run every cell of a suite, as `xbench run` does.

    Each cell is trained in a process of its own. The latest run of the same suite is continued: cells that
    ended are not run again. It may be called from a script without an `if __name__ == "__main__"`, from a
    notebook, and from any thread. A cell that fails raises nothing: its record says how it ended.

    Args:
        suite: path of a suite file, the name of a shipped suite, or the suite itself as a dict with the same
            structure, `{"suite": {...}, "experiment": [...]}`.
        only: names of experiments to run; all by default.
        set: changes of keys, such as `"epochs=2"` or `"adam.lr=[1e-4, 1e-3]"`.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:1"`; by default what the suite says.
        memory_limit: hard limit of the memory of each cell, such as `"12GB"`, `"12GiB"` or `"50%"`.
        time_limit: limit of the whole run, such as `"15m"`: cells that cannot end within it are skipped.
        timeout: limit of each cell, such as `"30m"`: a cell that takes longer is ended.
        seeds: number of seeds of every cell, a list of seeds, or a dict such as `{"weights": 3, "order": 5}`,
            which varies the parts of seeds apart.
        out: folder of all results.
        fresh: whether to run every cell again, whatever earlier runs have of them.
        baseline: the column that findings compare the others with.
        allow_import: folders that `module:attribute` components may be imported from.
        progress: whether to print progress on stderr.

    Returns:
        The results, including those of cells that failed.

    Raises:
        XbenchError: the suite or an argument is wrong (`Mistakes` if there are several mistakes), the data
            cannot be decoded, or results cannot be written.
        KeyboardInterrupt: the run was interrupted. Cells that had ended are in the records, and the running
            cell is saved if it can be; the same call continues the run.
    """
    started = time.monotonic()  # a time limit counts from here
    from xbench.execution.run import run_plan
    from xbench.planning.plan import plan_run
    from xbench.records.store import check_writable, folder_of_suite, lock_suite_runs
    from xbench.suite.grid import collect_components

    observer, folder = make_observer(progress), expand_user(Path(out), "out")
    options = suite_options(
        device=device,
        memory_limit=memory_limit,
        time_limit=time_limit,
        timeout=timeout,
        seeds=None if seeds is None else _write_seeds(seeds),
        baseline=baseline,
    )
    asked = _read(suite, [*list_of(set), *options], list_of(only))
    check_writable(folder)
    with worker_processes(collect_components(asked), allow_import) as import_dirs:
        plan = plan_run(asked, import_dirs, observer.working)
        with lock_suite_runs(folder_of_suite(folder, plan.name)):
            return Results(run_plan(plan, folder, observer, fresh, started).path, baseline=baseline)


def probe(
    optimizer: str,
    model: str = "report-cnn",
    dataset: str = "chest-xray",
    axes: str | Iterable[str] = (),
    *,
    memory_limit: str | None = None,
    device: str | None = None,
    set: str | Iterable[str] = (),
    fresh: bool = False,
    allow_import: PathLike | Iterable[PathLike] = (),
    progress: bool = True,
) -> CapacityReport:
    """Find the largest sizes that fit into memory by running them, as `xbench probe-capacity` does.

    Args:
        optimizer, model, dataset: names of components. Synthetic images stand in for `"chest-xray"` if it is
            not on this machine.
        axes: the sizes to find: `"train-size"`, `"batch-size"`, `"micro-batch"` or `"history-size"`, or a
            setting that the model or the dataset offers (see `Scale`), such as `"width"` or
            `"sequence-length"`. By default the training set of an optimizer that takes it as one batch, and
            the batch of any other.
        memory_limit: the limit, such as `"12GB"`, `"12GiB"` or `"50%"`; by default what the machine has.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:1"`.
        set: settings, such as `"micro_batch=16"` or `"probe.adam.lr=1e-3"`.
        fresh: whether to start without what an earlier probe found.
        allow_import: folders that `module:attribute` components may be imported from.
        progress: whether to print progress on stderr.

    Returns:
        The report, with a result for each axis. Its sizes are numbers of examples (of updates for
        `history-size`) or values of a setting, and its memory is in bytes.

    Raises:
        XbenchError: an argument is wrong, or nothing can be probed with these settings.
        KeyboardInterrupt: the probe was interrupted.
    """
    from xbench.components.registry import Kind
    from xbench.execution.probe_axes import default_axis, find_axes
    from xbench.execution.probing import plan_probe
    from xbench.execution.probing import probe as probe_axes

    observer = make_observer(progress)
    options = suite_options(device=device, memory_limit=memory_limit)
    names: list[tuple[Kind, str]] = [("optimizer", optimizer), ("model", model), ("dataset", dataset)]
    with worker_processes(names, allow_import) as import_dirs:
        asked = (list_of(set), options, import_dirs, observer.working)
        chosen = find_axes(list_of(axes), model, dataset, import_dirs) or [
            default_axis(optimizer, import_dirs)
        ]
        plans = {axis: plan_probe(optimizer, model, dataset, axis, *asked) for axis in chosen}
        return probe_axes(plans, fresh, observer)


def _read(suite: PathLike | Mapping[str, Any], overrides: list[str | SuiteOption], only: list[str]) -> Suite:
    from xbench.suite.reader import read_suite
    from xbench.suite.shipped import find_suite
    from xbench.suite.tables import read_tables

    if isinstance(suite, Mapping):
        return read_tables(suite, overrides, only)
    try:
        path = Path(suite)
    except TypeError:
        raise XbenchError(
            f"a suite is a path, a name or a dict, not a {type(suite).__name__}",
            hint="`xbench list suites` shows the names of shipped suites",
        ) from None
    return read_suite(find_suite(expand_user(path, "suite")), overrides, only)


def _write_seeds(seeds: int | Sequence[int] | Mapping[str, int | Sequence[int]]) -> str:
    """Write seeds as a value of TOML."""
    if isinstance(seeds, Mapping):
        return f"{{ {', '.join(f'{part} = {_write_seeds(value)}' for part, value in seeds.items())} }}"
    return str(seeds if isinstance(seeds, int) else list(seeds))
