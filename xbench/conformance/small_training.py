"""A training run on a few rows that a test takes step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from xbench.components.specs import ModelSpec, OptimizerSpec
from xbench.conformance.bench import measure_state, start_trainer
from xbench.conformance.checked_optimizer import CheckedOptimizer
from xbench.training.checkpoint import Checkpoints, resume, write
from xbench.training.footprint import storage_bytes

# The length of the run that factories get. A test may take more steps.
_STEPS = 60


class SmallTraining:
    """A training run on 64 rows, with the code that trains a cell. Each step is on all rows.

    A row has 8 numbers, 3 tokens (integers from 0 to 15) and one of 8 classes. All runs start from the same
    seed.

    Args:
        spec: the optimizer's spec.
        settings: its settings; others keep their defaults.
        network: returns a module from (n, 8) numbers and (n, 3) tokens to (n, 8) logits. By default, it has
            an embedding, hidden matrices, vectors and an output layer, or a sparse embedding alone if that
            is what the optimizer needs.
        training: settings of the training, such as `dtype`.

    Attributes:
        model: the network.
        optimizer: the optimizer, without that of the parameters that it leaves.
        parameters: the parameters that it updates.
        closures: number of closure calls of each step.
    """

    def __init__(
        self,
        spec: OptimizerSpec,
        settings: Mapping[str, Any] | None = None,
        network: Callable[[], nn.Module] | None = None,
        **training: Any,
    ):
        self._folder = TemporaryDirectory(prefix="xbench-test-")  # removed with this object
        folder = Path(self._folder.name)
        self._checked = CheckedOptimizer(spec, dict(settings or {}), folder)
        model = ModelSpec(factory=network or f"xbench.conformance.problem:build_{self._checked.problem}")
        self._trainer = start_trainer(
            self._checked.data,
            model,
            spec,
            self._checked.params,
            Checkpoints(folder),
            **{"epochs": _STEPS, **training},
        )
        self.model = self._trainer.model
        self.optimizer, self.parameters = self._checked.own_part(self._trainer)
        self.closures: list[int] = []

    def step(self, times: int = 1) -> list[float]:
        """Take steps, and return the loss at the start of each."""
        trainer, losses = self._trainer, []
        trainer.set_mode("train")
        for _ in range(times):
            trainer.progress.steps += 1
            trainer.closure.start(trainer.progress.steps, trainer.split.train)
            trainer.update()
            assert trainer.closure.first_loss is not None, "the optimizer did not call the closure"
            losses.append(trainer.closure.first_loss.item())
            self.closures.append(trainer.closure.evaluations)
        return losses

    def evaluate(self) -> float:
        """Return the loss at the weights that a cell would evaluate, such as averaged ones."""
        self._trainer.set_mode("eval")
        return self._trainer.evaluate(self._trainer.split.train, "train").loss

    def weights(self) -> torch.Tensor:
        """Return a copy of all parameters, in one vector."""
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])

    def checkpoint(self) -> Path:
        """Write a checkpoint, as an interrupted cell does, and return its folder."""
        folder = Path(self._folder.name) / f"step-{self._trainer.progress.steps}"
        write(self._trainer, folder)
        return folder

    def resume(self, folder: Path) -> None:
        """Continue from the checkpoint of another run."""
        resume(self._trainer, folder)

    def fill_state(self) -> None:
        """Fill the state of a fresh optimizer, as its spec says."""
        if (fill := self._checked.spec.load_fill_state()) is not None:
            fill(self.optimizer)

    def count_vectors(self) -> float:
        """Return the size of the state, without counters, as a multiple of the parameters' size.

        Gradients are dropped first, as at the end of a run.
        """
        self.model.zero_grad()
        return measure_state(self.optimizer, self.model)[0] / storage_bytes(self.parameters)

    def declared_vectors(self) -> float | None:
        """Return the size of the state that the spec declares; None if it declares none."""
        known = self._checked.loaded.facts_of_state(self.optimizer, self.parameters)
        return self._checked.spec.state_vectors(known)
