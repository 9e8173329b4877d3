"""What is recorded of a run and of each of its cells. Torch-free: reading records must be instant.

Sizes are in bytes, times in seconds unless the name says otherwise; None means "not measured here" (device
peaks on a CPU, metrics of a cell that failed).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

# Version 1 is upgraded when it is read, see `records.upgrade`.
SCHEMA_VERSION = 2

Status = Literal["done", "oom", "diverged", "timeout", "error", "skipped"]
FAILED: frozenset[Status] = frozenset(get_args(Status)) - {"done", "skipped"}


# What tables reckon with and tools read back: no number of a thousand digits.
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]

# It names files and folders of a run: nothing that would lead out of it.
CellId = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,64}$")]


class Record(BaseModel):
    """Unknown fields of a newer xbench are kept out of the way, not refused. JSON has no infinite numbers: as
    hyperparameters they are texts in it."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


class Component(Record):
    """A component as the suite names it, with the settings given there.

    Attributes:
        origin: the distribution that registers it, as `name version`; "" for code that has no package.
        stand_in: what a reader must be told of a model whose weights are not what its name promises.
        weights: what identifies the files of weights that a model reads; "" for none.
    """

    name: str
    origin: str = ""
    params: dict[str, Any] = Field(default_factory=dict)
    stand_in: str = ""
    weights: str = ""

    @property
    def title(self) -> str:
        """Its name as tables show it."""
        return f"{self.name} ({self.stand_in})" if self.stand_in else self.name


class DataRecord(Record):
    """Which data a cell saw.

    Attributes:
        requested: the dataset that the suite asked for; `name` differs where its fallback ran.
        stand_in: what a reader must be told if the data is made up; empty for real data.
        fingerprint: hash of all that training can see of it.
        counts: images by `"SPLIT/CLASS"`, before validation is held out.
        unreadable: (name, reason) of images left out.
        classes: in the order of their labels; empty in records of older versions, as is `positive`.
        positive: the class that recall, precision and AUC are about, with two classes.
        test_copies: how many test images have the same content as a training image; None where not counted.
        cross_class_copies: how many images have the same content as one of another class.
    """

    requested: str
    name: str
    origin: str = ""
    params: dict[str, Any] = Field(default_factory=dict)
    stand_in: str = ""
    fingerprint: str = ""
    counts: dict[str, Whole] = Field(default_factory=dict)
    unreadable: list[tuple[str, str]] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    classes: list[str] = Field(default_factory=list)
    positive: str = ""
    test_copies: Whole | None = None
    cross_class_copies: Whole | None = None

    @property
    def told_positive(self) -> str:
        """The class that recall, precision and AUC are about, as tables name it; "" if there is no such."""
        return f"positive: {self.positive}" if self.positive and len(self.classes) == 2 else ""


class MetricRecord(Record):
    """Declaration of a metric: what its values in records mean.

    Attributes:
        name: key of its values in records, in exports, and in a suite's reference columns.
        title: title of its row in tables.
        unit: unit of its values; "" for a ratio, and for whatever else is written without a unit.
        direction: `"max"` if higher values are better, `"min"` if lower ones are.
        split: the examples that it is measured on.
        method: how it is computed, in words.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    title: str
    unit: str = ""
    direction: Literal["max", "min"]
    split: Literal["train", "validation", "test"]
    method: str = ""


# Times of a cell are not ranked whose threads waited for a CPU longer than this share of the time. Of a short
# one that says nothing: on any machine something else runs for a moment.
MAX_WAITING_SHARE, MIN_WAITING_S = 0.1, 1.0


class Times(Record):
    """Attributes:
    training_s: all steps of all epochs, without evaluation.
    evaluation_s: validation after each epoch, and the final evaluation.
    prepare_s: building the model, warming up, splitting.
    features_s: computing the features that no earlier cell had left, before this one.
    memory_pass_s: measuring memory, before this cell; None where another cell's measurement was shared.
    checkpoints_s: saving what the cell could be resumed from.
    estimated_s: of the cell's whole process, as was thought before; None where nobody asked.
    step_ms_median: median wall time of a step, in milliseconds.
    waiting_share: share of training and evaluation, 0 to 1, in which a thread was ready to run and other
        programs had the CPU; None where the system does not tell. Of a resumed cell, since it was resumed.
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
        """Whether other programs slowed the cell down."""
        share, seconds = self.waiting_share or 0.0, (self.training_s or 0.0) + (self.evaluation_s or 0.0)
        return share > MAX_WAITING_SHARE and share * seconds > MIN_WAITING_S


