"""Save checkpoints of a training run, and resume from them.

A checkpoint is a folder: `model.pt` (the state dict), `state.pt` (optimizer, random state, progress, times)
and the weights of the epoch selected so far. It is written under a temporary name, and becomes valid when the
parent process renames it, together with the trace that it has received until then. The memory pass checks
beforehand that the state dict holds all of the model's state (see `state_dicts`), so that the check takes
neither time nor memory of the cell. Checkpoints hold only plain values and are read with `weights_only=True`.
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
from xbench.training.optimizer_methods import restore_optimizer
from xbench.training.state_dicts import load_state

if TYPE_CHECKING:
    from xbench.training.loop import Trainer

# Maximum share of a run's time spent on saving: a run with a large state is saved less often.
_MAX_TIME_SHARE = 0.05

# More than any machine has.
_MAX_CUDA_DEVICES = 64


class Stopped(Exception):
    """Raised to end a run that was asked to stop, after an attempt to save a checkpoint."""


@dataclass
class Checkpoints:
    """Schedule and folder of a run's checkpoints.

    Attributes:
        folder: folder for the checkpoints of this run only.
        every_s: minimum seconds between two checkpoints; None for no checkpoints.
        should_stop: returns whether the run was asked to stop.
        spent_s: seconds spent on saving.
    """

    folder: Path
    every_s: float | None = None
    should_stop: Callable[[], bool] = lambda: False
    spent_s: float = 0.0
    _last: float = field(default_factory=time.perf_counter)
    _wait_s: float = 0.0

    def after_step(self, trainer: Trainer) -> None:
        """Save the run if a checkpoint is due, or if it was asked to stop.

        Raises:
            Stopped: the run was asked to stop.
        """
        must_stop = self.should_stop()
        if self.every_s is not None and (must_stop or time.perf_counter() - self._last >= self._interval_s):
            self._save(trainer)
        if must_stop:
            raise Stopped

    def raise_if_stopping(self) -> None:
        """Raise `Stopped` if the run was asked to stop. There is nothing to save yet."""
        if self.should_stop():
            raise Stopped

    @property
    def _interval_s(self) -> float:
        return max(self.every_s or 0.0, self._wait_s)

    def _save(self, trainer: Trainer) -> None:
        trainer.progress.losses += trainer.recorder.flush()  # the parent must have received every step
        trainer.stop_clock()
        started = time.perf_counter()
        aside = self.folder / f".step-{trainer.progress.steps:09}"
        try:
            write(trainer, aside, self.spent_s)
            trainer.send(CheckpointWritten(aside, trainer.progress.steps))
        except Exception as error:  # a full disk, an object that cannot be pickled, a plugin's `state_dict`
            # A run that cannot be resumed is better than no run.
            print(f"no checkpoint at step {trainer.progress.steps}: {error}", file=sys.stderr)
            shutil.rmtree(aside, ignore_errors=True)
        self._last = time.perf_counter()
        self.spent_s += self._last - started
        self._wait_s = (self._last - started) / _MAX_TIME_SHARE
        trainer.start_clock()


def write(trainer: Trainer, folder: Path, spent_s: float = 0.0) -> None:
    """Write a checkpoint into a new folder.

    Args:
        spent_s: seconds spent on earlier checkpoints; those of this one are added as far as they are known.
    """
    started = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # Two files, so that a process that resumes needs memory for only one of them beside its own parameters.
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
    """Restore the state of a checkpoint in a trainer that has not started.

    Raises:
        Exception: of any type, if the checkpoint is damaged or does not fit. The trainer is then unusable.
    """
    for file in folder.glob("*.pt"):
        _verify_checksums(file)
    load_state(trainer.model, folder / "model.pt")
    state = torch.load(folder / "state.pt", map_location=_map_to(trainer.loader.device), weights_only=True)
    restore_optimizer(trainer.optimizer, state["optimizer"])
    trainer.progress.__dict__.update(state["progress"])
    trainer.training_s, trainer.evaluation_s, trainer.checkpoints.spent_s = state["spent_s"]
    trainer.recorder.host_peak_bytes, trainer.recorder.device_peak_bytes = state["peaks"]
    if trainer.progress.selected:
        trainer.selected_path.unlink(missing_ok=True)
        _link(folder / trainer.selected_path.name, trainer.selected_path)
    Generators.from_plain(state["random"]).restore()


def _map_to(device: torch.device) -> dict[Any, str]:
    """Return a `map_location` that loads tensors of any CUDA device to `device`.

    Tensors that were on the host (generator states, Adam's step counts) stay there. It is not a function,
    because torch cannot load tensors that wrap others, such as quantised ones, with a function.
    """
    names = [f"cuda:{index}" for index in range(_MAX_CUDA_DEVICES)]
    return dict.fromkeys([*names, *map(torch.device, names)], str(device))


def _link(path: Path, other: Path) -> None:
    """Create a hard link to a file, or a copy where the file system has no hard links."""
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def _verify_checksums(file: Path) -> None:
    """Compare all of a file with its checksums, which `torch.load` ignores.

    Raises:
        Exception: of any type, if the file is damaged.
    """
    with zipfile.ZipFile(file) as parts:
        damaged = parts.testzip()
    if damaged is not None:
        raise ValueError(f"{file.name} is damaged ({damaged})")
