"""A model that keeps state outside of its state dict: told below the table, and never resumed or selected."""

from __future__ import annotations

import pytest

from tests.cli.cli_process import Ran, copy_user_code, one_line

CODE = """
from torch import nn
from xbench import ModelSpec


class Counting(nn.Module):
    def __init__(self, num_classes: int):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))
        self.calls = 0

    def forward(self, images):
        self.calls += self.training
        return self.net(images) * (1 + self.calls)


DECLARED = ModelSpec(factory=Counting, resumable=False)
"""
EXPERIMENT = """
[[experiment]]
name = "{name}"
model = "counting:{model}"
dataset = "tiny_parts:build_dataset"
batch_size = 5
selection = "{selection}"
optimizer = "sgd"
"""
CASES = {
    "declared": ("DECLARED", "last"),
    "found": ("Counting", "last"),
    "refused": ("Counting", "validation_loss"),
}


@pytest.fixture(scope="module")
def ran(xbench, tmp_path_factory) -> Ran:
    folder = tmp_path_factory.mktemp("counting")
    copy_user_code(folder / "code", "tiny_parts.py")
    (folder / "code" / "counting.py").write_text(CODE)
    experiments = (
        EXPERIMENT.format(name=name, model=model, selection=selection)
        for name, (model, selection) in CASES.items()
    )
    (folder / "suite.toml").write_text('suite.name = "counting"\n' + "".join(experiments))
    return Ran(xbench(folder, "run", "suite.toml", "--allow-import", "code"), folder)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "declared",
            "DECLARED: not resumable: an interrupted cell starts over (its ModelSpec says resumable=False)",
        ),
        (
            "found",
            "Counting: not resumable: an interrupted cell starts over (a new model that loads its state",
        ),
    ],
)
def test_it_runs_and_is_told(ran, name, reason):
    (cell,) = ran.cells(name)
    assert (cell["status"], cell["epochs"][0]["epoch"]) == ("done", 1)
    assert reason in one_line(ran.done.stdout)


def test_metrics_of_an_epoch_that_does_not_come_back_are_refused(ran):
    (cell,) = ran.cells("refused")
    assert cell["status"] == "error"
    assert cell["reason"].startswith("the weights of the selected epoch cannot be restored (selection =")
    assert ran.done.returncode == 1
