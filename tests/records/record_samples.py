"""Records made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from xbench.records.outputs import Outputs
from xbench.records.schema import CellKey, CellRecord, Component, DataRecord, ExperimentRecord, RunRecord


def cell(cell_id: str, **fields: Any) -> CellRecord:
    """A cell that is done, unless fields say otherwise."""
    values: dict[str, Any] = {
        "experiment": "first",
        "column": "adam",
        "model": Component(name="report-cnn"),
        "dataset": DataRecord(requested="chest-xray", name="chest-xray"),
        "optimizer": Component(name="adam", params={"lr": 0.001, "betas": [0.9, 0.999]}),
        "seed": 0,
        "status": "done",
        "started_at": "2026-01-31T12:00:00.000+00:00",
        "ended_at": "2026-01-31T12:01:00.000+00:00",
    }
    return CellRecord(cell_id=cell_id, **{**values, **fields})


def run(*cell_ids: str, suite: str = "tiny", **fields: Any) -> RunRecord:
    """A run that declared these cells, in this order."""
    values: dict[str, Any] = {
        "started_at": "2026-01-31T12:00:00+00:00",
        "device": "cpu",
        "versions": {"torch": "2.15.0"},
        "hardware": {"cpu": "some processor", "cores": 2},
        "experiments": [ExperimentRecord(name="first", title="First")],
        "cells": [CellKey(cell_id=i, experiment="first", column="adam", seed=0) for i in cell_ids],
    }
    return RunRecord(suite=suite, **{**values, **fields})


def outputs() -> Outputs:
    """Outputs on two examples of two classes."""
    return Outputs(
        names=("test/1", "test/2"),
        groups=("", "patient"),
        losses=np.array([0.5, 0.25]),
        columns={
            "label": np.array([0, 1]),
            "logit_NORMAL": np.array([1.0, 3.0]),
            "logit_PNEUMONIA": np.array([2.0, 5.0]),
        },
    )
