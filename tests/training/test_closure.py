"""The accumulated closure against the whole batch at once."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from xbench import ModelSpec
from xbench.components.classification import classification
from xbench.training.clipping import make_clip
from xbench.training.closure import AccumulatingClosure
from xbench.training.global_state import seed_generators
from xbench.training.loader import ImageLoader
from xbench.training.objective import Objective
from xbench.training.settings import TrainingSettings

CPU = torch.device("cpu")
BATCH = np.arange(50)
DRAWS = (random.random, np.random.random, lambda: torch.rand(()).item())


def small_cnn(*extra: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 5), nn.MaxPool2d(3), nn.ReLU(), nn.Flatten(), *extra, nn.Linear(64, 2)
    )


def closure_for(data, model, micro_batch, dtype=torch.float32, seed=0) -> AccumulatingClosure:
    loader = ImageLoader(data, ModelSpec(factory=small_cnn), CPU, dtype, "channels_last")
    objective = Objective(classification(data.classes), data, {"dark": 2.0}, CPU, dtype)
    return AccumulatingClosure(model.to(dtype), loader, objective, micro_batch, seed)


def loss_and_gradient(data, micro_batch, dtype) -> tuple[float, torch.Tensor]:
    model = small_cnn()
    closure = closure_for(data, model, micro_batch, dtype)
    closure.start(1, BATCH)
    loss = closure()
    return float(loss), torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("micro_batch", [1, 7, 16, 49, 50, 64])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_accumulation_is_exact(tiny_data, micro_batch, dtype, tolerance):
    whole_loss, whole_gradient = loss_and_gradient(tiny_data, None, dtype)
    loss, gradient = loss_and_gradient(tiny_data, micro_batch, dtype)
    assert loss == pytest.approx(whole_loss, rel=tolerance)
    assert (gradient - whole_gradient).norm() / whole_gradient.norm() < tolerance


def test_the_loss_is_torchs_weighted_cross_entropy(tiny_data):
    model = small_cnn()
    closure = closure_for(tiny_data, model, 16, torch.float64)
    closure.start(1, BATCH)
    images, labels = closure._loader.load(BATCH)
    expected = nn.CrossEntropyLoss(weight=torch.tensor([2.0, 1.0], dtype=torch.float64))(
        model(images), labels
    )
    assert float(closure()) == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("clip", [{"clip_norm": 0.1}, {"clip_value": 0.01}, {"clip_norm": 1e3}])
def test_the_accumulated_gradient_is_clipped_in_every_call(tiny_data, clip):
    _, expected = loss_and_gradient(tiny_data, None, torch.float64)
    if "clip_value" in clip:
        expected = expected.clamp(-0.01, 0.01)
    else:
        expected = expected * min(1.0, clip["clip_norm"] / expected.norm())
    model = small_cnn()
    plain = closure_for(tiny_data, model, 16, torch.float64)
    closure = AccumulatingClosure(
        model, plain._loader, plain._objective, 16, 0, clip=make_clip(TrainingSettings(**clip))
    )
    closure.start(1, BATCH)
    for _ in range(2):
        closure()
        assert torch.allclose(torch.cat([p.grad.flatten() for p in model.parameters()]), expected, rtol=1e-4)


def test_evaluations_are_counted_and_the_first_loss_is_kept(tiny_data):
    model = small_cnn()
    closure = closure_for(tiny_data, model, 16)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4, line_search_fn="strong_wolfe")
    closure.start(1, BATCH)
    returned = optimizer.step(closure)
    assert closure.evaluations == optimizer.state[next(model.parameters())]["func_evals"] > 4
    assert float(closure.first_loss) == float(returned)
    closure.start(2, BATCH)
    assert closure.evaluations == 0
    assert closure.first_loss is None


def test_gradients_of_the_last_step_are_gone_before_the_next(tiny_data):
    """An optimizer that reads them before its first closure would follow another batch."""
    model = small_cnn()
    closure = closure_for(tiny_data, model, None)
    closure.start(1, BATCH)
    closure()
    closure.start(2, BATCH)
    assert all(p.grad is None for p in model.parameters())


class DrawsFromAll(nn.Module):
    """Adds noise from every generator that a model may use."""

    def forward(self, x):
        return x * (1 + random.random() + np.random.random() + torch.rand(()).item())


@pytest.mark.parametrize("micro_batch", [None, 16])
def test_closures_of_a_step_see_the_same_draws_of_every_generator(tiny_data, micro_batch):
    closure = closure_for(tiny_data, small_cnn(DrawsFromAll()), micro_batch)
    closure.start(1, BATCH)
    first, again = float(closure()), float(closure())
    closure.start(2, BATCH)
    assert first == again != float(closure())


def test_what_the_optimizer_draws_between_closures_goes_on(tiny_data):
    closure = closure_for(tiny_data, small_cnn(nn.Dropout(0.5)), None)
    seed_generators(3)
    expected = [draw() for draw in DRAWS for _ in range(3)]
    seed_generators(3)
    drawn = []
    for draw in DRAWS:
        for _ in range(3):
            closure.start(1, BATCH)
            closure()
            drawn.append(draw())
    assert drawn == expected


def test_dropout_masks_stand_still_within_a_step_and_move_between_steps(tiny_data):
    closure = closure_for(tiny_data, small_cnn(nn.Dropout(0.5)), 16)
    closure.start(1, BATCH)
    first, again = float(closure()), float(closure())
    closure.start(2, BATCH)
    assert first == again
    assert float(closure()) != first


def test_a_closure_works_where_gradients_are_off(tiny_data):
    closure = closure_for(tiny_data, small_cnn(), 16)
    closure.start(1, BATCH)
    with torch.no_grad():
        assert torch.isfinite(closure())
