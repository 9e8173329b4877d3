"""What a memory pass says of the cells of its configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.cell_samples import cell_of
from tests.run_samples import record
from xbench.execution.shared import MemoryPasses
from xbench.isolation.run import ChildResult
from xbench.planning.identity import configuration_key
from xbench.records.memory import NO_MEMORY_TO_CHECK, MemoryPassRecord

WORDS = {"cell_id", "configuration", "malloc", "peak_phase", "not_resumable"}


def passed(**fields):
    """What a pass has measured."""
    parts = dict.fromkeys(MemoryPassRecord.model_fields.keys() - WORDS, 1)
    return MemoryPassRecord(malloc="exact", peak_phase="update", **parts, **fields)


@pytest.fixture
def taken(monkeypatch):
    """The configurations of the passes that were taken; each finds the model to be resumable."""
    started = []

    def run(job, workload, micro_batch, **options):
        started.append(workload)
        return ChildResult("returned", value=passed(not_resumable=""))

    monkeypatch.setattr("xbench.execution.shared.run_in_child", run)
    return started


class Nobody:
    def measuring_memory(self, cell):
        pass


@pytest.mark.parametrize(("found", "every_s"), [("", 60.0), ("why", None)])
def test_cells_of_a_model_that_is_not_resumable_write_no_checkpoints(tiny_data, taken, found, every_s):
    cell, passes = replace(cell_of(tiny_data), checkpoint_every_s=60.0), MemoryPasses(Nobody())
    known = passed(configuration=configuration_key(cell), not_resumable=found)
    passes.remember([record("a", memory_pass=known)])
    ready = passes.measure(cell, Path("unused"))
    assert (ready.checkpoint_every_s, ready.memory.measured) == (every_s, known)
    assert not taken


def test_a_pass_is_taken_once_for_all_seeds(tiny_data, taken):
    passes = MemoryPasses(Nobody())
    for seed in (0, 1):
        passes.measure(cell_of(tiny_data, seed=seed), Path("unused"))
    assert len(taken) == 1


@pytest.mark.parametrize("found", [None, NO_MEMORY_TO_CHECK])
def test_a_pass_that_says_nothing_of_the_models_state_is_taken_again(tiny_data, taken, found):
    """Older versions did not check it, and on another day there may have been too little memory."""
    cell, passes = cell_of(tiny_data), MemoryPasses(Nobody())
    known = passed(configuration=configuration_key(cell), not_resumable=found)
    passes.remember([record("a", memory_pass=known)])
    assert passes.measure(cell, Path("unused")).memory.measured.not_resumable == ""
    assert len(taken) == 1
