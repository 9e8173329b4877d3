"""Save and load a model's state dict, and check that it holds all of the model's state.

Checkpoints and the weights of the selected epoch are state dicts, so both would lose any state that a model
keeps elsewhere. The spec of such a model must say `resumable=False`. If it does not, the memory pass detects
this before any of the model's cells is timed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from xbench.components.tracebacks import describe_error
from xbench.errors import XbenchError
from xbench.memory.exhaustion import evidence_of, exhaustion
from xbench.records.memory import NO_MEMORY_TO_CHECK
from xbench.training.compilation import run_uncompiled
from xbench.training.frozen import set_training
from xbench.training.global_state import guard_globals, seed_generators
from xbench.training.nested import list_tensors
from xbench.training.precision import widen
from xbench.training.rounding import equal_up_to_rounding, usual_share
from xbench.training.seeding import pin_tf32

if TYPE_CHECKING:
    from xbench.training.loop import Trainer

# Reasons why a model's cells are not saved.
DECLARED = "its ModelSpec says resumable=False"
_KEPT_ELSEWHERE = (
    "a new model that loads its state dict gives different outputs, so the model keeps state elsewhere: "
    "its ModelSpec should say resumable=False"
)
_NOT_LOADED = "its state dict cannot be saved and loaded"

_MAX_EXAMPLES = 8
_SEED = 21


def save_state(model: nn.Module, path: Path) -> None:
    """Save a model's state dict to a file, and replace any previous one.

    The file is always a new one, since a checkpoint may be linked to the previous one.
    """
    aside = path.with_suffix(".partial")
    torch.save(model.state_dict(), aside)
    aside.replace(path)


def load_state(model: nn.Module, path: Path) -> None:
    """Load a state dict into a model. Meanwhile, its tensors are in memory twice.

    Raises:
        Exception: of any type, if the file is damaged or belongs to another model.
    """
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))


def try_saving(model: nn.Module, path: Path) -> None:
    """Save a model's state dict and load it again, as for the selected epoch.

    Raises:
        XbenchError: the state dict cannot be saved and loaded.
        MemoryError, RuntimeError: memory ran out.
    """
    try:
        save_state(model, path)
        load_state(model, path)
    except Exception as error:  # a plugin's module may raise anything
        if exhaustion(evidence_of(error)):
            raise
        raise _cannot_restore(f"{_NOT_LOADED}: {describe_error(error)}") from error


def _cannot_restore(reason: str) -> XbenchError:
    return XbenchError(
        f'the weights of the selected epoch cannot be restored (selection = "last" restores none): {reason}'
    )


def hash_tensors(model: nn.Module) -> str:
    """Compute the SHA-256, in hex, of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
        digest.update(f"\0{name} {tuple(value.shape)} {value.dtype}".encode())
        dense = value.detach().to_dense() if value.is_sparse else value.detach()
        digest.update(dense.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class StateCheck:
    """Comparison of a trained model's outputs with those of a new model that has loaded its state dict.

    On a CPU both give the same outputs bit for bit; on CUDA a library may choose another kernel, so outputs
    may differ by rounding.

    Args:
        trainer: a trainer that has taken some steps. Drop it before `find_failure`: the new model then needs
            no more memory than the trainer's own did when it was built.
    """

    def __init__(self, trainer: Trainer):
        self._selection, self._path, self._failure = trainer.settings.selection, trainer.selected_path, ""
        with self._record_failures():
            # Outputs of a bfloat16 model are converted to float32, but have its rounding.
            self._share = usual_share(next(trainer.model.parameters()).dtype)
            size = min(_MAX_EXAMPLES, trainer.micro_batch)
            self._objective = trainer.objective.without_autocast()
            part = trainer.loader.load(trainer.split.train[:size])
            # Features that were computed under autocast have 16 bits, and only autocast converts them.
            self._part = part if trainer.settings.autocast == "off" else widen(part)
            save_state(trainer.model, self._path)
            self._expected = self._compute_outputs(trainer.model)

    def find_failure(self, build_model: Callable[[], nn.Module]) -> str:
        """Return why the model's cells cannot be saved; "" if they can.

        Args:
            build_model: builds the model as the trainer's own was built.

        Raises:
            XbenchError: an epoch is to be selected, whose restored weights would not give the same outputs.
        """
        same_evaluation = False
        with self._record_failures():
            if not self._failure:
                new = build_model()
                load_state(new, self._path)
                are_same = [
                    all(map(self._are_equal, expected, found))
                    for expected, found in zip(self._expected, self._compute_outputs(new), strict=True)
                ]
                self._failure = "" if all(are_same) else _KEPT_ELSEWHERE
                same_evaluation = are_same[0]
        if self._selection != "last" and not same_evaluation and self._failure != NO_MEMORY_TO_CHECK:
            raise _cannot_restore(self._failure)
        return self._failure

    @contextmanager
    def _record_failures(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # a full disk says nothing about the model
            raise
        except Exception as error:  # a plugin's module may raise anything
            ran_out = exhaustion(evidence_of(error))
            self._failure = NO_MEMORY_TO_CHECK if ran_out else f"{_NOT_LOADED}: {describe_error(error)}"

    def _compute_outputs(self, model: nn.Module) -> list[list[torch.Tensor]]:
        """Compute outputs in evaluation mode, and in training mode with fixed random numbers."""
        outputs = []
        with guard_globals(), run_uncompiled(model):
            pin_tf32(False)
            for set_mode, is_trained in ((nn.Module.eval, False), (set_training, True)):
                set_mode(model)
                seed_generators(_SEED)
                # A model may need gradients in training mode, for example to penalise them.
                with torch.set_grad_enabled(is_trained or self._objective.task.differentiates):
                    outputs.append([tensor.detach() for tensor in self._run(model)])
        return outputs

    def _are_equal(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        return equal_up_to_rounding(one, other, self._share)

    def _run(self, model: nn.Module) -> Iterator[torch.Tensor]:
        """Yield the floating-point outputs of a model, or the losses if the task computes no outputs."""
        terms = self._part if self._objective.task.terms else {"": self._part}
        for term, batch in terms.items():
            losses, outputs = self._objective.losses_of(model, batch, term)
            yield from filter(torch.is_floating_point, list_tensors(losses if outputs is None else outputs))
