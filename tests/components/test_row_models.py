"""Models of rows: shapes, starts, and errors that say what does not fit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from xbench.components.facts import Facts, Output, TensorFacts
from xbench.components.row_models import (
    Activation,
    build_factorisation,
    build_linear,
    build_mlp,
    build_point,
)
from xbench.errors import XbenchError


def facts(shape=(4,), dtype="float64", output=Output("values", 3)):  # noqa: B008
    return Facts(row=(TensorFacts(shape, dtype), TensorFacts((), "int64")), output=output, rows=10)


@pytest.mark.parametrize("factory", [build_mlp, build_linear])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
@pytest.mark.parametrize("kind", ["values", "classes"])
def test_rows_of_any_shape_become_rows_of_outputs(factory, shape, kind):
    model = factory(facts(shape, output=Output(kind, 3)))
    assert model(torch.zeros(5, *shape)).shape == (5, 3)


def test_hidden_layers_have_the_widths_that_were_asked_for():
    model = build_mlp(facts(), hidden=(7, 5), activation="tanh")
    widths = [layer.out_features for layer in model if isinstance(layer, nn.Linear)]
    assert widths == [7, 5, 3]
    assert sum(isinstance(layer, nn.Tanh) for layer in model) == 2


def test_no_hidden_layers_are_a_linear_model():
    model = build_mlp(facts(), hidden=())
    assert [type(layer) for layer in model] == [nn.Flatten, nn.Linear]


@pytest.mark.parametrize("activation", Activation.__args__)
def test_every_activation_can_be_built(activation):
    assert build_mlp(facts(), activation=activation)(torch.ones(2, 4)).isfinite().all()


def test_a_linear_model_starts_at_zero():
    model = build_linear(facts(), bias=True)
    assert not model(torch.ones(2, 4)).any()
    assert sum(p.numel() for p in model.parameters()) == 15
    assert sum(p.numel() for p in build_linear(facts()).parameters()) == 12


@pytest.mark.parametrize(("factory", "name"), [(build_mlp, "mlp"), (build_linear, "linear")])
def test_inputs_that_are_not_numbers_are_named_with_both_shapes(factory, name):
    with pytest.raises(XbenchError) as caught:
        factory(facts((2,), "int64"))
    assert str(caught.value) == (
        f"the model '{name}' maps floating-point numbers to outputs of shape (n, 3), and the first tensor of "
        "these rows has shape (n, 2) and dtype int64"
    )


@pytest.mark.parametrize(
    ("output", "why", "hint"),
    [
        (None, "does not say what a model returns", 'output=Output("values", 1)'),
        (Output("tokens", 9), "asks for tokens", "gpt-mini"),
    ],
)
def test_tasks_that_do_not_ask_for_a_row_of_outputs_are_refused(output, why, hint):
    with pytest.raises(XbenchError, match=f"the task {why}") as caught:
        build_mlp(facts(output=output))
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "settings", [{"hidden": (0,)}, {"hidden": (8, 1.5)}, {"hidden": (1,) * 1001}, {"activation": "step"}]
)
def test_settings_of_a_network_out_of_range_are_refused(settings):
    with pytest.raises(XbenchError, match="mlp: "):
        build_mlp(facts(), **settings)


def test_entries_are_products_of_the_factors():
    model = build_factorisation(facts((2,), "int64"), shape=(3, 2), rank=4)
    matrix = model.left.weight @ model.right.weight.T
    found = model(torch.tensor([[2, 1], [0, 0]]))
    torch.testing.assert_close(found, torch.stack([matrix[2, 1], matrix[0, 0]])[:, None])


@pytest.mark.parametrize(("shape", "dtype"), [((3,), "int64"), ((2,), "float64")])
def test_factors_need_pairs_of_indices(shape, dtype):
    with pytest.raises(XbenchError, match=rf"has shape \({shape[0]},\) and dtype {dtype}"):
        build_factorisation(facts(shape, dtype))


@pytest.mark.parametrize("settings", [{"shape": (3, 0)}, {"shape": (3,)}, {"rank": 0}, {"std": -1.0}])
def test_settings_of_factors_out_of_range_are_refused(settings):
    with pytest.raises(XbenchError, match="factorisation: "):
        build_factorisation(facts((2,), "int64"), **settings)


@pytest.mark.parametrize(("shape", "dtype"), [((3,), "int64"), ((2, 2), "float64"), ((), "float32")])
def test_a_point_needs_a_row_of_numbers(shape, dtype):
    with pytest.raises(XbenchError, match=f"and dtype {dtype}"):
        build_point(facts(shape, dtype))


@pytest.mark.parametrize("spread", [-0.1, math.inf, "wide"])
def test_a_spread_out_of_range_is_refused(spread):
    with pytest.raises(XbenchError, match=r"point: spread = .* is not valid"):
        build_point(facts(), spread=spread)
