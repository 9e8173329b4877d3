"""Problems that a script registers: a model, and rows with a task of its own."""

from __future__ import annotations

import pytest

# Nothing is guarded, and nothing has a module: workers get all of it by value.
SCRIPT = """
import torch
from torch import nn
import xbench

def net(num_outputs, hidden=3):
    return nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, num_outputs))

def squares(outputs, batch):
    return (outputs - batch[1]).square().mean(1)

def make(count=12):
    x = torch.randn(count, 2)
    bias = xbench.Metric(name="bias", direction="min", function=lambda collected: float(collected.mean()))
    task = xbench.Task(loss_of=squares, output=xbench.Output("values", 1), metrics=(bias,))
    return xbench.RowDataset(train=(x, x[:, :1]), test=(x + 1, x[:, :1]), task=task)

print("begins")
experiment = {"name": "mine", "problem": "mine", "optimizer": ["sgd", "adam"]}
SUITE = {"suite": {"name": "mine"}, "experiment": [experiment]}
for dataset in (make, make()):
    xbench.register_problem("mine", xbench.Problem(model=net, dataset=dataset))
    cells = xbench.run(SUITE).cells
    print(cells.status.tolist(), cells.bias.notna().all(), cells.test_loss.notna().all())
del experiment["problem"]
experiment |= {"model": {"name": "mine", "hidden": 5}, "dataset": {"name": "mine", "count": 30}}
xbench.register_problem("mine", xbench.Problem(model=net, dataset=make))
print(xbench.run(SUITE).cells.train_size.tolist())
xbench.register_model("net", net)
xbench.register_problem("mine", xbench.Problem(model="net", dataset=make))
experiment = {"name": "mine", "problem": "mine", "dataset": {"count": 30}, "optimizer": "sgd"}
SUITE = {"suite": {"name": "mine"}, "experiment": [experiment]}
cells = xbench.run(SUITE, set=["model.hidden=7"]).cells
print(cells.train_size.tolist(), cells["model.hidden"].tolist())
for name, problem in (("other", make), ("a:b", xbench.Problem(model=net, dataset=make))):
    try:
        xbench.register_problem(name, problem)
    except xbench.XbenchError as error:
        print(error.message)
"""


@pytest.mark.slow
def test_a_script_runs_its_problem(python, tmp_path):
    printed = python.script(tmp_path, SCRIPT).stdout.splitlines()
    assert printed == [
        "begins",
        "['done', 'done'] True True",
        "['done', 'done'] True True",
        "[27, 27]",
        "[27] [7]",
        "problem 'other' is a function, not an xbench.Problem",
        "'a:b' cannot be the name of a problem",
    ]
