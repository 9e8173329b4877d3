"""The package as xbench sees it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

import pytest
from torch import nn
from xbench import OptimizerSpec

import xbench_sam
from xbench_sam.sam import SAM

PACKAGE = "xbench-sam"


@pytest.fixture
def installed():
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        pytest.skip(f"{PACKAGE} is not installed: only an installed package has entry points")


def python(*arguments):
    folder = Path(xbench_sam.__file__).parents[1]  # so that it is importable if it is not installed
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_spec_does_not_import_torch():
    done = python("-c", "import sys, xbench_sam; print('torch' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def test_settings_are_those_of_the_optimizer():
    of_build, of_class = (inspect.signature(f).parameters.values() for f in (xbench_sam.build, SAM))
    assert [(p.name, p.default) for p in of_build] == [(p.name, p.default) for p in of_class]


def test_factory_passes_every_setting_on():
    settings = {"lr": 0.3, "momentum": 0.4, "weight_decay": 0.5, "rho": 0.6}
    optimizer = xbench_sam.SPEC.load_factory()(nn.Linear(2, 2).parameters(), **settings)
    assert isinstance(optimizer, SAM)
    assert optimizer.defaults == settings


def test_entry_point_is_the_spec(installed):
    (entry_point,) = {e.value: e for e in entry_points(group="xbench.optimizers", name="sam")}.values()
    assert entry_point.load() is xbench_sam.SPEC
    assert isinstance(xbench_sam.SPEC, OptimizerSpec)


def test_xbench_finds_it(installed):
    shown = python("-m", "xbench", "info", "sam")
    assert shown.returncode == 0, shown.stderr
    assert f"from {PACKAGE} {installed}" in shown.stdout
    assert all(setting in shown.stdout for setting in ("lr", "momentum", "weight_decay", "rho"))
