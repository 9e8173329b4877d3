"""Optimizers that evaluate at other weights than they train at are switched at the right moments."""

from __future__ import annotations

import pytest
import torch

from tests.training.small_cells import SmallCell, small_cnn
from xbench import ModelSpec, OptimizerSpec
from xbench.components import registry
from xbench.training.loop import Trainer

CALLS: list[str] = []


class Switching(torch.optim.SGD):
    """Trains at weights that differ from those it evaluates at, and logs each call."""

    offset = 0.25

    def __init__(self, params, lr=0.05):
        super().__init__(params, lr=lr)
        self.is_training = False

    def train(self):
        CALLS.append("train")
        assert not self.is_training
        self._move(self.offset)
        self.is_training = True

    def eval(self):
        CALLS.append("eval")
        assert self.is_training
        self._move(-self.offset)
        self.is_training = False

    @torch.no_grad()
    def _move(self, by):
        for parameter in self.param_groups[0]["params"]:
            parameter += by

    def step(self, closure):
        CALLS.append("step")
        assert self.is_training
        return super().step(closure)


@pytest.fixture(autouse=True)
def components(monkeypatch):
    specs = {"small": ModelSpec(factory=small_cnn), "switching": OptimizerSpec(factory=Switching)}
    real_load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): specs.get(name) or real_load(kind, name, dirs)
    )
    real_evaluate = Trainer.evaluate

    def evaluate(self, *args, **kwargs):
        CALLS.append("evaluate")
        assert not getattr(self.optimizer, "is_training", False)
        return real_evaluate(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    CALLS.clear()


def shortened(calls: list[str]) -> list[str]:
    """The calls, each run of the same ones once."""
    return [call for place, call in enumerate(calls) if not place or calls[place - 1] != call]


EPOCH = ["train", "step", "eval", "evaluate"]


@pytest.mark.parametrize("selection", ["validation_loss", "last", "test_loss"])
def test_modes_are_switched_around_training_and_evaluation(tiny_data, tmp_path, selection):
    cell = SmallCell(tiny_data, tmp_path, optimizer="switching", selection=selection)
    assert cell.result.status == "done"
    assert shortened(CALLS) == [*EPOCH, *EPOCH]  # the scores, too, are of the weights as they were evaluated


def test_without_evaluations_between_epochs_it_stays_in_training(tiny_data, tmp_path):
    SmallCell(tiny_data, tmp_path, optimizer="switching", selection="last", validation=0.0)
    assert shortened(CALLS) == EPOCH


def test_scores_are_of_the_weights_for_evaluation(tiny_data, tmp_path):
    """An optimizer that moves nowhere else gives the scores of the initial weights, moved nowhere."""
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    still = SmallCell(tiny_data, tmp_path / "a", optimizer="switching", lr=0.0)
    sgd = SmallCell(tiny_data, tmp_path / "b", optimizer="sgd", lr=0.0)
    losses = [cell.result.scores.values["test_loss"] for cell in (still, sgd)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
