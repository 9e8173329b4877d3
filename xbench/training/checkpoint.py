"""Saving what a training run can go on from, and going on from it.

A checkpoint is a folder: `model.pt` (the state dict), `state.pt` (optimizer, random state, position, sums)
and the weights that are selected so far. It is written aside, and counts once whoever listens to this process
has renamed it, with the trace that it had heard until then. Whether the state dict holds all of the model's
state is checked before, in the memory pass (see `state_dicts`), so that neither the time nor the memory of
the check is the cell's. Only plain values are in it: it is read with `weights_only=True`.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from xbench.storage.atomic import sync_file, sync_folder
from xbench.training.events import CheckpointWritten
from xbench.training.global_state import Generators
from xbench.training.state_dicts import load_state

if TYPE_CHECKING:
    from xbench.training.loop import Trainer

# Saving takes at most this share of a run's time: where the state is large, it is done more rarely.
_MAX_TIME_SHARE = 0.05


class Stopped(Exception):
    """The run was asked to stop, and did, after saving what it can go on from."""


@dataclass
class Checkpoints:
    """When a run saves itself, and where.

    Attributes:
        folder: of the run's checkpoints, and its alone.
        every_s: the least time between two; None for none at all.
        should_stop: whether the run was asked to end.
        spent_s: seconds that saving took.
    """

    folder: Path
    every_s: float | None = None
    should_stop: Callable[[], bool] = lambda: False
    spent_s: float = 0.0
    _last: float = field(default_factory=time.perf_counter)
    _wait_s: float = 0.0

    def after_step(self, trainer: Trainer) -> None:
        """Save the run, if it is time, or it is to stop.

        Raises:
            Stopped: it is to stop.
        """
        is_to_stop = self.should_stop()
        if self.every_s is not None and (is_to_stop or time.perf_counter() - self._last >= self._due_s):
            self._save(trainer)
        if is_to_stop:
            raise Stopped

    @property
    def _due_s(self) -> float:
        return max(self.every_s or 0.0, self._wait_s)

    def _save(self, trainer: Trainer) -> None:
        trainer.progress.losses += trainer.recorder.flush()  # who listens must have heard of every step
        trainer.stop_clock()
        started = time.perf_counter()
        aside = self.folder / f".step-{trainer.progress.steps:09}"
        try:
            _write(trainer, aside, self.spent_s)
            trainer.send(CheckpointWritten(aside, trainer.progress.steps))
        except Exception as error:  # of a full disk, of what cannot be pickled, of a plugin's `state_dict`
            # A run that cannot be resumed is better than none.
            print(f"no checkpoint at step {trainer.progress.steps}: {error}", file=sys.stderr)
            shutil.rmtree(aside, ignore_errors=True)
        self._last = time.perf_counter()
        self.spent_s += self._last - started
        self._wait_s = (self._last - started) / _MAX_TIME_SHARE
        trainer.start_clock()


def _write(trainer: Trainer, folder: Path, spent_s: float) -> None:
    """Write a checkpoint.

    Args:
        spent_s: on those before it; what this one takes is added as far as it is known.
    """
    started = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # Two files: beside its own parameters, the process that goes on holds one of them at a time.
    _save(trainer.model.state_dict(), folder / "model.pt")
    recorder, progress = trainer.recorder, trainer.progress
    if progress.selected:
        selected = folder / trainer.selected_path.name
        _link(trainer.selected_path, selected)
        sync_file(selected)
    state = {
        "optimizer": trainer.optimizer.state_dict(),
        "random": Generators.now().to_plain(),
        "progress": asdict(progress),
        "spent_s": [trainer.training_s, trainer.evaluation_s, spent_s + time.perf_counter() - started],
        "peaks": [recorder.host_peak_bytes, recorder.device_peak_bytes],
    }
    _save(state, folder / "state.pt")
    sync_folder(folder)


def _save(content: dict[str, Any], path: Path) -> None:
    torch.save(content, path)
    sync_file(path)


def resume(trainer: Trainer, folder: Path) -> None:
    """Bring a trainer that has not begun to where a checkpoint was written.

    Raises:
        Exception: of any kind, where the checkpoint is damaged or does not fit; the trainer is of no use
            then.
    """
    for file in folder.glob("*.pt"):
        _check(file)
    load_state(trainer.model, folder / "model.pt")
    state = torch.load(folder / "state.pt", map_location=_on(trainer.loader.device), weights_only=True)
    _restore_optimizer(trainer.optimizer, state["optimizer"])
    trainer.progress.__dict__.update(state["progress"])
    trainer.training_s, trainer.evaluation_s, trainer.checkpoints.spent_s = state["spent_s"]
    trainer.recorder.host_peak_bytes, trainer.recorder.device_peak_bytes = state["peaks"]
    if trainer.progress.selected:
        trainer.selected_path.unlink(missing_ok=True)
        _link(folder / trainer.selected_path.name, trainer.selected_path)
    Generators.from_plain(state["random"]).restore()


def _on(device: torch.device) -> Callable[[Any, str], Any]:
    """A `map_location` that brings what was on a CUDA device, perhaps one of another number, to this one.
    What was on the host (generators' states, Adam's counts of steps) stays there."""
    return lambda storage, location: storage.to(device=device) if location.startswith("cuda") else storage


def _link(path: Path, other: Path) -> None:
    """The same content under another name; a copy where a file system has one name a file."""
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def _check(file: Path) -> None:
    """Compare all of a file with its checksums, which `torch.load` passes over.

    Raises:
        Exception: it is damaged; of any kind.
    """
    with zipfile.ZipFile(file) as parts:
        damaged = parts.testzip()
    if damaged is not None:
        raise ValueError(f"{file.name} is damaged ({damaged})")


def _restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    optimizer.load_state_dict(saved)
    if type(optimizer).load_state_dict is torch.optim.Optimizer.load_state_dict:
        # It converts states to the parameters' dtype, which would not be what they were.
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.state.update({parameters[index]: state for index, state in saved["state"].items()})
