"""Compare a step's time at batch 5 with that of a bare PyTorch loop whose data is resident on the device.

The bare loop normalises all images beforehand and takes each batch from device memory. Figures only: times
are no reason to fail.
"""

from __future__ import annotations

import statistics
import time

import torch

from tests.gpu.checking import DEVICE, ON_CUDA, figure, only_cell, run_experiment, run_step, trace_of
from tests.gpu.plain_loop import PlainLoop


def step_time() -> None:
    folder = run_experiment("step-time")
    record = only_cell(folder)
    trace = trace_of(folder, record)
    # The first step loads kernels, for xbench as for the bare loop.
    first_s = trace[0].wall_s
    whole_ms = 1000 * (record.time.training_s - first_s) / (len(trace) - 1)
    step_ms = 1000 * statistics.median(row.wall_s for row in trace[1:])
    bare_ms = bare_step_ms(PlainLoop(record, torch.optim.SGD, DEVICE))
    figure("ratio", whole_ms / bare_ms)
    figure("median_ratio", step_ms / bare_ms)
    figure("xbench_ms", whole_ms)
    figure("xbench_median_ms", step_ms)
    figure("bare_ms", bare_ms)
    figure("xbench_first_step_ms", 1000 * first_s)


def bare_step_ms(loop: PlainLoop) -> float:
    """Milliseconds of a step, over the epochs after the first: the median of their means."""
    batches = [batch.to(loop.device) for batch in loop.batches()]
    images, labels = loop.load(torch.arange(int(max(batch.max() for batch in batches)) + 1))
    images = images.contiguous()
    steps, seconds = loop.steps_per_epoch, []
    for epoch in (batches[start : start + steps] for start in range(0, len(batches), steps)):
        synchronize()
        started = time.perf_counter()
        for batch in epoch:
            loop.step(images[batch], labels[batch])
        synchronize()
        seconds.append((time.perf_counter() - started) / len(epoch))
    return 1000 * statistics.median(seconds[1:])


def synchronize() -> None:
    if ON_CUDA:
        torch.cuda.synchronize()


if __name__ == "__main__":
    run_step(step_time)
