"""What a memory pass says of the cells of its configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cell_samples import cell_of

from xbench.execution.shared import MemoryPasses
from xbench.records.schema import MemoryPassRecord

WORDS = {"cell_id", "configuration", "malloc", "peak_phase", "not_resumable"}


@pytest.mark.parametrize(("not_resumable", "every_s"), [("", 60.0), ("why", None)])
def test_cells_of_a_model_that_is_not_resumable_write_no_checkpoints(tiny_data, not_resumable, every_s):
    cell = replace(cell_of(tiny_data), checkpoint_every_s=60.0)
    passes = MemoryPasses(observer=None)  # nothing is measured
    measured = MemoryPassRecord(
        malloc="exact",
        peak_phase="update",
        not_resumable=not_resumable,
        **dict.fromkeys(MemoryPassRecord.model_fields.keys() - WORDS, 1),
    )
    passes.know_trial(cell, measured)
    ready = passes.measure(cell, Path("unused"))
    assert ready.checkpoint_every_s == every_s
    assert ready.memory.measured.not_resumable == not_resumable
