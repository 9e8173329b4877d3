"""A training run at one size, as a workload of a probe."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xbench.capacity.axes import Axis, trial_settings
from xbench.data.decoded import DecodedDataset
from xbench.data.features import FeatureFile
from xbench.errors import Unsupported, XbenchError
from xbench.training.settings import CellSettings

if TYPE_CHECKING:
    from xbench.components.specs import OptimizerSpec
    from xbench.training.loop import Trainer


@dataclass(frozen=True)
class TrainingWorkload:
    """What a cell takes at most, at a size on one axis: an optimizer's step with all of its state,
    evaluation, and keeping the best weights.

    Attributes:
        settings: of the cell; what the axis varies is replaced.
        import_dirs: folders that `module:attribute` components may be imported from.
        features: outputs of the model's frozen part for some of the images: trials use these alone.
    """

    settings: CellSettings
    data: DecodedDataset
    axis: Axis
    import_dirs: tuple[str, ...] = ()
    features: FeatureFile | None = None

    def prepare(self) -> Callable[[int], None]:
        """See `probe.Workload`. Examples are drawn again beyond the dataset's size.

        Raises:
            Unsupported: the optimizer cannot train this model.
            XbenchError: the settings cannot be met.
        """
        from xbench.components import registry
        from xbench.training.model import model_to_train
        from xbench.training.requirements import unmet_requirement

        optimizer = self.settings.optimizer.name
        spec = registry.load("optimizer", optimizer, self.import_dirs)
        model_spec = registry.load("model", self.settings.model.name, self.import_dirs)
        model = model_to_train(model_spec, self.settings, self.data, self.features)
        reason = unmet_requirement(spec, optimizer, model)
        del model  # each trial makes its own
        if reason is not None:
            raise Unsupported(reason)
        if self.axis is Axis.HISTORY_SIZE and spec.fill_state is None:
            raise XbenchError(
                f"optimizer '{optimizer}' has no `fill_state`: a history that is not filled takes no memory",
                hint="its OptimizerSpec can name one",
            )

        def run(value: int) -> None:
            with tempfile.TemporaryDirectory(prefix="xbench-") as scratch:
                _train(self.trainer(value, scratch), spec)

        return run

    def closure(self, value: int) -> tuple[Callable[[], object], int]:
        """A closure of a step at a size, with the loading of its examples, to be timed, and the number of
        examples it sees. Called in a child."""
        with tempfile.TemporaryDirectory(prefix="xbench-") as scratch:
            trainer = self.trainer(value, scratch)

        def closure() -> object:
            trainer.closure.start(1, trainer.split.train[: trainer.batch_size])
            return trainer.closure()

        return closure, trainer.batch_size

    def trainer(self, value: int, scratch: str) -> Trainer:
        """What trains at a size. Called in a child.

        Args:
            scratch: folder for the selected weights.
        """
        import numpy as np

        from xbench.components import registry
        from xbench.training.cell import assemble
        from xbench.training.checkpoint import Checkpoints
        from xbench.training.model import model_to_train
        from xbench.training.splits import Split, split_examples

        settings, data = trial_settings(self.settings, self.axis, value), self.data
        model_spec = registry.load("model", settings.model.name, self.import_dirs)
        optimizer_spec = registry.load("optimizer", settings.optimizer.name, self.import_dirs)
        everything = settings.training.model_copy(update={"train_size": "all"})
        split = split_examples(data, everything, settings.seed)
        train, size = split.train, settings.training.train_size
        if self.features is not None:
            train = train[self.features.present()[data.rows[train]]]
        drawn = Split(
            train if isinstance(size, str) else np.resize(train, size), split.validation, split.test
        )
        model = model_to_train(model_spec, settings, data, self.features)
        send = lambda message: None  # noqa: E731 - nobody listens to a trial's steps
        kept = Checkpoints(Path(scratch))
        return assemble(send, settings, data, model_spec, optimizer_spec, model, drawn, kept, self.features)


def _train(trainer: Trainer, spec: OptimizerSpec) -> None:
    """Without the trainer's own profiler: it would reset the peak that is being measured."""
    import torch

    from xbench.training.evaluation import evaluate

    fill_state = spec.load_fill_state()
    if fill_state is not None:
        fill_state(trainer.optimizer)
    batch = trainer.split.train[: trainer.batch_size]
    # Without a hook, all state is there from the second step on.
    for step in range(1, 2 if fill_state is not None else 3):
        trainer.closure.start(step, batch)
        trainer.optimizer.step(trainer.closure)
    # As the trainer does before it evaluates, at most as many examples at once as it trains on.
    trainer.model.zero_grad()
    trainer.closure.release()
    chunk = trainer.micro_batch
    evaluate(trainer.model, trainer.loader, trainer.objective, trainer.split.train[:chunk], chunk)
    torch.save(trainer.model.state_dict(), trainer.weights_path)
