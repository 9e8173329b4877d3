"""Let optuna's tree-structured Parzen estimator (TPE) choose the settings of trials."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

from xbench.components.search_range import SearchRange, SearchSpace
from xbench.tuning.plan import EndedTrial
from xbench.tuning.points import pick_quasi_random, round_value

# Trials before the first that is chosen by the scores of others. TPE needs some to divide into good and bad.
STARTUP_TRIALS = 4


def pick_by_tpe(
    space: SearchSpace, ended: Sequence[EndedTrial], direction: Literal["min", "max"], seed: int
) -> dict[str, Any]:
    """Return the values of the next trial (Bergstra et al. 2011, "Algorithms for Hyper-Parameter
    Optimization").

    The first few are quasi-random. The values depend on the trials that have ended and the seed alone, so a
    resumed search goes on as it would have. A trial that failed counts as one with the worst score so far.
    """
    if len(ended) < STARTUP_TRIALS or all(trial.score is None for trial in ended):
        return pick_quasi_random(space, len(ended) + 1, seed)
    import optuna  # importing it takes a second

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    worst = (max if direction == "min" else min)(trial.score for trial in ended if trial.score is not None)
    distributions = {name: _make_distribution(values) for name, values in space.items()}
    sampler = optuna.samplers.TPESampler(seed=(seed + len(ended)) % 2**32, n_startup_trials=STARTUP_TRIALS)
    study = optuna.create_study(sampler=sampler, direction="minimize" if direction == "min" else "maximize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of choices that are tables or lists
        for trial in ended:
            study.add_trial(
                optuna.trial.create_trial(
                    params={name: _encode(space[name], value) for name, value in trial.values.items()},
                    distributions=distributions,
                    value=worst if trial.score is None else trial.score,
                )
            )
        chosen = study.ask(distributions).params
    return {name: _decode(values, chosen[name]) for name, values in space.items()}


def _make_distribution(values: SearchRange) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if values.choices:
        return CategoricalDistribution(range(len(values.choices)))
    low, high = values.ends
    if values.integer:
        return IntDistribution(int(low), int(high), log=values.scale == "log")
    return FloatDistribution(low, high, log=values.scale == "log")


def _encode(values: SearchRange, value: Any) -> Any:
    """Return the index of a choice, which may be of a type that optuna does not take; else the value."""
    return values.choices.index(value) if values.choices else value


def _decode(values: SearchRange, chosen: Any) -> Any:
    if values.choices:
        return values.choices[chosen]
    return chosen if values.integer else round_value(values, chosen)
