"""Tests of the package as a plugin of xbench: its specs, and cells that xbench trains with them."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

import pytest
import xbench

import xbench_lbfgs_variants as plugin
from xbench_lbfgs_variants.damped import DampedLBFGS
from xbench_lbfgs_variants.online import OnlineLBFGS
from xbench_lbfgs_variants.wolfe import WolfeLBFGS

pytestmark = pytest.mark.plugin

PACKAGE = "xbench-lbfgs-variants"
FOLDER = Path(plugin.__file__).parents[1]

VARIANTS = {
    "online-lbfgs": (plugin.ONLINE, plugin.build_online, OnlineLBFGS),
    "damped-lbfgs": (plugin.DAMPED, plugin.build_damped, DampedLBFGS),
    "wolfe-lbfgs": (plugin.WOLFE, plugin.build_wolfe, WolfeLBFGS),
}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def names():
    """Names under which suites find the optimizers, also if the package is not installed."""
    try:
        version(PACKAGE)
    except PackageNotFoundError:
        for name, (spec, _, _) in VARIANTS.items():
            xbench.register_optimizer(name, spec)
    return list(VARIANTS)


def run(tmp_path, optimizers, **experiment):
    suite = {
        "suite": {"name": "test"},
        "experiment": [{"name": "test", **experiment, "optimizer": optimizers}],
    }
    return xbench.run(suite, out=tmp_path / "results", progress=False)


def test_spec_does_not_import_torch():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, xbench_lbfgs_variants; print('torch' in sys.modules)"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("name", VARIANTS)
def test_factory_and_optimizer_have_the_same_settings(name):
    _, build, kind = VARIANTS[name]
    ours, theirs = (inspect.signature(f).parameters.values() for f in (build, kind))
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


@pytest.mark.parametrize("name", VARIANTS)
def test_factory_passes_every_setting_to_the_optimizer(name):
    import torch

    spec, build, kind = VARIANTS[name]
    defaults = {p.name: p.default for p in list(inspect.signature(build).parameters.values())[1:]}
    given = {key: value + 1 if type(value) is int else value * 0.5 for key, value in defaults.items()
             if isinstance(value, int | float)}  # fmt: skip
    given |= {"tau": 7.0} if "tau" in defaults else {}
    given |= {"max_eval": 9} if "max_eval" in defaults else {}
    given |= {"pairs_dtype": "bfloat16"}
    optimizer = spec.load_factory()([torch.nn.Parameter(torch.ones(2))], **given)
    assert isinstance(optimizer, kind)
    assert {key: optimizer.defaults[key] for key in given} == given


@pytest.mark.parametrize("name", VARIANTS)
def test_entry_point_is_the_spec(name):
    found = {e.value: e for e in entry_points(group="xbench.optimizers", name=name)}
    if not found:
        pytest.skip(f"{PACKAGE} is not installed, and only installed packages have entry points")
    ((_, entry_point),) = found.items()
    assert entry_point.load() is VARIANTS[name][0]


@pytest.mark.parametrize(("model", "dataset"), [("linear", "logistic-regression"), ("point", "quadratic")])
def test_every_variant_converges_on_convex_problems(model, dataset, names, tmp_path):
    stochastic = {"pairs_dtype": ["float32", "bfloat16"], "lr": 0.3}
    cells = run(
        tmp_path,
        [
            {"name": "online-lbfgs", **stochastic},
            {"name": "damped-lbfgs", **stochastic},
            {"name": "wolfe-lbfgs", "pairs_dtype": ["float32", "bfloat16"], "max_iter": 4},
        ],
        model=model,
        dataset=dataset,
        batch_size="full",
        epochs=100,
    ).cells
    assert (cells["status"] == "done").all(), cells["reason"].tolist()
    limits = {"online-lbfgs": 1e-3, "damped-lbfgs": 2e-2, "wolfe-lbfgs": 1e-6}
    for _, cell in cells.iterrows():
        assert 0 <= cell["suboptimality"] < limits[cell["optimizer"]], cell["column"]
    assert (cells[cells["optimizer"] != "wolfe-lbfgs"]["closures"] == 2 * 100).all()


def test_memory_pass_measures_the_declared_state(names, tmp_path):
    """The model has 2.1 million parameters, which take 8 MB."""
    results = run(
        tmp_path,
        [
            {"name": name, "label": f"{name}-{dtype}", "history_size": size, "pairs_dtype": dtype}
            for name in names
            for size, dtype in [(4, "float32"), (8, "bfloat16")]
        ],
        model={"name": "mlp", "hidden": [1400, 1400]},
        dataset="digits",
        train_size=32,
        batch_size="full",
    )
    assert (results.cells["status"] == "done").all(), results.cells["reason"].tolist()
    records = [json.loads(line) for line in (results.folder / "cells.jsonl").read_text().splitlines()]
    assert len(records) == 6
    for record in records:
        memory, measured = record["memory"], record["memory_pass"]
        assert memory["parameters_bytes"] == pytest.approx(8.3e6, rel=0.05)
        assert memory["expected_state_vectors"] == 8
        assert memory["state_vectors"] == pytest.approx(8, rel=0.01)
        assert measured["optimizer_state_bytes"] == pytest.approx(8 * memory["parameters_bytes"], rel=0.01)
    # The resident peaks of the processes, which differ by less than a vector, do not depend on the dtype
    # beyond that: twice as many pairs of half the size take the same memory.
    peaks = {record["column"]: record["memory_pass"]["peak_bytes"] for record in records}
    for name in names:
        wide, narrow = peaks[f"{name}-float32"], peaks[f"{name}-bfloat16"]
        assert abs(wide - narrow) < 8.3e6, name
