"""Run the steps of a training run at one size, for a probe or a memory pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xbench.capacity.axes import Axis, trial_settings
from xbench.errors import Unsupported, XbenchError
from xbench.storage.staging import scratch_folder
from xbench.training.component_code import check_running_code
from xbench.training.task import Task

if TYPE_CHECKING:
    import torch

    from xbench.components.specs import OptimizerSpec
    from xbench.records.schema import MemoryPassRecord
    from xbench.training.loop import Trainer
    from xbench.training.state_dicts import StateCheck


@dataclass(frozen=True)
class TrainingWorkload:
    """The work with the peak memory of a cell, at different sizes on one axis.

    The work is a few steps with all of the optimizer's state, evaluation, and keeping the best weights.

    Attributes:
        task: the cell's task. If it has features, trials only use images whose features are present.
        axis: the size that varies; it replaces the one in the task's settings.
    """

    task: Task
    axis: Axis

    def prepare(self) -> Callable[[int], MemoryPassRecord]:
        """Prepare the work; see `probe.Workload`. Sizes beyond the dataset's repeat its examples.

        Raises:
            Unsupported: the optimizer cannot train this model.
            XbenchError: the settings cannot be satisfied, or the code has changed since the cell was planned.
        """
        from xbench.training.memory_pass import measure_memory

        with check_running_code(self.task):
            spec = self._check_optimizer()
        checked = False

        def run(value: int) -> MemoryPassRecord:
            nonlocal checked
            with check_running_code(self.task), scratch_folder() as scratch:
                checked = checked or self.check_micro_batches(value)
                return measure_memory(self._warm_trainer(value, scratch), spec)

        return run

    def take_pass(self, value: int) -> MemoryPassRecord:
        """Take a memory pass at one size, and then check that the model's state dict has all of its state.

        Raises:
            Unsupported: the optimizer cannot train this model.
            XbenchError: see `prepare`; or the weights of a selected epoch could not be restored.
        """
        from xbench.training.memory_pass import measure_memory
        from xbench.training.state_dicts import StateCheck

        with check_running_code(self.task), scratch_folder() as scratch:
            spec = self._check_optimizer()
            self.check_micro_batches(value)
            trainer = self._warm_trainer(value, scratch)
            measured = measure_memory(trainer, spec)
            check = StateCheck(trainer)
            del trainer  # frees memory for the new model
            return measured.model_copy(update={"not_resumable": self._find_failure(check)})

    def _find_failure(self, check: StateCheck) -> str:
        from xbench.memory.peaks import release_all
        from xbench.training.global_state import load_component
        from xbench.training.model import build_trained_part
        from xbench.training.state_dicts import DECLARED

        task = self.task
        model_spec = load_component("model", task.settings.model.name, task.import_dirs)
        release_all(task.settings.device)
        failure = check.find_failure(
            lambda: build_trained_part(model_spec, task.settings, task.data, task.features)
        )
        return failure if model_spec.resumable else DECLARED

    def _warm_trainer(self, value: int, scratch: Path) -> Trainer:
        from xbench.training.cell import warm_up

        trainer = self.trainer(value, scratch)
        warm_up(trainer)
        return trainer

    def _check_optimizer(self) -> OptimizerSpec:
        from xbench.training.global_state import load_component
        from xbench.training.model import build_trained_part
        from xbench.training.requirements import find_unmet_requirement

        optimizer = self.task.settings.optimizer.name
        model_spec = load_component("model", self.task.settings.model.name, self.task.import_dirs)
        model = build_trained_part(model_spec, self.task.settings, self.task.data, self.task.features)
        spec = load_component("optimizer", optimizer, self.task.import_dirs)
        reason = find_unmet_requirement(spec, optimizer, model)
        if reason is not None:
            raise Unsupported(reason)
        if self.axis is Axis.HISTORY_SIZE and spec.fill_state is None:
            raise XbenchError(
                f"optimizer '{optimizer}' has no `fill_state`, so its history cannot be filled and measured",
                hint="set `fill_state` in its OptimizerSpec",
            )
        return spec

    def check_micro_batches(self, value: int) -> bool:
        """Check that the model allows micro-batches, if a run at this size uses them.

        Runs in a child process.

        Returns:
            Whether the run uses micro-batches smaller than the batch.

        Raises:
            XbenchError: the model does not allow them.
        """
        from xbench.training.micro_batches import check_examples_are_independent

        with scratch_folder() as scratch:
            trainer = self.trainer(value, scratch)
            if trainer.micro_batch >= trainer.batch_size:
                return False
            examples = trainer.split.train[: trainer.batch_size]
            check_examples_are_independent(trainer.model, trainer.loader, examples, self.task.data.labels)
            return True

    def closure(self, value: int) -> tuple[Callable[[], torch.Tensor], int]:
        """Make a closure of a step at a size, including the loading of its examples. Runs in a child process.

        Returns:
            The closure, and the number of examples it processes.
        """
        with scratch_folder() as scratch:
            trainer = self.trainer(value, scratch)

        def closure() -> torch.Tensor:
            trainer.closure.start(1, trainer.split.train[: trainer.batch_size])
            return trainer.closure()

        return closure, trainer.batch_size

    def trainer(self, value: int, scratch: Path) -> Trainer:
        """Make a trainer for a run at a size. Runs in a child process.

        Args:
            scratch: folder for the selected weights.
        """
        import numpy as np

        from xbench.training.cell import assemble
        from xbench.training.checkpoint import Checkpoints
        from xbench.training.global_state import load_component
        from xbench.training.model import build_trained_part
        from xbench.training.splits import Split, split_examples

        settings, data = trial_settings(self.task.settings, self.axis, value), self.task.data
        model_spec = load_component("model", settings.model.name, self.task.import_dirs)
        everything = settings.training.model_copy(update={"train_size": "all"})
        split = split_examples(data, everything, settings.seed)
        train, size = split.train, settings.training.train_size
        if self.task.features is not None:
            train = train[self.task.features.present()[data.rows[train]]]
        drawn = Split(
            train if isinstance(size, str) else np.resize(train, size), split.validation, split.test
        )
        model = build_trained_part(model_spec, settings, data, self.task.features)
        optimizer_spec = load_component("optimizer", settings.optimizer.name, self.task.import_dirs)
        send = lambda message: None  # noqa: E731 - the messages of a trial's steps are not used
        kept = Checkpoints(scratch)
        return assemble(
            send, settings, data, model_spec, optimizer_spec, model, drawn, kept, self.task.features
        )
