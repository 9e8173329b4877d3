"""Run xbench with the plugin, whether the plugin is installed or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Make the environment of a process that finds the plugin's entry point."""
    folder = tmp_path_factory.mktemp("registered")
    described = folder / "xbench_timm-0.1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: xbench-timm\nVersion: 0.1.0\n")
    (described / "entry_points.txt").write_text("[xbench.models]\ntimm = xbench_timm:TIMM\n")
    paths = [str(PLUGIN), str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "COLUMNS": "200",
        "HF_HOME": str(tmp_path_factory.mktemp("hub")),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "TORCH_HOME": str(tmp_path_factory.mktemp("torch")),
        "XBENCH_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
    }


@pytest.fixture(scope="session")
def xbench(environment):
    """Return a function that runs the command `xbench` in a folder."""

    def run(folder, *arguments):
        command = [sys.executable, "-m", "xbench", *arguments]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture(scope="session")
def run_suite(xbench):
    """Return a function that runs a suite, and returns its cells by the names of their experiments."""

    def run(folder, suite):
        done = xbench(folder, "run", suite, "--device", "cpu", "--out", "runs")
        assert done.returncode == 0, done.stdout + done.stderr
        (path,) = folder.glob("runs/*/*/cells.jsonl")
        cells = [json.loads(line) for line in path.read_text().splitlines()]
        return {cell["experiment"]: cell for cell in cells}

    return run
