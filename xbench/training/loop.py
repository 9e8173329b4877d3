"""The training loop: epochs of steps, validation after each, the selected epoch's weights kept on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from xbench.memory.malloc import exact_for_a_while
from xbench.memory.phases import PhaseMeter
from xbench.memory.profiler import StepProfiler
from xbench.records.schema import EpochRecord
from xbench.training.checkpoint import Checkpoints
from xbench.training.closure import AccumulatingClosure
from xbench.training.evaluation import Evaluation, evaluate
from xbench.training.events import EpochDone
from xbench.training.footprint import Breakdown, gradients_bytes, optimizer_state_bytes
from xbench.training.loader import Loader
from xbench.training.objective import Objective
from xbench.training.recorder import Diverged, TraceRecorder
from xbench.training.settings import TrainingSettings
from xbench.training.splits import Split, epoch_order

# So many steps are broken down by phase, which slows those of small batches: the second is the first that has
# all of an optimizer's state from its beginning, but for that of a history.
_BRACKETED_STEPS = 2

# Examples that the system is told of before they are needed: some tenths of a second at the speed of a step.
_AHEAD = 64


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
        weights_path: where the selected epoch's weights are kept; on disk, so that they are no memory peak.
        checkpoints: saves it now and then.
        breakdown: of the memory of the steps that were bracketed so far.
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
    weights_path: Path
    send: Callable[[Any], None]
    checkpoints: Checkpoints
    progress: Progress = field(default_factory=Progress)
    breakdown: Breakdown = field(default_factory=Breakdown)
    training_s: float = 0.0
    evaluation_s: float = 0.0

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.split.train) / self.batch_size)

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
            criterion = self._criterion(record)
            if criterion < progress.least:  # the earliest epoch wins ties
                progress.least, progress.selected = criterion, progress.epoch
                self._keep_weights()
            if progress.epoch == self.settings.epochs:
                self._check_end(record)
            progress.epoch, progress.in_epoch, progress.losses = progress.epoch + 1, 0, []
        if progress.selected == 0:
            return self.settings.epochs  # no criterion: the last weights stand
        self.model.load_state_dict(torch.load(self.weights_path, weights_only=True))
        return progress.selected

    def _check_end(self, last: EpochRecord) -> None:
        """Check what the last step left: no later step would notice, and an earlier epoch may be selected.

        Raises:
            Diverged: the trained weights or a held-out loss of the last epoch are not finite.
        """
        if not self.weights_are_finite():
            raise Diverged(f"the weights are not finite after step {self.progress.steps}, the last one")
        for name, loss in (("validation", last.validation_loss), ("test", last.test_loss)):
            if loss is not None and not math.isfinite(loss):
                raise Diverged(f"the {name} loss is {loss} after epoch {last.epoch}, the last one")

    def weights_are_finite(self) -> bool:
        """Tell whether all trained weights are finite, without a copy of any.

        The largest magnitude of a tensor is NaN or infinite if one of its values is.
        """
        weights = (p.detach() for p in self.model.parameters() if p.requires_grad and p.numel())
        return all(math.isfinite(torch.linalg.vector_norm(weight, math.inf)) for weight in weights)

    def _keep_weights(self) -> None:
        """A new file in place of the old one, which a checkpoint may hold on to."""
        aside = self.weights_path.with_suffix(".partial")
        torch.save(self.model.state_dict(), aside)
        aside.replace(self.weights_path)

    def evaluate(self, indices: np.ndarray) -> Evaluation:
        """Evaluate the model as it stands; the time counts as evaluation.

        The last step's gradients and batch are dropped first, as the next one would: beside them, as many
        examples as in a training step would be the memory peak.
        """
        started = time.perf_counter()
        self.model.zero_grad()
        self.closure.release()
        self.profiler.host.reset()
        result = evaluate(self.model, self.loader, self.objective, indices, self.micro_batch)
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
        if step <= _BRACKETED_STEPS:
            self._bracketed_step(step, batch)
        else:
            self.profiler.begin()
            self.closure.start(step, batch)
            self.optimizer.step(self.closure)
            self.profiler.end()
        return self.recorder.add(step, epoch, self.closure.first_loss, self.closure.evaluations)

    def _bracketed_step(self, step: int, batch: np.ndarray) -> None:
        """A step whose memory is broken down by phase. It starts from what is held, not from what was."""
        self.closure.release()
        state_bytes = optimizer_state_bytes(self.optimizer)
        with exact_for_a_while():
            phases = PhaseMeter(self.profiler.trained_on, gradients_bytes(self.model))
            self.profiler.begin()
            self.closure.start(step, batch, phases)
            self.optimizer.step(self.closure)
            batch_bytes = self.closure.batch_bytes
            loaded_bytes = 0 if batch_bytes else self.loader.batch_bytes(self.micro_batch)
            left_bytes = gradients_bytes(self.model)
            profile = phases.end(left_bytes, batch_bytes, loaded_bytes)
            self.profiler.end(profile)
        # State that this step added stays, and counts as such.
        added_bytes = max(0, optimizer_state_bytes(self.optimizer) - state_bytes)
        work_bytes = max(0, profile.optimizer_work_bytes - added_bytes)
        profile = replace(profile, optimizer_work_bytes=work_bytes)
        self.breakdown.add(profile, batch_bytes or loaded_bytes, left_bytes)

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
        validation = self.evaluate(self.split.validation) if len(self.split.validation) else None
        on_test = self.settings.selection == "test_loss"
        return EpochRecord(
            epoch=epoch,
            train_loss=train_loss,
            validation_loss=validation.loss if validation else None,
            validation_accuracy=validation.accuracy if validation else None,
            test_loss=self.evaluate(self.split.test).loss if on_test else None,
        )

    def _criterion(self, record: EpochRecord) -> float:
        """What selection minimises; infinite where nothing is to be kept."""
        if self.settings.selection == "last":
            return math.inf
        value = record.test_loss if self.settings.selection == "test_loss" else record.validation_loss
        return math.inf if value is None or math.isnan(value) else value
