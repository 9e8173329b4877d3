"""The training loop: epochs of steps, validation after each, the selected epoch's weights kept on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from xbench.memory.profiler import StepProfiler
from xbench.records.schema import EpochRecord, MetricRecord
from xbench.training.checkpoint import Checkpoints
from xbench.training.closure import AccumulatingClosure
from xbench.training.evaluation import Evaluation, evaluate
from xbench.training.events import EpochDone, Evaluating
from xbench.training.loader import Loader
from xbench.training.objective import Objective
from xbench.training.recorder import Diverged, TraceRecorder
from xbench.training.settings import TrainingSettings
from xbench.training.splits import Split, epoch_order
from xbench.training.state_dicts import load_state, save_state

# Examples that the system is told of before they are needed: some tenths of a second at the speed of a step.
_AHEAD = 64

# How often an evaluation says how far it is.
_TELL_EVERY_S = 1.0


def has_modes(optimizer: Any) -> bool:
    """Tell whether an optimizer has `train()` and `eval()` of its own."""
    return all(callable(getattr(optimizer, mode, None)) for mode in ("train", "eval"))


def selection_criterion(metric: MetricRecord | None, record: EpochRecord) -> float:
    """Return what selection minimises; infinite for an epoch whose weights are not to be kept.

    Args:
        metric: the metric that selects; None if the last epoch's weights are taken.
    """
    if metric is None:
        return math.inf
    value = record.values.get(metric.name)
    if value is None or math.isnan(value):
        return math.inf
    return value if metric.direction == "min" else -value


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        epoch: in which it is, from 1; `in_epoch` steps of it are done, and `steps` in all.
        losses: of the steps of this epoch.
        selected: the epoch whose weights are kept, 0 before there is one; `least` is its criterion.
    """

    epoch: int = 1
    in_epoch: int = 0
    steps: int = 0
    losses: list[float] = field(default_factory=list)
    selected: int = 0
    least: float = math.inf


