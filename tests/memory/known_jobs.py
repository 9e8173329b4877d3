"""Jobs whose memory is known: of steps that allocate, and of cells by their model and optimizer."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import torch
from torch import nn

from xbench import ModelSpec
from xbench.capacity.axes import Axis
from xbench.capacity.workload import TrainingWorkload
from xbench.components import registry
from xbench.memory.profiler import StepProfiler
from xbench.training.cell import train_cell
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings, Choice, TrainingSettings

MB = 1_000_000


def touched(megabytes: int) -> np.ndarray:
    """An array whose every page is resident."""
    return np.ones(megabytes * MB, dtype=np.uint8)


def in_threads(count: int, megabytes: int) -> None:
    """That much in each of some threads, in all of them at once."""
    all_have_it = threading.Barrier(count)

    def allocate() -> None:
        array = touched(megabytes)
        all_have_it.wait()
        del array

    threads = [threading.Thread(target=allocate) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def rises_of_steps(send, megabytes, kinds):
    """The peak of each step above that of a first one which does nothing.

    Args:
        kinds: of each step: the megabytes are `freed` within it, `kept` after it, or `shared` by two threads
            which each take them; or all that was kept is `dropped`.
    """
    touched(1)
    in_threads(2, 1)  # what the first threads do is no part of a step
    profiler = StepProfiler()
    profiler.begin()
    profiler.end()
    kept = []
    for kind in kinds:
        profiler.begin()
        if kind == "freed":
            touched(megabytes)
        elif kind == "kept":
            kept.append(touched(megabytes))
        elif kind == "shared":
            in_threads(2, megabytes)
        elif kind == "dropped":
            kept.clear()
        else:
            raise ValueError(kind)
        profiler.end()
    base, *peaks = (profile.host_peak_bytes for profile in profiler.collect())
    return [peak - base for peak in peaks]


class Ballast(nn.Module):
    """A linear model beside one long parameter, one that is frozen and one buffer, which do next to nothing.

    Args:
        trained, frozen, buffer: elements.
    """

    def __init__(self, num_classes: int, trained: int, frozen: int, buffer: int):
        super().__init__()
        self.last = nn.Linear(3 * 16 * 16, num_classes)
        self.trained = nn.Parameter(torch.zeros(trained))
        self.frozen = nn.Parameter(torch.zeros(frozen), requires_grad=False)
        self.register_buffer("buffer", torch.zeros(buffer))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        nothing = self.trained.sum() + self.frozen[0] + self.buffer[0]
        return self.last(images.flatten(1)) + 1e-9 * nothing


def ballast(num_classes: int, trained: int = 1, frozen: int = 1, buffer: int = 1) -> nn.Module:
    return Ballast(num_classes, trained, frozen, buffer)


def train_ballast(send, model_params, optimizer, data, scratch, training):
    """A whole cell with that model, in the child that calls this."""
    return train_cell(
        send, CellJob(_settings(model_params, optimizer, training), data, scratch=Path(scratch))
    )


def measure_ballast(send, model_params, optimizer, data, scratch, training):
    """The memory pass of such a cell, in the child that calls this."""
    settings = _settings(model_params, optimizer, training)
    return TrainingWorkload(CellJob(settings, data), Axis.BATCH_SIZE).prepare()(training["batch_size"])


def _settings(model_params, optimizer, training) -> CellSettings:
    real_load = registry.load
    registry.load = lambda kind, name, dirs=(): (
        ModelSpec(factory=ballast) if name == "ballast" else real_load(kind, name, dirs)
    )
    return CellSettings(Choice("ballast", model_params), optimizer, TrainingSettings(**training), 0, "cpu")
