"""Closure of an optimizer step: loss and gradient of a batch, accumulated exactly over micro-batches.

The batch's loss is a sum over rows divided by the batch's divisor (see `objective`). Each micro-batch
contributes its own sum divided by the *whole batch's* divisor, so loss and gradient are those of the whole
batch up to rounding, and only one micro-batch's activations are in memory at a time. (Averaging the
micro-batches' means instead is wrong as soon as rows are weighted or parts differ in size.) This requires a
model and a task that treat each row independently; see `micro_batches`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from torch import nn

from xbench.memory.phases import PhaseMeter
from xbench.training.clipping import Clip
from xbench.training.global_state import derive_seed, keep_draws_apart, seed_generators
from xbench.training.gradient_sums import GradientSums
from xbench.training.loader import Loader, Part
from xbench.training.nested import count_bytes
from xbench.training.objective import Objective


class AccumulatingClosure:
    """Closure for every `optimizer.step`; call `start` with the batch before each step.

    Args:
        micro_batch: number of examples in memory at once; None for the whole batch.
        seed: seed for the model's random numbers (dropout masks) from torch, `random` or NumPy. They are the
            same at every evaluation of a step; otherwise a line search would compare values of different
            functions. Each micro-batch draws its own, so such a model sees other masks with another
            `micro_batch`. The optimizer's own random numbers are not affected.
        backward: the backward pass that the optimizer needs (see `OptimizerSpec`).
        clip: clips the whole batch's gradient in each call; None for gradients as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Loader,
        objective: Objective,
        micro_batch: int | None,
        seed: int,
        backward: Literal["plain", "create_graph", "fused"] = "plain",
        clip: Clip | None = None,
    ):
        self._model, self._loader, self._objective = model, loader, objective
        self._parameters = list(model.parameters())
        self._sums = GradientSums(self._parameters)
        self._micro_batch = micro_batch
        self._seed = seed
        self._backward = backward
        self._clip = clip
        self._resident: list[Part] | None = None

    def with_model(self, model: nn.Module) -> AccumulatingClosure:
        """Return a closure for another model on the same data."""
        return AccumulatingClosure(
            model, self._loader, self._objective, self._micro_batch, self._seed, self._backward, self._clip
        )

    def with_micro_batch(self, micro_batch: int) -> AccumulatingClosure:
        """Return a closure for the same model and data with another micro-batch, and plain gradients."""
        return AccumulatingClosure(self._model, self._loader, self._objective, micro_batch, self._seed)

    @property
    def is_fused(self) -> bool:
        """Whether the optimizer runs the backward pass itself."""
        return self._backward == "fused"

    @property
    def batch_bytes(self) -> int:
        """Bytes of the step's examples if the whole batch is in memory throughout the step; otherwise 0."""
        return count_bytes(self._resident or [])

    @property
    def sums_bytes(self) -> int:
        """The most bytes that the step's closures took to sum gradients in float32."""
        return self._sums.peak_bytes

    def release(self) -> None:
        """Release the last step's batch, before memory is measured or the next one is loaded."""
        self._resident = None

    def end(self) -> None:
        """End a step. Gradients that can be differentiated are dropped, and with them their graph."""
        if self._backward == "create_graph":
            self._clear_gradients()

    def start(self, step: int, indices: np.ndarray, phases: PhaseMeter | None = None) -> None:
        """Begin a step on the examples at `indices`.

        Without micro-batches, the batch is loaded here, once for the whole step. The last step's gradients
        are cleared: an optimizer that reads them before its first closure call would follow another batch.

        Args:
            step: the step's number, from 1.
            indices: positions of the batch's examples in the dataset.
            phases: meter to notify of each closure call of this step.
        """
        self._phases = phases
        self._step, self._indices = step, indices
        self._divisor = self._objective.divisor(indices)
        self.release()
        self._clear_gradients()
        if self._micro_batch is None or self._micro_batch >= len(indices):
            self._resident = [self._loader.load(indices)]
        self.evaluations = 0
        self.first_loss: torch.Tensor | None = None

    def __call__(self) -> torch.Tensor:
        """Compute the batch's loss (scalar, float64, detached), and its gradient (in `.grad`)."""
        if self._backward == "fused":
            raise RuntimeError("an optimizer with backward='fused' calls closure.loss(), not closure()")
        self._clear_gradients()
        if self._phases is not None:
            self._phases.begin_closure()
        # torch's optimizers enable gradients for closures; others may not.
        with keep_draws_apart(), torch.enable_grad():
            loss = self._accumulate()
        if self._clip is not None:
            self._clip(self._parameters)
        self._count(loss)
        return loss

    def loss(self) -> torch.Tensor:
        """Clear all gradients, and compute the batch's loss: a scalar with its graph.

        For optimizers that run the backward pass themselves. They call it once a step.

        Raises:
            RuntimeError: the optimizer does not declare this, or calls it again.
        """
        if self._backward != "fused":
            raise RuntimeError("closure.loss() is for optimizers whose OptimizerSpec says backward='fused'")
        if self.evaluations:
            raise RuntimeError("closure.loss() was called twice in a step")
        self._clear_gradients()
        if self._phases is not None:
            self._phases.begin_closure()
        with keep_draws_apart(), torch.enable_grad():
            seed_generators(self._derive_seed(0))
            loss = self._objective.part_loss(self._model, next(iter(self._parts())), self._divisor)
            penalty = self._objective.penalty(self._model)
            loss = loss if penalty is None else loss + penalty
        if self._phases is not None:
            self._phases.end_forward()
        self._count(loss.detach().double())
        return loss

    def _count(self, loss: torch.Tensor) -> None:
        """Count an evaluation of the batch's loss."""
        if self._phases is not None:
            self._phases.end_closure()
        self.evaluations += 1
        if self.first_loss is None:
            self.first_loss = loss

    def _clear_gradients(self) -> None:
        # `Module.zero_grad` walks through all modules each time, which takes longer than a small layer.
        for parameter in self._parameters:
            parameter.grad = None

    def _accumulate(self) -> torch.Tensor:
        total: torch.Tensor | None = None
        self._sums.clear()  # a closure call that failed may have left some
        for number, part in enumerate(self._parts()):
            if number:
                self._sums.set_aside()
            seed_generators(self._derive_seed(number))  # always, as any module may draw random numbers
            loss = self._objective.part_loss(self._model, part, self._divisor)
            if self._phases is not None and number == 0:
                self._phases.end_forward()
            self._differentiate(loss)
            share = loss.detach().double()
            total = share if total is None else total + share
        if total is None:
            raise ValueError("a batch has no rows")
        penalty = self._objective.penalty(self._model)
        if penalty is not None:
            self._sums.set_aside()
            self._differentiate(penalty)
            total = total + penalty.detach().double()
        self._sums.restore()
        return total

    def _parts(self) -> Iterable[Part]:
        """The parts of the batch, or the batch itself if it is in memory."""
        return self._resident or self._loader.parts(self._indices, self._micro_batch or len(self._indices))

    def _differentiate(self, loss: torch.Tensor) -> None:
        if self._backward != "create_graph":
            loss.backward()
            return
        with warnings.catch_warnings():  # of the cycle of parameters and their gradients, which `end` breaks
            warnings.filterwarnings("ignore", "Using backward\\(\\) with create_graph=True")
            loss.backward(create_graph=True)

    def _derive_seed(self, part: int) -> int:
        return derive_seed(self._seed, self._step, part)
