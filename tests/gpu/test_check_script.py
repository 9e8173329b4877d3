"""The check for GPU machines, as far as it can be tried without one; no step of it is run here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from xbench.components.registry import origin, registrations
from xbench.suite.reader import read_suite

HERE = Path(__file__).parent

# Stands for Python: what a step does depends on its name alone.
STAND_IN = """#!/bin/sh
case "$*" in
  *check_oom*) echo "failed: it ended as done"; exit 1 ;;
  *check_tests*) echo "skipped: no device"; exit 77 ;;
  *check_repeat*) echo "Killed by a bug"; exit 3 ;;
  *check_capacity*adam*) sleep 60 ;;
  *) echo "figure: ratio 1.5"; echo "figure: peak_mb 20" ;;
esac
"""


def run_check(folder: Path, **environment: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHECK_")}
    return subprocess.run(
        ["bash", HERE / "check.sh", folder],
        env={**kept, "PYTHON": sys.executable, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )


def run_with_stand_in(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess:
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    return run_check(tmp_path / "out", PYTHON=str(python), CHECK_DEVICE="cpu", **environment)


def outcomes(tmp_path: Path) -> dict[str, str]:
    """The status of each step, by its name."""
    lines = (tmp_path / "out" / "summary.txt").read_text().splitlines()[1:]
    return {name: status for status, name, *_ in map(str.split, lines)}


def test_without_a_device_it_says_so_in_one_line(tmp_path):
    done = run_check(tmp_path / "out", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"no CUDA device: nothing was checked.*\n", done.stdout)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "old.log").write_text("")
    done = run_check(tmp_path, CHECK_DEVICE="cpu")
    assert done.returncode == 2
    assert "is not empty" in done.stderr


def test_it_goes_on_after_a_failure_and_sums_up(tmp_path):
    steps = "machine oom tests repeat peak"
    done = run_with_stand_in(tmp_path, CHECK_STEPS=steps)
    assert done.returncode == 1
    assert outcomes(tmp_path) == {
        "machine": "ok",
        "oom": "failed",
        "tests": "skipped",
        "repeat": "failed",
        "peak": "ok",
    }
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert summary in done.stdout
    for told in ("ratio 1.5; peak_mb 20", "it ended as done", "no device", "Killed by a bug"):
        assert told in summary


def test_nothing_failed_is_exit_code_0(tmp_path):
    assert run_with_stand_in(tmp_path, CHECK_STEPS="machine tests peak").returncode == 0


def test_steps_are_cut_off_when_the_budget_is_used_up(tmp_path):
    """The first step would take a minute. On a machine so busy that two seconds pass before it starts, there
    is nothing left to cut off, and it is skipped for the same reason."""
    done = run_with_stand_in(tmp_path, CHECK_STEPS="capacity-adam-batch-size first-step", CHECK_BUDGET_S="3")
    assert done.returncode == 0
    assert outcomes(tmp_path) == {"capacity-adam-batch-size": "skipped", "first-step": "skipped"}
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert summary.count("the budget of 3 s was used up") == 2


def test_its_suite_is_in_order():
    suite = read_suite(HERE / "check.toml")
    suite.problems.raise_if_any()
    used = set(
        re.findall(r'run_experiment\("([a-z-]+)"', "".join(f.read_text() for f in HERE.glob("check_*.py")))
    )
    assert used <= {experiment.name for experiment in suite.experiments.values()}


def test_every_built_in_optimizer_is_repeated():
    suite = read_suite(HERE / "check.toml", only=["repeat", "repeat-matrices", "repeat-sparse"])
    repeated = {table.name for experiment in suite.experiments.values() for table in experiment.optimizer}
    built_in = {
        name for name in registrations("optimizer") if origin("optimizer", name).startswith("xbench ")
    }
    assert repeated == built_in
