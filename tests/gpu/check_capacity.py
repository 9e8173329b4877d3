"""Probe the capacity of an optimizer on one axis or more, and confirm each bracket in fresh processes.

    check_capacity.py OPTIMIZER AXIS...

A bracket is the largest size that ran and the smallest that did not, at most 1 % apart. A second probe, which
starts from the first one's bracket, must run the one and run out of memory at the other again, each in a
fresh process. Then a cell of the size that was found must be done under the same limit.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.gpu.checking import (
    DEVICE,
    FOLDER,
    ON_CUDA,
    STEP,
    cells_of,
    check,
    figure,
    latest_run,
    run_step,
    xbench,
)

LIMIT = "4GB" if ON_CUDA else "1GB"
LIMIT_BYTES = {"4GB": 4 * 10**9, "1GB": 10**9}[LIMIT]
EXAMPLES = 2000 if ON_CUDA else 400  # more than fit

# What L-BFGS does within a step is bounded, so that a long history does not take minutes.
OPTIMIZER_SETTINGS = {"lbfgs": {"max_iter": 2}}

# The training settings of a cell of a size, on each axis; a probe has these, too.
TRAINING = {
    "train-size": lambda size: {"train_size": size, "batch_size": "full"},
    "batch-size": lambda size: {"train_size": size, "batch_size": size},
    "micro-batch": lambda size: {"batch_size": "full", "micro_batch": size},
    "history-size": lambda size: {"train_size": 32, "batch_size": "full", "micro_batch": 16},
}


def capacity(optimizer: str, axes: list[str]) -> None:
    settings = OPTIMIZER_SETTINGS.get(optimizer, {})
    first = probe(optimizer, settings, axes, f"{STEP}-report.json", "--fresh")
    second = probe(optimizer, settings, axes, f"{STEP}-again.json")
    found = {}
    for result, again in zip(first, second, strict=True):
        if tell(result):
            confirm(result, again)
            found[result["axis"]] = result["found"]
    if found:
        run_cells(optimizer, settings, found)


def probe(
    optimizer: str, settings: dict[str, Any], axes: list[str], output: str, *flags: str
) -> list[dict[str, Any]]:
    """Probe the axes with the command line; returns the results of its JSON document."""
    changes = {"dataset.train": EXAMPLES, "dataset.test": 20}
    changes |= {f"{optimizer}.{name}": value for name, value in settings.items()}
    arguments = ["--optimizer", optimizer, "--dataset", "synthetic-xray", "--memory-limit", LIMIT]
    arguments += ["--device", DEVICE, "--format", "json", *flags]
    arguments += [argument for axis in axes for argument in ("--axis", axis)]
    arguments += [argument for key, value in changes.items() for argument in ("--set", f"{key}={value}")]
    exit_code = xbench("probe-capacity", *arguments, output=output)
    check(exit_code == 0, f"xbench probe-capacity exited with {exit_code}")
    return json.loads((FOLDER / output).read_text())["results"]


def tell(result: dict[str, Any]) -> bool:
    """Tell what a probe of an axis found, and check it.

    Returns:
        Whether there is a bracket.
    """
    axis, found, fails = result["axis"], result["found"], result["fails"]
    figure(axis, f"{found} fits, {fails} does not")
    figure(f"{axis}_trials", f"{len(result['trials'])} in {result['seconds']:.1f} s")
    if result["error"] or found is None or fails is None:
        check(False, f"{axis}: no bracket: {result['error'] or '; '.join(result['notes'])}")
        return False
    figure(f"{axis}_peak_share", result["peak_bytes"] / LIMIT_BYTES)
    check(found < fails <= found + max(1, found // 100), f"{axis}: {found} and {fails} are too far apart")
    check(result["peak_bytes"] <= LIMIT_BYTES, f"{axis}: a peak of {result['peak_bytes']} is above the limit")
    return True


def confirm(result: dict[str, Any], again: dict[str, Any]) -> None:
    """Check that both ends of a bracket ended as before when they were run again."""
    axis, found, fails = result["axis"], result["found"], result["fails"]
    outcomes = [(trial["value"], trial["outcome"]) for trial in again["trials"]]
    confirmed = outcomes == [(found, "fits"), (fails, "oom")]
    figure(f"{axis}_confirmed", confirmed)
    check(confirmed, f"{axis}: run again, the trials were {outcomes}")


def run_cells(optimizer: str, settings: dict[str, Any], found: dict[str, int]) -> None:
    """Run a cell of the size that was found on each axis, by a suite of the same limit."""
    suite = FOLDER / f"{STEP}.toml"
    header = f'suite = {{ name = "{STEP}", memory_limit = "{LIMIT}", device = "{DEVICE}" }}\n'
    suite.write_text(header + "".join(experiment(optimizer, settings, *pair) for pair in found.items()))
    exit_code = xbench("run", suite, "--out", FOLDER / STEP)
    check(exit_code == 0, f"xbench run {suite.name} exited with {exit_code}")
    for record in cells_of(latest_run(FOLDER / STEP)):
        size = found[record.experiment]
        check(
            record.status == "done",
            f"a cell of {record.experiment} {size} is {record.status}: {record.reason}",
        )


def experiment(optimizer: str, settings: dict[str, Any], axis: str, size: int) -> str:
    """A table of a suite. Strings and numbers are the same in JSON and TOML."""
    component = {"name": optimizer, **settings}
    if axis == "history-size":
        component["history_size"] = size
    tables = {"dataset": {"name": "synthetic-xray", "train": EXAMPLES, "test": 20}, "optimizer": component}
    lines = [
        f"{key} = {json.dumps(value)}"
        for key, value in {"name": axis, "model": "report-cnn", **TRAINING[axis](size)}.items()
    ]
    for key, table in tables.items():
        lines.append(f"{key} = {{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in table.items()) + " }")
    return "\n".join(["[[experiment]]", *lines, ""])


if __name__ == "__main__":
    name, *probed = sys.argv[1:]
    run_step(lambda: capacity(name, probed))
