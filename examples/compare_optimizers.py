"""Compare three optimizers on a model of one's own, and look at the results with pandas.

Run it with `python examples/compare_optimizers.py [FOLDER]`. It makes its own images, takes a few seconds,
and keeps its results in FOLDER (by default `results`). The second time, nothing is trained again.
"""

import sys

import torch
from torch import nn

import xbench


def small_cnn(num_classes: int, width: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 5, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, num_classes),
    )


class SignSGD(torch.optim.Optimizer):
    """Step by the sign of each gradient (Bernstein et al. 2018, "signSGD")."""

    def __init__(self, params, lr: float = 1e-3):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(parameter.grad.sign(), alpha=group["lr"])
        return loss


xbench.register_model("small-cnn", small_cnn)
xbench.register_optimizer("sign-sgd", SignSGD)

results = xbench.run(
    {
        "suite": {"name": "compare-optimizers", "seeds": 2},
        "experiment": [
            {
                "name": "small",
                "title": "Three optimizers on synthetic images",
                "model": "small-cnn",
                "dataset": {"name": "synthetic-xray", "train": 40, "test": 20, "image_size": 32},
                "epochs": 2,
                "batch_size": 8,
                "optimizer": [
                    {"name": "sgd", "lr": 0.01},
                    {"name": "adam", "lr": 0.01},
                    {"name": "sign-sgd", "lr": 0.01},
                ],
            }
        ],
    },
    out=sys.argv[1] if len(sys.argv) > 1 else "results",
)

results.show()
columns = ["test_accuracy", "training_s", "needed_bytes"]
print(results.cells.groupby("column")[columns].mean())
print(results.steps.groupby("column")["loss"].last())
