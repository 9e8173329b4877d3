"""Estimate how long a training run takes, from a few of its steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xbench.capacity.axes import Axis
from xbench.capacity.workload import TrainingWorkload
from xbench.memory.contention import ContentionWatch, typical_s
from xbench.storage.staging import scratch_folder
from xbench.training.component_code import check_running_code
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings, count_steps_per_epoch

if TYPE_CHECKING:
    from xbench.training.closure import AccumulatingClosure

# Steps are timed with small batches of a few micro-batches. A closure is a sum over micro-batches, and so is
# its time.
_MAX_PART = {"cpu": 16, "cuda": 256}
_PARTS = 2
# The usual number of steps in a memory pass, and how many times slower they are than steps of a run.
_PASS_STEPS, _EXACT_FACTOR = 3, 1.5
# Steps are timed for at least this long, and at least this many after the first.
_TIMED_S = 0.4
_MIN_STEPS = 3
_EVALUATIONS = 3


@dataclass(frozen=True)
class CostModel:
    """The parts of a run's time.

    Attributes:
        start_s: seconds from the start of the process to the first step.
        closure_s: seconds of one closure per example, including loading. A fused optimizer updates parameters
            within the backward pass, so its whole step counts as the closure.
        update_s: seconds of one step outside its closures.
        closures: closures per step. This is the largest number that was observed, because a line search on
            few examples may end early.
        evaluation_s: seconds to evaluate one example.
        is_disturbed: whether other programs used the CPU during the measurement. The times are then the
            fastest observed.
    """

    start_s: float
    closure_s: float
    update_s: float
    closures: int
    evaluation_s: float
    is_disturbed: bool = False

    def run_s(self, settings: CellSettings, evaluated: int) -> float:
        """Return the seconds that a whole run takes.

        Args:
            settings: the run's settings, with resolved sizes.
            evaluated: the number of images that the run evaluates in all epochs together.
        """
        return self.start_s + self.training_s(settings) + evaluated * self.evaluation_s

    def training_s(self, settings: CellSettings) -> float:
        """Return the seconds that all steps of a run take.

        Args:
            settings: the run's settings, with resolved sizes.
        """
        training, sizes = settings.training, settings.training.sizes
        steps, examples = count_steps(settings), training.epochs * sizes.train_size
        if training.drop_last:
            examples = steps * sizes.batch_size
        return self.closures * self.closure_s * examples + steps * self.update_s

    def memory_pass_s(self, settings: CellSettings) -> float:
        """Return the seconds that a memory pass takes.

        A memory pass takes a few steps of one batch, or of two micro-batches, in a process with a slower
        malloc.

        Args:
            settings: the run's settings, with resolved sizes.
        """
        sizes = settings.training.sizes
        examples = min(sizes.batch_size, 2 * sizes.micro_batch)
        step_s = self.closures * self.closure_s * examples + self.update_s
        return self.start_s + _PASS_STEPS * _EXACT_FACTOR * step_s + sizes.micro_batch * self.evaluation_s


def count_steps(settings: CellSettings) -> int:
    """Count the steps of a run in all epochs together.

    Args:
        settings: the run's settings, with resolved sizes.
    """
    training, sizes = settings.training, settings.training.sizes
    return training.epochs * count_steps_per_epoch(sizes.train_size, sizes.batch_size, training.drop_last)


def timing_settings(settings: CellSettings) -> CellSettings:
    """Return the settings with which the steps of a run are timed.

    Args:
        settings: the run's settings, with resolved sizes.
    """
    training, sizes = settings.training, settings.training.sizes
    part = min(sizes.micro_batch, _MAX_PART["cpu" if settings.device == "cpu" else "cuda"])
    # A batch that is not split into micro-batches stays whole, because a model may normalise over it.
    size = part if sizes.micro_batch >= sizes.batch_size else min(sizes.batch_size, _PARTS * part)
    changes = {"train_size": size, "batch_size": size, "micro_batch": part, "epochs": 1}
    return replace(settings, training=training.model_copy(update=changes))


def measure_costs(
    send: Callable[[Any], None],
    job: CellJob,
) -> CostModel:
    """Time a few steps. Runs in a child process.

    Args:
        job: a job whose settings come from `timing_settings`.
    """
    import torch

    from xbench.training.assembly import warm_up

    started, started_cpu = time.perf_counter(), time.process_time()
    with check_running_code(job), scratch_folder() as scratch:
        size = job.settings.training.sizes.batch_size
        workload = TrainingWorkload(job, Axis.BATCH_SIZE)
        trainer = workload.trainer(size, scratch)
        warm_up(trainer, is_trial=True)
        start_s, start_cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
        batch = trainer.split.train
        trainer.set_mode("train")
        closures: list[float] = []
        updates: list[float] = []
        counts: list[int] = []
        trained = [p for p in trainer.model.parameters() if p.requires_grad]
        initial = [p.detach().clone() for p in trained]
        watch = ContentionWatch(torch.get_num_threads())
        ends_at = time.perf_counter() + _TIMED_S
        while len(counts) <= _MIN_STEPS or time.perf_counter() < ends_at:
            # Each step starts from the initial weights: once a model fits these few examples, its gradients
            # vanish, and a CPU is many times slower with denormal numbers.
            with torch.no_grad():
                for parameter, values in zip(trained, initial, strict=True):
                    parameter.copy_(values)
            closure = _TimedClosure(trainer.closure)
            began = time.perf_counter()
            trainer.closure.start(len(counts) + 1, batch)
            trainer.optimizer.step(closure)
            trainer.closure.end()
            if trainer.loader.device.type == "cuda":
                torch.cuda.synchronize(trainer.loader.device)
            whole_s = time.perf_counter() - began
            # A fused optimizer runs the backward pass itself, whose time is that of a closure.
            closure_s = whole_s if trainer.closure.is_fused else closure.seconds
            closures.append(closure_s / max(1, closure.calls) / size)
            updates.append(whole_s - closure_s)
            counts.append(closure.calls)
        conditions = watch.conditions(closures[1:])
        trainer.set_mode("eval")
        evaluations = []
        for _ in range(_EVALUATIONS):
            began = time.perf_counter()
            trainer.evaluate(batch, "validation")
            evaluations.append((time.perf_counter() - began) / size)
    return CostModel(
        start_s=min(start_s, start_cpu_s) if conditions == "disturbed" else start_s,
        closure_s=typical_s(closures[1:], conditions),
        update_s=typical_s(updates[1:], conditions),
        closures=max(counts),
        evaluation_s=typical_s(evaluations, conditions),
        is_disturbed=conditions == "disturbed",
    )


class _TimedClosure:
    """A closure that counts and times its calls."""

    def __init__(self, closure: AccumulatingClosure):
        self._closure = closure
        self.calls, self.seconds = 0, 0.0

    def __call__(self) -> Any:
        return self._time(self._closure)

    def loss(self) -> Any:
        """Time the forward pass of an optimizer that runs the backward pass itself."""
        return self._time(self._closure.loss)

    def _time(self, compute: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        loss = compute()
        float(loss.detach())  # on a device, waits until the work is done
        self.seconds += time.perf_counter() - began
        self.calls += 1
        return loss
