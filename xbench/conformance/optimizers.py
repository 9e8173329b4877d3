"""Checks of what an optimizer does when it trains."""

from __future__ import annotations

import functools
import math
import pickle
from dataclasses import dataclass, replace
from typing import Any

from xbench.components.tracebacks import describe_error
from xbench.conformance.bench import Run, find_changed, measure_state
from xbench.conformance.checked_optimizer import STEPS, CheckedOptimizer
from xbench.conformance.checks import Verdict, fact, failed, not_applicable, passed
from xbench.memory.exhaustion import raise_if_exhausted
from xbench.training.footprint import storage_bytes
from xbench.training.global_state import Generators
from xbench.training.trial import try_optimizer

# The step after which a run is stopped. It divides neither the number of steps nor usual periods.
STOP_AFTER = 7
# Steps whose state may still grow without a `memory_period`.
_SETTLING_STEPS = 2
# Longer periods are not checked, since each of their steps takes time.
_MAX_PERIOD = 200
# How far the measured state may be from the declared one, in vectors and as a share.
_STATE_TOLERANCE = 0.01


def check_trial(tried: CheckedOptimizer) -> Verdict:
    """Take the two steps that precede every run."""
    complaint = try_optimizer(tried.spec, tried.params, import_dirs=tried.dirs)
    return failed(complaint) if complaint else passed("passes the trial that precedes a run")


def check_loss(tried: CheckedOptimizer) -> Verdict:
    """Train, and compare the loss before and after."""
    run = tried.attempt
    if isinstance(run, str):
        return failed(run)
    if run.problem:
        return failed(f"the loss diverges: {run.problem}")
    first, last = run.losses[0], run.final_loss
    if not math.isfinite(last):
        return failed(f"the loss is {last} after {STEPS} steps")
    text = f"loss {first:.4g} -> {last:.4g} in {STEPS} steps ({last / first:.3g} times)"
    values = {"first_loss": first, "last_loss": last, "ratio": last / first, "steps": STEPS}
    if last < first:
        return passed(text, **values)
    return fact(f"does not lower the loss of a small problem: {text}", **values)


def check_closures(tried: CheckedOptimizer) -> Verdict:
    """Count the closure calls of each step."""
    counts = tried.whole.closures
    least, most = min(counts), max(counts)
    mean = sum(counts) / len(counts)
    times = "1 closure call" if most == 1 else f"{most} closure calls"
    text = (
        f"{times} a step"
        if least == most
        else f"{least} to {most} closure calls a step, {mean:.1f} on average"
    )
    return fact(text, closures_per_step=mean, least=least, most=most)


def check_repeats(tried: CheckedOptimizer) -> Verdict:
    """Train twice with the same seed, and compare all losses and the weights."""
    if tried.whole.problem:
        return not_applicable(tried.whole.problem)
    if tried.repeats:
        return passed("two runs with the same seed are equal bit for bit", repeats=True)
    where = _name_step(tried.whole.losses, tried.again.losses)
    return failed(
        f"two runs with the same seed differ, {where}: it draws from a generator of its own that is not "
        "seeded, or keeps state outside of the optimizer",
        repeats=False,
    )


def check_random_numbers(tried: CheckedOptimizer) -> Verdict:
    """Find out whether building or stepping changes the global random number generators."""
    # Several first steps with other seeds: a generator that ends in the same state was seeded again.
    tried.whole  # noqa: B018 -- says whether it can be trained at all
    runs = [_watch_building(tried, seed) for seed in (1, 2)]
    said = []
    for what, states, kept in (
        ("building", [run.built for run in runs], "xbench restores it"),
        ("a step", [run.stepped for run in runs], "checkpoints hold its state"),
    ):
        changed = {name for before, after in states for name in find_changed(before, after)}
        still_differ = find_changed(*(after for _, after in states))
        for action, names in (("seeds", changed - still_differ), ("draws from", changed & still_differ)):
            if names:
                said.append(f"{what} {action} the global generator of {' and '.join(sorted(names))} ({kept})")
    text = "; ".join(said) or "uses no global random number generator"
    return fact(text, draws=bool(said))


def check_resume(tried: CheckedOptimizer) -> Verdict:
    """Stop a run, resume it from its checkpoint, and compare it with one that was never stopped."""
    whole, is_declared = tried.repeatable, tried.loaded.resumable
    difference = _find_difference(tried, whole)
    if is_declared:
        return (
            failed(f"resumable=True, but {difference}", resumes=False)
            if difference
            else passed("a run that is resumed from a checkpoint is equal bit for bit", resumes=True)
        )
    if difference:
        return fact(f"resumable=False is correct: {difference}", resumes=False)
    return fact(
        "resumable=False, but a run that is resumed from a checkpoint is equal bit for bit: it could be True",
        resumes=True,
    )


