"""Train more at once than a memory limit allows: the cell must end as `oom`, with what could not be had."""

from __future__ import annotations

from tests.gpu.checking import ON_CUDA, check, figure, only_cell, run_experiment, run_step


def oom() -> None:
    flags = () if ON_CUDA else ("--memory-limit", "800MB", "--set", "dataset.train=400")
    record = only_cell(run_experiment("oom", *flags))
    memory = record.memory
    figure("status", record.status)
    figure("exhausted", memory.exhausted)
    figure("failed_allocation_mb", (memory.failed_allocation_bytes or 0) / 1e6)
    print(f"reason: {record.reason}")
    allocator = "device allocator" if ON_CUDA else "host allocator"
    check(memory.exhausted == allocator, f"memory ran out in '{memory.exhausted}', not in the {allocator}")
    check((memory.failed_allocation_bytes or 0) > 0, "the record lacks the size of the failed allocation")


if __name__ == "__main__":
    run_step(oom)
