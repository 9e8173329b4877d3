"""Train a cell in its process: from settings and decoded data to a result."""

from __future__ import annotations

import hashlib
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from xbench.components.roles import count_by_role
from xbench.data.features import FeatureFile
from xbench.data.prepared import PreparedData, RowData
from xbench.errors import Unsupported
from xbench.memory.contention import ContentionWatch
from xbench.records.schema import Times
from xbench.training.assembly import assemble, warm_up
from xbench.training.cell_memory import measure_after, measure_before
from xbench.training.checkpoint import Checkpoints, Stopped, resume
from xbench.training.compilation import Compilation
from xbench.training.events import CellResult, Prepared
from xbench.training.global_state import load_component
from xbench.training.job import CellJob
from xbench.training.loop import Trainer
from xbench.training.model import build_model, build_trained_part, select_trained_part
from xbench.training.optimizer import load_optimizer
from xbench.training.recorder import Diverged
from xbench.training.rehearsal import rehearse
from xbench.training.schedules import make_schedule
from xbench.training.scores import score
from xbench.training.seeding import seed_everything
from xbench.training.splits import Split, epoch_order, split_examples
from xbench.training.state_dicts import hash_tensors


def train_cell(
    send: Callable[[Any], None],
    job: CellJob,
    watch_for_stop: Callable[[], Callable[[], bool]] = lambda: lambda: False,
) -> CellResult | None:
    """Train one cell, in this process.

    Args:
        send: passes messages (see `training.events`) to the parent.
        job: the cell.
        watch_for_stop: called if the cell can save checkpoints. It returns a function that is called after
            each step and says whether to stop.

    Returns:
        The result: `done` with scores (unless the cell is a trial), `diverged` at a step, or `skipped`
        because the optimizer cannot train this model. None if the cell was stopped.

    Raises:
        XbenchError: the settings cannot be met. Other exceptions are faults of a component or of xbench.
    """
    started = time.perf_counter()
    settings, data, features = job.settings, job.data, job.features
    model_spec = load_component("model", settings.model.name, job.import_dirs)
    whole_model = build_model(model_spec, settings, data, job.import_dirs)
    weights_sha256 = hash_tensors(whole_model)
    trained = select_trained_part(whole_model, features)
    del whole_model
    # Only after the model is built: importing the optimizer must not change the model's initial weights.
    optimizer = load_optimizer(settings.optimizer, job.import_dirs)
    seeds = settings.seed_parts
    split = split_examples(data, settings.training, seeds.split)
    if features is not None:
        _check_present(features, data, split)
    is_resumable = model_spec.resumable and optimizer.resumable
    every_s = job.checkpoint_every_s if is_resumable else None
    should_stop = (lambda: False) if every_s is None else watch_for_stop()
    checkpoints = Checkpoints(job.scratch, every_s, should_stop)
    try:
        trainer = assemble(
            send,
            settings,
            data,
            model_spec,
            optimizer,
            trained,
            split,
            checkpoints,
            features,
            job.import_dirs,
        )
    except Unsupported as error:
        return CellResult(status="skipped", reason=error.message)
    if trainer.loader.device.type == "cuda":
        rehearse(
            trainer,
            lambda: build_trained_part(model_spec, settings, data, features, job.import_dirs).model,
            lambda twin: optimizer.build(
                twin, trainer.roles, trainer.run_facts, seeds.weights, settings.training, trained.prefix
            ),
        )
    steps = trainer.steps_per_epoch * settings.training.epochs
    trainer.schedule = make_schedule(settings.training, trainer.rates, steps)
    try:
        warm_up(trainer)
    except Stopped:
        return None
    memory = measure_before(trainer, optimizer)
    seed_everything(seeds.weights)  # for optimizers that draw numbers: the warm-up must not affect them
    if job.checkpoint is not None and is_resumable and not _resume(trainer, job.checkpoint):
        del trainer, trained  # the call below builds its own
        return train_cell(send, replace(job, checkpoint=None), watch_for_stop)
    resumed_at, is_saved = trainer.progress.steps, every_s is not None
    send(
        Prepared(
            ran=_collect_sizes(trainer),
            steps=steps,
            epochs=settings.training.epochs,
            memory=memory,
            weights_sha256=weights_sha256,
            order_sha256=hashlib.sha256(epoch_order(split.train, seeds.order, 1).tobytes()).hexdigest(),
            resumed_at=resumed_at,
            is_saved=is_saved,
            is_on_cuda=torch.device(settings.device).type == "cuda",
            parameters_by_role=count_by_role(trainer.model, trainer.roles),
        )
    )
    prepare_s = time.perf_counter() - started

    scores = selected_epoch = None
    status: Literal["done", "diverged"] = "done"
    reason = ""
    watch = ContentionWatch(torch.get_num_threads())
    try:
        selected_epoch = trainer.run()
        scores = None if job.is_trial else score(trainer)
    except Stopped:
        return None
    except Diverged as error:
        status, reason = "diverged", _explain_divergence(error, data)
    return CellResult(
        status=status,
        reason=reason,
        selected_epoch=selected_epoch,
        scores=scores,
        time=Times(
            training_s=trainer.training_s,
            evaluation_s=trainer.evaluation_s,
            prepare_s=prepare_s,
            checkpoints_s=checkpoints.spent_s or None,
            **_describe_compilation(trainer.compilation),
            waiting_share=watch.waiting_share(),
        ),
        memory=measure_after(trainer, memory),
    )


def _describe_compilation(compilation: Compilation | None) -> dict[str, Any]:
    """Return the fields of a cell's times that are about its compiled model."""
    if compilation is None:
        return {}
    return {
        "compile_s": compilation.seconds,
        "compiled_graphs": compilation.graphs,
        "untimed_graphs": compilation.untimed,
        "late_compile_s": compilation.late_s,
    }


def _explain_divergence(error: Diverged, data: PreparedData) -> str:
    """Say what is not finite, and whether values of the data may be the cause."""
    nonfinite = data.nonfinite if isinstance(data, RowData) else ""
    return f"{error}; {nonfinite}" if nonfinite else str(error)


def _resume(trainer: Trainer, checkpoint: Path) -> bool:
    """Resume from a checkpoint; return whether that was possible."""
    try:
        resume(trainer, checkpoint)
        return True
    except Exception:  # a damaged checkpoint may raise anything
        traceback.print_exc()
        print(f"{checkpoint} cannot be used: the cell starts from the beginning", file=sys.stderr)
        return False


def _collect_sizes(trainer: Trainer) -> dict[str, int | str | None]:
    """Collect the numbers of examples, and the optimizer's history size, that are in effect."""
    return {
        "train_size": len(trainer.split.train),
        "validation_size": len(trainer.split.validation),
        "distinct_train_size": len(np.unique(trainer.split.train)),
        "history_size": _get_history_size(trainer.optimizer),
        "batch_size": trainer.batch_size,
        "micro_batch": trainer.micro_batch,
    }


def _get_history_size(optimizer: torch.optim.Optimizer) -> int | str | None:
    size = getattr(optimizer, "defaults", {}).get("history_size")
    if not isinstance(size, int | str | None):  # the record stores it
        raise TypeError(f"the optimizer's history_size is a {type(size).__name__}, not a number")
    return size


def _check_present(features: FeatureFile, data: PreparedData, split: Split) -> None:
    """Check that no features are missing: an absent row reads as zeros, which would be trained on."""
    used = data.file_rows(np.concatenate([split.train, split.validation, split.test]))
    if not features.present()[used].all():
        raise RuntimeError(f"{features.folder} lacks features of examples that the cell uses")
