"""Compare a cell's recorded memory peak and losses with those of a plain PyTorch loop on the same steps."""

from __future__ import annotations

import torch

from tests.gpu.checking import (
    DEVICE,
    ON_CUDA,
    check,
    difference,
    figure,
    only_cell,
    run_experiment,
    run_step,
    trace_of,
)
from tests.gpu.plain_loop import PlainLoop

# The plain loop drops its last batch later; xbench keeps some losses.
MIN_RATIO, MAX_RATIO = 0.9, 1.1
MAX_LOSS_DIFFERENCE = 1e-4


def peak() -> None:
    folder = run_experiment("peak")
    record = only_cell(folder)
    recorded = [row.loss for row in trace_of(folder, record)]
    loop = PlainLoop(record, torch.optim.Adam, DEVICE)
    if ON_CUDA:
        torch.cuda.reset_peak_memory_stats()
    losses = []
    for indices in loop.batches():
        losses.append(loop.step(*loop.load(indices)))
    plain = torch.stack(losses).tolist()
    differences = [difference(a, b) for a, b in zip(recorded, plain, strict=True)]
    furthest = max(differences)
    figure("loss_difference", furthest)
    check(furthest <= MAX_LOSS_DIFFERENCE, f"losses differ from the plain loop's by {furthest:.2g}")
    if not ON_CUDA:
        figure("ratio", "skipped: PyTorch's allocator has no peaks on a CPU")
        return
    plain_bytes = torch.cuda.max_memory_allocated()
    ratio = record.memory.peak_device_bytes / plain_bytes
    figure("ratio", ratio)
    figure("recorded_mb", record.memory.peak_device_bytes / 1e6)
    figure("plain_mb", plain_bytes / 1e6)
    if record.memory_pass is not None:
        figure("memory_pass_mb", record.memory_pass.peak_bytes / 1e6)
    check(MIN_RATIO <= ratio <= MAX_RATIO, f"the recorded peak is {ratio:.3f} times the plain loop's")


if __name__ == "__main__":
    run_step(peak)
