"""Run a plan: data first, then every cell in order, each recorded as it ends."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from xbench.capacity.axes import Axis, with_size
from xbench.errors import XbenchError
from xbench.execution.cell import CellRunner
from xbench.execution.checkpoints import done_share
from xbench.execution.estimates import Estimator
from xbench.execution.fitting import fit_cells
from xbench.execution.history import MAX_ATTEMPTS, History, changed_since
from xbench.execution.pairing import Pairing
from xbench.execution.schedule import TimeLimit, blocks, estimate_s, features_s, longest_wait_s, skip_if_late
from xbench.execution.shared import FeatureKeeper, MemoryPasses
from xbench.planning.checks import check_batches, check_splits, warnings_of_images, warnings_of_suite
from xbench.planning.observer import Observer
from xbench.planning.plan import PlannedRun, decode_all, decode_samples, make_cells, with_weights
from xbench.planning.planned import PlannedCell
from xbench.records.metrics import CLASSIFICATION, CLASSIFICATION_EPOCHS
from xbench.records.schema import CellKey, CellRecord, ExperimentRecord, RunRecord
from xbench.records.store import RunFolder, folder_of_suite
from xbench.storage.paths import concerns
from xbench.storage.staging import remove_stale
from xbench.text import pluralize


def run_plan(
    plan: PlannedRun, results: Path, observer: Observer, fresh: bool = False, started: float | None = None
) -> RunFolder:
    """Run every cell of a plan that no earlier run of the suite has settled. A cell that fails is recorded,
    and the next one runs. The caller holds the suite's results (`records.store.sole_run`).

    Args:
        fresh: run all of them, in a new folder.
        started: when the command began, by `time.monotonic`: from then on the time limit counts. By default
            now.

    Returns:
        The run's folder: that of the latest run that was asked for in the same words, where its cells are the
        same; else a new one, with what other runs have of its cells.

    Raises:
        XbenchError: data cannot be decoded or does not suffice, or results cannot be written.
        KeyboardInterrupt: the cell in flight is saved; all that ended before is in the folder.
    """
    started = time.monotonic() if started is None else started
    remove_stale(folder_of_suite(results, plan.name))
    history = History() if fresh else History.of(results, plan.suite)
    decoded = decode_all(plan, observer)
    features, passes = FeatureKeeper(observer), MemoryPasses(observer)
    passes.know(history.records.values())
    cells = make_cells(plan, decoded)
    warnings = [*warnings_of_suite(plan), *warnings_of_images(decoded)]
    warnings += [*check_splits(plan, cells), *check_batches(plan, cells)]
    left = _select_unsettled(cells, history)
    limit_s, limit = plan.suite.header.time_limit, None
    may_wait_s = 0.0 if limit_s is None else longest_wait_s(limit_s)
    opened: list[RunFolder] = []

    def done_share_of(cell: PlannedCell) -> float:
        cell_id = cell.key.cell_id
        here = [folder.checkpoint_folder(cell_id) for folder in opened]
        return done_share([*history.checkpoint_folders(cell_id), *here], cell)

    estimator = Estimator(features, observer, passes.has, may_wait_s, done_share_of)
    if limit_s is not None:
        limit = TimeLimit(limit_s, started, estimator)
        left = limit.skip_hopeless(estimator.estimate(left))
    left = with_weights(left, observer)
    # Weights that were fetched are part of what a cell is.
    known = {_place(cell): cell for cell in left}
    cells = [known.get(_place(cell), cell) for cell in cells]
    try:
        run = _describe(plan, [cell.key for cell in cells], warnings, fresh)
        folder = _open(run, plan, history, results, observer)
        opened.append(folder)
        earlier = history.records if folder == history.same else {}
        left = _select_unsettled(cells, history)
        left = _fit(_of_one_size(left, folder), cells, features, observer)
        _run_blocks(left, earlier, limit, estimator, features, passes, folder, observer)
    except OSError as error:
        if not concerns(error, results):
            raise
        raise XbenchError(
            f"cannot keep results in {results}: {error.filename}: {error.strerror or error}",
            hint="what had ended before is kept; make space and run again",
        ) from error
    return folder


def _open(run: RunRecord, plan: PlannedRun, history: History, results: Path, observer: Observer) -> RunFolder:
    """The folder of a run, with all that is settled of it."""
    told = [*run.warnings, *history.damaged]
    if history.same is not None and history.run is not None and history.declares(run.cells):
        folder = history.same
        for cell_id in history.with_leftovers():
            folder.remove_leftovers(cell_id)
        before = {"started_at": history.run.started_at, "fresh": history.run.fresh}
        folder.write_run(run.model_copy(update=before))
    else:
        folder = RunFolder.create(results, plan.suite.text, run)
        if history.run is not None:
            told += changed_since(plan.import_dirs, history.run.started_at)
    observer.working("taking over earlier results")
    told += history.take_over(run.cells, folder)
    settled = history.find_settled(run.cells)
    failed = [key for key in settled if key in history.records and history.records[key].is_failure]
    if failed:
        told.append(
            f"{pluralize(len(failed), 'cell')} failed {MAX_ATTEMPTS} times and will not be tried again "
            "(--fresh runs all again)"
        )
    observer.run_started(folder.path, run, told)
    if settled:
        observer.cells_kept(len(settled), len({cell.cell_id for cell in run.cells}))
    return folder


def _of_one_size(cells: list[PlannedCell], folder: RunFolder) -> list[PlannedCell]:
    """The cells; those of `train_size = "largest"` get the size at which their experiment has run before."""
    _, records = folder.read()
    ran = {
        record.experiment: record.ran["train_size"]
        for record in records
        if record.status == "done" and record.requested.get("train_size") == "largest"
    }
    why = "the largest that every optimizer of the experiment could run before"
    return [
        cell.with_sizes(with_size(cell.settings, Axis.TRAIN_SIZE, ran[cell.declared.experiment]), why)
        if cell.settings.training.train_size == "largest" and cell.declared.experiment in ran
        else cell
        for cell in cells
    ]


def _select_unsettled(cells: list[PlannedCell], history: History) -> list[PlannedCell]:
    settled = history.find_settled([cell.key for cell in cells])
    return [cell for cell in cells if cell.key.cell_id not in settled]


def _describe(plan: PlannedRun, keys: list[CellKey], warnings: list[str], fresh: bool) -> RunRecord:
    return RunRecord(
        suite=plan.name,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        fresh=fresh,
        device=plan.machine.device,
        changes=list(plan.suite.changes),
        versions=plan.machine.versions,
        hardware=plan.machine.hardware,
        malloc=plan.machine.allocator,
        memory_bound=f"{plan.memory_bound.source}: {plan.memory_bound.detail}",
        metrics=list(CLASSIFICATION),
        epoch_metrics=list(CLASSIFICATION_EPOCHS),
        experiments=_experiments(plan),
        cells=keys,
        warnings=warnings,
    )


def _place(cell: PlannedCell) -> tuple[str, str, int]:
    """Where the suite declares a cell."""
    return cell.declared.experiment, cell.declared.column, cell.declared.seed


def _fit(
    left: list[PlannedCell],
    cells: list[PlannedCell],
    features: FeatureKeeper,
    observer: Observer,
) -> list[PlannedCell]:
    """The cells that are left, fitted. What has ended still has a say in what all of an experiment can
    run."""
    largest = {cell.declared.experiment for cell in left if cell.settings.training.train_size == "largest"}
    wanted = {_place(cell) for cell in left}
    concerned = [cell for cell in cells if _place(cell) in wanted or cell.declared.experiment in largest]
    by_place = {_place(cell): cell for cell in left}
    fitted = fit_cells([by_place.get(_place(cell), cell) for cell in concerned], features, observer)
    return [cell for cell in fitted if _place(cell) in wanted]


def _run_blocks(
    cells: list[PlannedCell],
    earlier: dict[str, CellRecord],
    limit: TimeLimit | None,
    estimator: Estimator,
    features: FeatureKeeper,
    passes: MemoryPasses,
    folder: RunFolder,
    observer: Observer,
) -> None:
    """Run cells in their order, each cell once.

    Args:
        earlier: the last records of those that were tried before.
    """
    ran: set[str] = set()
    passed_over: set[str] = set()
    made_s: dict[str, float] = {}
    recorded = folder.read_cells()[0].values()
    passes.know(recorded)
    runner = CellRunner(folder, observer, features, passes, Pairing(recorded))
    for block in blocks(cells, by_time=limit is not None):
        # Two experiments may declare the same cell: it runs once, and both show it.
        block = list({cell.key.cell_id: cell for cell in block if cell.key.cell_id not in ran}.values())
        if limit is not None and block:
            block = limit.admit(block, made_s)
            made_s |= features_s(block)
        for cell in block:
            cell_id = cell.key.cell_id
            if cell.skip and cell_id in passed_over:
                continue
            record = runner.run(cell, earlier.get(cell_id))
            estimator.learn(cell, record)
            # What one experiment has no time for another may have.
            (passed_over if cell.skip else ran).add(cell_id)


def preview(plan: PlannedRun, observer: Observer, started: float) -> tuple[list[PlannedCell], list[str]]:
    """What a run would do, in its order, as far as can be told without decoding or fitting.

    Returns:
        The cells, each with an estimate of its time; one that would be skipped says so in `skip`. And the
        warnings of the run, save those of images.

    Args:
        started: when the command began, by `time.monotonic`: from then on the time limit counts.

    Raises:
        XbenchError: no image of a dataset can be read, or there are not enough.
    """
    cells = make_cells(plan, decode_samples(plan))
    warnings = [*warnings_of_suite(plan), *check_splits(plan, cells), *check_batches(plan, cells)]
    cells = Estimator(FeatureKeeper(observer), observer).estimate(cells)
    limit_s = plan.suite.header.time_limit
    previewed: list[PlannedCell] = []
    spent_s = time.monotonic() - started  # a run starts and estimates as well
    for block in blocks(cells, by_time=limit_s is not None):
        if limit_s is not None:
            left_s = limit_s - spent_s - estimate_s(previewed)
            block = skip_if_late(block, left_s, limit_s, features_s(previewed))
        previewed += block
    return previewed, warnings


def _experiments(plan: PlannedRun) -> list[ExperimentRecord]:
    records = []
    for experiment in plan.suite.experiments.values():
        if not any(cell.experiment == experiment.name for cell in plan.cells):
            continue
        reference = experiment.reference
        records.append(
            ExperimentRecord(
                name=experiment.name,
                title=experiment.title or experiment.name,
                reference=reference.columns if reference else {},
                reference_name=reference.name if reference else "",
                reference_note=reference.note if reference else "",
            )
        )
    return records
