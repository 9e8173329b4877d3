"""Train a cell in its process: from settings and decoded data to a result."""

from __future__ import annotations

import hashlib
import math
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from xbench.components.optimizer_factory import RunFacts
from xbench.components.roles import count_by_role, find_roles, watch_last_layer
from xbench.components.specs import ModelSpec
from xbench.components.tasks import Optimum
from xbench.data.features import FeatureFile
from xbench.data.prepared import PreparedData, RowData
from xbench.errors import Unsupported
from xbench.memory.contention import ContentionWatch
from xbench.memory.devices import allocator_retries, device_memory
from xbench.memory.host import resident_bytes
from xbench.memory.limits import calibrate_device_limit_again, calibrate_host_limit_again
from xbench.memory.malloc import malloc_profile, release_free_memory
from xbench.memory.profiler import profiler_for
from xbench.records.memory import MemoryRecord
from xbench.records.schema import Times
from xbench.training.checkpoint import Checkpoints, Stopped, resume
from xbench.training.clipping import make_clip
from xbench.training.closure import AccumulatingClosure
from xbench.training.compilation import Compilation, compile_trainer, list_evaluation_sizes
from xbench.training.events import CellResult, Prepared, Scores
from xbench.training.footprint import model_bytes, optimizer_state_bytes, trained_bytes
from xbench.training.frozen import set_training
from xbench.training.global_state import load_component
from xbench.training.gradient_norm import measure_gradient
from xbench.training.job import CellJob
from xbench.training.loader import Loader
from xbench.training.loop import Trainer
from xbench.training.model import TrainedPart, build_model, build_trained_part, select_trained_part
from xbench.training.objective import Objective
from xbench.training.open_data import open_loader, open_task
from xbench.training.optimizer import LoadedOptimizer, load_optimizer
from xbench.training.recipe import check_recipe
from xbench.training.recorder import Diverged, TraceRecorder
from xbench.training.rehearsal import rehearse
from xbench.training.requirements import check_parts_are_allowed, check_requirements
from xbench.training.schedules import make_schedule, read_rates
from xbench.training.seeding import seed_everything
from xbench.training.settings import CellSettings, count_steps_per_epoch
from xbench.training.splits import Split, epoch_order, split_examples
from xbench.training.state_dicts import hash_tensors

# Differences in a loss that rounding may cause, in units of the dtype's relative spacing.
_ROUNDINGS = 8


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
    memory = _measure_before(trainer, optimizer)
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
        scores = None if job.is_trial else _score(trainer)
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
        memory=_measure_after(trainer, memory),
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


def assemble(
    send: Callable[[Any], None],
    settings: CellSettings,
    data: PreparedData,
    model_spec: ModelSpec,
    optimizer: LoadedOptimizer,
    trained: TrainedPart,
    split: Split,
    checkpoints: Checkpoints,
    features: FeatureFile | None = None,
    import_dirs: Sequence[str] = (),
) -> Trainer:
    """Build a cell's trainer.

    Raises:
        Unsupported: the optimizer cannot train this model.
        XbenchError: the settings do not suit the model or the optimizer.
    """
    training = settings.training
    device, loss_dtype = torch.device(settings.device), getattr(torch, training.loss_dtype)
    batch_size = len(split.train) if training.batch_size == "full" else training.batch_size
    batch_size = min(batch_size, len(split.train))
    if training.micro_batch == "auto":
        raise ValueError("micro_batch = 'auto' must be resolved before a trainer is built")
    micro_batch = batch_size if training.micro_batch == "full" else min(training.micro_batch, batch_size)
    loader = open_loader(settings, data, model_spec, features, import_dirs)
    task = open_task(data, import_dirs)
    objective = Objective(
        task, data, training.class_weights, device, loss_dtype, split.train, training.autocast
    )
    profiler = profiler_for(device)
    model = trained.model
    last = _run_once(model, loader, objective, split)
    roles = find_roles(model, task.roles, model_spec.roles, last=last, prefix=trained.prefix)
    check_recipe(optimizer, training)
    check_requirements(optimizer, model, roles)
    if micro_batch < batch_size:
        check_parts_are_allowed(optimizer)
    seeds = settings.seed_parts
    steps = count_steps_per_epoch(len(split.train), batch_size, training.drop_last)
    run = RunFacts(steps * training.epochs, steps, len(split.train))
    built = optimizer.build(model, roles, run, seeds.weights, training, trained.prefix)
    return Trainer(
        model=model,
        optimizer=built,
        closure=AccumulatingClosure(
            model,
            loader,
            objective,
            micro_batch if micro_batch < batch_size else None,
            seeds.weights,
            optimizer.spec.backward,
            make_clip(training),
        ),
        loader=loader,
        objective=objective,
        profiler=profiler,
        recorder=TraceRecorder(profiler, send),
        split=split,
        settings=training,
        seed=seeds.weights,
        order_seed=seeds.order,
        batch_size=batch_size,
        micro_batch=micro_batch,
        selected_path=checkpoints.folder / "selected.pt",
        send=send,
        checkpoints=checkpoints,
        roles=roles,
        run_facts=run,
        rates=read_rates(training, built, optimizer.name),
    )


