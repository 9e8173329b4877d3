"""Where within a step memory goes: by readings that are made up, and in a real process."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from tests.counted_memory import CountedMemory
from tests.memory import phase_jobs as jobs
from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child
from xbench.memory.phases import PhaseMeter, PhasePeak

MB = jobs.MB
GRADIENTS, OTHERS = 10, 90


class Step:
    """One bracketed step: a process of 90, of which gradients of 10 stand beside."""

    def __init__(self, gradients: int = GRADIENTS):
        self.memory = CountedMemory(OTHERS + gradients)
        self.gradients = gradients
        self.phases = PhaseMeter(self.memory, gradients)

    def closure(self, activations: int, loaded: int = 0) -> None:
        self.memory.give(self.gradients)
        self.phases.begin_closure()
        self.memory.take(loaded + activations + GRADIENTS)
        self.memory.give(loaded + activations)
        self.phases.end_closure()
        self.gradients = GRADIENTS

    def end(self, batch: int = 0, loaded: int = 0) -> PhasePeak:
        return self.phases.end(GRADIENTS, batch, loaded)


def closure_peak(activations: int, data: int = 0, work: int = 0, gradients: int = GRADIENTS) -> PhasePeak:
    """A peak within a closure, of these parts."""
    peak = OTHERS + data + gradients + work + activations
    return PhasePeak(peak, "closure", OTHERS, data, gradients, work, activations)


def update_peak(work: int, data: int = 0) -> PhasePeak:
    return PhasePeak(OTHERS + data + GRADIENTS + work, "update", OTHERS, data, GRADIENTS, work)


class TestScripted:
    @pytest.mark.parametrize("standing", [0, GRADIENTS])
    def test_closure_has_the_peak(self, standing):
        """At the first step there are no gradients yet."""
        step = Step(standing)
        step.closure(activations=50, loaded=5)
        step.memory.take(20)
        step.memory.give(20)
        assert step.end(loaded=5) == closure_peak(50, data=5)

    def test_a_peak_of_the_forward_pass_has_no_gradients_yet(self):
        step = Step()
        step.memory.give(GRADIENTS)
        step.phases.begin_closure()
        step.memory.take(50)
        step.phases.end_forward()
        step.memory.give(45)
        step.memory.take(GRADIENTS)
        step.memory.give(5)
        step.phases.end_closure()
        assert step.end() == closure_peak(50, gradients=0)

    @pytest.mark.parametrize("standing", [0, GRADIENTS])
    def test_update_has_the_peak(self, standing):
        step = Step(standing)
        step.closure(activations=50, loaded=5)
        step.memory.take(100)
        step.memory.give(100)
        assert step.end(loaded=5) == update_peak(100)

    @pytest.mark.parametrize("update", [0, 40, 60, 200])
    def test_parts_add_up_to_the_peak(self, update):
        """Whichever phase it is of."""
        step = Step()
        step.closure(activations=50, loaded=7)
        step.memory.take(update)
        peak, _, *parts = astuple(step.end(loaded=7))
        assert peak == sum(parts) == OTHERS + GRADIENTS + max(57, update)

    def test_what_an_optimizer_keeps_between_closures_is_its_own(self):
        """As a line search does: directions are held while the closure runs again."""
        step = Step()
        step.closure(activations=50)
        step.memory.take(40)
        step.closure(activations=50)
        step.memory.give(40)
        assert step.end() == closure_peak(50, work=40)

    def test_peak_between_closures(self):
        step = Step()
        step.closure(activations=50)
        step.memory.take(300)
        step.memory.give(300)
        step.closure(activations=50)
        assert step.end() == update_peak(300)

    def test_highest_closure_counts(self):
        step = Step()
        for activations in (20, 70, 30):
            step.closure(activations)
        assert step.end() == closure_peak(70)

    def test_batch_that_is_held_throughout_is_not_the_optimizers(self):
        """It is loaded once, before the first closure."""
        step = Step()
        step.memory.take(25)
        step.closure(activations=50)
        step.memory.take(30)
        step.memory.give(30)
        assert step.end(batch=25) == closure_peak(50, data=25)

    def test_batch_and_update(self):
        step = Step()
        step.memory.take(25)
        step.closure(activations=5)
        step.memory.take(80)
        assert step.end(batch=25) == update_peak(80, data=25)

    @pytest.mark.parametrize(("held", "update", "largest"), [(0, 30, 40), (40, 0, 50), (40, 60, 110)])
    def test_what_the_optimizer_takes_is_known_whichever_phase_has_the_peak(self, held, update, largest):
        """Activations of 200 make the closure the peak. What is held stays for the update."""
        step = Step()
        step.memory.take(held)
        step.closure(activations=200)
        step.memory.take(update)
        assert step.end().phase == "closure"
        assert step.phases.optimizer_bytes == held + update + GRADIENTS == largest

    def test_sums_of_gradients_count_as_gradients(self):
        """As the float32 sums of bfloat16 gradients do."""
        step = Step()
        step.closure(activations=50 + 2 * GRADIENTS)
        found = step.phases.end(GRADIENTS, 0, 0, sums_bytes=2 * GRADIENTS)
        assert found == closure_peak(50, gradients=3 * GRADIENTS)
        assert step.phases.optimizer_bytes == 3 * GRADIENTS

    def test_never_negative(self):
        """Readings are batched by the kernel, and may be a little less than the tensors' sizes."""
        step = Step()
        step.closure(activations=0)
        profile = step.phases.end(GRADIENTS + 3, 3, 3)
        assert (profile.activations_bytes, profile.optimizer_work_bytes) == (0, 0)


class TestRealProcess:
    @pytest.mark.parametrize(
        ("amounts", "phase", "activations", "work", "rise"),
        [
            ({"activations": 80, "held_between": 0, "update": 30}, "closure", 80, 0, 80),
            ({"activations": 40, "held_between": 0, "update": 90}, "update", 40, 90, 90),
            ({"activations": 60, "held_between": 25, "update": 0, "closures": 3}, "closure", 60, 50, 110),
            ({"activations": 10, "held_between": 20, "update": 50, "closures": 2}, "update", 10, 90, 90),
        ],
        ids=["closure", "update", "between", "both"],
    )
    def test_is_broken_down(self, amounts, phase, activations, work, rise):
        limits = Limits(malloc="exact", threads=1)
        profile = run_in_child(jobs.bracketed_step, 20, *amounts.values(), limits=limits).value
        assert profile.phase == phase
        if phase == "closure":  # in an update, they are free already
            assert profile.activations_bytes == pytest.approx(activations * MB, abs=2 * MB)
        assert profile.optimizer_work_bytes == pytest.approx(work * MB, abs=2 * MB)
        assert profile.peak_bytes > (20 + rise) * MB
