"""What a probe of capacity found. Torch-free, as all records. Sizes are in bytes, times in seconds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from xbench.records.schema import Component, Record


class TrialRecord(Record):
    """One size that was tried.

    Attributes:
        outcome: `error` where it failed for another reason than memory, which ends a probe.
        peak_bytes: resident peak of the process (on CUDA reserved peak of the allocator); None if it ran out.
        charged_bytes: what the limit counted at the peak: memory that was allocated and not filled, and the
            limit's reserve, included.
        predicted_bytes: what earlier trials said that the peak would be; None if they said nothing.
        seconds: wall time, the start of the process included.
        reason: what failed, if it does not fit or if it ended in an error.
        alloc_retries: on CUDA, how often the allocator ran out of room and released its cached blocks; if
            above 0, the size barely fits, and training is slowed.
    """

    value: int
    outcome: Literal["fits", "oom", "error"]
    peak_bytes: int | None = None
    charged_bytes: int | None = None
    predicted_bytes: int | None = None
    seconds: float = 0.0
    reason: str = ""
    alloc_retries: int = 0


class CapacityRecord(Record):
    """The capacity of one axis.

    Attributes:
        limit_bytes: the hard limit of each trial.
        settings: of training, but for what the axis varies.
        found: the largest size that ran; None if not even the smallest did.
        fails: the smallest size above it that ran out of memory; None if none did. The size of `error`, where
            there is one.
        error: why the probe ended without an answer: a size failed for another reason than memory. Empty
            otherwise.
        peak_bytes: of `found`, and predicted_bytes what smaller sizes had said that it would be.
        seconds: wall time of all trials.
        notes: what a reader must know.
    """

    axis: str
    limit_bytes: int
    settings: dict[str, Any]
    found: int | None
    fails: int | None
    peak_bytes: int | None
    predicted_bytes: int | None = None
    seconds: float
    trials: list[TrialRecord]
    error: str = ""
    notes: list[str] = Field(default_factory=list)


class CapacityReport(Record):
    """A probe of one optimizer, model and dataset under one limit.

    Attributes:
        limit_bytes: the hard limit of the last axis; each result has its own.
        bound: where that limit comes from.
        stand_in: what must be told of the data if it is made up.
        malloc: how the trials' malloc kept freed blocks (see `memory.malloc`).
        components: model, dataset and optimizer with their settings and where they come from.
    """

    limit_bytes: int
    bound: str
    device: str
    device_name: str
    model: str
    dataset: str
    optimizer: str
    stand_in: str = ""
    components: dict[str, Component]
    malloc: Literal["fast", "exact"] = "exact"
    versions: dict[str, str]
    warnings: list[str] = Field(default_factory=list)
    results: list[CapacityRecord]
