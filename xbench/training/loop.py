"""Train in epochs of steps, validate after each epoch and at points within, and keep the selected epoch's
weights on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from xbench.components.metric import Split as SplitName
from xbench.components.optimizer_factory import RunFacts
from xbench.components.roles import Role
from xbench.memory.profiler import StepProfiler
from xbench.records.schema import EpochRecord, EvaluationRecord
from xbench.training.checkpoint import Checkpoints
from xbench.training.closure import AccumulatingClosure
from xbench.training.compilation import Compilation
from xbench.training.evaluation import Evaluation, evaluate
from xbench.training.evaluation_points import is_evaluation_due
from xbench.training.events import EpochDone, Evaluating, EvaluationDone
from xbench.training.loader import Loader
from xbench.training.objective import Objective
from xbench.training.optimizer_methods import OptimizerModes
from xbench.training.progress import Progress, selection_criterion
from xbench.training.recorder import Diverged, TraceRecorder
from xbench.training.schedules import Schedule
from xbench.training.settings import TrainingSettings, count_steps_per_epoch
from xbench.training.splits import Split, epoch_order
from xbench.training.state_dicts import load_state, save_state

# Examples to prefetch before they are needed: some tenths of a second at the speed of a step.
_AHEAD = 64

# Seconds between the progress messages of an evaluation.
_REPORT_EVERY_S = 1.0


@dataclass
class Trainer:
    """Trainer of one cell, with everything that training needs.

    Attributes:
        seed: seed of what the model draws while it is evaluated.
        order_seed: seed of the order of examples.
        batch_size, micro_batch: numbers of examples, resolved from the settings.
        selected_path: file for the model's state dict at the selected epoch.
        checkpoints: saves checkpoints at intervals.
        roles: the roles of the model's trained parameters, by name.
        run_facts: what the optimizer's factory may know of the run.
        rates: the full learning rate of each param group; None if they do not change from step to step.
        schedule: sets the learning rates of each step; None if they do not change.
        training_s, evaluation_s: seconds spent so far.
        compilation: an account of the model's compiled graphs; None if it is not compiled.
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
    order_seed: int
    batch_size: int
    micro_batch: int
    selected_path: Path
    send: Callable[[Any], None]
    checkpoints: Checkpoints
    roles: Mapping[str, Role]
    run_facts: RunFacts
    rates: tuple[float, ...] | None = None
    schedule: Schedule | None = None
    progress: Progress = field(default_factory=Progress)
    training_s: float = 0.0
    evaluation_s: float = 0.0
    compilation: Compilation | None = None
    _clock: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._modes = OptimizerModes(self.model, self.optimizer)

    @property
    def evaluation_chunk(self) -> int:
        """Number of examples that are evaluated at once: a micro-batch, or, if the task is not additive, a
        batch. Its losses are those of batches of a certain size, and a micro-batch may be of any."""
        return self.micro_batch if self.objective.task.additive else self.batch_size

    @property
    def steps_per_epoch(self) -> int:
        return count_steps_per_epoch(len(self.split.train), self.batch_size, self.settings.drop_last)

    def run(self) -> int:
        """Train for the remaining epochs, and leave the selected epoch's weights in the model.

        Returns:
            The selected epoch, from 1.

        Raises:
            Diverged: a step's loss is not finite, or the weights or a loss are not after the last step.
            Stopped: the run was asked to stop.
        """
        progress = self.progress
        while progress.epoch <= self.settings.epochs:
            record = self._validate(progress.epoch, self.train_epoch(progress.epoch))
            self.send(EpochDone(record))
            criterion = selection_criterion(self.settings.selection, record)
            if criterion < progress.least:  # the earliest epoch wins ties
                progress.least, progress.selected = criterion, progress.epoch
                save_state(self.model, self.selected_path)
            if progress.epoch == self.settings.epochs:
                self._check_end(record)
            progress.epoch, progress.in_epoch, progress.losses = progress.epoch + 1, 0, []
        self._modes.forget_trained()
        if progress.selected == 0:
            return self.settings.epochs  # without a criterion, the last weights stay
        load_state(self.model, self.selected_path)
        return progress.selected

    def set_mode(self, mode: Literal["train", "eval"]) -> None:
        """Call the optimizer's own `train()` or `eval()`, if it has them.

        See `OptimizerModes`.
        """
        self._modes.switch(mode)

    def _check_end(self, last: EpochRecord) -> None:
        """Check the weights and losses after the last step, since no later step does so.

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
        """Return whether all trained weights are finite, without copying any.

        The largest magnitude in a tensor is NaN or infinite if any of its values is.
        """
        weights = (p.detach() for p in self.model.parameters() if p.requires_grad and p.numel())
        return all(math.isfinite(torch.linalg.vector_norm(weight, math.inf)) for weight in weights)

    def evaluate(self, indices: np.ndarray, split: SplitName, collects: bool = False) -> Evaluation:
        """Evaluate the current model on rows of a split; the time counts as evaluation.

        The last step's gradients and batch are dropped first, as in the next step. If they were kept,
        evaluating as many examples as in a training step would be the memory peak.
        """
        started = time.perf_counter()
        self.model.zero_grad()
        self.closure.release()
        self.profiler.host.reset()
        reported = time.perf_counter()
        self.send(Evaluating(0, len(indices)))

        def report(done: int) -> None:
            nonlocal reported
            if done == len(indices) or time.perf_counter() - reported >= _REPORT_EVERY_S:
                self.send(Evaluating(done, len(indices)))
                reported = time.perf_counter()

        result = evaluate(
            self.model,
            self.loader,
            self.objective,
            indices,
            self.evaluation_chunk,
            split,
            collects,
            report,
            self.seed,
        )
        self.recorder.host_peak_bytes = max(self.recorder.host_peak_bytes, self.profiler.host.peak_bytes())
        self.evaluation_s += time.perf_counter() - started
        return result

    def train_epoch(self, epoch: int) -> float:
        """Train for one epoch, or for the rest of it.

        Returns:
            The mean loss of the epoch's steps.
        """
        order, progress = epoch_order(self.split.train, self.order_seed, epoch), self.progress
        first = progress.in_epoch
        self.set_mode("train")
        self.start_clock()
        try:
            for number in range(first, self.steps_per_epoch):
                batch = order[number * self.batch_size : (number + 1) * self.batch_size]
                self._prefetch(order, number, number == first)
                progress.losses += self.train_step(progress.steps + 1, epoch, batch)
                progress.in_epoch, progress.steps = number + 1, progress.steps + 1
                progress.examples += len(batch)
                progress.closures += self.closure.evaluations
                if number + 1 < self.steps_per_epoch and self._is_evaluation_due(len(batch)):
                    self._evaluate_within(epoch)
                self.checkpoints.after_step(self)
            progress.losses += self.recorder.flush()
        except Exception as error:
            self._flush_before(error)
            raise
        finally:
            self.stop_clock()
        # An exact sum does not depend on when losses were flushed.
        return math.fsum(progress.losses) / self.steps_per_epoch

    def start_clock(self) -> None:
        """Start counting time as training."""
        self._clock = time.perf_counter()

    def stop_clock(self) -> None:
        """Stop counting time as training, if it is counted."""
        if self._clock is not None:
            self.training_s += time.perf_counter() - self._clock
        self._clock = None

    def _is_evaluation_due(self, batch: int) -> bool:
        """Return whether to evaluate within an epoch, after a step on so many examples."""
        progress, every = self.progress, self.settings.evaluate_every
        return is_evaluation_due(every, progress.steps, progress.examples, batch)

    def _evaluate_within(self, epoch: int) -> None:
        """Evaluate within an epoch, outside of the training time, and go on as if nothing had happened."""
        self._synchronize()  # the steps so far are training time
        self.stop_clock()
        self.set_mode("eval")
        self._send_evaluation(epoch, self._evaluate_held_out())
        self.set_mode("train")
        self._synchronize()  # copying weights back is not
        self.start_clock()

    def _synchronize(self) -> None:
        """Wait until the device has done what it was given."""
        if self.loader.device.type == "cuda":
            torch.cuda.synchronize(self.loader.device)

    def _prefetch(self, order: np.ndarray, number: int, is_first: bool) -> None:
        """Prefetch the examples that follow those prefetched before the last step.

        A batch that is loaded in parts is prefetched by the loader itself.
        """
        if self.micro_batch < self.batch_size:
            return
        first, ahead = number * self.batch_size, max(_AHEAD, self.batch_size)
        self.loader.prefetch(order[first if is_first else first + ahead : first + ahead + self.batch_size])

    def train_step(self, step: int, epoch: int, batch: np.ndarray) -> list[float]:
        """Take one profiled step on the examples at `batch`.

        Returns:
            The losses, of this and earlier steps, that were sent to the parent; usually none.
        """
        self.profiler.begin()
        if self.schedule is not None:
            self.schedule.set_rates(self.optimizer, step - 1)
        self.closure.start(step, batch)
        self.update()
        self.profiler.end()
        if self.closure.first_loss is None:
            raise RuntimeError(f"the optimizer did not call the closure in step {step}")
        return self.recorder.add(step, epoch, self.closure.first_loss, self.closure.evaluations)

    def update(self) -> None:
        """Let the optimizer take a step with the closure, which must have started the step."""
        # Annotated as returning a float, although PyTorch's own examples return tensors.
        self.optimizer.step(self.closure)  # type: ignore[arg-type]
        self.closure.end()

    def _flush_before(self, error: Exception) -> None:
        """Send the steps before a failure.

        Raises:
            Diverged: one of their losses is not finite, so that divergence came first.
        """
        try:
            self.recorder.flush()
        except Diverged:
            raise
        except Exception as second:  # perhaps the device failed: the first error says more
            error.add_note(f"the last steps are not in the trace: {second}")

    def _validate(self, epoch: int, train_loss: float) -> EpochRecord:
        on_test = self.settings.selects_on_test
        if len(self.split.validation) or on_test or epoch == self.settings.epochs:
            self.set_mode("eval")  # so that the weights that are kept and scored are those evaluated
        held_out = self._evaluate_held_out()
        self._send_evaluation(epoch, held_out)
        return EpochRecord(epoch=epoch, values={"train_loss": train_loss, **held_out})

    def _evaluate_held_out(self) -> dict[str, float | None]:
        """Measure the metrics of an epoch on the rows that are not trained on."""
        values: dict[str, float | None] = {}
        if len(self.split.validation):
            validation = self.evaluate(self.split.validation, "validation")
            values["validation_loss"] = validation.loss
            values |= {f"validation_{name}": value for name, value in validation.averages.items()}
        if self.settings.selects_on_test:
            values["test_loss"] = self.evaluate(self.split.test, "test").loss
        return values

    def _send_evaluation(self, epoch: int, values: dict[str, float | None]) -> None:
        if not values:
            return
        progress = self.progress
        record = EvaluationRecord(
            step=progress.steps,
            epoch=epoch,
            examples=progress.examples,
            closures=progress.closures,
            training_s=self.training_s,
            values=values,
        )
        self.send(EvaluationDone(record))
