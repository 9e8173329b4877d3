"""Time from the start of the command to a cell's first step, twice: with an empty cache, and with a full one.

Figures only: times are no reason to fail.
"""

from __future__ import annotations

import time
from datetime import datetime

from tests.gpu.checking import figure, only_cell, run_experiment, run_step, trace_of


def first_step() -> None:
    for name in ("cold", "warm"):
        started = time.time()
        folder = run_experiment("first-step", "--fresh")
        record = only_cell(folder)
        began_s = datetime.fromisoformat(record.started_at).timestamp() - started
        steps = [row.wall_s for row in trace_of(folder, record)]
        figure(f"{name}_s", began_s + record.time.prepare_s)
        figure(f"{name}_before_its_process_s", began_s)
        figure(f"{name}_memory_pass_s", record.time.memory_pass_s)
        figure(f"{name}_prepare_s", record.time.prepare_s)
        figure(f"{name}_steps_ms", ", ".join(f"{1000 * step:.2f}" for step in steps))


if __name__ == "__main__":
    run_step(first_step)
