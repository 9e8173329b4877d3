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

from xbench.memory.malloc import malloc_profile, release_free_memory
from xbench.memory.peaks import PeakMeter, release_all
from xbench.memory.phases import PhaseMeter, PhasePeak
from xbench.records.memory import MemoryPassRecord
from xbench.training.compilation import run_uncompiled
from xbench.training.evaluation import evaluate
from xbench.training.footprint import gradients_bytes, model_bytes, optimizer_state_bytes
from xbench.training.loop import Trainer
from xbench.training.optimizer import LoadedOptimizer
from xbench.training.state_dicts import try_saving

MIN_STEPS, MAX_STEPS = 3, 12
MAX_S = 10.0

# Peaks that differ by less are equal: the kernel counts pages in batches.
NOISE_BYTES = 256 << 10

# Batch norm needs more than one example.
_FEW_EXAMPLES = 2


def measure_memory(trainer: Trainer, optimizer: LoadedOptimizer) -> MemoryPassRecord:
    """Take a few steps with a trainer that has warmed up, evaluate a chunk, and save the weights.

    Steps continue while their peak rises: at least `MIN_STEPS`, at most `MAX_STEPS` or `MAX_S` seconds.
    With a `memory_period`, one step more than the period is taken (at least `MIN_STEPS`), however long it
    takes. After that, a fused optimizer takes as many steps with two examples each, which are not counted.

    Args:
        trainer: the trainer; its model and optimizer are changed.
        optimizer: what the trainer's optimizer was built from.

    Raises:
        XbenchError: the model's weights cannot be saved and loaded.
        MemoryError, RuntimeError: memory ran out. Other exceptions are faults of a component.
    """
    if _keeps_weights(trainer):
        # What libraries load at first use is not part of a peak.
        try_saving(nn.Linear(1, 1), trainer.selected_path)
    release_all(trainer.loader.device)  # models that were built for checks may be in reference cycles
    optimizer.fill_state(trainer.optimizer)
    meter, started = trainer.profiler.trained_on, time.perf_counter()
    trainer.set_mode("train")
    peaks: list[_Peak] = []
    rises = True
    while _should_continue(len(peaks), rises, time.perf_counter() - started, optimizer.memory_period):
        before = max((peak.of_phase.peak_bytes for peak in peaks), default=0)
        peaks.append(_take_step(trainer, meter, len(peaks) + 1, trainer.batch_size))
        rises = peaks[-1].of_phase.peak_bytes > before + NOISE_BYTES
    steps = len(peaks)
    optimizer_bytes = max(peak.optimizer_bytes for peak in peaks)
    if trainer.closure.is_fused:
        optimizer_bytes = _measure_fused(trainer, meter, steps)
        peaks = [_separate_activations(peak, optimizer_bytes) for peak in peaks]
    peaks.reverse()  # of equal peaks the last counts: by then, libraries have loaded what they need
    trainer.set_mode("eval")
    peaks.append(_evaluate(trainer, meter))
    if _keeps_weights(trainer):
        peaks.append(_keep_weights(trainer, meter))
    highest = max(peak.of_phase.peak_bytes for peak in peaks)
    chosen = next(peak for peak in peaks if peak.of_phase.peak_bytes > highest - NOISE_BYTES)
    return _make_record(trainer, chosen, steps, optimizer_bytes)


def _keeps_weights(trainer: Trainer) -> bool:
    return trainer.settings.selection != "last"


def _should_continue(steps: int, rises: bool, seconds: float, period: int | None) -> bool:
    if period is not None:
        return steps < max(MIN_STEPS, period + 1)
    return steps < MIN_STEPS or (rises and steps < MAX_STEPS and seconds < MAX_S)


class _Peak(NamedTuple):
    """Peak of a phase, and what the optimizer held.

    Attributes:
        state_bytes: size of the optimizer's state at the peak.
        optimizer_bytes: the most that state, gradients and the optimizer's work took together in any phase of
            the step; 0 outside of steps.
    """

    of_phase: PhasePeak
    state_bytes: int
    optimizer_bytes: int = 0


def _measure_fused(trainer: Trainer, meter: PeakMeter, steps: int) -> int:
    """Measure what a fused optimizer takes, in steps of a few examples, which have few activations.

    Such an optimizer works while activations exist, so its part of a larger batch's peak cannot be read.

    Returns:
        The most that state, gradients, the optimizer's work and these few activations take together.
    """
    size = min(trainer.batch_size, _FEW_EXAMPLES)
    with run_uncompiled(trainer.model):  # the model is not compiled for batches of this size
        taken = [_take_step(trainer, meter, steps + number, size) for number in range(1, steps + 1)]
    return max(peak.optimizer_bytes for peak in taken)


def _separate_activations(peak: _Peak, optimizer_bytes: int) -> _Peak:
    """Count as activations what a fused optimizer seems to take in a step beyond what it needs."""
    of_phase = peak.of_phase
    most = max(0, optimizer_bytes - peak.state_bytes - of_phase.gradients_bytes)
    work = min(of_phase.optimizer_work_bytes, most)
    activations = of_phase.activations_bytes + of_phase.optimizer_work_bytes - work
    return peak._replace(of_phase=replace(of_phase, optimizer_work_bytes=work, activations_bytes=activations))


def _take_step(trainer: Trainer, meter: PeakMeter, step: int, size: int) -> _Peak:
    order = trainer.split.train
    batch = np.take(order, range((step - 1) * size, step * size), mode="wrap")
    trainer.closure.release()
    state_bytes = optimizer_state_bytes(trainer.optimizer, trainer.model)
    release_free_memory()
    phases = PhaseMeter(meter, gradients_bytes(trainer.model))
    trainer.closure.start(step, batch, phases)
    trainer.optimizer.step(trainer.closure)  # type: ignore[arg-type]
    step_gradients_bytes = gradients_bytes(trainer.model)
    trainer.closure.end()  # drops gradients that can be differentiated
    batch_bytes = trainer.closure.batch_bytes
    loaded_bytes = 0 if batch_bytes else trainer.loader.batch_bytes(trainer.micro_batch)
    peak = phases.end(step_gradients_bytes, batch_bytes, loaded_bytes, trainer.closure.sums_bytes)
    new_state_bytes = optimizer_state_bytes(trainer.optimizer, trainer.model) - state_bytes
    # State that was created in this step stays, so it counts as held and not as work memory.
    added = min(peak.optimizer_work_bytes, max(0, new_state_bytes))
    work_bytes, held_bytes = peak.optimizer_work_bytes - added, peak.held_bytes + added
    of_phase = replace(peak, optimizer_work_bytes=work_bytes, held_bytes=held_bytes)
    release_free_memory()
    left_bytes = meter.now_bytes() - gradients_bytes(trainer.model) - batch_bytes - phases.base_bytes
    # Whatever else stays is not the optimizer's: libraries keep what they load at first use.
    loaded_at_first_use = max(0, left_bytes - new_state_bytes)
    optimizer_bytes = state_bytes + phases.optimizer_bytes - loaded_at_first_use
    return _Peak(of_phase, state_bytes + added, optimizer_bytes)


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


def _make_record(trainer: Trainer, peak: _Peak, steps: int, optimizer_peak_bytes: int) -> MemoryPassRecord:
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
        optimizer_peak_bytes=optimizer_peak_bytes,
    )
