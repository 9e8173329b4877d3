"""Kill a run with SIGKILL in the middle of its cell, and start it again: it must go on and end as `done`."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.gpu.checking import (
    FOLDER,
    ON_CUDA,
    STEP,
    CheckFailed,
    check,
    command,
    figure,
    only_cell,
    run_arguments,
    run_experiment,
    run_step,
    trace_of,
)

FLAGS = ("--set", "suite.checkpoint_interval=1s", *(() if ON_CUDA else ("--set", "epochs=20")))
MAX_WAIT_S = 60 if ON_CUDA else 600


def resume() -> None:
    kill_in_the_middle()
    folder = run_experiment("resume", *FLAGS)
    record = only_cell(folder)
    steps = [row.step for row in trace_of(folder, record)]
    figure("status", record.status)
    figure("resumed_at", record.resumed_at)
    figure("steps", record.steps)
    check(record.status == "done", f"it ended as {record.status}: {record.reason}")
    check(len(record.resumed_at) == 1, "it started over instead of resuming from its checkpoint")
    check(steps == list(range(1, len(steps) + 1)), "steps are missing in its trace, or stand twice")
    test_loss = record.metrics["test_loss"]
    check(math.isfinite(test_loss or math.nan), f"its test loss is {test_loss}")


def kill_in_the_middle() -> None:
    """Start the run as the leader of a process group, and kill the group after the first checkpoint.

    Raises:
        CheckFailed: it ended before there was one.
    """
    out = FOLDER / STEP
    arguments = command(*run_arguments("resume", out, *FLAGS))
    process = subprocess.Popen(arguments, cwd=FOLDER, start_new_session=True)
    # `timeout` cannot reach another process group: this one must be ended here in any case.
    signal.signal(signal.SIGTERM, lambda *_: raise_exit())
    started = time.monotonic()
    try:
        while not has_checkpoint(out):
            if process.poll() is not None:
                raise CheckFailed(f"it ended with exit code {process.returncode} before its first checkpoint")
            if time.monotonic() - started > MAX_WAIT_S:
                raise CheckFailed(f"there was no checkpoint after {MAX_WAIT_S} s")
            time.sleep(0.02)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    figure("killed_after_s", time.monotonic() - started)
    check(process.returncode == -signal.SIGKILL, f"it ended with {process.returncode} before it was killed")


def raise_exit() -> None:
    raise SystemExit(1)


def has_checkpoint(out: Path) -> bool:
    return any(out.glob("*/[!.]*/checkpoints/*/step-*"))


if __name__ == "__main__":
    run_step(resume)
