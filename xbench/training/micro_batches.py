"""Check that a model treats the examples of a batch independently, as exact micro-batches require.

Batch normalisation does not, whether it is torch's own class or written by hand, and no accumulation over
parts can make it exact. Dropout does, since each example has its own mask. So the check runs the model, and
does not depend on the names of its modules.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from xbench.errors import DependentExamples
from xbench.training.frozen import set_training
from xbench.training.global_state import guard_globals, seed_generators
from xbench.training.loader import Loader
from xbench.training.rounding import equal_up_to_rounding
from xbench.training.seeding import pin_tf32

_MAX_ROWS = 8
_SEED = 20


def check_examples_are_independent(
    model: nn.Module, loader: Loader, indices: np.ndarray, labels: np.ndarray
) -> None:
    """Check on at most eight examples that a model's results for one do not depend on the others.

    In training mode, with a fixed seed, replacing the other examples must not change an example's loss. In
    evaluation mode, the outputs of a batch must be those of its two halves. Both are checked in float64 if
    the model allows it and memory suffices, otherwise in float32 (never TF32) with a tolerance of 1e-4.

    Args:
        model: the model; it must not be used afterwards.
        loader: loads the examples.
        indices: positions of at least two examples in the dataset.
        labels: labels of all examples of the dataset.

    Raises:
        DependentExamples: the model mixes the examples of a batch.
    """
    size = min(_MAX_ROWS, len(indices))
    examples, _ = loader.load(indices[:size])
    targets = torch.from_numpy(labels[indices[:size]]).to(examples.device)
    dtype = next(p.dtype for p in model.parameters())
    # The model may insist on float32, twice the memory may be too much, or the model may need gradients.
    attempts = [(torch.float64, False), (dtype, False), (dtype, True)]
    with guard_globals():
        pin_tf32(False)
        for attempt in attempts:
            precision, with_gradients = attempt
            try:
                with torch.set_grad_enabled(with_gradients):
                    reason = _find_dependence(model.to(precision), examples.to(precision), targets)
                break
            except Exception:
                if attempt == attempts[-1]:
                    raise
    if reason:
        raise DependentExamples(
            f"{reason}, as with batch normalisation: micro-batches would train a different function "
            '(use micro_batch = "full")',
        )


def _find_dependence(model: nn.Module, examples: torch.Tensor, targets: torch.Tensor) -> str:
    half = len(examples) // 2
    others = examples.flip(0).roll(1, 0).mul(0.5).add(0.25)
    set_training(model)
    losses = _compute_losses(model, examples, targets)
    for kept in (slice(0, half), slice(half, None)):
        mixed = others.clone()
        mixed[kept] = examples[kept]
        if not equal_up_to_rounding(losses[kept], _compute_losses(model, mixed, targets)[kept]):
            return "an example's loss in training depends on the other examples"
    model.eval()
    parts = torch.cat([model(examples[:half]), model(examples[half:])])
    if not equal_up_to_rounding(model(examples), parts):
        return "outputs in evaluation depend on the other examples"
    return ""


def _compute_losses(model: nn.Module, examples: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    seed_generators(_SEED)
    return functional.cross_entropy(model(examples), targets, reduction="none")
