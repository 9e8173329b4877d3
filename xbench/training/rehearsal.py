"""Take steps with twins of a cell's model and optimizer, so that CUDA loads its kernels before any is timed.

CUDA loads each kernel at its first launch, and libraries initialise themselves at first use.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from xbench.components.tracebacks import describe_error
from xbench.memory.exhaustion import evidence_of, exhaustion
from xbench.memory.peaks import forget_device_memory, release_all
from xbench.training.evaluation import evaluate
from xbench.training.global_state import guard_globals
from xbench.training.loop import Trainer
from xbench.training.splits import epoch_order

# An optimizer's second step may do what its first did not.
STEPS = 2


def rehearse(
    trainer: Trainer,
    build_model: Callable[[], nn.Module],
    build_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
) -> None:
    """Train and evaluate twins on a trainer's first examples, and release them.

    The trainer itself does not change, neither its weights, buffers and optimizer state nor any generator.
    The twins need as much memory as a step, in addition to the model's parameters. If memory runs out, or
    they fail in another way, a message is printed to stderr, and any error is left to the cell's own steps.
    Afterwards the allocator's peaks and counters are reset.

    Args:
        trainer: a trainer that has not started.
        build_model: builds a twin of the trainer's model.
        build_optimizer: builds a twin of the trainer's optimizer for a model.
    """
    try:
        with guard_globals():
            _rehearse(trainer, build_model, build_optimizer)
    except Exception as error:  # a plugin's error, or memory ran out
        # Not torch's own message if memory ran out: stderr may be searched for the cause of a crash.
        why = "memory ran out" if exhaustion(evidence_of(error)) else describe_error(error)
        print(
            f"the first steps' times may include loading kernels, as their rehearsal failed: {why}",
            file=sys.stderr,
        )
    device = trainer.loader.device
    release_all(device)
    # Otherwise the twins' memory would count as the cell's, and might explain a later error of the cell.
    forget_device_memory(device)


def _rehearse(
    trainer: Trainer,
    build_model: Callable[[], nn.Module],
    build_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
) -> None:
    model = build_model()
    twin = replace(
        trainer, model=model, optimizer=build_optimizer(model), closure=trainer.closure.with_model(model)
    )
    # Kernels depend on shapes, so use those of real steps. From the second micro-batch on, gradients are
    # accumulated.
    size = min(trainer.batch_size, 2 * trainer.micro_batch)
    batch = epoch_order(trainer.split.train, trainer.order_seed, 1)[:size]
    twin.set_mode("train")
    for step in range(1, STEPS + 1):
        twin.closure.start(step, batch)
        twin.update()
    twin.set_mode("eval")
    model.zero_grad()
    twin.closure.release()
    evaluate(
        model, trainer.loader, trainer.objective, batch[: trainer.micro_batch], trainer.micro_batch, "train"
    )
    twin.weights_are_finite()  # this check also runs after the last step
