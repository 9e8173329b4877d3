"""Tests of whole runs, for which the plugin must be installed."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

pytest.importorskip("pytorch_optimizer")
pytest.importorskip("xbench_pytorch_optimizer")

import xbench

pytestmark = pytest.mark.plugin

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(autouse=True)
def installed():
    try:
        version("xbench-pytorch-optimizer")
    except PackageNotFoundError:
        pytest.skip("the plugin is not installed, and only installed packages have entry points")


def run(suite, folder):
    cells = xbench.run(suite, out=folder).cells
    return {cell.column: (cell.status, cell.reason) for cell in cells.itertuples()}


def test_suite_of_the_readme(tmp_path):
    suite = tomllib.loads(README.read_text().partition("```toml\n")[2].partition("```")[0])
    endings = run(suite, tmp_path)
    assert len(endings) == 5
    assert {status for status, _ in endings.values()} == {"done"}, endings


def test_lorarite_trains_factors_and_skips_other_models(tmp_path):
    def make(name, model, dataset, **settings):
        optimizer = {"name": "pytorch-optimizer/lorarite", **settings}
        chosen = {"name": name, "model": model, "dataset": dataset, "epochs": 2, "batch_size": "full"}
        return {**chosen, "optimizer": [optimizer]}

    suite = {
        "suite": {"name": "pairs", "seeds": 1},
        "experiment": [
            make("factors", "factorisation", "matrix-factorisation", lora_l_dim=1, label="factors"),
            make("others", "mlp", "digits", label="others"),
        ],
    }
    endings = run(suite, tmp_path)
    assert endings["factors"][0] == "done", endings
    assert endings["others"][0] == "skipped"
    assert "pairs of low-rank factors" in endings["others"][1]
