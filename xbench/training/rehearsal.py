"""Take steps with twins of a cell's model and optimizer, so that CUDA has loaded its kernels before a step is
timed: it loads each at its first launch, and libraries set themselves up at first use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from xbench.components.tracebacks import in_one_line
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
    """Train and evaluate twins on a trainer's first examples, and let go of them.

    The trainer itself does not move: neither its weights, buffers and optimizer state nor any generator. The
    twins need as much memory as a step, beside the model's parameters. If that is too much, or they fail in
    another way, stderr says so, and the cell's own steps show what there is to show. Afterwards the peaks and
    counters of the allocator start anew.

    Args:
        trainer: that has not begun.
        build_model: gives a twin of its model.
        build_optimizer: gives a twin of its optimizer for that.
    """
    try:
        with guard_globals():
            _rehearse(trainer, build_model, build_optimizer)
    except Exception as error:  # of a plugin, or for lack of memory
        # Not in torch's words for a lack of memory: stderr may be searched for the cause of a death.
        why = "memory ran out" if exhaustion(evidence_of(error)) else in_one_line(error)
        print(
            f"the first steps' times may include loading kernels: their rehearsal failed: {why}",
            file=sys.stderr,
        )
    device = trainer.loader.device
    release_all(device)
    # Or what the twins needed would explain a later error of the cell's, and be counted as its own.
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
    # In the shapes of real steps: which kernels are used depends on them. From the second micro-batch on,
    # gradients are added up.
    size = min(trainer.batch_size, 2 * trainer.micro_batch)
    batch = epoch_order(trainer.split.train, trainer.seed, 1)[:size]
    twin.set_mode("train")
    for step in range(1, STEPS + 1):
        twin.closure.start(step, batch)
        twin.update()
    twin.set_mode("eval")
    model.zero_grad()
    twin.closure.release()
    evaluate(model, trainer.loader, trainer.objective, batch[: trainer.micro_batch], trainer.micro_batch)
    twin.weights_are_finite()  # as after the last step
