"""What is known of earlier attempts, and of code, before a cell is run."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest

from tests.cell_samples import cell_of
from tests.run_samples import record, run_of, suite_of
from tests.tuned_samples import tuned_cells
from xbench.errors import XbenchError
from xbench.execution import cell as attempts
from xbench.execution.cell import CellRunner
from xbench.execution.child import train
from xbench.execution.history import is_settled
from xbench.isolation.run import ChildResult
from xbench.records.memory import MemoryPassRecord, MemoryRecord

PARTS = (
    *("process", "parameters", "data", "gradients"),
    *("optimizer_state", "optimizer_work", "activations", "keeping"),
)


class Nobody:
    """Hears nothing, gives nothing: neither features nor a memory pass."""

    def __getattr__(self, name):
        return lambda *args: args[0] if name in ("for_training", "measure") else None


PASS = MemoryPassRecord(
    steps=3,
    malloc="exact",
    peak_bytes=100,
    peak_phase="closure",
    **{f"{part}_bytes": 0 for part in PARTS},
    final_state_bytes=0,
)


def run(cell, earlier=None, failures=(), passes=None, folder=None, observer=None):
    return runner(failures, passes, folder, observer).run(cell, earlier)


def runner(failures=(), passes=None, folder=None, observer=None):
    nobody = Nobody()
    return CellRunner(folder, observer or nobody, nobody, passes or nobody, nobody, list(failures))


@pytest.fixture
def tried(monkeypatch, tmp_path):
    """The cells that were run, with their attempts; each is done at once."""
    ran = []

    def run_attempt(runner, cell, attempt):
        ran.append((cell, attempt))
        return record(cell.key.cell_id, attempt=attempt)

    monkeypatch.setattr(CellRunner, "run_attempt", run_attempt)
    monkeypatch.setattr(attempts, "remember_time", lambda cell, done: None)
    monkeypatch.setattr(attempts, "keep_log", lambda folder, key: nullcontext(tmp_path / "log"))
    return ran


@pytest.mark.parametrize(
    ("earlier", "attempt", "gives_back"),
    [
        (None, 1, False),
        (("error", 1), 2, False),
        (("oom", 1), 2, True),
        (("oom", 3), 4, True),
        (("skipped", 1), 1, False),
        (("skipped", 3), 3, False),
    ],
)
def test_attempts_go_on_where_they_were(tiny_data, tried, earlier, attempt, gives_back):
    before = record("x", *earlier, memory_pass=PASS) if earlier else None
    run(cell_of(tiny_data), before)
    ((cell, number),) = tried
    assert (number, cell.memory.malloc) == (attempt, "exact" if gives_back else "fast")


def test_code_that_was_changed_since_the_cell_was_declared_is_not_run(tiny_data, tmp_path):
    (tmp_path / "mine.py").write_text("def net(num_classes): raise AssertionError('it was run')\n")
    cell = cell_of(tiny_data, model="mine:net", import_dirs=(str(tmp_path),))
    own, *_ = cell.job().code
    with pytest.raises(XbenchError, match="code changed during the run"):
        train(print, replace(cell.job(), code=(own, "other", "")))


def test_code_of_xbench_that_was_changed_since_it_was_loaded_is_not_run(tiny_data):
    _, *others = (job := cell_of(tiny_data).job()).code
    with pytest.raises(
        XbenchError, match="the code of xbench has changed since its worker processes"
    ) as error:
        train(print, replace(job, code=("0123456789abcdef", *others)))
    assert "restart the kernel" in error.value.hint


def test_what_another_ran_out_of_memory_for_is_tried_when_that_fits(tiny_data, tmp_path):
    cell, folder = cell_of(tiny_data), run_of(tmp_path, suite_of(), [])
    passed = run(cell, failures=[cell], folder=folder)
    assert (passed.status, passed.waits_for) == ("skipped", "memory")
    assert not is_settled(passed)


def test_a_trial_is_tried_although_a_smaller_one_ran_out_of_memory(tiny_data, tmp_path, tried):
    """It is charged to its search, and says nothing of the trials that need less."""
    template, _ = tuned_cells(tiny_data, params={"history_size": 10})
    small, large = (template.as_trial(number, {"history_size": 50 * number}) for number in (1, 2))
    run(large, failures=[small], folder=(folder := run_of(tmp_path, suite_of(), [])))
    assert [ran.key for ran, _ in tried] == [large.key]
    plain = replace(large, trial=None, declared=replace(large.declared, search=None)).with_identity()
    assert run(plain, failures=[small], folder=folder).status == "skipped"


class Passes:
    """Stands for memory passes: they fail as their endings say, and succeed once none is left."""

    def __init__(self, *endings):
        self.endings, self.cells = list(endings), []

    def measure(self, cell, log):
        self.cells.append(cell)
        return (
            self.endings.pop(0) if self.endings else replace(cell, memory=replace(cell.memory, measured=PASS))
        )


OOM = ChildResult("failed", reason="no more", exhaustion="host allocator")


def adaptable(data, *adapt, **training):
    cell = cell_of(data, batch_size="full", **training)
    return replace(cell, declared=replace(cell.declared, adapt=adapt))


class TestFailedPasses:
    def test_nothing_is_timed(self, tiny_data, tmp_path, tried):
        folder = run_of(tmp_path, suite_of(), [])
        passes = Passes(ChildResult("failed", reason="ValueError: broken"))
        ended = run(cell_of(tiny_data), passes=passes, folder=folder)
        assert (ended.status, ended.reason) == ("error", "in its memory pass: ValueError: broken")
        assert not tried

    def test_out_of_memory_is_the_cells_status(self, tiny_data, tmp_path, tried):
        folder = run_of(tmp_path, suite_of(), [])
        ended = run(cell_of(tiny_data), passes=Passes(OOM), folder=folder)
        assert (ended.status, ended.attempt, ended.memory.exhausted) == ("oom", 1, "host allocator")
        assert not tried

    def test_with_adapt_the_next_attempt_is_smaller(self, tiny_data, tmp_path, tried):
        folder = run_of(tmp_path, suite_of(), [])
        passes = Passes(OOM, OOM)
        run(adaptable(tiny_data, "micro_batch", train_size=64), passes=passes, folder=folder)
        assert [cell.sized.training.micro_batch for cell in passes.cells] == [64, 32, 16]
        ((cell, attempt),) = tried
        assert (attempt, cell.sized.training.micro_batch, cell.memory.measured) == (3, 16, PASS)
        assert [record.status for record in folder.read_cells()[0].values()] == ["oom"]

    def test_what_needs_as_much_is_skipped(self, tiny_data, tmp_path, tried):
        both = runner(passes=Passes(OOM), folder=run_of(tmp_path, suite_of(), []))
        for seed in (0, 1):
            ended = both.run(cell_of(tiny_data, seed=seed), None)
        assert (ended.status, ended.waits_for) == ("skipped", "memory")
        assert "seed 0, which ran out of memory" in ended.reason


class TestOnADevice:
    """malloc has no say there: a retry that changed nothing else would repeat the run."""

    @pytest.fixture
    def sizes(self, monkeypatch, tried):
        """The micro-batch and malloc settings of each attempt; all run out of the device's memory."""
        sizes = []

        def run_attempt(runner, cell, attempt):
            sizes.append((cell.sized.training.micro_batch, cell.limits.malloc))
            memory = MemoryRecord(exhausted="device allocator")
            return record(cell.key.cell_id, "oom", attempt, memory=memory, memory_pass=cell.memory.measured)

        monkeypatch.setattr(CellRunner, "run_attempt", run_attempt)
        return sizes

    def on_cuda(self, cell):
        machine = replace(cell.machine, device="cuda:1", device_facts={"type": "cuda", "name": "a GPU"})
        return replace(cell, machine=machine)

    def test_nothing_is_tried_again_where_nothing_may_give_way(self, tiny_data, sizes):
        ended = run(self.on_cuda(adaptable(tiny_data, train_size=64)), passes=Passes())
        assert (ended.status, sizes) == ("oom", [(64, "fast")])

    def test_the_first_retry_is_smaller(self, tiny_data, sizes):
        run(self.on_cuda(adaptable(tiny_data, "micro_batch", train_size=64)), passes=Passes())
        assert sizes == [(64, "fast"), (32, "fast"), (16, "fast"), (8, "fast")]

    def test_on_another_day_malloc_is_left_alone(self, tiny_data, sizes):
        earlier = record("x", "oom", memory_pass=PASS)
        run(self.on_cuda(cell_of(tiny_data, batch_size="full", train_size=64)), earlier, passes=Passes())
        assert sizes == [(64, "fast")]

    def test_on_a_cpu_it_is_malloc_that_gives_way_first(self, tiny_data, sizes):
        run(adaptable(tiny_data, train_size=64), passes=Passes())
        assert sizes == [(64, "fast"), (64, "exact")]
