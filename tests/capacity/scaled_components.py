"""Components whose settings are scaled."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from xbench.components.specs import DatasetSpec, ModelSpec, Scale
from xbench.components.tasks import RowDataset, Task

FOLDER = str(Path(__file__).parent)


def build_point(facts, width: int = 2, depth: int = 4) -> nn.Module:
    return nn.Linear(1, width * depth)


def build_greedy(rows: int = 3) -> RowDataset:
    return RowDataset(train=torch.ones(rows, 1), task=Task(loss=_square))


def _square(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().sum(1)


POINT = ModelSpec(factory=build_point, scalable={"width": Scale(needs=lambda width: {"depth": 2 * width})})
GREEDY = DatasetSpec(factory=build_greedy, scalable={"rows": Scale()})
