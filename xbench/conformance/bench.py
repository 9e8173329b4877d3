"""Train on a few rows, in this process, with the code that trains a cell."""

from __future__ import annotations

import contextlib
import io
import pickle
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from xbench.components.code_files import ImportDirs, PackedComponent
from xbench.components.specs import DatasetSpec, ModelSpec, OptimizerSpec
from xbench.data.prepared import RowData
from xbench.training.assembly import assemble
from xbench.training.checkpoint import Checkpoints, Stopped, resume
from xbench.training.events import CheckpointWritten
from xbench.training.footprint import optimizer_tensors, storage_bytes
from xbench.training.global_state import Generators
from xbench.training.loop import Trainer
from xbench.training.model import build_model, select_trained_part
from xbench.training.optimizer import with_rest
from xbench.training.prepare_rows import describe_rows
from xbench.training.recorder import Diverged
from xbench.training.row_set import load_row_set
from xbench.training.seeding import seed_everything
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.splits import split_examples
from xbench.training.state_dicts import hash_tensors

# Tensors in storages of at most so many elements are counters, not vectors.
_COUNTER_ELEMENTS = 4


@dataclass(frozen=True)
class Data:
    """Rows to train on.

    Attributes:
        dirs: where the dataset and other components are imported from.
    """

    rows: RowData
    dirs: ImportDirs


def open_rows(name: str, params: Mapping[str, Any], dirs: ImportDirs) -> Data:
    """Describe the rows of a dataset."""
    return Data(describe_rows(load_row_set(name, params, dirs), name, params, ""), dirs)


def open_unregistered(name: str, params: Mapping[str, Any], dirs: ImportDirs, folder: Path) -> Data:
    """Describe the rows of a dataset of `conformance.problem`, which is not registered.

    Args:
        name: that of the function `build_NAME`.
        folder: folder for a file, which must exist as long as the rows are used.
    """
    path = folder / f"{name}.pickle"
    path.write_bytes(pickle.dumps(DatasetSpec(factory=f"xbench.conformance.problem:build_{name}")))
    packed = (*dirs.packed, PackedComponent("dataset", name, path, ""))
    return open_rows(name, params, replace(dirs, packed=packed))


def make_settings(
    model_params: Mapping[str, Any], optimizer: Choice, seed: int = 0, **training: Any
) -> CellSettings:
    """Make the settings of a cell on the CPU with the whole training set as its batch.

    Args:
        training: settings of the training, which override these.
    """
    defaults: dict[str, Any] = {"validation": 0.0, "selection": "last", "batch_size": "full"}
    return CellSettings(
        model=Choice("model", dict(model_params)),
        optimizer=optimizer,
        training=TrainingSettings(**defaults | training),
        seed=seed,
        device="cpu",
    )


def make_model(data: Data, spec: ModelSpec, params: Mapping[str, Any], seed: int = 0) -> nn.Module:
    """Build a model as a cell does."""
    return build_model(spec, make_settings(params, Choice("", {}), seed), data.rows, data.dirs)


def start_trainer(
    data: Data,
    model: ModelSpec,
    optimizer: OptimizerSpec,
    params: Mapping[str, Any],
    checkpoints: Checkpoints,
    send: Callable[[Any], None] = lambda message: None,
    seed: int = 0,
    name: str = "",
    model_params: Mapping[str, Any] | None = None,
    **training: Any,
) -> Trainer:
    """Build a trainer as a cell does.

    Args:
        params: settings of the optimizer.
        name: name of the optimizer, for messages.
        model_params: settings of the model.
        training: settings of the training; see `make_settings`.
    """
    settings = make_settings(model_params or {}, Choice(name, dict(params)), seed, **training)
    trained = select_trained_part(build_model(model, settings, data.rows, data.dirs), None)
    loaded = with_rest(settings.optimizer, optimizer, data.dirs)
    split = split_examples(data.rows, settings.training, seed)
    trainer = assemble(send, settings, data.rows, model, loaded, trained, split, checkpoints, None, data.dirs)
    seed_everything(seed)
    return trainer


