"""Plan a run: check a suite with all of its components, and make its planned cells."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from xbench.capacity.axis import AnyAxis
from xbench.components.code_files import ImportDirs, place_of
from xbench.components.settings import Settings
from xbench.data.decode import DECODING
from xbench.data.prepared import PreparedData, RowData
from xbench.errors import UnusableDevice, XbenchError
from xbench.isolation.ask import ask
from xbench.isolation.run import ChildFailed, ChildResult, Timeouts, run_in_child
from xbench.memory.limits import can_limit_host_memory
from xbench.memory.machine import Bound, binding, rounded_limit_bytes, with_memory_limits
from xbench.planning.cell_checks import check_data, find_idle_settings, fit_to_data
from xbench.planning.datasets import prepare_dataset, prepare_sample
from xbench.planning.describe import ModelFacts, describe_components, fetch_weights
from xbench.planning.equal_memory import find_axes
from xbench.planning.limits import check_limits
from xbench.planning.machine import Machine, describe_machine, examine_machine
from xbench.planning.observer import Observer
from xbench.planning.planned import MemoryPlan, PlannedCell, TrialPlan
from xbench.planning.precision_checks import check_compiler, check_optimizers_precision, check_precision
from xbench.planning.resolution import ResolvedData
from xbench.planning.searches import check_searches
from xbench.planning.target_checks import check_evaluations, check_targets
from xbench.planning.trials import (
    check_models,
    check_optimizers,
    check_recipes,
    describe_each_model,
    resolve_datasets,
)
from xbench.suite.blame import Tried, add_complaints
from xbench.suite.cells import Cell
from xbench.suite.grid import collect_components, expand
from xbench.suite.lines import KeyPath
from xbench.suite.reader import Suite
from xbench.training.settings import CellSettings, Choice
from xbench.training.splits import split_examples
from xbench.units import tightest


@dataclass(frozen=True)
class PlannedRun:
    """A checked suite on this machine.

    Attributes:
        data: the dataset of each of `cells`.
        models: the facts about the model of each of `cells`.
        axes: for each of `cells` in an experiment with equal memory, the axis on which it gets the largest
            value that fits; None for the others. Empty for none at all.
        memory_bound: what limits the memory of each cell's process: the suite's `memory_limit`, or the
            machine if it has less.
        default_histories: default `history_size` of the optimizers that have one, by name.
        memory_free: the settings of each optimizer that do not change memory, by name.
        warnings: warnings about components that could not be tried, findings of trials, and settings without
            effect.
        import_dirs: folders that `module:attribute` components may be imported from.
    """

    suite: Suite
    machine: Machine
    cells: list[Cell]
    data: list[ResolvedData]
    models: list[ModelFacts]
    memory_bound: Bound
    default_histories: dict[str, int]
    warnings: tuple[str, ...]
    import_dirs: ImportDirs
    memory_free: dict[str, tuple[str, ...]] = field(default_factory=dict)
    axes: Sequence[AnyAxis | None] = ()

    @property
    def name(self) -> str:
        return self.suite.header.name

    def axis_of(self, place: int) -> AnyAxis | None:
        """Return the axis of one of `cells`, by its index."""
        return self.axes[place] if self.axes else None

    def bound_of(self, cell: Cell) -> Bound:
        """Return what limits the memory of a cell's process: the smallest of its limits and the machine's."""
        return binding(with_memory_limits(self.machine.memory_bounds, cell.memory_limits))

    def limit_of(self, cell: Cell) -> int | None:
        """Return the memory limit of a cell's process: resident bytes, or bytes of device memory on CUDA.

        None if the suite sets no limit, and the system (macOS) cannot enforce one.
        """
        if self.machine.device == "cpu" and not can_limit_host_memory() and not cell.memory_limits:
            return None
        return rounded_limit_bytes(self.bound_of(cell))


def plan_run(
    suite: Suite, import_dirs: Sequence[str] = (), on_step: Callable[[str], None] = lambda what: None
) -> PlannedRun:
    """Check a whole suite and expand it.

    Args:
        import_dirs: folders that `module:attribute` components may be imported from.
        on_step: called with a description of each step before it begins, such as "trying the models".

    Raises:
        XbenchError: the suite has mistakes, its device cannot be used, or worker processes cannot run.
    """
    if not suite.is_worth_checking:
        suite.problems.raise_if_any()
    header, import_dirs = suite.header, allowed_folders(import_dirs, suite)
    on_step("starting worker processes")
    try:
        machine = examine_machine(describe_machine, header.device)
    except UnusableDevice as error:
        suite.problems.add(("suite", "device"), error.message, error.hint)
        suite.problems.raise_if_any()
    on_step("loading the components")
    known = ask(describe_components, collect_components(suite), import_dirs)
    expansion = expand(suite, known)
    problems = suite.problems
    on_step("trying the optimizers")
    untried = check_optimizers(expansion, machine.device, import_dirs, problems)
    idle, pairs = check_recipes(expansion, machine.device, import_dirs, problems)
    untried += idle
    on_step("listing the datasets")
    resolved = resolve_datasets(expansion, import_dirs, problems)
    on_step("looking for the models' weights")
    models = describe_each_model(expansion, import_dirs, problems)
    cells = fit_to_data(expansion.cells, resolved, problems)
    check_data(cells, resolved, models, problems)
    axes = find_axes(cells, resolved, known, import_dirs, problems)
    check_evaluations(cells, resolved, problems)
    check_targets(suite.experiments, cells, resolved, problems)
    check_limits(suite, cells, machine)
    check_searches(cells, resolved, problems)
    check_precision(cells, resolved, problems)
    check_optimizers_precision(cells, import_dirs, problems)
    if any(cell.training.compile for cell in cells):
        on_step("trying the compiler")
        check_compiler(cells, machine.device, problems)
    on_step("trying the models")
    found, tried = check_models(expansion, resolved, models, pairs, machine.device, import_dirs, problems)
    problems.raise_if_any()
    return PlannedRun(
        suite=suite,
        machine=machine,
        cells=cells,
        data=[resolved[repr(cell.dataset)] for cell in cells],
        models=tried,
        memory_bound=binding(with_memory_limits(machine.memory_bounds, tightest([header.memory_limit]))),
        default_histories={
            name: settings.defaults["history_size"]
            for (kind, name), settings in known.items()
            if kind == "optimizer" and "history_size" in getattr(settings, "defaults", {})
        },
        warnings=suite.warnings + untried + found + find_idle_settings(cells, machine.device),
        import_dirs=import_dirs,
        memory_free={
            name: settings.memory_free
            for (kind, name), settings in known.items()
            if kind == "optimizer" and isinstance(settings, Settings)
        },
        axes=axes,
    )


# A child that waits for another process to do the same work is not considered hung.
_NO_HANG_TIMEOUT = Timeouts(hangs_after_s=None)


# The training settings that determine which examples a cell is trained on.
_SPLIT_BY = ("train_size", "validation", "balance")


def prepare_all(plan: PlannedRun, observer: Observer) -> dict[str, PreparedData]:
    """Prepare every dataset of a plan.

    Raises:
        XbenchError: a dataset cannot be prepared.
    """
    decoded: dict[str, PreparedData] = {}
    for cell, data in zip(plan.cells, plan.data, strict=True):
        if _data_key(data) not in decoded:
            name = data.choice.name
            observer.working(f"preparing {name}")
            with _place_mistakes(plan, cell, data):
                decoded[_data_key(data)] = ask(
                    prepare_dataset,
                    data.choice,
                    data.strict,
                    plan.import_dirs,
                    on_message=partial(_report_decoding, observer, name),
                    timeouts=_NO_HANG_TIMEOUT,
                )
    observer.working("splitting the data and identifying the cells")
    return decoded


@contextmanager
def _place_mistakes(plan: PlannedRun, cell: Cell, data: ResolvedData) -> Iterator[None]:
    """Report a mistake in a dataset's rows at the line of the suite that names the dataset."""
    try:
        yield
    except ChildFailed:
        raise
    except XbenchError as error:
        if data.facts.has_images:  # the images are at fault, and named
            raise
        plan.suite.problems.add(cell.dataset_path, error.message, error.hint)
        plan.suite.problems.raise_if_any()


