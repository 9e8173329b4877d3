"""Records of capacity probes. Sizes are in bytes, times in seconds. Imports no torch, like all records."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from xbench.records.base import SCHEMA_VERSION, Record, Whole
from xbench.records.schema import Component


class TrialRecord(Record):
    """One trial of a size.

    Attributes:
        value: the size that was tried.
        outcome: whether the size fits; `refused` if a component does not accept it, so that no larger one is
            tried; `error` if it failed for another reason, which ends the probe.
        peak_bytes: resident peak of the process (on CUDA the allocator's reserved peak); None if memory ran
            out.
        charged_bytes: memory counted against the limit at the peak. It includes memory that was allocated but
            never filled, and the limit's reserve.
        predicted_bytes: peak predicted from earlier trials; None without a prediction.
        seconds: wall time, including the start of the process.
        reason: what failed, if the size does not fit, is refused, or the trial ended in an error.
        alloc_retries: on CUDA, how often the allocator ran out of room and released its cached blocks. Above
            0, the size barely fits, and training is slowed.
    """

    value: int
    outcome: Literal["fits", "oom", "refused", "error"]
    peak_bytes: int | None = None
    charged_bytes: int | None = None
    predicted_bytes: int | None = None
    seconds: float = 0.0
    reason: str = ""
    alloc_retries: int = 0


class CapacityRecord(Record):
    """The capacity found along one axis.

    Attributes:
        limit_bytes: the hard limit of each trial.
        settings: training settings other than the one that the axis varies.
        found: the largest size that ran; None if not even the smallest did.
        fails: the smallest larger size that ran out of memory; None if none did. If there is an `error`, the
            size that raised it.
        error: why the probe ended without an answer: a size failed for a reason other than memory. Empty
            otherwise.
        peak_bytes: peak of `found`.
        predicted_bytes: peak of `found` as predicted from smaller sizes.
        seconds: wall time of all trials.
        trials: all trials, in the order in which they ran.
        notes: sentences for the reader of the result.
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
        stand_in: a note that the data is made up; empty for real data.
        malloc: how the trials' malloc kept freed blocks (see `memory.malloc`).
        components: model, dataset and optimizer, with their origins, and the settings that were fixed while
            at least one axis was probed.
    """

    schema_version: Whole = SCHEMA_VERSION
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