@dataclass
class Trainer:
    """Everything that one cell's training holds.

    Attributes:
        batch_size, micro_batch: in examples, resolved to numbers.
        selected_path: file for the model's state dict at the selected epoch.
        checkpoints: saves it now and then.
        training_s, evaluation_s: seconds so far.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    closure: AccumulatingClosure
    loader: Loader
    objective: Objective
    profiler: StepProfiler
    recorder: TraceRecorder
    split: Split
    settings: TrainingSettings
    seed: int
    batch_size: int
    micro_batch: int
    selected_path: Path
    send: Callable[[Any], None]
    checkpoints: Checkpoints
    progress: Progress = field(default_factory=Progress)
    training_s: float = 0.0
    evaluation_s: float = 0.0
    _mode: Literal["train", "eval"] | None = None

    @property
    def steps_per_epoch(self) -> int:
        whole, rest = divmod(len(self.split.train), self.batch_size)
        return whole + bool(rest and not self.settings.drop_last)

    def run(self) -> int:
        """Train what is left of all epochs, and leave the selected epoch's weights in the model.

        Returns:
            The selected epoch, from 1.

        Raises:
            Diverged: a loss of a step is not finite, or after the last step the weights or a loss are not.
            Stopped: it was asked to stop.
        """
        progress = self.progress
        while progress.epoch <= self.settings.epochs:
            record = self._validate(progress.epoch, self.train_epoch(progress.epoch))
            self.send(EpochDone(record))
            criterion = selection_criterion(self.settings.selection_metric, record)
            if criterion < progress.least:  # the earliest epoch wins ties
                progress.least, progress.selected = criterion, progress.epoch
                save_state(self.model, self.selected_path)
            if progress.epoch == self.settings.epochs:
                self._check_end(record)
            progress.epoch, progress.in_epoch, progress.losses = progress.epoch + 1, 0, []
        if progress.selected == 0:
            return self.settings.epochs  # no criterion: the last weights stand
        load_state(self.model, self.selected_path)
        return progress.selected

    def set_mode(self, mode: Literal["train", "eval"]) -> None:
        """Call the optimizer's own `train()` or `eval()`, where it has them: schedule-free methods keep other
        weights for evaluation than those that they take gradients at (Defazio et al. 2024,
        arXiv:2405.15682)."""
        if self._mode != mode and has_modes(self.optimizer):
            getattr(self.optimizer, mode)()
        self._mode = mode

    def _check_end(self, last: EpochRecord) -> None:
        """Check what the last step left: no later step would notice, and an earlier epoch may be selected.

        Raises:
            Diverged: the trained weights or a held-out loss of the last epoch are not finite.
        """
        if not self.weights_are_finite():
            raise Diverged(f"the weights are not finite after step {self.progress.steps}, the last one")
        for split in ("validation", "test"):
            loss = last.values.get(f"{split}_loss")
            if loss is not None and not math.isfinite(loss):
                raise Diverged(f"the {split} loss is {loss} after epoch {last.epoch}, the last one")

    def weights_are_finite(self) -> bool:
        """Tell whether all trained weights are finite, without a copy of any.

        The largest magnitude of a tensor is NaN or infinite if one of its values is.
        """
        weights = (p.detach() for p in self.model.parameters() if p.requires_grad and p.numel())
        return all(math.isfinite(torch.linalg.vector_norm(weight, math.inf)) for weight in weights)

    def evaluate(self, indices: np.ndarray) -> Evaluation:
        """Evaluate the model as it stands; the time counts as evaluation.

        The last step's gradients and batch are dropped first, as the next one would: beside them, as many
        examples as in a training step would be the memory peak.
        """
        started = time.perf_counter()
        self.model.zero_grad()
        self.closure.release()
        self.profiler.host.reset()
        told = time.perf_counter()
        self.send(Evaluating(0, len(indices)))

        def tell(done: int) -> None:
            nonlocal told
            if done == len(indices) or time.perf_counter() - told >= _TELL_EVERY_S:
                self.send(Evaluating(done, len(indices)))
                told = time.perf_counter()

        result = evaluate(self.model, self.loader, self.objective, indices, self.micro_batch, tell)
        self.recorder.host_peak_bytes = max(self.recorder.host_peak_bytes, self.profiler.host.peak_bytes())
        self.evaluation_s += time.perf_counter() - started
        return result

    def train_epoch(self, epoch: int) -> float:
        """One pass over the training examples, or what is left of it.

        Returns:
            The mean of the steps' losses.
        """
        order, progress = epoch_order(self.split.train, self.seed, epoch), self.progress
        first = progress.in_epoch
        self.set_mode("train")
        self.start_clock()
        try:
            for number in range(first, self.steps_per_epoch):
                batch = order[number * self.batch_size : (number + 1) * self.batch_size]
                self._announce(order, number, number == first)
                progress.losses += self.train_step(progress.steps + 1, epoch, batch)
                progress.in_epoch, progress.steps = number + 1, progress.steps + 1
                self.checkpoints.after_step(self)
            progress.losses += self.recorder.flush()
        except Exception as error:
            self._flush_before(error)
            raise
        finally:
            self.stop_clock()
        # The sum is exact, so that it does not depend on when losses were flushed.
        return math.fsum(progress.losses) / self.steps_per_epoch

    def start_clock(self) -> None:
        """From here on, time counts as training."""
        self._clock = time.perf_counter()

    def stop_clock(self) -> None:
        """Up to here, time counts as training."""
        self.training_s += time.perf_counter() - self._clock

    def _announce(self, order: np.ndarray, number: int, is_first: bool) -> None:
        """Tell of the examples that follow those told of before a step. Of a batch that is loaded in parts,
        the loader itself tells part by part."""
        if self.micro_batch < self.batch_size:
            return
        first, ahead = number * self.batch_size, max(_AHEAD, self.batch_size)
        self.loader.announce(order[first if is_first else first + ahead : first + ahead + self.batch_size])

    def train_step(self, step: int, epoch: int, batch: np.ndarray) -> list[float]:
        """One profiled step on the examples at `batch`.

        Returns:
            The losses that were sent to the parent, of this and earlier steps; mostly none.
        """
        self.profiler.begin()
        self.closure.start(step, batch)
        self.update()
        self.profiler.end()
        if self.closure.first_loss is None:
            raise RuntimeError(f"the optimizer did not call the closure in step {step}")
        return self.recorder.add(step, epoch, self.closure.first_loss, self.closure.evaluations)

    def update(self) -> None:
        """Let the optimizer take a step with the closure, which has been given its batch."""
        # Annotated as a function that returns a float; PyTorch's own examples return tensors.
        self.optimizer.step(self.closure)  # type: ignore[arg-type]

    def _flush_before(self, error: Exception) -> None:
        """Send the steps before a failure.

        Raises:
            Diverged: one of their losses was not finite, which then came first.
        """
        try:
            self.recorder.flush()
        except Diverged:
            raise
        except Exception as second:  # the device is gone, perhaps: the first failure tells more
            error.add_note(f"the last steps are not in the trace: {second}")

    def _validate(self, epoch: int, train_loss: float) -> EpochRecord:
        on_test = self.settings.selects_on_test
        if len(self.split.validation) or on_test or epoch == self.settings.epochs:
            self.set_mode("eval")  # what is kept, and scored in the end, is what was evaluated
        values: dict[str, float | None] = {"train_loss": train_loss}
        if len(self.split.validation):
            validation = self.evaluate(self.split.validation)
            values |= {"validation_loss": validation.loss, "validation_accuracy": validation.accuracy}
        if on_test:
            values["test_loss"] = self.evaluate(self.split.test).loss
        return EpochRecord(epoch=epoch, values=values)