def _report_decoding(observer: Observer, dataset: str, progress: tuple[str, int, int]) -> None:
    """Report the progress that `prepare_dataset` sends."""
    step, done, total = progress
    if step == DECODING:
        observer.decoding(dataset, done, total)
    else:
        observer.working(f"{step} of {dataset}", done, total)


def prepare_samples(plan: PlannedRun) -> dict[str, PreparedData]:
    """List every dataset of a plan and decode a few of its images, which stand for the others.

    Raises:
        XbenchError: a dataset cannot be prepared.
    """
    samples: dict[str, PreparedData] = {}
    for cell, data in zip(plan.cells, plan.data, strict=True):
        if _data_key(data) not in samples:
            with _place_mistakes(plan, cell, data):
                samples[_data_key(data)] = ask(prepare_sample, data.choice, plan.import_dirs)
    return samples


def make_cells(plan: PlannedRun, decoded: dict[str, PreparedData]) -> list[PlannedCell]:
    """Make a planned cell for every cell of a plan.

    Args:
        decoded: the result of `prepare_all` or `prepare_samples`.

    Raises:
        XbenchError: a cell does not have enough examples. This is known only after decoding, because
            unreadable images are left out.
    """
    problems, cells = plan.suite.problems, []
    splits: dict[KeyPath, list[Tried]] = {}
    of_cells = zip(plan.cells, plan.data, plan.models, strict=True)
    for place, (declared, resolved, model) in enumerate(of_cells):
        data = decoded[_data_key(resolved)]
        if declared.training.compile and isinstance(data, RowData) and data.row_bytes is not None:
            problems.add(
                declared.where("compile"),
                f"the rows of {data.name} differ in size, so the model would be compiled for every batch",
                hint="leave out compile, or pad all rows to the same size",
            )
        device = plan.machine.device
        training = declared.training.model_copy(
            update={"memory_format": declared.training.memory_format_on(device)}
        )
        settings = CellSettings(
            declared.model,
            declared.optimizer,
            training,
            declared.seed,
            device,
            declared.dataset.storage,
            declared.seed_parts,
        )
        of_experiment = splits.setdefault(declared.path[:2], [])
        values = [v for v in declared.values if v.kind == "dataset" or v.key in _SPLIT_BY]
        try:
            available = len(split_examples(data, declared.training, settings.seed_parts.split).train)
            of_experiment.append(Tried(values))
        except XbenchError as error:
            of_experiment.append(Tried(values, error.message, error.hint))
            continue
        cells.append(
            PlannedCell(
                declared=declared,
                settings=settings,
                resolved=resolved,
                data=data,
                model=model,
                available=available,
                default_history=plan.default_histories.get(declared.optimizer.name),
                machine=plan.machine,
                memory=MemoryPlan(plan.limit_of(declared)),
                import_dirs=plan.import_dirs,
                peers=_describe_peers(plan, declared),
                axis=plan.axis_of(place),
                checkpoint_every_s=plan.suite.header.checkpoint_interval,
                memory_free=_list_memory_free(plan, declared.optimizer),
                trial=TrialPlan(0, {}) if declared.is_trial else None,
            ).with_identity()
        )
    for path, of_experiment in splits.items():
        add_complaints(problems, (*path, "train_size"), "", of_experiment)
    problems.raise_if_any()
    return cells


