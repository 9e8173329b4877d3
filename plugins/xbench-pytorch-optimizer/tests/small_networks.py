"""Networks for rows of `xbench.testing.start_training`."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """Two layers with biases, a matrix without one, and a normalisation layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 40)
        self.norm = nn.LayerNorm(40)
        self.hidden = nn.Linear(40, 32, bias=False)
        self.last = nn.Linear(32, 8)

    def forward(self, numbers: Tensor, tokens: Tensor) -> Tensor:
        return self.last(torch.tanh(self.hidden(torch.relu(self.norm(self.first(numbers))))))


class Factors(nn.Module):
    """Two factors of a matrix of rank 4."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(0.1 * torch.randn(4, 8))
        self.b = nn.Parameter(0.1 * torch.randn(8, 4))

    def forward(self, numbers: Tensor, tokens: Tensor) -> Tensor:
        return numbers @ self.a.T @ self.b.T
