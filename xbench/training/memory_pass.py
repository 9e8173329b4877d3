"""Measure the memory that a configuration needs: take real steps with the full optimizer state, by phase.

This runs in a process of its own with malloc settings that return every freed block to the system, so that a
peak is memory in use. Timed cells are never measured this way, since it slows them down.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch import nn

from xbench.components.specs import OptimizerSpec
from xbench.memory.malloc import malloc_profile, release_free_memory
from xbench.memory.peaks import PeakMeter
from xbench.memory.phases import PhaseMeter, PhasePeak
from xbench.records.memory import MemoryPassRecord
from xbench.training.evaluation import evaluate
from xbench.training.footprint import gradients_bytes, model_bytes, optimizer_state_bytes
from xbench.training.loop import Trainer
from xbench.training.state_dicts import try_saving

MIN_STEPS, MAX_STEPS = 3, 12
MAX_S = 10.0

# Peaks that differ by less are equal: the kernel counts pages in batches.
NOISE_BYTES = 256 << 10


def measure_memory(trainer: Trainer, spec: OptimizerSpec) -> MemoryPassRecord:
    """Take a few steps with a trainer that has warmed up, evaluate a chunk, and save the weights.

    Steps continue while their peak rises: at least `MIN_STEPS`, at most `MAX_STEPS` or `MAX_S` seconds.
    With a `memory_period`, one step more than the period is taken (at least `MIN_STEPS`), however long it
    takes.

    Args:
        trainer: the trainer; its model and optimizer are changed.
        spec: the optimizer's spec.

    Raises:
        XbenchError: the model's weights cannot be saved and loaded.
        MemoryError, RuntimeError: memory ran out. Other exceptions are faults of a component.
    """
    if _keeps_weights(trainer):
        # What libraries load at first use is not part of a peak.
        try_saving(nn.Linear(1, 1), trainer.selected_path)
    fill_state = spec.load_fill_state()
    if fill_state is not None:
        fill_state(trainer.optimizer)
    meter, started = trainer.profiler.trained_on, time.perf_counter()
    trainer.set_mode("train")
    peaks: list[_Peak] = []
    rises = True
    while _should_continue(len(peaks), rises, time.perf_counter() - started, spec.memory_period):
        before = max((peak.of_phase.peak_bytes for peak in peaks), default=0)
        peaks.append(_take_step(trainer, meter, len(peaks) + 1))
        rises = peaks[-1].of_phase.peak_bytes > before + NOISE_BYTES
    steps = len(peaks)
    peaks.reverse()  # of equal peaks the last counts: by then, libraries have loaded what they need
    trainer.set_mode("eval")
    peaks.append(_evaluate(trainer, meter))
    if _keeps_weights(trainer):
        peaks.append(_keep_weights(trainer, meter))
    highest = max(peak.of_phase.peak_bytes for peak in peaks)
    chosen = next(peak for peak in peaks if peak.of_phase.peak_bytes > highest - NOISE_BYTES)
    return _make_record(trainer, chosen, steps)


def _keeps_weights(trainer: Trainer) -> bool:
    return trainer.settings.selection != "last"


def _should_continue(steps: int, rises: bool, seconds: float, period: int | None) -> bool:
    if period is not None:
        return steps < max(MIN_STEPS, period + 1)
    return steps < MIN_STEPS or (rises and steps < MAX_STEPS and seconds < MAX_S)


class _Peak(NamedTuple):
    """Peak of a phase, and the size of the optimizer's state at that time."""

    of_phase: PhasePeak
    state_bytes: int


def _take_step(trainer: Trainer, meter: PeakMeter, step: int) -> _Peak:
    size, order = trainer.batch_size, trainer.split.train
    batch = np.take(order, range((step - 1) * size, step * size), mode="wrap")
    trainer.closure.release()
    state_bytes = optimizer_state_bytes(trainer.optimizer, trainer.model)
    release_free_memory()
    phases = PhaseMeter(meter, gradients_bytes(trainer.model))
    trainer.closure.start(step, batch, phases)
    trainer.update()
    batch_bytes = trainer.closure.batch_bytes
    loaded_bytes = 0 if batch_bytes else trainer.loader.batch_bytes(trainer.micro_batch)
    peak = phases.end(gradients_bytes(trainer.model), batch_bytes, loaded_bytes)
    # State that was created in this step stays, so it counts as held and not as work memory.
    added = min(
        peak.optimizer_work_bytes,
        max(0, optimizer_state_bytes(trainer.optimizer, trainer.model) - state_bytes),
    )
    work_bytes, held_bytes = peak.optimizer_work_bytes - added, peak.held_bytes + added
    return _Peak(replace(peak, optimizer_work_bytes=work_bytes, held_bytes=held_bytes), state_bytes + added)


def _evaluate(trainer: Trainer, meter: PeakMeter) -> _Peak:
    """Measure the evaluation of as many examples as the trainer evaluates at once."""
    size, train, objective = trainer.evaluation_chunk, trainer.split.train, trainer.objective
    chunk = train[:size]
    if objective.task.terms:  # rows of different terms are evaluated apart
        of_terms = objective.by_term(train).items()
        chunk = np.concatenate(
            [np.resize(rows, min(size, objective.count_most(term))) for term, rows in of_terms]
        )
    held = _settle(trainer, meter)
    evaluate(trainer.model, trainer.loader, objective, chunk, size, "validation")
    peak = meter.peak_bytes()
    data = min(trainer.loader.batch_bytes(min(size, len(train))), peak - held)
    activations = peak - held - data
    of_phase = PhasePeak(peak, "evaluation", held, data_bytes=data, activations_bytes=activations)
    return _Peak(of_phase, optimizer_state_bytes(trainer.optimizer, trainer.model))


def _keep_weights(trainer: Trainer, meter: PeakMeter) -> _Peak:
    """Measure saving and loading the weights, as for the selected epoch."""
    held = _settle(trainer, meter)
    try_saving(trainer.model, trainer.selected_path)
    peak = meter.peak_bytes()
    of_phase = PhasePeak(peak, "keeping weights", held, keeping_bytes=peak - held)
    return _Peak(of_phase, optimizer_state_bytes(trainer.optimizer, trainer.model))


def _settle(trainer: Trainer, meter: PeakMeter) -> int:
    """Drop what the last step left, as the trainer does before it evaluates, and reset the peak.

    Returns:
        The bytes that are still held.
    """
    trainer.model.zero_grad()
    trainer.closure.release()
    release_free_memory()
    meter.reset()
    return min(meter.now_bytes(), meter.peak_bytes())


def _make_record(trainer: Trainer, peak: _Peak, steps: int) -> MemoryPassRecord:
    of_phase, resident_bytes = peak.of_phase, trainer.loader.resident_bytes
    parameters_bytes = model_bytes(trainer.model)
    return MemoryPassRecord(
        steps=steps,
        malloc=malloc_profile(),
        peak_bytes=of_phase.peak_bytes,
        peak_phase=of_phase.phase,
        process_bytes=of_phase.held_bytes - peak.state_bytes - parameters_bytes - resident_bytes,
        parameters_bytes=parameters_bytes,
        data_bytes=of_phase.data_bytes + resident_bytes,
        gradients_bytes=of_phase.gradients_bytes,
        optimizer_state_bytes=peak.state_bytes,
        optimizer_work_bytes=of_phase.optimizer_work_bytes,
        activations_bytes=of_phase.activations_bytes,
        keeping_bytes=of_phase.keeping_bytes,
        final_state_bytes=optimizer_state_bytes(trainer.optimizer, trainer.model),
    )
