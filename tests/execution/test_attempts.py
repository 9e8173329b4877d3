"""What is known of earlier attempts, and of code, before a cell is run."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
from job_samples import job_of
from run_samples import record, run_of, suite_of

from xbench.errors import XbenchError
from xbench.execution import attempts
from xbench.execution.attempts import run_job
from xbench.execution.cell import _train
from xbench.execution.history import is_settled
from xbench.execution.schedule import within


class Nobody:
    """Hears nothing, gives nothing."""

    def __getattr__(self, name):
        return lambda *args: args[0] if name == "for_training" else None


@pytest.fixture
def tried(monkeypatch, tmp_path):
    """The jobs that were run, with their attempts; each is done at once."""
    ran = []

    def run_cell(job, planned, attempt, folder, observer):
        ran.append((job, attempt))
        return record(planned.cell_id, attempt=attempt)

    monkeypatch.setattr(attempts, "run_cell", run_cell)
    monkeypatch.setattr(attempts, "remember_time", lambda job, done: None)
    monkeypatch.setattr(attempts, "kept_log", lambda folder, planned: nullcontext(tmp_path / "log"))
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
    before = record("x", *earlier) if earlier else None
    run_job(job_of(tiny_data), before, [], Nobody(), None, Nobody())
    ((job, number),) = tried
    assert (number, job.gives_back) == (attempt, gives_back)


def test_code_that_was_changed_since_the_cell_was_declared_is_not_run(tiny_data, tmp_path):
    (tmp_path / "mine.py").write_text("def net(num_classes): raise AssertionError('it was run')\n")
    job = job_of(tiny_data, model="mine:net", import_dirs=(str(tmp_path),))
    with pytest.raises(XbenchError, match="code was changed"):
        _train(print, ("", "other", ""), job.settings, tiny_data, str(tmp_path), job.import_dirs)


def test_what_a_busy_machine_has_no_time_for_waits_for_another_day(tiny_data):
    sure, rough = (job_of(tiny_data, estimated_s=100.0, column=name) for name in ("sgd", "adam"))
    rough = replace(rough, is_rough=True)
    assert {job.waits_for for job in within([sure], 10, "10s")} == {""}
    assert {job.waits_for for job in within([sure, rough], 10, "10s")} == {"a machine that is less busy"}


def test_what_another_ran_out_of_memory_for_is_tried_when_that_fits(tiny_data, tmp_path):
    job, folder = job_of(tiny_data), run_of(tmp_path, suite_of(), [])
    passed = run_job(job, None, [job], Nobody(), folder, Nobody())
    assert (passed.status, passed.waits_for) == ("skipped", "memory")
    assert not is_settled(passed)
