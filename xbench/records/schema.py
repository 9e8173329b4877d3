"""The records of a run and its cells. This module imports no torch, so that records can be read instantly.

Sizes are in bytes, and times in seconds unless the name says otherwise. None means "not measured", as for
device peaks on a CPU or for metrics of a failed cell.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from xbench.records.base import SCHEMA_VERSION, CellId, Record, Whole
from xbench.records.memory import MemoryPassRecord, MemoryRecord
from xbench.records.sampling import SamplingRecord
from xbench.records.seeds import SeedPartsRecord, make_equal_parts
from xbench.records.targets import BytesRecord, TargetRecord
from xbench.records.tuning import SearchRecord, TrialRecord, TunedRecord

Status = Literal["done", "oom", "diverged", "timeout", "error", "skipped"]
FAILED: frozenset[Status] = frozenset(get_args(Status)) - {"done", "skipped"}


class Component(Record):
    """A component as the suite names it, with the settings that the suite gives.

    Attributes:
        origin: the distribution that registers the component, as `name version`; "" for code outside a
            package.
        params: its settings, by name.
        stand_in: a note on a model whose weights are not what its name promises; "" for any other.
        weights: identifies the weight files that a model reads; "" if it reads none.
    """

    name: str
    origin: str = ""
    params: dict[str, Any] = Field(default_factory=dict)
    stand_in: str = ""
    weights: str = ""

    @property
    def title(self) -> str:
        """The component's name as tables show it."""
        return f"{self.name} ({self.stand_in})" if self.stand_in else self.name


class DataRecord(Record):
    """The data that a cell trained on.

    Attributes:
        requested: the dataset that the suite names. `name` differs if its fallback was used.
        origin, params: see `Component`.
        stand_in: a note that the data is made up; empty for real data.
        fingerprint: hash of everything in the dataset that training can see.
        fingerprint_method: what the fingerprint is made of; "" for images, of which it is all.
        counts: number of rows by `"SPLIT/CLASS"`, or by split if there are no classes, before validation is
            held out.
        unreadable: (name, reason) of each image that was left out.
        notes: sentences for the reader about the dataset.
        classes: class names in the order of their labels; empty if there are none, and in records of older
            versions.
        facts: what the task declares about itself, by name, such as the positive class.
        loss_unit: unit of the loss; "" if it has none. Records of older versions are of cross entropies.
        optimum: the known minimum of the loss over all training rows; None if it is not known.
        test_copies: number of test images with the same content as a training image; None if not counted.
        cross_class_copies: number of images with the same content as an image of another class; None if not
            counted.
        near_copies: number of test images that look like a training image, without exact copies; None if
            images were not compared, and for rows.
        cross_class_near_copies: number of images that look like an image of another class, without exact
            copies; None if images were not compared, and for rows.
        licence, citation: licence of the data, and the citation that its authors ask for; "" if unknown, as
            in records of older versions.
    """

    requested: str
    name: str
    origin: str = ""
    params: dict[str, Any] = Field(default_factory=dict)
    stand_in: str = ""
    fingerprint: str = ""
    fingerprint_method: str = ""
    counts: dict[str, Whole] = Field(default_factory=dict)
    unreadable: list[tuple[str, str]] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    classes: list[str] = Field(default_factory=list)
    facts: dict[str, str] = Field(default_factory=dict)
    loss_unit: str = "nats"
    optimum: float | None = None
    test_copies: Whole | None = None
    cross_class_copies: Whole | None = None
    near_copies: Whole | None = None
    cross_class_near_copies: Whole | None = None
    licence: str = ""
    citation: str = ""

    @model_validator(mode="before")
    @classmethod
    def _read_positive(cls, fields: Any) -> Any:
        """Read the field `positive` of older records, which is now one of the facts."""
        if isinstance(fields, dict) and fields.get("positive") and len(fields.get("classes", ())) == 2:
            return {"facts": {"positive": fields["positive"]}, **fields}
        return fields

    @property
    def facts_text(self) -> str:
        """The facts as tables show them; "" if there are none."""
        return "; ".join(f"{name}: {fact}" for name, fact in self.facts.items())


