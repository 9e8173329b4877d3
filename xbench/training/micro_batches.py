"""Check that a model treats the examples of a batch one by one, as exact micro-batches need.

Batch normalisation does not, whether it is torch's own class or written by hand: no accumulation over parts
can make it exact. Dropout does: each example has a mask of its own. So the model is run, and the names of its
modules do not matter.
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
from xbench.training.rounding import same_but_for_rounding
from xbench.training.seeding import pin_tf32

_MAX_ROWS = 8
_SEED = 20


def check_examples_are_independent(
    model: nn.Module, loader: Loader, indices: np.ndarray, labels: np.ndarray
) -> None:
    """Compare examples with the same ones next to others, and a batch with its two halves, on at most eight.

    In training mode, with one seed, replacing the other examples must not change an example's loss. In
    evaluation mode, the outputs of the whole must be those of two parts. Both are tried in float64 where the
    model allows it and memory suffices, else in float32 (never TF32) and to 1e-4.

    Args:
        model: may not be used afterwards.
        indices: positions of examples in the dataset; two or more.
        labels: of all examples of the dataset.

    Raises:
        DependentExamples: the model mixes the examples of a batch.
    """
    size = min(_MAX_ROWS, len(indices))
    examples, _ = loader.load(indices[:size])
    targets = torch.from_numpy(labels[indices[:size]]).to(examples.device)
    dtype = next(p.dtype for p in model.parameters())
    # Its code may insist on float32, twice the memory may be too much, or it may need gradients.
    ways = [(torch.float64, False), (dtype, False), (dtype, True)]
    with guard_globals():
        pin_tf32(False)
        for way in ways:
            kind, with_gradients = way
            try:
                with torch.set_grad_enabled(with_gradients):
                    reason = _find_dependence(model.to(kind), examples.to(kind), targets)
                break
            except Exception:
                if way == ways[-1]:
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
    losses = _losses(model, examples, targets)
    for kept in (slice(0, half), slice(half, None)):
        mixed = others.clone()
        mixed[kept] = examples[kept]
        if not same_but_for_rounding(losses[kept], _losses(model, mixed, targets)[kept]):
            return "an example's loss in training depends on the other examples"
    model.eval()
    parts = torch.cat([model(examples[:half]), model(examples[half:])])
    if not same_but_for_rounding(model(examples), parts):
        return "outputs in evaluation depend on the other examples"
    return ""


def _losses(model: nn.Module, examples: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    seed_generators(_SEED)
    return functional.cross_entropy(model(examples), targets, reduction="none")
