"""Run the steps of a training run at one size, for a probe or a memory pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from xbench.capacity.axes import Axis, trial_settings
from xbench.capacity.axis import AnyAxis, ScaledSetting
from xbench.capacity.scaling import refusing, scale_job
from xbench.data.prepared import RowData
from xbench.errors import FixedSize
from xbench.storage.staging import scratch_folder
from xbench.training.component_code import check_running_code
from xbench.training.job import CellJob

if TYPE_CHECKING:
    import torch

    from xbench.components.specs import ModelSpec
    from xbench.records.memory import MemoryPassRecord
    from xbench.training.loop import Trainer
    from xbench.training.model import TrainedPart
    from xbench.training.optimizer import LoadedOptimizer
    from xbench.training.splits import Split
    from xbench.training.state_dicts import StateCheck


@dataclass(frozen=True)
class TrainingWorkload:
    """The work with the peak memory of a cell, at different sizes on one axis.

    The work is a few steps with all of the optimizer's state, evaluation, and keeping the best weights.

    Attributes:
        job: the cell's job. If it has features, trials only use examples whose features are present.
        axis: the size that varies; it replaces the one in the job's settings. If it is a setting of the model
            or the dataset, each size is a run with another model or other data.
    """

    job: CellJob
    axis: AnyAxis

    def prepare(self) -> Callable[[int], MemoryPassRecord]:
        """Prepare the work; see `probe.Workload`. Sizes beyond the dataset's repeat its examples.

        Returns:
            A function that runs the work. It raises `Unsupported` if the optimizer cannot train this model,
            `FixedSize` if a component does not allow other sizes on the axis, `RefusedValue` if the model or
            the dataset refuses the value of its setting, and `XbenchError` if the settings cannot be
            satisfied, or the code has changed since the cell was planned.
        """
        from xbench.training.memory_pass import measure_memory

        optimizer: LoadedOptimizer | None = None
        checked = False

        def run(value: int) -> MemoryPassRecord:
            nonlocal optimizer, checked
            with check_running_code(self.job), scratch_folder() as scratch:
                optimizer = optimizer or self._check_optimizer(value)
                checked = checked or self.check_micro_batches(value)
                return measure_memory(self._warm_trainer(value, scratch), optimizer)

        return run

    def take_pass(self, value: int) -> MemoryPassRecord:
        """Take a memory pass at one size, and then check that the model's state dict has all of its state.

        Raises:
            Unsupported: the optimizer cannot train this model.
            XbenchError: see `prepare`; or the weights of a selected epoch could not be restored.
        """
        from xbench.training.memory_pass import measure_memory
        from xbench.training.state_dicts import StateCheck

        with check_running_code(self.job), scratch_folder() as scratch:
            optimizer = self._check_optimizer(value)
            self.check_micro_batches(value)
            trainer = self._warm_trainer(value, scratch)
            measured = measure_memory(trainer, optimizer)
            check = StateCheck(trainer)
            del trainer  # frees memory for the new model
            return measured.model_copy(update={"not_resumable": self._find_failure(check)})

    def _find_failure(self, check: StateCheck) -> str:
        from xbench.memory.peaks import release_all
        from xbench.training.global_state import load_component
        from xbench.training.state_dicts import DECLARED

        job = self.job
        model_spec = load_component("model", job.settings.model.name, job.import_dirs)
        release_all(job.settings.device)
        failure = check.find_failure(lambda: self._build(model_spec, job).model)
        return failure if model_spec.resumable else DECLARED

    def _warm_trainer(self, value: int, scratch: Path) -> Trainer:
        from xbench.training.assembly import warm_up

        trainer = self.trainer(value, scratch, largest=True)
        warm_up(trainer, is_trial=True)
        return trainer

    def _check_optimizer(self, value: int) -> LoadedOptimizer:
        """Load the optimizer, after a model is built, and check that it can be measured on the axis."""
        from xbench.training.global_state import load_component
        from xbench.training.optimizer import load_optimizer

        model_spec = load_component("model", self.job.settings.model.name, self.job.import_dirs)
        self._build(model_spec, self._job_at(value))
        optimizer = load_optimizer(self.job.settings.optimizer, self.job.import_dirs)
        if self.axis is Axis.HISTORY_SIZE and optimizer.spec.fill_state is None:
            raise FixedSize(
                f"optimizer '{optimizer.name}' has no `fill_state`, so its history cannot be filled and "
                "measured",
                hint="set `fill_state` in its OptimizerSpec",
            )
        return optimizer

    def check_micro_batches(self, value: int) -> bool:
        """Check that the model allows micro-batches, if a run at this size uses them.

        Runs in a child process.

        Returns:
            Whether the run uses micro-batches smaller than the batch.

        Raises:
            XbenchError: the model does not allow them.
        """
        import numpy as np

        from xbench.training.micro_batches import check_examples_are_independent

        with scratch_folder() as scratch:
            job = self._job_at(value)
            split = self._arrange_rows(job)
            trainer = self._assemble(job, split, scratch)
            if trainer.micro_batch >= trainer.batch_size:
                return False
            # A term may have a single row in the batch of a trial, which tells nothing.
            of_terms = trainer.objective.by_term(split.train).values()
            examples = np.concatenate([np.resize(rows, trainer.batch_size) for rows in of_terms])
            check_examples_are_independent(trainer.model, trainer.loader, trainer.objective, examples)
            return True

    def closure(self, value: int) -> tuple[Callable[[], torch.Tensor], int]:
        """Make a closure of a step at a size, including the loading of its examples. Runs in a child process.

        Returns:
            The closure, and the number of examples it processes.
        """
        from xbench.training.compilation import compile_trainer

        with scratch_folder() as scratch:
            trainer = self.trainer(value, scratch)
        if trainer.settings.compile:
            compile_trainer(trainer, evaluated=())

        def closure() -> torch.Tensor:
            trainer.closure.start(1, trainer.split.train[: trainer.batch_size])
            return trainer.closure()

        return closure, trainer.batch_size

    def trainer(self, value: int, scratch: Path, largest: bool = False) -> Trainer:
        """Make a trainer for a run at a size. Runs in a child process.

        Args:
            scratch: folder for the selected weights.
            largest: whether all batches consist of the largest rows of each term, which determine the peak of
                an epoch.
        """
        job = self._job_at(value)
        return self._assemble(job, self._arrange_rows(job, largest), scratch)

    def _arrange_rows(self, job: CellJob, largest: bool = False) -> Split:
        """Arrange the training rows: the first ones, of whatever number, have all terms in proportion.

        Args:
            largest: whether the first batch has the largest rows of each term, and the others repeat it.
        """
        import numpy as np

        from xbench.training.splits import mix_terms, split_examples

        settings, data = job.settings, job.data
        everything = settings.training.model_copy(update={"train_size": "all"})
        split = split_examples(data, everything, settings.seed_parts.split)
        train, count = split.train, settings.training.batch_size
        if self.job.features is not None:
            train = train[self.job.features.present()[data.file_rows(train)]]
        if isinstance(data, RowData):
            sizes = data.row_bytes if largest else None
            if sizes is not None:
                train = train[np.argsort(-sizes[train], kind="stable")]
            train = train[mix_terms(data.terms[train])]
            if sizes is not None and not isinstance(count, str):
                train = np.resize(train[:count], len(train))
        return replace(split, train=train)

    def _assemble(self, job: CellJob, split: Split, scratch: Path) -> Trainer:
        """Build a trainer on the first of the arranged rows, or on repeated ones if there are not enough."""
        import numpy as np

        from xbench.training.assembly import assemble
        from xbench.training.checkpoint import Checkpoints
        from xbench.training.global_state import load_component
        from xbench.training.optimizer import load_optimizer

        settings, data, size = job.settings, job.data, job.settings.training.train_size
        model_spec = load_component("model", settings.model.name, self.job.import_dirs)
        drawn = split if isinstance(size, str) else replace(split, train=np.resize(split.train, size))
        model = self._build(model_spec, job)
        optimizer = load_optimizer(settings.optimizer, self.job.import_dirs)
        send = lambda message: None  # noqa: E731 - the messages of a trial's steps are not used
        kept = Checkpoints(scratch)
        return assemble(
            send,
            settings,
            data,
            model_spec,
            optimizer,
            model,
            drawn,
            kept,
            self.job.features,
            self.job.import_dirs,
        )

    def _job_at(self, value: int) -> CellJob:
        """Return the job with the settings of a trial, and with the data of that trial."""
        job = replace(self.job, settings=trial_settings(self.job.settings, self.axis, value))
        return scale_job(job, self.axis, value) if isinstance(self.axis, ScaledSetting) else job

    def _build(self, spec: ModelSpec, job: CellJob) -> TrainedPart:
        from xbench.training.model import build_trained_part

        with refusing() if isinstance(self.axis, ScaledSetting) else nullcontext():
            return build_trained_part(spec, job.settings, job.data, job.features, job.import_dirs)
