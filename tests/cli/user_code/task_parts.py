"""Datasets of rows with tasks of a user's own: right ones, and one for each mistake that can be made."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import xbench


def build_model(facts, hidden: int = 4) -> nn.Module:
    (width,) = facts.input_shape
    return nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, facts.output.size))


def build_narrow(num_outputs: int) -> nn.Module:
    """Takes three numbers, whatever the rows have."""
    return nn.Linear(3, num_outputs)


def build_frozen(facts, hidden: int = 4) -> nn.Module:
    """The first layer is not trained."""
    model = build_model(facts, hidden)
    model[0].requires_grad_(False)
    return model


FROZEN = xbench.ModelSpec(factory=build_frozen, scalable={"hidden": xbench.Scale(highest=16)})


def build_ten() -> nn.Module:
    """Has ten outputs, whatever the task declares."""
    return nn.Linear(13, 10)


def build_detached(facts) -> nn.Module:
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return torch.zeros(len(x), 1, requires_grad=True) + x[:, :1]

    return Detached()


def squares(outputs, batch):
    return (outputs - batch[1]).square().mean(1)


def fail(*args):
    raise ArithmeticError("I cannot\n   go on")


def contrast(outputs, batch):
    return torch.logsumexp(outputs @ outputs.T, 1) - (outputs * outputs).sum(1)


def derive(model, batch):
    x = batch[0].detach().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    return (slope - batch[1]).square().mean(1)


TASKS = {
    "": {"loss_of": squares},
    "mean": {"loss_of": lambda out, batch: functional.mse_loss(out, batch[1])},
    "column": {"loss_of": lambda out, batch: (out - batch[1]).square()},
    "expanded": {"loss_of": lambda out, batch: squares(out, batch).mean().expand(len(out))},
    "number": {"loss_of": lambda out, batch: squares(out, batch).sum().item()},
    "integers": {"loss_of": lambda out, batch: squares(out, batch).long()},
    "infinite": {"loss_of": lambda out, batch: squares(out, batch) / (batch[1][:, 0] != 1)},
    "detached": {"loss_of": lambda out, batch: squares(out.detach(), batch)},
    "key": {"loss": lambda model, batch: model(batch["inputs"])[:, 0]},
    "contrast": {"loss_of": contrast},
    "centred": {"loss_of": lambda out, batch: (out - out.mean(0) - batch[1]).square().mean(1)},
    "honest": {"loss_of": contrast, "additive": False},
    "derived": {"loss": derive},
    "honestly derived": {"loss": derive, "differentiates": True},
    "weight": {"loss_of": squares, "weight": lambda batch: -torch.ones(len(batch[0]))},
    "penalty": {"loss_of": squares, "penalty": lambda model: torch.ones(2)},
    "metric shape": {
        "loss_of": squares,
        "metrics": (xbench.Metric(name="m", direction="min", value=lambda out, batch: out.mean()),),
    },
    "metric fails": {
        "loss_of": squares,
        "metrics": (xbench.Metric(name="m", direction="min", value=fail),),
    },
    "collect": {
        "loss_of": squares,
        "metrics": (xbench.Metric(name="m", direction="min", function=fail),),
        "collect": lambda out, batch: out.mean(0),
    },
    "function fails": {
        "loss_of": squares,
        "metrics": (
            xbench.Metric(name="good", direction="max", value=lambda out, batch: out[:, 0]),
            xbench.Metric(name="bad", direction="max", function=fail),
        ),
    },
    "function is not a number": {
        "loss_of": squares,
        "metrics": (xbench.Metric(name="bad", direction="max", function=lambda collected: "much"),),
    },
    "reads": {"loss_of": lambda out, batch: squares(out, batch) * batch[0].square().mean(1)},
    "known": {"loss_of": squares, "optimum": xbench.Optimum(0.0)},
}


def build_rows(task: str = "", train: int = 24, test: int = 6, validation: int = 0, width: int = 4):
    """Make rows of numbers whose sum is their target."""
    random = torch.Generator().manual_seed(0)

    def make(count):
        x = torch.randn(count, width, generator=random)
        return x, x.sum(1, keepdim=True).round()

    return xbench.RowDataset(
        train=make(train),
        test=make(test) if test else None,
        validation=make(validation) if validation else None,
        task=xbench.Task(output=xbench.Output("values", 1), **TASKS[task]),
    )


class Augmented:
    def __len__(self):
        return 20

    def __getitem__(self, position):
        return torch.rand(4), torch.ones(1)


class Failing(Augmented):
    def __getitem__(self, position):
        if position > 10:
            raise FileNotFoundError(f"row {position} is gone")
        return torch.ones(4) * position, torch.ones(1)


def build_other_rows(kind: str):
    """Make rows that break the contract."""
    task = xbench.Task(loss_of=squares, output=xbench.Output("values", 1))
    if kind == "narrow test":
        test = torch.ones(9, 3), torch.ones(9, 1)
        return xbench.RowDataset(train=(torch.ones(20, 4), torch.ones(20, 1)), test=test, task=task)
    if kind == "late token":
        tokens = torch.zeros(40, 3, dtype=torch.int64)
        tokens[12] = 5  # not among the few rows that are tried
        task = xbench.Task(
            loss_of=lambda out, batch: out.square().mean((1, 2)), output=xbench.Output("tokens", 5)
        )
        return xbench.RowDataset(train=(tokens,), task=task)
    if kind == "gaps":
        x = torch.ones(40, 4)
        x[12] = torch.nan  # not among the few rows that are tried
        return xbench.RowDataset(train=(x, torch.ones(40, 1)), task=task)
    drawn = {
        "augmented": Augmented,
        "failing": Failing,
        "unlike": lambda: torch.from_numpy(
            np.frombuffer(os.urandom(8 * 4 * 20), np.int64).reshape(20, 4) % 99
        ),
    }[kind]()
    if kind == "unlike":
        drawn = (drawn.float(), drawn[:, :1].float())
    return xbench.RowDataset(train=drawn, task=task)


PROBLEM = xbench.Problem(model=build_model, dataset=build_rows)
READY = xbench.Problem(model=build_model, dataset=build_rows())
NOT_A_PROBLEM = 3
NAMED = xbench.Problem(model="mlp", dataset=build_rows)
MISNAMED = xbench.Problem(model="mpl", dataset=build_rows)
QUOTED = xbench.Problem(model="task_parts:build_model", dataset=build_rows)
