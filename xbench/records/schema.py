"""The records of a run and its cells. This module imports no torch, so that records can be read instantly.

Sizes are in bytes, and times in seconds unless the name says otherwise. None means "not measured", as for
device peaks on a CPU or for metrics of a failed cell.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Records of version 1 are upgraded when they are read; see `records.upgrade`.
SCHEMA_VERSION = 2

Status = Literal["done", "oom", "diverged", "timeout", "error", "skipped"]
FAILED: frozenset[Status] = frozenset(get_args(Status)) - {"done", "skipped"}


# A 64-bit integer, which every tool can read back.
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]

# Safe as the name of a file or folder: it cannot lead out of the run's folder.
CellId = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,64}$")]


class Record(BaseModel):
    """Base class of all records. Fields that a newer xbench has added are ignored.

    JSON has no infinite numbers, so infinite hyperparameters are written as strings.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


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
        prepare_s: time to build the model, warm up, and split the data.
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


class MemoryRecord(Record):
    """Memory of a cell's own process, as it ran.

    The host peak depends on how many freed blocks malloc kept. `MemoryPassRecord` has the memory that the
    cell needs.

    Attributes:
        limit_bytes: the hard limit that the cell ran under.
        base_host_bytes: resident memory after a warm-up step on one example.
        pinned_bytes: pinned host memory through which batches are copied to a CUDA device, held throughout;
            None on a CPU.
        peak_host_bytes: resident peak over training and evaluation, libraries included.
        peak_device_bytes: peak of the CUDA allocator's allocated memory over training.
        peak_device_reserved_bytes: peak of the CUDA allocator's reserved memory, to which the limit applies.
        device_context_bytes: memory that the process held on the device outside the allocator (context,
            libraries, kernels) when it ended, or after its warm-up if it failed.
        device_context_method: how the context was measured: `nvml`, or one of two estimates that may include
            memory of other processes: `difference` (the fall in free memory) or `bound` (an upper bound). See
            `memory.devices`.
        device_alloc_retries: how often the allocator ran out of room and released its cached blocks. Above 0,
            the cell barely fits, and is slowed.
        host_peak_method: `clear_refs` (exact) or `sampled`.
        malloc: how the process's malloc kept freed blocks, `fast` or `exact` (see `memory.malloc`).
        parameters_bytes: size of the model's parameters and buffers.
        optimizer_state_bytes: size of the optimizer's state between steps.
        state_vectors: that size divided by the size of the trained parameters.
        expected_state_vectors: the ratio that theory predicts.
        exhausted: what reported that memory ran out; None if it did not.
        failed_allocation_bytes: size of the allocation that failed, if known.
    """

    limit_bytes: Whole | None = None
    base_host_bytes: Whole | None = None
    pinned_bytes: Whole | None = None
    peak_host_bytes: Whole | None = None
    peak_device_bytes: Whole | None = None
    peak_device_reserved_bytes: Whole | None = None
    device_context_bytes: Whole | None = None
    device_context_method: Literal["nvml", "difference", "bound"] | None = None
    device_alloc_retries: Whole | None = None
    host_peak_method: str | None = None
    malloc: Literal["fast", "exact"] | None = None
    parameters_bytes: Whole | None = None
    optimizer_state_bytes: Whole | None = None
    state_vectors: float | None = None
    expected_state_vectors: float | None = None
    exhausted: str | None = None
    failed_allocation_bytes: int | None = None  # not a `Whole`: the requested size may be absurd


# A value of `MemoryPassRecord.not_resumable` that is checked again: there may be more memory another time.
NO_MEMORY_TO_CHECK = "memory ran out as its state dict was checked"


class MemoryPassRecord(Record):
    """The memory that a configuration needs, measured in a memory pass.

    A memory pass runs a few real steps with the optimizer's full state, evaluates, and keeps the weights. It
    has a process of its own that returns every freed block to the system. The parts below are those of the
    peak, and add up to it.

    Attributes:
        cell_id: the cell that the pass ran for. Other cells of the same configuration share it.
        configuration: identifies the configuration: all settings of a cell except its seed.
        steps: number of steps taken.
        malloc: `exact`, or `fast` if this system's malloc cannot be made to return freed blocks. The peak
            then includes such blocks.
        peak_bytes: peak of the process, libraries included; on CUDA, peak of the allocated tensors.
        peak_phase: the phase in which the peak occurred.
        process_bytes: the process itself, libraries included; on CUDA, whatever else the allocator held.
        parameters_bytes: the model's parameters and buffers.
        data_bytes: examples in memory: a batch, a micro-batch, or the whole split if it is kept as floats.
        gradients_bytes: gradients that existed at the peak.
        optimizer_state_bytes: state that the optimizer keeps between steps.
        optimizer_work_bytes: what the optimizer held at the peak beyond that state.
        activations_bytes: what the forward and backward passes took beyond gradients and examples.
        keeping_bytes: what keeping the weights took.
        final_state_bytes: the optimizer's state after the last step.
        not_resumable: why cells of this model write no checkpoints: the model has state outside its state
            dict, which would be lost. "" if they do write checkpoints, None if this was not checked.
    """

    cell_id: CellId | None = None
    configuration: str = ""
    steps: Whole
    malloc: Literal["fast", "exact"]
    peak_bytes: Whole
    peak_phase: Literal["closure", "update", "evaluation", "keeping weights"]
    process_bytes: Whole
    parameters_bytes: Whole
    data_bytes: Whole
    gradients_bytes: Whole
    optimizer_state_bytes: Whole
    optimizer_work_bytes: Whole
    activations_bytes: Whole
    keeping_bytes: Whole
    final_state_bytes: Whole
    not_resumable: str | None = None

    @property
    def above_base_bytes(self) -> int:
        """Memory that training takes on top of the process and its model."""
        return self.peak_bytes - self.process_bytes - self.parameters_bytes


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
        shape: shape of the features of one image.
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


class CellRecord(Record):
    """One attempt at a cell: a line of `cells.jsonl`.

    Attributes:
        column: the optimizer's label in tables, including any axes that vary within the optimizer.
        reason: why the cell is not done; "" if it is.
        expect: `"oom"` for a cell that is expected to run out of memory.
        requested, ran: train_size, history_size, batch_size and micro_batch, as requested and as run.
        fitted: name of such a setting -> why it did not run as requested.
        metrics: metric name -> value with the selected weights. None or absent if the metric is undefined or
            the cell is not done. The names are declared in `RunRecord.metrics`.
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
    status: Status
    reason: str = ""
    expect: Literal["oom"] | None = None
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


class ExperimentRecord(Record):
    """An experiment as tables need it.

    Attributes:
        reference: published figures to print beside the run's own: column -> metric -> value.
        reference_name, reference_note: title of the published figures, and a note for the reader.
        baseline: title of the column that findings compare the others with; "" for the first column.
        metrics: declarations of its metrics, if the experiments of the run declare different ones; otherwise
            empty, and those of the run are its own.
    """

    name: str
    title: str
    baseline: str = ""
    metrics: list[MetricRecord] = Field(default_factory=list)
    reference: dict[str, dict[str, float]] = Field(default_factory=dict)
    reference_name: str = "reference"
    reference_note: str = ""


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
