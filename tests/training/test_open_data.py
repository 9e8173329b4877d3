"""Opening data in a process: a model is run on a row so that it learns its sizes."""

from __future__ import annotations

import torch
from torch import nn

from xbench.training.open_data import run_on_first_row
from xbench.training.prepare_rows import prepare_rows
from xbench.training.row_set import load_row_set


def test_lazy_layers_are_initialised_by_a_loss_that_differentiates():
    rows = load_row_set("poisson-2d", {}, ())
    data = prepare_rows(rows, "poisson-2d", {}, "")
    model = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(1))
    with torch.no_grad():
        run_on_first_row(model, data)
    assert model[0].weight.shape == (4, 2)