def _list_memory_free(plan: PlannedRun, optimizer: Choice) -> tuple[str, ...]:
    """List the settings of an optimizer, and of its `rest`, that do not change memory."""
    own, rest = plan.memory_free.get(optimizer.name, ()), optimizer.rest
    of_rest = () if rest is None else plan.memory_free.get(rest.name, ())
    return (*own, *(f"rest.{name}" for name in of_rest))


def _describe_peers(plan: PlannedRun, declared: Cell) -> tuple[str, ...]:
    """Describe the cells that together determine the size of `train_size = "largest"`."""
    if declared.training.train_size != "largest":
        return ()
    others = [
        other
        for other in plan.cells
        if other.experiment == declared.experiment and other.seed == declared.seed
    ]
    return tuple(sorted(repr((other.optimizer, other.training, other.model)) for other in others))


def fetch_missing_weights(cells: list[PlannedCell], observer: Observer) -> list[PlannedCell]:
    """Download the weights that are not on this machine.

    Returns:
        The cells in the same order. A cell whose weights are not available has the reason in `skip`.
    """
    asked: dict[str, ChildResult] = {}
    ready = []
    for cell in cells:
        if cell.model.missing and cell.skip is None:
            choice = cell.settings.model
            if repr(choice) not in asked:
                observer.working(f"fetching the weights of {choice.name}")
                asked[repr(choice)] = run_in_child(
                    fetch_weights,
                    choice,
                    cell.import_dirs,
                    on_message=lambda progress: observer.fetching(*progress),
                    timeouts=_NO_HANG_TIMEOUT,
                )
            cell = _apply_fetched(cell, asked[repr(choice)])
        ready.append(cell)
    return ready


def _apply_fetched(cell: PlannedCell, ending: ChildResult) -> PlannedCell:
    if ending.outcome != "returned":
        return cell.with_skip("error", ending.reason)
    facts: ModelFacts = ending.value
    cell = replace(cell, model=facts).with_identity()  # the key depends on the weights
    return cell.with_skip("skipped", facts.missing, waits_for="weights") if facts.missing else cell


def _data_key(data: ResolvedData) -> str:
    return repr((data.choice, data.strict))


# Environment variables with the folder of a dataset's images, such as XBENCH_CHEST_XRAY_ROOT.
_ROOT_VARIABLE = re.compile(r"XBENCH_.+_ROOT")


def allowed_folders(import_dirs: Sequence[str], suite: Suite) -> ImportDirs:
    """Exclude files that are not code from the folders that components may be imported from.

    Excluded are the folders of the suite's datasets, which are covered by fingerprints, and the files that
    stdout and stderr are redirected to, which grow during the run. The images of a `module:attribute` dataset
    are not excluded, because it is not known how it reads them.
    """
    folders = [os.path.expanduser(root) for root in _list_roots(suite)]
    places = [place_of(folder) for folder in folders if os.path.isdir(folder)]
    places += [place_of(descriptor) for descriptor in (1, 2) if _is_regular_file(descriptor)]
    left_out = frozenset(place for place in places if place is not None)
    return replace(ImportDirs.of(import_dirs), left_out=left_out)


def _list_roots(suite: Suite) -> Iterator[str]:
    """Yield the folders of the suite's datasets, as given by settings and environment variables."""
    for experiment in suite.experiments.values():
        for dataset in experiment.dataset:
            for table in (dataset, dataset.fallback):
                if table is None or any(":" in name for name in table.names):
                    continue
                roots = table.settings.get("root", [])
                for root in roots if isinstance(roots, list) else [roots]:
                    if isinstance(root, str) and "\0" not in root:
                        yield root
    yield from (root for name, root in os.environ.items() if _ROOT_VARIABLE.fullmatch(name))


def _is_regular_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:  # the descriptor is closed
        return False
