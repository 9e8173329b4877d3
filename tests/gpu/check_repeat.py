"""Run every built-in optimizer twice, with and without deterministic algorithms, and compare the losses.

With `deterministic = true` all losses must be the same to the last bit. Without it that is not promised on
CUDA, so how far they differ is only told.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests.gpu.checking import (
    FOLDER,
    HERE,
    ON_CUDA,
    STEP,
    cells_of,
    check,
    command,
    describe_failures,
    difference,
    figure,
    latest_run,
    run_arguments,
    run_step,
    trace_of,
)

EXPERIMENTS = ("repeat", "repeat-matrices", "repeat-sparse")
SETTINGS = {"deterministic": "true", "free": "false"}
OPTIMIZERS = 15
SEEDS = 2 if ON_CUDA else 1
MAX_S = 135 if ON_CUDA else 1400  # less than the limit of the step: what has ended by then is compared

Losses = dict[tuple[str, int], list[float]]


def repeat() -> None:
    outs = {name: [FOLDER / STEP / f"{name}-{number}" for number in (1, 2)] for name in SETTINGS}
    run_all([(out, SETTINGS[name]) for name in SETTINGS for out in outs[name]])
    for name in SETTINGS:
        compare(name, *(losses_of(out) for out in outs[name]))


def run_all(runs: list[tuple[Path, str]]) -> None:
    """Run the three experiments once for each folder: all at once on CUDA, else one after the other.

    Args:
        runs: a folder for the results, and the setting `deterministic`.
    """
    (FOLDER / STEP).mkdir()
    experiments = [flag for experiment in EXPERIMENTS[1:] for flag in ("--only", experiment)]
    deadline = time.monotonic() + MAX_S
    started = []
    for out, deterministic in runs:
        flags = ["--seeds", SEEDS, "--set", f"deterministic={deterministic}", "--allow-import", HERE]
        arguments = command(*run_arguments(EXPERIMENTS[0], out, *experiments, *map(str, flags)))
        with out.with_suffix(".log").open("w") as log:
            started.append(subprocess.Popen(arguments, cwd=FOLDER, stdout=log, stderr=log))
        if not ON_CUDA:
            end(started[-1], deadline)
    for (out, _), process in zip(runs, started, strict=True):
        if end(process, deadline) != 0:
            failed = describe_failures(latest_run(out))
            check(False, f"{out.name} exited with {process.returncode}: {failed}")


def end(process: subprocess.Popen, deadline: float) -> int:
    """Wait for a process until the deadline, and kill it then; returns its exit code."""
    try:
        return process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def losses_of(out: Path) -> Losses:
    """The losses of the steps of each cell that is done, and its test loss, by optimizer and seed."""
    folder = latest_run(out)
    return {
        (record.optimizer.name, record.seed): [
            *(row.loss for row in trace_of(folder, record)),
            record.metrics["test_loss"],
        ]
        for record in cells_of(folder)
        if record.status == "done"
    }


def compare(name: str, first: Losses, second: Losses) -> None:
    """Compare the cells that are done in both runs.

    Args:
        name: of the setting that they ran under.
    """
    cells = first.keys() & second.keys()
    done = f"{len(cells)} of {OPTIMIZERS * SEEDS}"
    check(len(cells) == OPTIMIZERS * SEEDS, f"{name}: {done} cells are done in both runs")
    differences = {
        cell: max(difference(a, b) for a, b in zip(first[cell], second[cell], strict=True)) for cell in cells
    }
    differing = sorted({optimizer for (optimizer, _), value in differences.items() if value > 0})
    figure(f"{name}_same", f"{sum(value == 0 for value in differences.values())} of {len(cells)}")
    figure(f"{name}_difference", max(differences.values(), default=None))
    if differing:
        figure(f"{name}_differing", ", ".join(differing))
    if name == "deterministic" or not ON_CUDA:
        check(not differing, f"{name}: losses differ between two runs")


if __name__ == "__main__":
    run_step(repeat)
