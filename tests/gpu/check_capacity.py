"""Probe the capacity of an optimizer on two axes, and confirm each bracket in fresh processes.

    check_capacity.py OPTIMIZER AXIS AXIS

A bracket is the largest size that ran and the smallest that did not, at most 1 % apart. Both are run again as
cells of a suite under the same limit: the one must end as `done`, the other as `oom`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from checking import (
    DEVICE,
    FOLDER,
    ON_CUDA,
    STEP,
    CheckFailed,
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
    flags = [flag for axis in axes for flag in ("--axis", axis)]
    for name, value in {**settings, "dataset.train": EXAMPLES, "dataset.test": 20}.items():
        flags += ["--set", f"{name if '.' in name else f'{optimizer}.{name}'}={value}"]
    report_file = f"{STEP}-report.json"
    flags += ["--memory-limit", LIMIT, "--device", DEVICE, "--fresh", "--format", "json"]
    probe = ("probe-capacity", "--optimizer", optimizer, "--dataset", "synthetic-xray")
    exit_code = xbench(*probe, *flags, output=report_file)
    check(exit_code == 0, f"xbench probe-capacity exited with {exit_code}")
    for result in json.loads((FOLDER / report_file).read_text())["results"]:
        tell(result)
        if result["found"] is not None and result["fails"] is not None and not result["error"]:
            confirm(optimizer, settings, result["axis"], result["found"], result["fails"])


def tell(result: dict[str, Any]) -> None:
    axis, found, fails = result["axis"], result["found"], result["fails"]
    figure(axis, f"{found} fits, {fails} does not")
    figure(f"{axis}_peak_share", (result["peak_bytes"] or 0) / LIMIT_BYTES)
    figure(f"{axis}_trials", f"{len(result['trials'])} in {result['seconds']:.1f} s")
    if result["error"] or found is None or fails is None:
        check(False, f"{axis}: no bracket: {result['error'] or '; '.join(result['notes'])}")
        return
    check(found < fails <= found + max(1, found // 100), f"{axis}: {found} and {fails} are too far apart")
    check(result["peak_bytes"] <= LIMIT_BYTES, f"{axis}: a peak of {result['peak_bytes']} is above the limit")


def confirm(optimizer: str, settings: dict[str, Any], axis: str, found: int, fails: int) -> None:
    """Run both ends of a bracket as cells of a suite, which has nothing but the limit from the probe."""
    suite = FOLDER / f"{STEP}-{axis}.toml"
    suite.write_text(
        f'suite = {{ name = "{suite.stem}", memory_limit = "{LIMIT}", device = "{DEVICE}" }}\n'
        + experiment("found", optimizer, settings, axis, found)
        + experiment("fails", optimizer, settings, axis, fails)
        + 'expect = "oom"\n'
    )
    out = FOLDER / STEP
    exit_code = xbench("run", suite, "--out", out)
    if exit_code not in (0, 1):
        raise CheckFailed(f"xbench run {suite.name} exited with {exit_code}")
    statuses = {}
    for record in cells_of(latest_run(out / suite.stem)):
        statuses[record.experiment] = record.status
        print(f"{record.experiment}: {record.status} {record.reason}")
    expected = {"found": "done", "fails": "oom"}
    if fails == found + 1:
        figure(f"{axis}_confirmed", statuses == expected)
    else:
        figure(f"{axis}_confirmed", f"{statuses == expected} (the bracket is {fails - found} wide)")
    check(
        statuses == expected,
        f"{axis}: {found} ended as {statuses.get('found')}, {fails} as {statuses.get('fails')}",
    )


def experiment(name: str, optimizer: str, settings: dict[str, Any], axis: str, size: int) -> str:
    """A table of a suite. Strings and numbers are the same in JSON and TOML."""
    component = {"name": optimizer, **settings}
    if axis == "history-size":
        component["history_size"] = size
    tables = {"dataset": {"name": "synthetic-xray", "train": EXAMPLES, "test": 20}, "optimizer": component}
    keys = {"name": name, "model": "report-cnn", **TRAINING[axis](size)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    for key, table in tables.items():
        lines.append(f"{key} = {{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in table.items()) + " }")
    return "\n".join(["[[experiment]]", *lines, ""])


if __name__ == "__main__":
    optimizer, *axes = sys.argv[1:]
    run_step(lambda: capacity(optimizer, axes))
