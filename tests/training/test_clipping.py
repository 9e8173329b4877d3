"""Clipped gradients against torch's own functions, and where these do not suffice."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xbench.training.clipping import make_clip
from xbench.training.settings import TrainingSettings


def parameters(*gradients) -> list[nn.Parameter]:
    made = []
    for gradient in gradients:
        parameter = nn.Parameter(torch.zeros(len(gradient)))
        parameter.grad = torch.tensor(gradient)
        made.append(parameter)
    return made


def clipped(given: list[nn.Parameter], **training) -> list[list[float]]:
    make_clip(TrainingSettings(**training))(given)
    return [p.grad.to_dense().tolist() for p in given]


def test_nothing_is_clipped_by_default():
    assert make_clip(TrainingSettings()) is None


def test_the_norm_is_that_of_all_parameters():
    assert clipped(parameters([3.0], [0.0, 4.0]), clip_norm=1.0) == [
        pytest.approx([0.6], rel=1e-5),
        pytest.approx([0.0, 0.8], rel=1e-5),
    ]


def test_short_gradients_stay_as_they_are():
    assert clipped(parameters([0.25], [0.5]), clip_norm=1.0) == [[0.25], [0.5]]


def test_values_are_clipped_on_both_sides():
    assert clipped(parameters([3.0, -0.25], [-4.0]), clip_value=0.5) == [[0.5, -0.25], [-0.5]]


def test_values_are_clipped_before_the_norm():
    ((found,),) = clipped(parameters([100.0]), clip_value=2.0, clip_norm=8.0)
    assert found == 2.0


def test_parameters_without_gradients_are_left_out():
    given = [*parameters([3.0]), nn.Parameter(torch.zeros(2))]
    make_clip(TrainingSettings(clip_norm=1.0, clip_value=2.0))(given)
    assert given[1].grad is None


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_a_norm_that_is_not_finite_spoils_every_gradient(bad):
    """torch multiplies the finite elements by 0, and training would stand still without an error."""
    found = clipped(parameters([1.0, bad], [2.0]), clip_norm=1.0)
    assert torch.tensor([*found[0], *found[1]]).isnan().all()


def test_a_value_that_is_not_a_number_stays():
    ((found,),) = clipped(parameters([torch.nan]), clip_value=1.0)
    assert found != found


class TestSparse:
    def embedding(self, rows=(0, 2, 2)) -> nn.Parameter:
        embedding = nn.Embedding(4, 2, sparse=True)
        embedding(torch.tensor(rows)).sum().backward()
        return embedding.weight

    @pytest.mark.parametrize(
        ("training", "clip"),
        [
            ({"clip_norm": 1.0}, lambda p: nn.utils.clip_grad_norm_(p, 1.0)),
            ({"clip_value": 1.5}, lambda p: nn.utils.clip_grad_value_(p, 1.5)),
        ],
    )
    def test_rows_that_occur_twice_are_added_first(self, training, clip):
        sparse, (dense,) = self.embedding(), parameters([0.0])
        dense = nn.Parameter(torch.zeros(4, 2))
        dense.grad = sparse.grad.to_dense()
        clip([dense])
        found = clipped([sparse], **training)
        assert sparse.grad.is_sparse
        assert torch.allclose(torch.tensor(found[0]), dense.grad)

    def test_beside_dense_ones(self):
        found = clipped([self.embedding((0,)), *parameters([1.0, 1.0])], clip_norm=1.0)
        assert found[0][0] == pytest.approx([0.5, 0.5], rel=1e-5)
        assert found[1] == pytest.approx([0.5, 0.5], rel=1e-5)


@pytest.mark.filterwarnings("ignore:Using backward")
class TestGraphs:
    """An optimizer that differentiates `.grad`, as for Hutchinson's estimator of the Hessian."""

    @pytest.mark.parametrize("training", [{"clip_norm": 1e-3}, {"clip_value": 1e-3}])
    def test_the_derivative_of_a_clipped_gradient_is_that_of_the_gradient(self, training):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 1), nn.Sigmoid()).double()
        inputs = torch.randn(5, 3, dtype=torch.double)
        weights = list(model.parameters())

        def differentiate(clip=None) -> list[torch.Tensor]:
            model.zero_grad()
            model(inputs).square().sum().backward(create_graph=True)
            if clip is not None:
                clip(weights)
            total = sum(p.grad.sum() for p in weights)
            return list(torch.autograd.grad(total, weights))

        plain = differentiate()
        found = differentiate(make_clip(TrainingSettings(**training)))
        assert max(p.grad.abs().max() for p in weights) <= 1e-3
        assert all(torch.equal(one, other) for one, other in zip(plain, found, strict=True))
