"""Datasets and models of rows as they are registered, and the shipped suites that use them."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from tests.components.row_samples import build, loss_of
from xbench.components import row_datasets
from xbench.components.settings import settings_of
from xbench.components.specs import DatasetSpec, ModelSpec
from xbench.components.tasks import RowDataset
from xbench.suite.reader import read_suite
from xbench.suite.shipped import shipped_suites

ROOT = Path(__file__).parents[2]
SPECS = {name: spec for name, spec in vars(row_datasets).items() if isinstance(spec, DatasetSpec)}
SUITES = ["convex", "physics", "tabular", "test-functions"]


@pytest.fixture(scope="module", autouse=True)
def use_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XBENCH_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def registered(kind):
    """The components that pyproject.toml registers, whether or not this version is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {}
    for name, value in project["entry-points"][f"xbench.{kind}s"].items():
        module, _, attribute = value.partition(":")
        found[name] = getattr(importlib.import_module(module), attribute)
    return found


def test_every_dataset_of_rows_is_registered():
    assert set(map(id, SPECS.values())) <= set(map(id, registered("dataset").values()))


@pytest.mark.parametrize("name", SPECS)
def test_a_dataset_is_made_with_its_default_settings(name):
    spec = SPECS[name]
    dataset = spec.load_factory()()
    assert isinstance(dataset, RowDataset)
    assert spec.summary and settings_of(spec).types


@pytest.mark.parametrize("name", SPECS)
def test_a_task_can_be_sent_to_another_process(name):
    task = SPECS[name].load_factory()().task
    assert pickle.loads(pickle.dumps(task)).loss_method == task.loss_method


def test_listings_import_neither_torch_nor_numpy():
    code = "import sys, xbench.components.row_datasets, xbench.components.row_models\n"
    code += "print([name for name in ('torch', 'numpy', 'sklearn', 'scipy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("suite", SUITES)
def test_a_shipped_suite_trains_models_that_suit_its_data(suite):
    path = shipped_suites()[suite]
    assert read_suite(path).header.name == suite
    models, datasets = registered("model"), registered("dataset")
    for experiment in read_suite(path).experiments.values():
        (model,) = experiment.model
        for table in experiment.dataset:
            dataset = datasets[table.name].load_factory()(**table.settings)
            assert isinstance(models[model.name], ModelSpec)
            network = build(dataset, models[model.name].load_factory(), **model.settings)
            loss = loss_of(dataset.task, network, dataset.train)
            loss.backward()
            assert loss.isfinite()
            assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())
