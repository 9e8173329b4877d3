"""Tests of the package as a plugin of xbench."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

import pytest
from torch import nn
from xbench import OptimizerSpec
from xbench.testing import check_optimizer, conformance

import xbench_sam
from xbench_sam.sam import SAM

PACKAGE = "xbench-sam"


@pytest.fixture
def installed():
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        pytest.skip(f"{PACKAGE} is not installed, and only installed packages have entry points")


def run_python(*arguments):
    folder = Path(xbench_sam.__file__).parents[1]  # so that an uninstalled package can be imported
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


test_contract = conformance("optimizer", "xbench_sam:SPEC")


def test_a_step_calls_the_closure_twice():
    (finding,) = check_optimizer("xbench_sam:SPEC", checks=["closures"])
    assert finding.values["closures_per_step"] == 2


def test_no_momentum_needs_no_memory():
    (finding,) = check_optimizer("xbench_sam:SPEC", {"momentum": 0.0}, checks=["state-size"])
    assert finding.values["state_vectors"] == 0


def test_factory_and_optimizer_have_the_same_settings():
    ours, theirs = (inspect.signature(f).parameters.values() for f in (xbench_sam.build, SAM))
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


def test_factory_passes_every_setting_to_the_optimizer():
    settings = {"lr": 0.3, "momentum": 0.4, "weight_decay": 0.5, "rho": 0.6}
    optimizer = xbench_sam.SPEC.load_factory()(nn.Linear(2, 2).parameters(), **settings)
    assert isinstance(optimizer, SAM)
    assert optimizer.defaults == settings


def test_entry_point_is_the_spec(installed):
    (entry_point,) = {e.value: e for e in entry_points(group="xbench.optimizers", name="sam")}.values()
    assert entry_point.load() is xbench_sam.SPEC
    assert isinstance(xbench_sam.SPEC, OptimizerSpec)


def test_xbench_info_shows_the_optimizer(installed):
    shown = run_python("-m", "xbench", "info", "sam")
    assert shown.returncode == 0, shown.stderr
    assert f"from {PACKAGE} {installed}" in shown.stdout
    assert all(setting in shown.stdout for setting in ("lr", "momentum", "weight_decay", "rho"))
