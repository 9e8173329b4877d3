"""Check that a model and a task treat the rows of a batch independently, as exact micro-batches require.

Batch normalisation does not, whether it is torch's own class or written by hand, and no accumulation over
parts can make it exact; nor does a contrastive loss, or one that is a mean over the batch. Dropout does,
since each row has its own mask. So the check runs them, and does not depend on the names of modules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from xbench.components.metric import Batch
from xbench.errors import DependentExamples
from xbench.training.frozen import set_training
from xbench.training.global_state import guard_globals, seed_generators
from xbench.training.loader import Loader
from xbench.training.nested import convert, count_bytes
from xbench.training.objective import Objective
from xbench.training.rounding import equal_up_to_rounding
from xbench.training.seeding import pin_tf32

_MAX_ROWS = 8
_SEED = 20

_IN_TRAINING = "an example's loss in training depends on the other examples"
_DECLARED = "the loss of an example depends on the other examples, as its task declares"
_IN_EVALUATION = "outputs in evaluation depend on the other examples"


def check_examples_are_independent(
    model: nn.Module, loader: Loader, objective: Objective, indices: np.ndarray
) -> None:
    """Check on at most eight rows that the loss of one does not depend on the others.

    In training mode, with a fixed seed, replacing the other rows must not change a row's loss. In evaluation
    mode, the losses of a batch must be those of its two halves. Both are checked in float64 if the model
    allows it and memory suffices, otherwise in the training's dtype (float32 for bfloat16; never TF32 or
    autocast) with a tolerance of 1e-4.

    Args:
        model: the model; it must not be used afterwards.
        indices: positions of at least two rows in the dataset.

    Raises:
        DependentExamples: the model or the task mixes the rows of a batch.
    """
    for rows in objective.by_term(indices).values():
        if not objective.task.additive:  # a few rows need not show it
            reason = _DECLARED
        else:
            reason = _find_dependence(model, loader, objective, rows) if len(rows) > 1 else ""
        if reason:
            raise DependentExamples(
                f"{reason}: the model or the task mixes the examples of a batch, as batch normalisation and "
                "contrastive losses do, so micro-batches would train a different function (use micro_batch = "
                '"full")',
            )


def are_losses_dependent(model: nn.Module, loader: Loader, objective: Objective, rows: np.ndarray) -> bool:
    """Return whether a task by itself mixes the rows of a batch: with the model in evaluation mode.

    Args:
        rows: positions of at least two rows of the same term.
    """
    return bool(_find_dependence(model, loader, objective, rows, in_training=False))


def _find_dependence(
    model: nn.Module, loader: Loader, objective: Objective, rows: np.ndarray, in_training: bool = True
) -> str:
    """Say how a row's loss depends on the other rows; "" if it does not."""
    objective, with_gradients = objective.without_autocast(), objective.task.differentiates
    dtype = next(p.dtype for p in model.parameters())
    dtype = torch.float32 if dtype is torch.bfloat16 else dtype
    # The model may insist on float32, twice the memory may be too much, or the model may need gradients.
    attempts = [(torch.float64, with_gradients), (dtype, with_gradients), (dtype, True)]
    with guard_globals():
        pin_tf32(False)
        for place, (precision, enabled) in enumerate(attempts, start=1):
            try:
                with torch.set_grad_enabled(enabled):
                    compared = _Compared(model.to(precision), loader, objective, precision)
                    return compared.find_dependence(rows[:_MAX_ROWS], in_training)
            except Exception:
                if place == len(attempts):
                    raise
    raise AssertionError("the last attempt returns or raises")


@dataclass(frozen=True)
class _Compared:
    """A model and a task whose losses are compared between batches."""

    model: nn.Module
    loader: Loader
    objective: Objective
    precision: torch.dtype

    def find_dependence(self, rows: np.ndarray, in_training: bool) -> str:
        if in_training:
            set_training(self.model)
            if self._mixes(rows):
                return _IN_TRAINING
        self.model.eval()
        return _IN_EVALUATION if self._mixes(rows) or self._differs_in_parts(rows) else ""

    def _mixes(self, rows: np.ndarray) -> bool:
        """Return whether the losses of half of the rows change if the other rows are replaced.

        Each row keeps its place, and so the random numbers that are drawn for it.
        """
        whole, longest = self.losses(rows), self._find_longest(rows)
        half = len(rows) // 2
        for kept in (slice(0, half), slice(half, None)):
            mixed = np.full_like(rows, rows[kept][0] if longest is None else longest)
            mixed[kept] = rows[kept]
            if not equal_up_to_rounding(whole[kept], self.losses(mixed)[kept]):
                return True
        return False

    def _differs_in_parts(self, rows: np.ndarray) -> bool:
        """Return whether the losses of the whole are not those of its halves, if nothing is random.

        With noise in its inputs or outputs, such as that of a variational autoencoder, a row draws others in
        a smaller batch.
        """
        whole, half = self.losses(rows), len(rows) // 2
        if not equal_up_to_rounding(whole, self.losses(rows, _SEED + 1)):
            return False
        return not equal_up_to_rounding(
            whole, torch.cat([self.losses(rows[:half]), self.losses(rows[half:])])
        )

    def _find_longest(self, rows: np.ndarray) -> int | None:
        """Return the row that decides how long a padded batch is, and thereby how many numbers dropout draws.

        Returns:
            None if all rows have the same size.
        """
        sizes = [count_bytes(self._load(rows[place : place + 1])[1]) for place in range(len(rows))]
        return None if min(sizes) == max(sizes) else int(rows[np.argmax(sizes)])

    def _load(self, rows: np.ndarray) -> tuple[str, Batch]:
        """Load rows of the same term; also return the term."""
        part = self.loader.load(rows)
        return next(iter(part.items())) if self.objective.task.terms else ("", part)

    def losses(self, rows: np.ndarray, seed: int = _SEED) -> torch.Tensor:
        term, batch = self._load(rows)
        seed_generators(seed)
        return self.objective.losses_of(self.model, convert(batch, self.precision), term)[0].detach()
