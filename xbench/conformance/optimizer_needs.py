"""Checks of what an optimizer's spec says that it needs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from xbench.components.tracebacks import describe_error
from xbench.conformance.checked_optimizer import CheckedOptimizer
from xbench.conformance.checks import Verdict, fact, failed, not_applicable, passed
from xbench.errors import Unsupported
from xbench.memory.exhaustion import raise_if_exhausted
from xbench.training.loop import Trainer
from xbench.training.recipe_trial import try_recipe
from xbench.training.settings import TrainingSettings
from xbench.training.state_dicts import hash_tensors
from xbench.training.trial import MAX_CLOSURES

# A value of each key of a recipe that is tried. The norm is so small that each gradient is clipped.
_RECIPES: dict[str, Any] = {"schedule": "cosine", "clip_norm": 0.01, "weight_decay_on": "weights"}


def check_gradients(tried: CheckedOptimizer) -> Verdict:
    """Step on dense and on sparse gradients, whatever is declared."""
    declared = tried.spec.gradients
    if tried.spec.parameters == "matrices":
        return not_applicable("hidden matrices have dense gradients")
    needed = {"any": ("dense", "sparse")}.get(declared, (declared,))
    problems = {
        kind: _try_problem(tried, name, is_needed=kind in needed)
        for kind, name in (("dense", "mixed"), ("sparse", "sparse"))
    }
    for kind in needed:
        if problems[kind]:
            return failed(f"gradients='{declared}', but it fails on {kind} gradients: {problems[kind]}")
    accepted = [kind for kind, problem in problems.items() if not problem]
    if more := [kind for kind in accepted if kind not in needed]:
        return fact(f"gradients='{declared}', and it also accepts {more[0]} ones: it could be 'any'")
    return passed(f"accepts {' and '.join(accepted)} gradients, as declared")


def check_parameters(tried: CheckedOptimizer) -> Verdict:
    """Step parameters of zero to four dimensions."""
    if tried.spec.gradients == "sparse":
        return not_applicable("only embeddings have sparse gradients")
    problem = _try_problem(tried, "shapes")
    if problem:
        return failed(
            f"parameters='{tried.spec.parameters}', but it fails on a scalar, vectors and a kernel: {problem}"
        )
    return passed("trains models with a scalar, vectors, matrices and a kernel")


def check_line_search(tried: CheckedOptimizer) -> Verdict:
    """Add something to all losses of a step but the first: only an optimizer that compares them notices."""
    optimizer, _ = tried.own_part(tried.whole.trainer)
    declared = bool(tried.spec.line_search(tried.loaded.hyperparameters(optimizer)))
    if max(tried.whole.closures) == 1:
        if declared:
            return failed("line_search is True, but a step calls the closure once, so it compares no losses")
        return not_applicable("a step calls the closure once")
    tried.repeatable  # noqa: B018 -- otherwise, runs differ whatever it compares
    plain = hash_tensors(tried.train(steps=3).trainer.model)
    try:
        compares = plain != hash_tensors(tried.train(steps=3, change=_shift_losses).trainer.model)
    except Exception as error:  # a line search that finds no lower loss may raise anything
        raise_if_exhausted(error)
        compares = True
    text = f"{'compares' if compares else 'does not compare'} the losses of a step"
    if declared != compares:
        return failed(f"line_search is {declared}, but it {text}", compares_losses=compares)
    return passed(f"{text}, as line_search says", compares_losses=compares)


def check_needs_loss(tried: CheckedOptimizer) -> Verdict:
    """Change the losses that the optimizer sees, but no gradient: only one that uses them notices."""
    declared = tried.spec.needs_loss
    if tried.spec.backward == "fused":
        return not_applicable("backward='fused': it computes its gradients from the loss")
    if max(tried.whole.closures) > 1:
        return not_applicable("a step calls the closure more than once: see `line-search`")
    weights = tried.repeatable.weights
    try:
        uses = tried.train(change=_scale_losses).weights != weights
    except Exception as error:  # it did not fail on the true losses
        raise_if_exhausted(error)
        uses = True
    text = f"{'uses' if uses else 'does not use'} the value of the loss"
    if declared != uses:
        return failed(f"needs_loss is {declared}, but it {text}", uses_loss=uses)
    return passed(f"{text}, as needs_loss says", uses_loss=uses)


def check_backward(tried: CheckedOptimizer) -> Verdict:
    """Check whether it needs the backward pass that it declares."""
    declared = tried.spec.backward
    if declared == "plain":
        return not_applicable("backward='plain': the trial fails if it needs anything else")
    whole = tried.repeatable
    try:
        run = tried.train(steps=3, spec=replace(tried.spec, backward="plain"))
    except Exception as error:
        raise_if_exhausted(error)
        return passed(f"needs backward='{declared}', as declared")
    if not run.problem and run.losses == whole.losses[:3]:
        return fact(f"backward='{declared}', but it trains equally without")
    return passed(f"needs backward='{declared}', as declared")


def check_recipe(tried: CheckedOptimizer) -> Verdict:
    """Try each part of a recipe: a schedule, clipping and param groups."""
    if tried.whole.problem:
        return not_applicable(tried.whole.problem)
    works, problems = [], []
    for name, value in _RECIPES.items():
        if problem := _try_recipe(tried, name, value):
            problems.append(f"; not with {name}: {problem}")
        else:
            works.append(name)
    text = f"works with {', '.join(works) or 'no recipe'}{''.join(problems)}"
    return fact(text, **{name: name in works for name in _RECIPES})


def _try_recipe(tried: CheckedOptimizer, name: str, value: Any) -> str:
    """Try a part of a recipe as before a run, and train with it; return what went wrong, or ""."""
    trial = try_recipe(tried.loaded, TrainingSettings(**{name: value}), import_dirs=tried.dirs)
    if trial.mistakes:
        return trial.mistakes[0].message
    try:
        return tried.train(steps=3, **{name: value}).problem
    except Exception as error:
        raise_if_exhausted(error)
        return describe_error(error)


def _try_problem(tried: CheckedOptimizer, problem: str, is_needed: bool = True) -> str:
    """Take three steps on a problem; return what went wrong, or "".

    Raises:
        Unsupported: the optimizer needs to train this problem, but its factory does not support the model.
    """
    try:
        # It would otherwise be refused before it is tried.
        spec = replace(tried.spec, gradients="any")
        run = tried.train(problem, steps=3, spec=spec)
    except Exception as error:
        if is_needed and isinstance(error, Unsupported):
            raise
        raise_if_exhausted(error)
        return describe_error(error)
    if run.problem or math.isfinite(run.final_loss):
        return run.problem
    return f"the loss is {run.final_loss} after {len(run.losses)} steps"


def _scale_losses(trainer: Trainer) -> None:
    """Let the optimizer see losses that rise from step to step."""
    step, factor = trainer.optimizer.step, itertools.count(1)

    def step_with_scaled(closure: Callable[[], torch.Tensor]) -> None:
        scale = float(next(factor))
        step(lambda: scale * closure())  # type: ignore[arg-type, return-value]

    trainer.optimizer.step = step_with_scaled  # type: ignore[method-assign, assignment]


def _shift_losses(trainer: Trainer) -> None:
    """Let the optimizer see higher losses from the second closure call of each step on."""
    step = trainer.optimizer.step

    def step_with_shifted(closure: Callable[[], torch.Tensor]) -> None:
        with suppress(_Endless):
            step(_Shifted(closure))  # type: ignore[arg-type]

    trainer.optimizer.step = step_with_shifted  # type: ignore[method-assign, assignment]


class _Endless(BaseException):
    """Raised when no loss is low enough for a line search. It passes through `except Exception`."""


class _Shifted:
    """A closure whose losses, apart from the first, are too high by more and more."""

    def __init__(self, closure: Callable[[], torch.Tensor]):
        self._closure, self._calls = closure, 0

    def __call__(self) -> torch.Tensor:
        if self._calls == MAX_CLOSURES:
            raise _Endless
        loss = self._closure()
        self._calls += 1
        return loss + 0.25 * (self._calls - 1) * (loss.abs() + 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._closure, name)
