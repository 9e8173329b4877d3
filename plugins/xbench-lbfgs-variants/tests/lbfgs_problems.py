"""Problems with closures, for the tests."""

from __future__ import annotations

import torch
from torch import nn


class Closure:
    """A closure for the loss `compute_loss()` that records the parameters at each evaluation."""

    def __init__(self, parameters, compute_loss):
        self.parameters, self.compute_loss = list(parameters), compute_loss
        self.seen = []

    def __call__(self):
        assert torch.is_grad_enabled()
        self.seen.append([p.detach().clone() for p in self.parameters])
        for p in self.parameters:
            p.grad = None
        loss = self.compute_loss()
        loss.backward()
        return loss.detach().double()


def make_quadratic(size=8, dtype=torch.float64):
    """Make a parameter, the Hessian of a quadratic of condition number 1000, and the quadratic's closure."""
    generator = torch.Generator().manual_seed(0)
    directions, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    hessian = directions @ torch.diag(torch.logspace(0, -1, size, dtype=torch.float64).pow(3)) @ directions.T
    hessian = (50 * hessian).to(dtype)
    parameter = nn.Parameter(torch.linspace(-1, 1, size, dtype=dtype))
    return parameter, hessian, Closure([parameter], lambda: parameter @ hessian @ parameter / 2)


def make_network(dtype=torch.float32):
    """Make a small network, and a closure for its mean squared error on 64 fixed points."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)
    inputs = torch.randn(64, 3)
    targets = inputs[:, :1].sin() + inputs[:, 1:2] * inputs[:, 2:]
    inputs, targets = inputs.to(dtype), targets.to(dtype)
    return model, Closure(model.parameters(), lambda: ((model(inputs) - targets) ** 2).mean())


def make_waves():
    """Make a point and the closure of a sum of waves, whose Hessian is indefinite between the minima."""
    point = nn.Parameter(torch.tensor([0.3, 2.0], dtype=torch.float64))

    def compute_loss():
        return 2 * point[0].cos() + (point[0] * point[1]).sin() + 0.05 * point.square().sum()

    return point, Closure([point], compute_loss)