class MemoryRecord(Record):
    """Memory of a cell's own process, as it ran. Its peak depends on what malloc kept of freed blocks; what
    the cell needs is in `MemoryPassRecord`.

    Attributes:
        limit_bytes: the hard limit that the cell ran under.
        base_host_bytes: resident after a warm-up step on one example.
        pinned_bytes: of host memory that batches go through to a CUDA device, held all the time; None on a
            CPU.
        peak_host_bytes: resident peak, libraries included, over training and evaluation.
        peak_device_bytes: peak of the CUDA allocator over training.
        peak_device_reserved_bytes: peak of what it had reserved for that, which is what the limit is on.
        device_context_bytes: what the process held on the device beside its allocator (context, libraries,
            kernels), when it ended or, if it failed, after its warm-up.
        device_context_method: `nvml`, or an estimate, in which memory of other processes may be included:
            `difference` (by how much free memory fell) or `bound` (at most so much); see `memory.devices`.
        device_alloc_retries: how often the allocator had no room and gave its cached blocks back. Above 0 the
            cell fits only just, and is slowed.
        host_peak_method: `clear_refs` (exact) or `sampled`.
        malloc: `fast` or `exact`, how the process's malloc kept freed blocks (see `memory.malloc`).
        parameters_bytes: of the model, buffers included.
        optimizer_state_bytes: between steps; state_vectors is that in vectors of the trained parameters, and
            expected_state_vectors what theory says.
        exhausted: what said that memory ran out, and failed_allocation_bytes how much it could not give; of
            cells that did.
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
    failed_allocation_bytes: int | None = None  # what was asked for may be absurd


# In `MemoryPassRecord.not_resumable`: it says nothing of another day.
NO_MEMORY_TO_CHECK = "memory ran out as its state dict was checked"


class MemoryPassRecord(Record):
    """What a configuration needs: the memory peak of a few real steps with all of the optimizer's state, of
    evaluation, and of keeping the weights, in a process of its own that gives every freed block back.

    The parts are those of the peak, and add up to it.

    Attributes:
        cell_id: the cell that it was measured for; others of the same configuration share it.
        configuration: what identifies that: all of a cell's settings but its seed.
        steps: how many were taken.
        malloc: `exact`, or `fast` where this system's malloc cannot be told to give freed blocks back; the
            peak then includes such blocks.
        peak_bytes: of the process, libraries included; on CUDA, of tensors in the device's allocator.
        peak_phase: where the peak was.
        process_bytes: the process itself, libraries included (on CUDA, what the allocator held before).
        parameters_bytes: of the model, buffers included.
        data_bytes: examples in memory: those of a batch or micro-batch, or the whole set where it is kept as
            floats.
        gradients_bytes: gradients that stood at the peak.
        optimizer_state_bytes: state that the optimizer keeps between steps.
        optimizer_work_bytes: what it held at the peak beyond that.
        activations_bytes: what forward and backward took beyond gradients and examples.
        keeping_bytes: what keeping the weights took.
        final_state_bytes: the optimizer's state after the last step.
        not_resumable: why the model's cells write no checkpoints: what it keeps outside its state dict would
            be lost; "" if they do, None where that was not checked.
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
        """What training takes on top of the process and its model."""
        return self.peak_bytes - self.process_bytes - self.parameters_bytes


class PairingRecord(Record):
    """What a cell started from, to be compared with the others of its experiment and seed.

    Attributes:
        weights_sha256: of the whole model's initial parameters and buffers.
        order_sha256: of the examples in the order of the first epoch.
        drawn_on: the processor, and the number of threads, that drew the weights: others may round otherwise.
        note: how it differs from another cell where that may be rounding; "" if it does not.
    """

    weights_sha256: str = ""
    order_sha256: str = ""
    drawn_on: str = ""
    note: str = ""


