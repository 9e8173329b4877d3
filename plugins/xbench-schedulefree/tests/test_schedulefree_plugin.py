"""Tests of the package as a plugin of xbench."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("schedulefree")
pytest.importorskip("xbench_schedulefree")

import xbench

import xbench_schedulefree

pytestmark = pytest.mark.plugin


def test_family_imports_neither_torch_nor_schedulefree():
    code = (
        "import sys, xbench_schedulefree as plugin; plugin.FAMILY.members(); "
        "print({'torch', 'schedulefree'} & set(sys.modules))"
    )
    folder = Path(xbench_schedulefree.__file__).parents[1]  # so that an uninstalled package can be imported
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_whole_run(tmp_path):
    names = {"average": "AdamWScheduleFree", "wrapped": "ScheduleFreeWrapper-RMSprop"}
    for name, member in names.items():
        xbench.register_optimizer(name, xbench_schedulefree.get_spec(member))
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
    assert cells.state_vectors.round(1).to_dict() == {"average": 2, "wrapped": 2}
    assert (cells.test_accuracy > 0.5).all()
