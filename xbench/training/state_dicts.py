"""Save and load a model's state dict, and check that it holds all of the model's state.

A checkpoint and the weights of the selected epoch are state dicts. What a model keeps elsewhere would be lost
in both, so its spec must say `resumable=False`. One that does not say so is detected in the memory pass,
before any of its cells is timed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from xbench.components.tracebacks import in_one_line
from xbench.errors import XbenchError
from xbench.memory.exhaustion import evidence_of, exhaustion
from xbench.records.schema import NO_MEMORY_TO_CHECK
from xbench.training.frozen import set_training
from xbench.training.global_state import guard_globals, seed_generators
from xbench.training.rounding import same_but_for_rounding
from xbench.training.seeding import pin_tf32

if TYPE_CHECKING:
    from xbench.training.loop import Trainer

# Why cells of a model are not saved.
DECLARED = "its ModelSpec says resumable=False"
_KEPT_ELSEWHERE = (
    "a new model that loads its state dict gives other outputs, so it keeps state elsewhere: "
    "its ModelSpec should say resumable=False"
)
_NOT_LOADED = "its state dict cannot be saved and loaded"

_MAX_EXAMPLES = 8
_SEED = 21


def save_state(model: nn.Module, path: Path) -> None:
    """Save a model's state dict in place of what the file held.

    The file is a new one each time: a checkpoint may hold a link to the old one.
    """
    aside = path.with_suffix(".partial")
    torch.save(model.state_dict(), aside)
    aside.replace(path)


def load_state(model: nn.Module, path: Path) -> None:
    """Load a state dict into a model. Its tensors are in memory a second time meanwhile.

    Raises:
        Exception: of any kind, where the file is damaged or of another model.
    """
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))


def try_out(model: nn.Module, path: Path) -> None:
    """Save a model's state dict and load it back, as at its selected epoch.

    Raises:
        XbenchError: it does not load.
        MemoryError, RuntimeError: there is too little memory.
    """
    try:
        save_state(model, path)
        load_state(model, path)
    except Exception as error:  # a plugin's module may raise anything
        if exhaustion(evidence_of(error)):
            raise
        raise _unselectable(f"{_NOT_LOADED}: {in_one_line(error)}") from error


def _unselectable(reason: str) -> XbenchError:
    return XbenchError(
        f'the weights of the selected epoch cannot be brought back (selection = "last" needs none): {reason}'
    )


def tensors_digest(model: nn.Module) -> str:
    """SHA-256, in hex, of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
        digest.update(f"\0{name} {tuple(value.shape)} {value.dtype}".encode())
        dense = value.detach().to_dense() if value.is_sparse else value.detach()
        digest.update(dense.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class StateCheck:
    """Checks that a fresh model does what a trained one does, once it has loaded its state dict.

    On a CPU both give the same outputs bit for bit; on CUDA a library may choose another kernel, so outputs
    may differ by rounding.

    Args:
        trainer: that has taken some steps. Drop it afterwards: the fresh model then needs no more memory than
            the trainer's own did when it was built.
    """

    def __init__(self, trainer: Trainer):
        self._selection, self._path, self._failure = trainer.settings.selection, trainer.selected_path, ""
        with self._noting_failures():
            size = min(_MAX_EXAMPLES, trainer.micro_batch)
            self._images, _ = trainer.loader.load(trainer.split.train[:size])
            save_state(trainer.model, self._path)
            self._expected = _outputs(trainer.model, self._images)

    def find_failure(self, build_model: Callable[[], nn.Module]) -> str:
        """Return why the cells of the model cannot be saved; "" if they can.

        Args:
            build_model: builds the model as the trainer's own was built.

        Raises:
            XbenchError: a selected epoch is to be brought back, and would not give the same outputs either.
        """
        evaluates_alike = False
        with self._noting_failures():
            if not self._failure:
                fresh = build_model()
                load_state(fresh, self._path)
                are_same = list(map(same_but_for_rounding, self._expected, _outputs(fresh, self._images)))
                self._failure = "" if all(are_same) else _KEPT_ELSEWHERE
                evaluates_alike = are_same[0]
        if self._selection != "last" and not evaluates_alike and self._failure != NO_MEMORY_TO_CHECK:
            raise _unselectable(self._failure)
        return self._failure

    @contextmanager
    def _noting_failures(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # of a full disk, which says nothing of the model
            raise
        except Exception as error:  # a plugin's module may raise anything
            ran_out = exhaustion(evidence_of(error))
            self._failure = NO_MEMORY_TO_CHECK if ran_out else f"{_NOT_LOADED}: {in_one_line(error)}"


def _outputs(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Outputs in evaluation mode, and in training mode with fixed random draws."""
    outputs = []
    with guard_globals():
        pin_tf32(False)
        for set_mode, is_trained in ((nn.Module.eval, False), (set_training, True)):
            set_mode(model)
            seed_generators(_SEED)
            # A model may need gradients in training mode: for a penalty on them, say.
            with torch.set_grad_enabled(is_trained):
                outputs.append(model(images).detach())
    return outputs
