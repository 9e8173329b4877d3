"""Run a plan: decode the data, then run the cells in order and record each as it ends."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from xbench.capacity.axes import Axis, with_size
from xbench.errors import XbenchError
from xbench.execution.bytes_to_target import find_bytes_to_targets
from xbench.execution.cell import CellRunner
from xbench.execution.checkpoints import find_done_share
from xbench.execution.equal_memory import fit_equal_memory, recall_sizes, reuse_sizes
from xbench.execution.estimates import Estimator
from xbench.execution.fitting import fit_cells
from xbench.execution.history import MAX_ATTEMPTS, History, TrialHistory, warn_of_changes
from xbench.execution.pairing import Pairing
from xbench.execution.schedule import (
    TimeLimit,
    compute_max_wait_s,
    estimate_s,
    group_blocks,
    shared_s,
    skip_if_late,
)
from xbench.execution.shared import FeatureKeeper, MemoryPasses
from xbench.execution.tuning import Tuner, drop_idle, estimate_trials
from xbench.planning.checks import (
    check_batches,
    check_splits,
    check_warmups,
    collect_data_warnings,
    collect_suite_warnings,
)
from xbench.planning.observer import Observer
from xbench.planning.plan import PlannedRun, fetch_missing_weights, make_cells, prepare_all, prepare_samples
from xbench.planning.planned import PlannedCell
from xbench.planning.searches import make_search_record
from xbench.planning.target_checks import make_target_record
from xbench.planning.task_facts import merge_metrics
from xbench.records.schema import CellKey, CellRecord, EqualRecord, ExperimentRecord, RunRecord
from xbench.records.store import RunFolder, folder_of_suite
from xbench.records.tuning import SearchRecord
from xbench.storage.paths import concerns
from xbench.storage.staging import remove_stale
from xbench.text import match_column, pluralize


def run_plan(
    plan: PlannedRun, results: Path, observer: Observer, fresh: bool = False, started: float | None = None
) -> RunFolder:
    """Run every cell of a plan that no earlier run of the suite has settled.

    A cell that fails is recorded, and the next one runs. The caller must hold the lock on the suite's results
    (`records.store.lock_suite_runs`).

    Args:
        fresh: whether to run all cells, in a new folder.
        started: when the command began, by `time.monotonic`; the time limit counts from then on. By default,
            now.

    Returns:
        The run's folder: that of the latest run with the same suite, options and cells, or else a new one
        that includes the results that other runs have of its cells.

    Raises:
        XbenchError: data cannot be decoded or is insufficient, or results cannot be written.
        KeyboardInterrupt: the command was interrupted; the running cell is saved, and the cells that had
            ended are in the folder.
    """
    started = time.monotonic() if started is None else started
    remove_stale(folder_of_suite(results, plan.name))
    history = History() if fresh else History.of(results, plan.suite)
    decoded = prepare_all(plan, observer)
    features, passes = FeatureKeeper(observer), MemoryPasses(observer)
    passes.remember(history.records.values())
    cells = make_cells(plan, decoded)
    trials = TrialHistory(history)
    warnings = [*collect_suite_warnings(plan), *collect_data_warnings(decoded)]
    warnings += [*check_splits(plan, cells), *check_batches(plan, cells)]
    check_warmups(plan, cells)
    left = recall_sizes(_select_unsettled(cells, history), cells)
    limit_s, limit = plan.suite.header.time_limit, None
    may_wait_s = 0.0 if limit_s is None else compute_max_wait_s(limit_s)
    opened: list[RunFolder] = []

    def find_share(cell: PlannedCell) -> float:
        cell_id = cell.key.cell_id
        new = [folder.checkpoint_folder(cell_id) for folder in opened]
        return find_done_share([*history.checkpoint_folders(cell_id), *new], cell)

    estimator = Estimator(features, observer, passes.has, may_wait_s, find_share)
    if limit_s is not None:
        limit = TimeLimit(limit_s, started, estimator)
        left = estimate_trials(estimator.estimate(left), trials)
        decided = limit.skip_hopeless([cell for cell in left if cell.trial is None])
        left = drop_idle(decided + [cell for cell in left if cell.trial is not None])
    left = fetch_missing_weights(left, observer)
    # Downloaded weights are part of a cell's identity.
    known = {_place(cell): cell for cell in left}
    cells = [known.get(_place(cell), cell) for cell in cells]
    try:
        run = _make_run_record(plan, _list_keys(cells), warnings, fresh)
        folder = _open(run, plan, history, results, observer)
        opened.append(folder)
        earlier = history.records if folder == history.same else {}
        left = _select_unsettled(cells, history)
        by_id = folder.read_cells()[0]
        recorded = list(by_id.values())
        left = _fit(reuse_sizes(_reuse_largest(left, recorded), recorded), cells, features, observer)
        if limit is not None:
            left = _estimate_found(left, estimator)
        passes.remember(recorded)
        runner = CellRunner(folder, observer, features, passes, Pairing(recorded))

        def run_trial(trial: PlannedCell, before: CellRecord | None) -> CellRecord:
            record = runner.run(trial, before)
            estimator.learn(trial, record)
            return record

        trials = TrialHistory(history, folder, by_id)
        tuner = Tuner(left, trials, observer, run_trial)
        _run_blocks([cell for cell in left if cell.trial is None], earlier, limit, estimator, runner, tuner)
        find_bytes_to_targets(run.experiments, cells, runner, trials, limit)
    except OSError as error:
        if not concerns(error, results):
            raise
        raise XbenchError(
            f"cannot write results to {results}: {error.filename}: {error.strerror or error}",
            hint="finished cells are kept; free some space and run the command again",
        ) from error
    return folder


def _open(run: RunRecord, plan: PlannedRun, history: History, results: Path, observer: Observer) -> RunFolder:
    """Open the folder of a run, and reuse the cells that earlier runs have settled."""
    warnings = [*run.warnings, *history.damaged]
    if history.same is not None and history.run is not None and history.declares(run.cells):
        folder = history.same
        for cell_id in history.find_leftovers():
            folder.remove_leftovers(cell_id)
        before = {"started_at": history.run.started_at, "fresh": history.run.fresh}
        folder.write_run(run.model_copy(update=before))
    else:
        folder = RunFolder.create(results, plan.suite.text, run)
        if history.run is not None:
            warnings += warn_of_changes(plan.import_dirs, history.run.started_at)
    observer.working("reusing earlier results")
    warnings += history.reuse_results(run.cells, folder)
    settled = history.find_settled(run.cells)
    failed = [key for key in settled if key in history.records and history.records[key].is_failure]
    if failed:
        warnings.append(
            f"{pluralize(len(failed), 'cell')} failed {MAX_ATTEMPTS} times and will not be tried again "
            "(--fresh runs all cells again)"
        )
    observer.run_started(folder.path, run, warnings)
    if settled:
        observer.cells_kept(len(settled), len({cell.cell_id for cell in run.cells}))
    return folder


def _reuse_largest(cells: list[PlannedCell], records: list[CellRecord]) -> list[PlannedCell]:
    """Give cells with `train_size = "largest"` the size with which their experiment has run before. Trainings
    that searched for bytes ran with smaller ones."""
    ran = {
        record.experiment: record.ran["train_size"]
        for record in records
        if record.status == "done"
        and record.requested.get("train_size") == "largest"
        and not record.bytes_trial_of
    }
    why = "the largest that every optimizer of the experiment could run earlier"
    return [
        cell.with_sizes(with_size(cell.settings, Axis.TRAIN_SIZE, ran[cell.declared.experiment]), why)
        if cell.settings.training.train_size == "largest" and cell.declared.experiment in ran
        else cell
        for cell in cells
    ]


def _list_keys(cells: list[PlannedCell]) -> list[CellKey]:
    """List the keys of the cells that a run declares, which trials are not: their number may be open."""
    return [cell.key for cell in cells if cell.trial is None]


def _select_unsettled(cells: list[PlannedCell], history: History) -> list[PlannedCell]:
    """Select the cells that have to run, and those that stand for the trials which these need."""
    settled = history.find_settled(_list_keys(cells))
    return drop_idle([cell for cell in cells if cell.trial or cell.key.cell_id not in settled])


def _make_run_record(plan: PlannedRun, keys: list[CellKey], warnings: list[str], fresh: bool) -> RunRecord:
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
        metrics=list(merge_metrics(data.facts.task.metrics for data in plan.data)),
        epoch_metrics=list(merge_metrics(data.facts.task.epoch_metrics for data in plan.data)),
        experiments=_make_experiment_records(plan),
        cells=keys,
        warnings=warnings,
    )


def _place(cell: PlannedCell) -> tuple[str, str, int]:
    """Return the experiment, column and seed of a cell, which identify it within the suite."""
    return cell.declared.experiment, cell.declared.column, cell.declared.seed


def _fit(
    left: list[PlannedCell],
    cells: list[PlannedCell],
    features: FeatureKeeper,
    observer: Observer,
) -> list[PlannedCell]:
    """Fit the cells that are left. The largest size of an experiment depends on all of its cells, including
    those that have ended."""
    largest = {cell.declared.experiment for cell in left if cell.settings.training.train_size == "largest"}
    wanted = {_place(cell) for cell in left}
    considered = [cell for cell in cells if _place(cell) in wanted or cell.declared.experiment in largest]
    by_place = {_place(cell): cell for cell in left}
    fitted = fit_cells([by_place.get(_place(cell), cell) for cell in considered], features, observer)
    fitted = [cell for cell in fitted if _place(cell) in wanted]
    return fit_equal_memory(fitted, cells, features, observer)


def _estimate_found(cells: list[PlannedCell], estimator: Estimator) -> list[PlannedCell]:
    """Estimate the cells whose sizes were not known when the others were estimated."""
    new = [cell for cell in cells if cell.axis is not None and cell.estimate.seconds is None]
    estimated = {_place(cell): cell for cell in estimator.estimate(new)}
    return [estimated.get(_place(cell), cell) for cell in cells]


def _run_blocks(
    cells: list[PlannedCell],
    earlier: dict[str, CellRecord],
    limit: TimeLimit | None,
    estimator: Estimator,
    runner: CellRunner,
    tuner: Tuner,
) -> None:
    """Run cells in order, each cell once. The trials that a cell needs run before it.

    Args:
        earlier: the last record of each cell that was tried before, by cell ID.
    """
    ran: set[str] = set()
    passed_over: set[str] = set()
    made_s: dict[str, float] = {}
    for block in group_blocks(cells, by_time=limit is not None):
        # If two experiments declare the same cell, it runs once, and both show it.
        block = list({cell.key.cell_id: cell for cell in block if cell.key.cell_id not in ran}.values())
        if limit is not None and block:
            block = limit.admit(block, made_s)
            made_s |= shared_s(block)
        for cell in block:
            cell_id = cell.key.cell_id
            if cell.skip and cell_id in passed_over:
                continue
            cell = tuner.tune(cell)
            record = runner.run(cell, earlier.get(cell_id))
            estimator.learn(cell, record)
            # A cell skipped for lack of time in one experiment may still run in another.
            (passed_over if cell.skip else ran).add(cell_id)


def preview(plan: PlannedRun, observer: Observer, started: float) -> tuple[list[PlannedCell], list[str]]:
    """Preview a run without decoding its data or fitting its sizes.

    Args:
        started: when the command began, by `time.monotonic`; the time limit counts from then on.

    Returns:
        The cells in the order in which they would run, without trials, each with an estimate of its time and
        a skip if it would be skipped; and the warnings of the run, except those on images.

    Raises:
        XbenchError: no image of a dataset can be read, or there are too few images.
    """
    cells = make_cells(plan, prepare_samples(plan))
    warnings = [*collect_suite_warnings(plan), *check_splits(plan, cells), *check_batches(plan, cells)]
    check_warmups(plan, cells)
    estimator = Estimator(FeatureKeeper(observer), observer)
    cells = estimate_trials(estimator.estimate(recall_sizes(cells, cells)))
    cells = [cell for cell in cells if cell.trial is None]
    limit_s = plan.suite.header.time_limit
    previewed: list[PlannedCell] = []
    spent_s = time.monotonic() - started  # a run spends this time as well
    for block in group_blocks(cells, by_time=limit_s is not None):
        if limit_s is not None:
            left_s = limit_s - spent_s - estimate_s(previewed)
            block = skip_if_late(block, left_s, limit_s, shared_s(previewed))
        previewed += block
    return previewed, warnings


def _make_experiment_records(plan: PlannedRun) -> list[ExperimentRecord]:
    everywhere = merge_metrics(data.facts.task.metrics for data in plan.data)
    declared = {
        name: merge_metrics(
            data.facts.task.metrics
            for cell, data in zip(plan.cells, plan.data, strict=True)
            if cell.experiment == name
        )
        for name in {cell.experiment for cell in plan.cells}
    }
    epoch_metrics = merge_metrics(data.facts.task.epoch_metrics for data in plan.data)
    records = []
    for experiment in plan.suite.experiments.values():
        if not any(cell.experiment == experiment.name for cell in plan.cells):
            continue
        reference, target = experiment.reference, experiment.target
        columns = list(dict.fromkeys(c.column for c in plan.cells if c.experiment == experiment.name))
        baseline = experiment.baseline or plan.suite.header.baseline
        records.append(
            ExperimentRecord(
                name=experiment.name,
                title=experiment.title or experiment.name,
                baseline=(baseline and match_column(baseline, columns)) or "",
                metrics=[] if declared[experiment.name] == everywhere else list(declared[experiment.name]),
                reference=reference.columns if reference else {},
                reference_name=reference.name if reference else "",
                reference_note=reference.note if reference else "",
                tuning=_make_search_record(plan, experiment.name),
                equal=_make_equal_record(plan, experiment.name),
                target=None if target is None else make_target_record(target, epoch_metrics),
            )
        )
    return records


def _make_search_record(plan: PlannedRun, experiment: str) -> SearchRecord | None:
    """Describe how the settings of an experiment are searched; None if they are not."""
    searched = {
        index: cell
        for index, cell in enumerate(plan.cells)
        if cell.experiment == experiment and cell.search is not None
    }
    if not searched:
        return None
    return make_search_record(searched.values(), plan.data[next(iter(searched))].facts.task)


def _make_equal_record(plan: PlannedRun, experiment: str) -> EqualRecord | None:
    along, limit_bytes = {}, None
    for place, cell in enumerate(plan.cells):
        if cell.experiment == experiment and (axis := plan.axis_of(place)) is not None:
            along[cell.column], limit_bytes = axis.setting, plan.limit_of(cell)
    return None if limit_bytes is None else EqualRecord(limit_bytes=limit_bytes, along=along)