class MetricRecord(Record):
    """The declaration of a metric, which says what its values mean.

    Attributes:
        name: key of the metric's values in records, in exports, and in a suite's reference columns.
        title: title of the metric's row in tables.
        unit: unit of the values; "" for ratios and other numbers without a unit.
        direction: `"max"` if higher values are better, `"min"` if lower values are.
        split: the split that the metric is measured on.
        method: how the metric is computed, in words.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    title: str
    unit: str = ""
    direction: Literal["max", "min"]
    split: Literal["train", "validation", "test"]
    method: str = ""


# A cell's times are not ranked if a thread waited for a CPU longer than this share of the time, and for at
# least this many seconds: on any machine something else runs for a moment.
MAX_WAITING_SHARE, MIN_WAITING_S = 0.1, 1.0


class Times(Record):
    """Times of a cell, in seconds unless the name says otherwise.

    Attributes:
        training_s: time of all training steps, without evaluation.
        evaluation_s: time of validation after each epoch and of the final evaluation.
        prepare_s: time to build the model, compile it or read its graphs from the cache, warm up, and split
            the data.
        compile_s: time to compile the model before training, without a cache: if an earlier process compiled
            some graphs, this includes the time that it took. None if the model is not compiled.
        compiled_graphs: number of graphs that were compiled: one for each batch shape, in training and in
            evaluation, and several if the model has parts that cannot be compiled.
        untimed_graphs: number of cached graphs whose time is not known, and not included in `compile_s`.
        late_compile_s: part of `training_s` and `evaluation_s` in which the model was compiled again,
            although all shapes had been compiled; None if it is not compiled.
        features_s: time to compute, before this cell, the features that no earlier cell had cached.
        memory_pass_s: time of the memory pass before this cell; None if another cell's was shared.
        checkpoints_s: time to save checkpoints.
        estimated_s: estimated time of the cell's whole process; None if no estimate was made.
        step_ms_median: median wall time of a step, in milliseconds.
        waiting_share: share of training and evaluation, 0 to 1, in which a thread was ready to run but other
            programs had the CPU; None if the system does not report it. A resumed cell counts only the time
            since it was resumed.
    """

    training_s: float | None = None
    evaluation_s: float | None = None
    prepare_s: float | None = None
    compile_s: float | None = None
    compiled_graphs: Whole | None = None
    untimed_graphs: Whole | None = None
    late_compile_s: float | None = None
    features_s: float | None = None
    memory_pass_s: float | None = None
    checkpoints_s: float | None = None
    estimated_s: float | None = None
    step_ms_median: float | None = None
    waiting_share: float | None = None

    @property
    def was_disturbed(self) -> bool:
        """Whether other programs slowed the cell."""
        share, seconds = self.waiting_share or 0.0, (self.training_s or 0.0) + (self.evaluation_s or 0.0)
        return share > MAX_WAITING_SHARE and share * seconds > MIN_WAITING_S


class PairingRecord(Record):
    """The starting point of a cell, to be compared with other cells of the same experiment and seed.

    Attributes:
        weights_sha256: hash of the whole model's initial parameters and buffers.
        order_sha256: hash of the examples in the order of the first epoch.
        drawn_on: the processor and number of threads that drew the weights. Others may round differently.
        note: how the starting point differs from that of another cell, if rounding may explain it; otherwise
            "".
    """

    weights_sha256: str = ""
    order_sha256: str = ""
    drawn_on: str = ""
    note: str = ""


class FeaturesRecord(Record):
    """Cached outputs of a model's frozen backbone, on which its head was trained.

    Attributes:
        precision: precision of the cached features; None if there are none.
        shape: shape of the features of one example.
        note: why features were not cached although part of the model is frozen.
    """

    precision: str | None = None
    shape: list[Whole] = Field(default_factory=list)
    note: str = ""


class EpochRecord(Record):
    """One epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        values: metric name -> value after the epoch. Values that were not measured are absent or None. The
            names are declared in `RunRecord.epoch_metrics`.
    """

    epoch: Whole
    values: dict[str, float | None]


class EvaluationRecord(Record):
    """One evaluation of the weights during training.

    Attributes:
        step: number of steps before the evaluation.
        epoch: number of the epoch, from 1.
        examples: examples drawn so far; an example counts once in each epoch.
        closures: evaluations of loss and gradient so far.
        training_s: training time so far, in seconds, without any evaluation.
        values: metric name -> value on held-out rows. The names are declared in `RunRecord.epoch_metrics`.
    """

    step: Whole
    epoch: Whole
    examples: Whole
    closures: Whole
    training_s: float
    values: dict[str, float | None]


class CellRecord(Record):
    """One attempt at a cell: a line of `cells.jsonl`.

    Attributes:
        column: the optimizer's label in tables, including any axes that vary within the optimizer.
        seed: the cell's seed, or the number of a combination if the suite varies the parts of seeds apart.
        seed_parts: the seeds of what was drawn; all are `seed` in records of older versions.
        reason: why the cell is not done; "" if it is.
        expect: `"oom"` for a cell that is expected to run out of memory.
        parameters_by_role: number of trained parameters for each role: `"embedding"`, `"hidden"` and
            `"output"` (the last layer). Empty if the cell did not start, and in records of older versions.
        requested, ran: train_size, history_size, batch_size and micro_batch, as requested and as run; also a
            setting of the model or the dataset, if the cell has its largest value that fits.
        fitted: name of such a setting -> why it did not run as requested.
        metrics: metric name -> value with the selected weights. None or absent if the metric is undefined or
            the cell is not done. The names are declared in `RunRecord.metrics`.
        evaluations: every evaluation on held-out rows during training: within epochs, if `evaluate_every`
            asks for them, and after each epoch. Empty without such rows, and in records of older versions.
        selected_epoch: the epoch, from 1, whose weights were selected.
        closures: evaluations of loss and gradient over all steps.
        reused_from: the run whose result was reused; "" if the cell ran in this run.
        resumed_at: steps at which the cell resumed from a checkpoint after it was interrupted or died.
        processors: models of the processors (on CUDA, of the devices) that the cell ran on, in order. There
            are several if it resumed on another one.
        memory_pass: memory that the cell's configuration needs; None if not measured.
        waits_for: what a skipped cell needs in order to run next time: `time`, `memory` or `weights`; "" if
            it would be skipped again.
        trace_crc32: checksum of the cell's trace file; None if there is none.
        outputs_crc32: checksum of the file with its outputs on the test split; None if there is none.
        sampling: how much its metrics depend on the choice of test rows; None if not estimated.
        trial: the cell's place among the trials of a search; None if it is none of them. Trials have no
            metrics of the test split, and tables leave them out.
        tuned: the settings that a search found for the cell; None if there was no search.
        bytes_to_targets: the smallest memory limit under which the cell still reaches a target, for each
            target for which it was searched: experiments may share a cell, and a target may be changed. The
            cell's line is written again when there is news.
        bytes_trial_of: ID of the cell whose `bytes_to_targets` this cell is a trial of; "" if it is none.
            Tables leave such trials out.
    """

    schema_version: Whole = SCHEMA_VERSION
    cell_id: CellId
    attempt: Whole = 1
    experiment: str
    column: str
    model: Component
    dataset: DataRecord
    optimizer: Component
    seed: Whole
    seed_parts: SeedPartsRecord = Field(default_factory=make_equal_parts)
    status: Status
    reason: str = ""
    expect: Literal["oom"] | None = None
    parameters_by_role: dict[str, Whole] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    requested: dict[str, Any] = Field(default_factory=dict)
    ran: dict[str, Any] = Field(default_factory=dict)
    fitted: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, float | None] = Field(default_factory=dict)
    time: Times = Times()
    memory: MemoryRecord = MemoryRecord()
    memory_pass: MemoryPassRecord | None = None
    pairing: PairingRecord = PairingRecord()
    features: FeaturesRecord = FeaturesRecord()
    epochs: list[EpochRecord] = Field(default_factory=list)
    evaluations: list[EvaluationRecord] = Field(default_factory=list)
    selected_epoch: Whole | None = None
    closures: Whole = 0
    steps: Whole = 0
    device: dict[str, Any] = Field(default_factory=dict)
    reused_from: str = ""
    resumed_at: list[int] = Field(default_factory=list)
    processors: list[str] = Field(default_factory=list)
    waits_for: str = ""
    trace_crc32: Whole | None = None
    outputs_crc32: Whole | None = None
    sampling: SamplingRecord | None = None
    trial: TrialRecord | None = None
    tuned: TunedRecord | None = None
    bytes_to_targets: list[BytesRecord] = Field(default_factory=list)
    bytes_trial_of: str = ""
    started_at: str
    ended_at: str

    @property
    def next_attempt(self) -> int:
        """The number of the next attempt. A skip does not count as an attempt."""
        return self.attempt + (self.status != "skipped")

    @property
    def needed_bytes(self) -> int | None:
        """Memory that the cell needs: on CUDA its allocator's peak, otherwise the peak of its memory pass;
        None if not measured."""
        if self.memory.peak_device_bytes is not None:
            return self.memory.peak_device_bytes
        return self.memory_pass.peak_bytes if self.memory_pass else None

    @property
    def is_failure(self) -> bool:
        """Whether the cell did not end as expected. One that is expected to run out of memory has to."""
        return self.status != self.expect if self.expect else self.status in FAILED


class EqualRecord(Record):
    """What every optimizer of an experiment has the same amount of, and what each of them spends it on.

    Attributes:
        what: what they have the same amount of.
        limit_bytes: the memory that each cell may take.
        along: column -> name of the setting that has the largest value that fits. The value is in the `ran`
            of the column's cells.
    """

    what: Literal["memory"] = "memory"
    limit_bytes: Whole
    along: dict[str, str]


class ExperimentRecord(Record):
    """An experiment as tables need it.

    Attributes:
        reference: published figures to print beside the run's own: column -> metric -> value.
        reference_name, reference_note: title of the published figures, and a note for the reader.
        baseline: title of the column that findings compare the others with; "" for the first column.
        metrics: declarations of its metrics, if the experiments of the run declare different ones; otherwise
            empty, and those of the run are its own.
        tuning: how the settings of its optimizers were searched; None if they were not.
        equal: what every optimizer has the same amount of; None if they have the same sizes instead.
        target: the quality to which its columns are compared; None if they are not.
    """

    name: str
    title: str
    baseline: str = ""
    metrics: list[MetricRecord] = Field(default_factory=list)
    reference: dict[str, dict[str, float]] = Field(default_factory=dict)
    reference_name: str = "reference"
    reference_note: str = ""
    tuning: SearchRecord | None = None
    equal: EqualRecord | None = None
    target: TargetRecord | None = None


class CellKey(Record):
    """A cell that the run declares, whether or not it ran."""

    cell_id: CellId
    experiment: str
    column: str
    seed: Whole


class RunRecord(Record):
    """The declaration of a run, known when it starts: `run.json`.

    Attributes:
        fresh: whether all cells were to run again, even if earlier runs have their results.
        changes: changes that the command line made to the suite (`--set`, `--only` and the like).
        versions: versions of xbench, Python, torch and everything else that results depend on.
        malloc: the allocator settings that cells ran under (environment variables).
        memory_bound: what limits the memory of a cell's process on this machine, in words.
        hardware: facts about the machine and the device.
        metrics: declarations of the cells' metrics, in the order of table rows.
        epoch_metrics: declarations of the metrics measured after each epoch.
        warnings: sentences for the reader of any table of this run.
    """

    schema_version: Whole = SCHEMA_VERSION
    suite: str
    started_at: str
    fresh: bool = False
    device: str
    changes: list[str] = Field(default_factory=list)
    versions: dict[str, str]
    malloc: dict[str, str] = Field(default_factory=dict)
    memory_bound: str = ""
    hardware: dict[str, Any]
    metrics: list[MetricRecord] = Field(default_factory=list)
    epoch_metrics: list[MetricRecord] = Field(default_factory=list)
    experiments: list[ExperimentRecord]
    cells: list[CellKey]
    warnings: list[str] = Field(default_factory=list)

    def metrics_of(self, experiment: str) -> list[MetricRecord]:
        """Return the declarations of an experiment's metrics."""
        own = next((e.metrics for e in self.experiments if e.name == experiment), [])
        return own or self.metrics

    @field_validator("metrics", "epoch_metrics")
    @classmethod
    def _reject_duplicates(cls, value: list[MetricRecord]) -> list[MetricRecord]:
        names = [metric.name for metric in value]
        if len(set(names)) < len(names):
            raise ValueError(f"each metric must be declared once, got {', '.join(names)}")
        return value
