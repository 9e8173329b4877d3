"""Measure the norm of the objective's gradient, which is 0 at a minimum."""

from __future__ import annotations

import copy
import time

import numpy as np
import torch

from xbench.training.frozen import set_training
from xbench.training.loop import Trainer


def measure_gradient(trainer: Trainer, indices: np.ndarray) -> float:
    """Compute the Euclidean norm of the objective's gradient over rows; the time counts as evaluation.

    The model is in evaluation mode.
    """
    started = time.perf_counter()
    # A copy has no hooks, with which an optimizer may update parameters in the backward pass.
    model = copy.deepcopy(trainer.model) if trainer.closure.is_fused else trainer.model
    model.eval()
    closure = trainer.closure.with_model(model).with_micro_batch(trainer.evaluation_chunk)
    closure.start(1, indices)
    closure()
    closure.release()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.stack([torch.linalg.vector_norm(gradient.double()) for gradient in gradients]).norm().item()
    trainer.model.zero_grad()
    set_training(trainer.model)
    trainer.evaluation_s += time.perf_counter() - started
    return norm