def _run_once(model: nn.Module, loader: Loader, objective: Objective, split: Split) -> list[nn.Parameter]:
    """Run forward and backward on one example, so that libraries load what they need at first use.

    The model runs in evaluation mode, so no running statistics change, and the gradients are dropped. There
    must be no optimizer yet: it may have hooks that update parameters in the backward pass.

    Returns:
        The parameters of the last layer (see `watch_last_layer`).
    """
    model.eval()
    example = split.train[:1]
    with watch_last_layer(model) as last:
        loss = objective.part_loss(model, loader.load(example), objective.divisor(example))
    loss.backward()
    model.zero_grad()
    set_training(model)
    return last


def _check_present(features: FeatureFile, data: PreparedData, split: Split) -> None:
    """Check that no features are missing: an absent row reads as zeros, which would be trained on."""
    used = data.file_rows(np.concatenate([split.train, split.validation, split.test]))
    if not features.present()[used].all():
        raise RuntimeError(f"{features.folder} lacks features of examples that the cell uses")


def warm_up(trainer: Trainer, is_trial: bool = False) -> None:
    """Finish the warm-up of an assembled trainer, and calibrate the limits on this process's memory again.

    (`assemble` has run forward and backward; on CUDA, `rehearse` has launched the other kernels of a step.)
    If the model is to be compiled, it is compiled for all batch shapes.

    Args:
        is_trial: whether the trainer only takes some steps and evaluates once as many rows as it can at once.

    Raises:
        XbenchError: the model cannot be compiled.
        Stopped: the run was asked to stop while the model was compiled.
    """
    if trainer.settings.compile:
        compile_trainer(trainer, {trainer.evaluation_chunk} if is_trial else list_evaluation_sizes(trainer))
    trainer.weights_are_finite()  # this check also runs after the last step
    calibrate_host_limit_again()
    calibrate_device_limit_again()
    release_free_memory()


def _measure_before(trainer: Trainer, optimizer: LoadedOptimizer) -> MemoryRecord:
    """Measure the memory that is in use before the first step."""
    return MemoryRecord(
        base_host_bytes=resident_bytes(),
        pinned_bytes=trainer.loader.pinned_bytes or None,
        host_peak_method=trainer.profiler.host.method,
        malloc=malloc_profile(),
        parameters_bytes=model_bytes(trainer.model),
        expected_state_vectors=optimizer.expected_state_vectors(
            trainer.optimizer, trainer.model, trainer.roles
        ),
        **_measure_context(trainer.loader.device),
    )


def _measure_context(device: torch.device) -> dict[str, Any]:
    """Measure what this process holds on a CUDA device outside of torch's allocator."""
    if device.type != "cuda":
        return {}
    memory = device_memory(device)
    return {
        "device_context_bytes": memory.context_bytes,
        "device_context_method": memory.context_method,
    }


def _measure_after(trainer: Trainer, before: MemoryRecord) -> MemoryRecord:
    """Add the peaks of the training and the optimizer's state."""
    state_bytes = optimizer_state_bytes(trainer.optimizer, trainer.model)
    device = trainer.loader.device
    return before.model_copy(
        update={
            **_measure_context(device),
            "device_alloc_retries": allocator_retries(device) if device.type == "cuda" else None,
            "peak_host_bytes": trainer.recorder.host_peak_bytes,
            "peak_device_bytes": trainer.recorder.device_peak_bytes,
            "optimizer_state_bytes": state_bytes,
            "state_vectors": state_bytes / trained_bytes(trainer.model),
        }
    )


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


def subtract_optimum(loss: float, optimum: Optimum, dtype: torch.dtype) -> float:
    """Return how far a loss is above its known minimum; 0 if rounding or the minimum's error puts it below.

    Args:
        dtype: the least precise dtype in which the losses of rows were computed.
    """
    gap = loss - optimum.value
    hidden = optimum.error + _ROUNDINGS * torch.finfo(dtype).eps * max(abs(loss), abs(optimum.value))
    return 0.0 if -hidden <= gap < 0 else gap


def _score(trainer: Trainer) -> Scores:
    """Evaluate the selected weights on the test rows and the training rows.

    Raises:
        Diverged: a loss is not finite. No later step checks the last step's update.
    """
    objective, split = trainer.objective, trainer.split
    values: dict[str, float] = {}
    test = None
    if len(split.test):
        test = trainer.evaluate(split.test, "test", collects=True)
        if not math.isfinite(test.loss):
            raise Diverged(f"the test loss of the selected weights is {test.loss}")
        values["test_loss"] = test.loss
        values |= {f"test_{name}": value for name, value in test.averages.items()}
    rows = np.unique(split.train)
    train = trainer.evaluate(rows, "train", collects=test is None)
    if not math.isfinite(train.loss):
        raise Diverged(f"the training loss of the selected weights is {train.loss}")
    values["train_loss"] = train.loss
    values |= {f"train_{name}": value for name, value in train.averages.items()}
    optimum = objective.task.optimum
    if optimum is not None and objective.covers(split.train):  # the optimum of other rows is another one
        settings = trainer.settings
        dtype = torch.bfloat16 if settings.rounds_to_bfloat16 else getattr(torch, settings.dtype)
        values["suboptimality"] = subtract_optimum(train.loss, optimum, dtype)
        values["gradient_norm"] = measure_gradient(trainer, rows)
    collected = test or train
    return Scores(values, collected.losses, collected.collected)
