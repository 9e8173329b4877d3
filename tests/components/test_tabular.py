"""Bundled tables: read once from scikit-learn, split alike everywhere, standardised by the training rows."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from tests.components.row_samples import build, loss_of, metrics_of
from xbench.components import bundled
from xbench.components.bundled import load_bundled
from xbench.components.row_models import build_linear, build_mlp
from xbench.components.tabular import (
    build_breast_cancer,
    build_diabetes,
    build_digits,
    build_wine,
    split_rows,
    standardise,
)
from xbench.errors import XbenchError

BUILDERS = [build_breast_cancer, build_digits, build_wine, build_diabetes]


@pytest.fixture(scope="module")
def filled_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def use_cache(filled_cache, monkeypatch):
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(filled_cache))


@pytest.mark.parametrize(
    ("builder", "rows", "features"),
    [
        (build_breast_cancer, 569, 30),
        (build_digits, 1797, 64),
        (build_wine, 178, 13),
        (build_diabetes, 442, 10),
    ],
)
def test_every_row_is_in_one_split(builder, rows, features):
    dataset = builder()
    (train, _), (test, _) = dataset.train, dataset.test
    assert train.shape[1] == test.shape[1] == features
    assert len(train) + len(test) == rows
    assert len(test) == pytest.approx(rows / 5, abs=2)
    assert train.dtype == torch.float64


@pytest.mark.parametrize("builder", BUILDERS)
def test_columns_are_standardised_over_the_training_rows(builder):
    inputs = builder().train[0].numpy()
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-12)
    deviations = inputs.std(axis=0)
    assert np.isclose(deviations, 1).sum() + (deviations == 0).sum() == inputs.shape[1]


def test_classes_are_those_of_scikit_learn():
    from sklearn import datasets

    for builder, loader in ((build_breast_cancer, "load_breast_cancer"), (build_wine, "load_wine")):
        names = tuple(str(name) for name in getattr(datasets, loader)().target_names)
        assert builder().task.classes == names


def test_rows_are_those_of_scikit_learn():
    from sklearn.datasets import load_wine

    expected = load_wine()
    features, target = load_bundled("load_wine")
    np.testing.assert_array_equal(features, expected.data)
    np.testing.assert_array_equal(target, expected.target)


def test_each_class_has_the_same_share_in_the_test_split():
    dataset = build_digits(test_share=0.3)
    train, test = dataset.train[1].bincount(), dataset.test[1].bincount()
    shares = test / (train + test)
    assert shares.min() > 0.29 and shares.max() < 0.31


def test_the_split_follows_from_its_seed():
    first, again, other = (build_wine(split_seed=seed).test[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_test_rows_are_no_test_split():
    assert build_wine(test_share=0).test is None


def test_a_split_takes_the_rounded_share_of_each_class():
    labels = np.array([0] * 10 + [1] * 4)
    is_test = split_rows(labels, 0.3, seed=0)
    assert is_test[:10].sum() == 3
    assert is_test[10:].sum() == 1


def test_a_column_that_is_constant_over_the_training_rows_is_only_shifted():
    columns = np.array([[0.1, 1.0], [0.1, 3.0], [0.7, 5.0]])
    scaled, mean, std = standardise(columns, np.array([True, True, False]))
    assert mean.tolist() == [0.1, 2.0]
    assert std.tolist() == [1.0, 1.0]
    np.testing.assert_allclose(scaled, [[0, -1], [0, 1], [0.6, 3]], atol=1e-15)


def test_scikit_learn_is_asked_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path))
    first = load_bundled("load_wine")
    monkeypatch.setitem(sys.modules, "sklearn", None)  # an import now fails
    for stored, loaded in zip(load_bundled("load_wine"), first, strict=True):
        np.testing.assert_array_equal(stored, loaded)


@pytest.mark.parametrize("damage", [lambda old: old[:-1], lambda old: b"", lambda old: b"x" + old[1:]])
def test_a_damaged_copy_is_replaced(damage, tmp_path, monkeypatch):
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path))
    load_bundled("load_wine")
    (path,) = (tmp_path / "bundled").iterdir()
    good = path.read_bytes()
    path.write_bytes(damage(good))
    assert len(load_bundled("load_wine")[1]) == 178
    assert path.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "file"))
    assert len(load_bundled("load_wine")[1]) == 178


def test_another_version_of_scikit_learn_has_a_copy_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path))
    load_bundled("load_wine")
    monkeypatch.setattr(bundled, "version", lambda name: "99")
    load_bundled("load_wine")
    assert len(list((tmp_path / "bundled").iterdir())) == 2


def test_the_rmse_of_diabetes_is_in_the_original_unit():
    dataset = build_diabetes()
    model = build(dataset, build_linear)  # starts at zero, the mean of the standardised target
    _, target = load_bundled("load_diabetes")
    is_test = split_rows(np.zeros(len(target), dtype=int), 0.2, 0)
    expected = np.sqrt(np.mean((target[is_test] - target[~is_test].mean()) ** 2))
    found = metrics_of(dataset.task, model, [dataset.test])
    assert found["rmse"] == pytest.approx(expected)
    assert found["r2"] <= 0


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_network_learns_every_table(builder):
    dataset = builder()
    model = build(dataset, build_mlp, hidden=(16,))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss = loss_of(dataset.task, model, dataset.train)
        loss.backward()
        optimizer.step()
    if builder is build_diabetes:
        assert metrics_of(dataset.task, model, [dataset.test])["r2"] > 0.3
    else:
        accuracy = next(metric for metric in dataset.task.metrics if metric.name == "accuracy")
        assert accuracy.value(model(dataset.test[0]), dataset.test).mean() > 0.9


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("settings", [{"test_share": 0.6}, {"test_share": -0.1}, {"split_seed": 0.5}])
def test_settings_out_of_range_are_refused(builder, settings):
    ((name, value),) = settings.items()
    with pytest.raises(XbenchError, match=f": {name} = {value} is not valid"):
        builder(**settings)