def check_state_size(tried: CheckedOptimizer) -> Verdict:
    """Compare the size of the state with the declared one."""
    run = _fill(tried) if _fills(tried) else tried.whole
    optimizer, parameters = tried.own_part(run.trainer)
    vectors_bytes, counters_bytes = measure_state(optimizer, run.trainer.model)
    measured = vectors_bytes / storage_bytes(parameters)
    expected = tried.spec.state_vectors(tried.loaded.facts_of_state(optimizer, parameters))
    shown = f"the state takes {measured:.3g} times as much memory as the parameters"
    if counters_bytes:
        shown += f" (without {counters_bytes:,} bytes of one-element and other tiny tensors)"
    if expected is None:
        return fact(f"{shown}; state_vectors is not declared", state_vectors=measured)
    text = f"{shown}; state_vectors says {expected:.3g}"
    if math.isclose(measured, expected, rel_tol=_STATE_TOLERANCE, abs_tol=_STATE_TOLERANCE):
        return passed(text, state_vectors=measured, declared=expected)
    return failed(text, state_vectors=measured, declared=expected)


def check_state_growth(tried: CheckedOptimizer) -> Verdict:
    """Check that the state does not grow after the steps that the spec declares."""
    period = tried.loaded.memory_period
    if period is not None and period > _MAX_PERIOD:
        return not_applicable(f"memory_period is {period:,} steps, and at most {_MAX_PERIOD} are checked")
    if _fills(tried):
        sizes, settled, after = _fill(tried, steps=4).state_bytes, 1, "fill_state and a step"
    elif period is not None:
        steps = max(STEPS, 2 * period + 2)
        run = tried.whole if steps == STEPS else tried.train(steps=steps)
        sizes, settled, after = (
            run.state_bytes,
            max(period + 1, _SETTLING_STEPS),
            f"a memory_period of {period}",
        )
    else:
        sizes, settled, after = tried.whole.state_bytes, _SETTLING_STEPS, f"step {_SETTLING_STEPS}"
    if len(sizes) <= settled:
        return not_applicable("too few steps were taken")
    largest = max(sizes[:settled])
    grown = next(
        (step for step, size in enumerate(sizes, start=1) if step > settled and size > largest), None
    )
    if grown is None:
        return passed(f"the state does not grow after {after}")
    sizes_text = f"from {largest:,} to {sizes[grown - 1]:,} bytes"
    advice = "declare memory_period or fill_state"
    if _fills(tried):
        advice = "fill_state should fill all of it"
    elif period is not None:
        advice = "the period is too short, or fill_state should be declared"
    return failed(f"the state still grows in step {grown}, after {after} ({sizes_text}): {advice}")


def _name_step(losses: list[float], others: list[float]) -> str:
    pairs = zip(losses, others, strict=False)
    first = next((step for step, (one, other) in enumerate(pairs, start=1) if one != other), None)
    return "in the weights after the last step" if first is None else f"first in the loss of step {first}"


def _find_difference(tried: CheckedOptimizer, whole: Run) -> str:
    """Say how a resumed run differs from one that was never stopped; "" if it does not."""
    stopped = tried.train(stop_after=STOP_AFTER)
    if stopped.checkpoint is None:
        return f"its state cannot be saved: {stopped.problem}"
    try:
        resumed = tried.train(checkpoint=stopped.checkpoint)
    except pickle.UnpicklingError:
        return "its state holds Python objects, which are not loaded from checkpoints: they may run code"
    except Exception as error:
        raise_if_exhausted(error)
        return f"its state cannot be loaded: {describe_error(error)}"
    losses = [*stopped.losses, *resumed.losses]
    if (losses, resumed.weights) == (whole.losses, whole.weights):
        return ""
    return (
        f"a run that is resumed after step {STOP_AFTER} differs, {_name_step(whole.losses, losses)}"
        f"{f': {resumed.problem}' if resumed.problem else ''}"
    )


def _fills(tried: CheckedOptimizer) -> bool:
    rest = tried.loaded.rest
    return tried.spec.fill_state is not None or (rest is not None and rest.spec.fill_state is not None)


def _fill(tried: CheckedOptimizer, steps: int = 1) -> Run:
    """Fill the state as a probe of the capacity does, and take a few steps."""
    return tried.train(steps=steps, change=lambda trainer: tried.loaded.fill_state(trainer.optimizer))


@dataclass
class _Watched:
    """States of the generators before and after building an optimizer, and around its first step."""

    built: tuple[Generators, Generators]
    stepped: tuple[Generators, Generators]


def _watch_building(tried: CheckedOptimizer, seed: int) -> _Watched:
    factory, built = tried.spec.load_factory(), []

    @functools.wraps(factory)
    def build(*args: Any, **settings: Any) -> Any:
        before = Generators.now()
        optimizer = factory(*args, **settings)
        built.append((before, Generators.now()))
        return optimizer

    before: list[Generators] = []
    run = tried.train(
        steps=1,
        spec=replace(tried.spec, factory=build),
        change=lambda trainer: before.append(Generators.now()),
        seed=seed,
    )
    assert run.generators is not None
    return _Watched(built[0], (before[0], run.generators))
