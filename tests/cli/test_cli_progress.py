"""A run whose display prints a line as soon as work begins: each kind of work is told on stderr."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

USER_CODE = Path(__file__).parent / "user_code"

SUITE = """
[suite]
name = "told"
time_limit = "1h"

[[experiment]]
name = "small"
model = "tiny_parts:build_model"
dataset = "tiny_parts:build_dataset"
train_size = 20
batch_size = 8
micro_batch = "auto"
epochs = 2
optimizer = "sgd"
memory_limit = "2GB"
"""

# Work is printed by the call that begins it, however soon it ends; no thread has to look at the right moment.
COMMAND = """
import sys
from xbench.cli import activity, main

show = activity.ActivityDisplay.show

def show_and_print(display, shown):
    show(display, shown)
    display.print_if_due()

activity.MAX_SILENCE_S = 0.0
activity.ActivityDisplay.show = show_and_print
sys.exit(main())
"""


@pytest.fixture(scope="module")
def done(xbench, tmp_path_factory) -> subprocess.CompletedProcess:
    folder = tmp_path_factory.mktemp("told")
    shutil.copytree(USER_CODE, folder / "code", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "suite.toml").write_text(SUITE)
    command = [sys.executable, "-c", COMMAND, "run", "suite.toml", "--allow-import", "code"]
    return subprocess.run(
        [*command, "--format", "json"],
        cwd=folder,
        env=xbench.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=220,
    )


@pytest.mark.parametrize(
    "what",
    [
        "starting worker processes",
        "loading the components",
        "trying the optimizers",
        "listing the datasets",
        "looking for the models' weights",
        "trying the models",
        "preparing tiny_parts:build_dataset",
        "estimating the time of small / sgd / seed 0",
        "fitting the speed of micro_batch of small / sgd",
        "fitting micro_batch of small / sgd",
        "[1/1] small / sgd / seed 0: loading the model and the data",
    ],
)
def test_each_kind_of_work_is_told(done, what):
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"{what}: ")]
    assert lines
    assert all(re.search(r"\d s so far", line) for line in lines)


def test_lines_are_plain_text(done):
    assert all(line.isprintable() and line.isascii() for line in done.stderr.splitlines())


def test_the_results_are_a_document_all_the_same(done):
    (experiment,) = json.loads(done.stdout)["experiments"]
    assert experiment["name"] == "small"
