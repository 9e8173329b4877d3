"""A matrix of low rank: entries, their split, and what factors recover of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.components.row_samples import build, loss_of, metrics_of, minimise
from xbench.components.matrix_factorisation import build_matrix_factorisation
from xbench.components.row_models import build_factorisation
from xbench.errors import XbenchError


def matrix_of(dataset, shape):
    matrix = np.full(shape, np.nan)
    for indices, entries in filter(None, (dataset.train, dataset.test)):
        matrix[tuple(indices.numpy().T)] = entries.numpy()[:, 0]
    return matrix


def test_a_matrix_without_noise_has_its_rank():
    dataset = build_matrix_factorisation(shape=(12, 9), rank=2, observed=1.0, noise=0.0)
    assert np.linalg.matrix_rank(matrix_of(dataset, (12, 9))) == 2
    assert dataset.test is None


def test_every_entry_is_in_one_split():
    dataset = build_matrix_factorisation(shape=(12, 9), rank=2, observed=0.25)
    assert len(dataset.train[0]) == 27
    assert len(dataset.test[0]) == 81
    assert np.isfinite(matrix_of(dataset, (12, 9))).all()


def test_entries_have_a_variance_of_about_1():
    dataset = build_matrix_factorisation(observed=1.0, noise=0.0)
    assert matrix_of(dataset, (200, 100)).var() == pytest.approx(1, abs=0.2)


def test_factors_recover_the_entries_that_were_not_observed():
    shape = (30, 20)
    dataset = build_matrix_factorisation(shape=shape, rank=2, observed=0.7, noise=0.0)
    model = build(dataset, build_factorisation, shape=shape, rank=2)
    minimise(dataset, model, 10)
    assert metrics_of(dataset.task, model, [dataset.test])["rmse"] < 1e-2


def test_the_penalty_is_averaged_over_the_sides():
    shape = (4, 6)
    plain, penalised = (build_matrix_factorisation(shape=shape, rank=2, l2=l2) for l2 in (0.0, 0.5))
    model = build(plain, build_factorisation, shape=shape, rank=3)
    squares = sum(parameter.square().sum() for parameter in model.parameters())
    added = loss_of(penalised.task, model, plain.train) - loss_of(plain.task, model, plain.train)
    torch.testing.assert_close(added, 0.25 * squares / 10)


def test_a_model_of_another_matrix_is_refused():
    dataset = build_matrix_factorisation(shape=(4, 6), rank=2)
    model = build(dataset, build_factorisation, shape=(4, 5))
    with pytest.raises(XbenchError, match="the matrix is 4 x 6, and the model's is 4 x 5"):
        loss_of(dataset.task, model, dataset.train)


def test_the_same_seed_makes_the_same_rows_and_another_seed_others():
    first, again, other = (build_matrix_factorisation(shape=(5, 4), rank=1, seed=s).train for s in (1, 1, 2))
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


@pytest.mark.parametrize(
    "settings",
    [
        {"shape": (3, 4, 5)},
        {"shape": (3, 0)},
        {"shape": (1, 1)},
        {"shape": (10**5, 10**5)},
        {"rank": 101},
        {"observed": 0.0},
        {"observed": 1.1},
        {"noise": -0.1},
        {"l2": float("nan")},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(XbenchError, match="matrix-factorisation: "):
        build_matrix_factorisation(**settings)
