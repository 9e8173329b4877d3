"""Tests of the package as a plugin of xbench."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("bitsandbytes")
pytest.importorskip("torchao")
pytest.importorskip("xbench_8bit")

import xbench

import xbench_8bit

pytestmark = pytest.mark.plugin


def test_families_import_neither_torch_nor_the_packages():
    code = (
        "import sys, xbench_8bit as plugin; plugin.TORCHAO.members(); plugin.BITSANDBYTES.members(); "
        "print({'torch', 'torchao', 'bitsandbytes'} & set(sys.modules))"
    )
    folder = Path(xbench_8bit.__file__).parents[1]  # so that an uninstalled package can be imported
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_whole_run(tmp_path):
    families = {"torchao-8bit": xbench_8bit.TORCHAO, "bitsandbytes-8bit": xbench_8bit.BITSANDBYTES}
    for name, family in families.items():
        xbench.register_optimizer(name, family.member("AdamW8bit"))
    experiment = {
        "name": "digits",
        "model": {"name": "mlp", "hidden": [128]},
        "dataset": "digits",
        "epochs": 1,
        "optimizer": [{"name": name, "lr": 0.01} for name in families],
    }
    suite = {"suite": {"name": "small"}, "experiment": [experiment]}
    cells = xbench.run(suite, out=tmp_path, progress=False).cells.set_index("column")
    assert set(cells.status) == {"done"}, cells.reason.to_list()
    # The first matrix (64 x 128) has two moments of one byte; the other tensors are not quantised.
    quantised, others = 64 * 128, 128 + 128 * 10 + 10
    scales_and_tables = 2 * 4 * (quantised // 256 + 256)
    expected = 2 * quantised + 2 * 4 * others + scales_and_tables
    assert cells.optimizer_state_bytes.to_list() == pytest.approx([expected, expected], abs=64)
    assert (cells.test_accuracy > 0.5).all()