@dataclass
class Run:
    """What a run of some steps did.

    Attributes:
        trainer: its trainer, after the last step.
        losses: loss of the batch before each step.
        closures: number of closure calls of each step.
        state_bytes: size of the optimizer's state after each step, without counters; see `measure_state`.
        generators: states of the generators after the first step.
        weights: hash of the model's tensors at the end.
        final_loss: loss of all rows at the end.
        problem: why the run did not end; "" if it did.
        checkpoint: the checkpoint that it wrote.
    """

    trainer: Trainer
    losses: list[float] = field(default_factory=list)
    closures: list[int] = field(default_factory=list)
    state_bytes: list[int] = field(default_factory=list)
    generators: Generators | None = None
    weights: str = ""
    final_loss: float = float("nan")
    problem: str = ""
    checkpoint: Path | None = None


class _Watch(Checkpoints):
    """Checkpoints that record what each step did."""

    run: Run

    def after_step(self, trainer: Trainer) -> None:
        run, closure = self.run, trainer.closure
        if closure.first_loss is not None:
            run.losses.append(closure.first_loss.item())
        run.closures.append(closure.evaluations)
        run.state_bytes.append(measure_state(trainer.optimizer, trainer.model)[0])
        if run.generators is None:
            run.generators = Generators.now()
        super().after_step(trainer)


def train(
    data: Data,
    model: ModelSpec,
    optimizer: OptimizerSpec,
    params: Mapping[str, Any],
    folder: Path,
    steps: int,
    stop_after: int | None = None,
    checkpoint: Path | None = None,
    change: Callable[[Trainer], None] = lambda trainer: None,
    **more: Any,
) -> Run:
    """Train for some steps, on all rows in each.

    Args:
        folder: folder for a folder with the checkpoint.
        stop_after: step after which the run writes a checkpoint and stops; None to run to the end.
        checkpoint: checkpoint to resume from.
        change: changes the trainer before the first step.
        more: arguments of `start_trainer`.

    Raises:
        Exception: of any type, raised by a component, or by reading the checkpoint.
    """
    messages: list[Any] = []
    watch = _Watch(
        folder if stop_after is None else Path(tempfile.mkdtemp(dir=folder)),
        every_s=None if stop_after is None else 1e9,
        should_stop=lambda: len(watch.run.losses) == stop_after,
    )
    trainer = start_trainer(data, model, optimizer, params, watch, messages.append, epochs=steps, **more)
    change(trainer)
    if checkpoint is not None:
        resume(trainer, checkpoint)
    watch.run = run = Run(trainer)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            trainer.run()
    except Stopped:
        written = [message for message in messages if isinstance(message, CheckpointWritten)]
        if written:
            run.checkpoint = written[-1].aside.rename(written[-1].place)
        else:
            run.problem = said.getvalue().strip()
        return run
    except Diverged as error:
        run.problem = str(error)
        return run
    run.weights = hash_tensors(trainer.model)
    run.final_loss = trainer.evaluate(trainer.split.train, "train").loss
    return run


def measure_state(optimizer: Any, model: nn.Module) -> tuple[int, int]:
    """Measure the bytes of an optimizer's vectors, and those of its counters and other one-element tensors.

    One-element tensors may be views of one storage, as `torch._foreach_norm` returns them for all parameters.
    A view of anything larger counts as a vector, because it keeps the whole storage in memory.
    """
    tensors = optimizer_tensors(optimizer, model)
    of_all = _COUNTER_ELEMENTS * sum(1 for _ in model.parameters())
    vectors = storage_bytes(
        t
        for t in tensors
        if t.untyped_storage().nbytes() > t.element_size() * (of_all if t.numel() <= 1 else _COUNTER_ELEMENTS)
    )
    return vectors, storage_bytes(tensors) - vectors


def find_changed(one: Generators, other: Generators) -> set[str]:
    """Name the generators that are in different states: `"torch"`, `"NumPy"` and `"Python"`."""
    kind, keys, *rest = one.numpy_state
    other_kind, other_keys, *other_rest = other.numpy_state
    same = {
        "torch": torch.equal(one.torch_state, other.torch_state),
        "NumPy": (kind, rest) == (other_kind, other_rest) and np.array_equal(keys, other_keys),
        "Python": one.python_state == other.python_state,
    }
    return {name for name, is_same in same.items() if not is_same}
