"""Tests of the package as a plugin of xbench."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("heavyball")
pytest.importorskip("xbench_heavyball")

import xbench

import xbench_heavyball

pytestmark = pytest.mark.plugin


def test_family_imports_neither_torch_nor_heavyball():
    code = (
        "import sys, xbench_heavyball as plugin; plugin.FAMILY.members(); "
        "print({'torch', 'heavyball'} & set(sys.modules))"
    )
    folder = Path(xbench_heavyball.__file__).parents[1]  # so that an uninstalled package can be imported
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_whole_run(tmp_path):
    names = {"soap": "SOAP", "wrapped": "SAMWrapper-SFAdamW"}
    for name, member in names.items():
        xbench.register_optimizer(name, xbench_heavyball.get_spec(member))
    experiment = {
        "name": "digits",
        "model": "mlp",
        "dataset": "digits",
        "epochs": 1,
        "optimizer": [{"name": name, "lr": 0.01} for name in names],
    }
    suite = {"suite": {"name": "small"}, "experiment": [experiment]}
    cells = xbench.run(suite, out=tmp_path, progress=False).cells.set_index("column")
    assert set(cells.status) == {"done"}, cells.reason.to_list()
    assert cells.state_vectors.wrapped == pytest.approx(2, abs=0.01)
    assert (cells.test_accuracy > 0.5).all()
