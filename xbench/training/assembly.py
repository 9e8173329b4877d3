"""Assemble the trainer of a cell, and warm it up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from xbench.components.optimizer_factory import RunFacts
from xbench.components.roles import find_roles, watch_last_layer
from xbench.components.specs import ModelSpec
from xbench.data.features import FeatureFile
from xbench.data.prepared import PreparedData
from xbench.memory.limits import calibrate_device_limit_again, calibrate_host_limit_again
from xbench.memory.malloc import release_free_memory
from xbench.memory.profiler import profiler_for
from xbench.training.checkpoint import Checkpoints
from xbench.training.clipping import make_clip
from xbench.training.closure import AccumulatingClosure
from xbench.training.compilation import compile_trainer, list_evaluation_sizes
from xbench.training.frozen import set_training
from xbench.training.loader import Loader
from xbench.training.loop import Trainer
from xbench.training.model import TrainedPart
from xbench.training.objective import Objective
from xbench.training.open_data import open_loader, open_task
from xbench.training.optimizer import LoadedOptimizer
from xbench.training.recipe import check_recipe
from xbench.training.recorder import TraceRecorder
from xbench.training.requirements import check_parts_are_allowed, check_requirements
from xbench.training.schedules import read_rates
from xbench.training.settings import CellSettings, count_steps_per_epoch
from xbench.training.splits import Split


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