class FeaturesRecord(Record):
    """Outputs of a model's frozen part that were trained on in its place.

    Attributes:
        precision: in which they are kept; None if there are none.
        shape: of one image's.
        note: why there are none, where a part of the model is frozen.
    """

    precision: str | None = None
    shape: list[Whole] = Field(default_factory=list)
    note: str = ""


class EpochRecord(Record):
    """One epoch.

    Attributes:
        epoch: its number, from 1.
        values: metric name -> value after the epoch; what was not measured is absent or None. The names are
            declared in `RunRecord.epoch_metrics`.
    """

    epoch: Whole
    values: dict[str, float | None]


class CellRecord(Record):
    """One attempt at one cell: a line of `cells.jsonl`.

    Attributes:
        column: the optimizer's label in tables; axes that differ within it are part of it.
        expect: `"oom"` for a cell that is meant to run out of memory.
        requested, ran: train_size, history_size, batch_size, micro_batch as asked for and as run.
        fitted: why one of them did not run as asked for, by its name.
        metrics: metric name -> value, for the selected weights; None, or absent, where it is undefined or the
            cell is not done. The names are declared in `RunRecord.metrics`.
        selected_epoch: the epoch whose weights the metrics are of (from 1).
        closures: evaluations of loss and gradient over all steps.
        reused_from: the run that it was taken over from; "" if it ran in this one.
        resumed_at: steps at which it went on from a checkpoint, after an interrupt or a death.
        processors: models of the processors (on CUDA of the device) on which it ran, in that order; more than
            one if it went on on another.
        memory_pass: what its configuration needs; None if that was not measured.
        waits_for: what may be there the next time, so that a cell that was skipped can run: `time`, `memory`
            or `weights`; "" if it would be skipped again.
        trace_crc32: checksum of its trace's file; None if it has none.
        outputs_crc32: checksum of the file of its outputs on the test split; None if it has none.
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
        """The number of the attempt that follows this one; to be skipped is none."""
        return self.attempt + (self.status != "skipped")

    @property
    def needed_bytes(self) -> int | None:
        """Memory that its configuration needs: on CUDA the allocator's peak as it ran, else the peak of its
        memory pass; None if that was not measured."""
        if self.memory.peak_device_bytes is not None:
            return self.memory.peak_device_bytes
        return self.memory_pass.peak_bytes if self.memory_pass else None

    @property
    def is_failure(self) -> bool:
        """Whether it did not end as it should; a cell that is meant to run out of memory must."""
        return self.status != self.expect if self.expect else self.status in FAILED


class ExperimentRecord(Record):
    """What tables need to know of an experiment.

    Attributes:
        reference: figures of an earlier work to print beside ours: column -> metric -> value.
        reference_name, reference_note: what to call them, and what a reader must know of them.
    """

    name: str
    title: str
    reference: dict[str, dict[str, float]] = Field(default_factory=dict)
    reference_name: str = "reference"
    reference_note: str = ""


class CellKey(Record):
    """A cell that the run declared, whether or not it came to be."""

    cell_id: CellId
    experiment: str
    column: str
    seed: Whole


class RunRecord(Record):
    """`run.json`: what stands when a run starts.

    Attributes:
        fresh: whether it was to run all of its cells again, whatever earlier runs have of them.
        changes: what the command line changed of the suite (`--set` and the like, `--only`).
        versions: of xbench, Python, torch and what else results depend on.
        hardware: of the machine and the device.
        malloc: the allocator's settings that cells ran under (glibc's environment variables).
        memory_bound: what limits the memory of a cell's process on this machine, in words.
        metrics: declarations of the metrics of its cells, in the order of tables.
        epoch_metrics: declarations of what is measured after each epoch.
        warnings: what a reader of any table of this run must be told.
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

    @field_validator("metrics", "epoch_metrics")
    @classmethod
    def _declares_each_once(cls, value: list[MetricRecord]) -> list[MetricRecord]:
        names = [metric.name for metric in value]
        if len(set(names)) < len(names):
            raise ValueError(f"a metric is declared twice: {', '.join(names)}")
        return value
