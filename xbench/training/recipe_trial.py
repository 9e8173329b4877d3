"""Try an optimizer with a recipe before a run, by taking a few steps on a few weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from xbench.components.settings import settings_of
from xbench.components.tracebacks import describe_error, place_in_own_code
from xbench.errors import XbenchError
from xbench.training.global_state import guard_globals
from xbench.training.optimizer import MATRICES, REST, LoadedOptimizer
from xbench.training.optimizer_methods import has_modes
from xbench.training.param_groups import explain_unknown_setting, list_settings
from xbench.training.recipe import find_declared_mistakes, make_mistake, select_keys
from xbench.training.recipe_mistakes import PairSettings, PartSettings, RecipeMistake, RecipeTrial
from xbench.training.schedules import read_rates
from xbench.training.seeding import seed_everything
from xbench.training.settings import TrainingSettings
from xbench.training.trial import (
    TRIAL_RUN,
    Endless,
    Outcome,
    TrialClosure,
    choose_models,
    find_trial_roles,
    try_optimizer,
)

# Some methods do not move in the first steps, or use the rate of the step before.
_STEPS = 12
# Some of the parameters of a single layer ("weight"), or of each part of a network ("1.*": a hidden matrix
# and a bias), are a group with the same settings as the others.
_SOME_PARAMETERS = TrainingSettings().model_copy(update={"groups": {"weight": {}, "1.*": {}}})


@dataclass(frozen=True)
class _Steps:
    """Steps that were taken.

    Attributes:
        parts: the optimizer, or the parts of a composite, by name.
        start: the weights before each step.
        weights: the weights after each step.
    """

    parts: Mapping[str, Any]
    start: list[torch.Tensor]
    weights: list[list[torch.Tensor]]

    @property
    def moved(self) -> list[bool]:
        """Whether a step has changed it, for each parameter."""
        return [
            any(not torch.equal(after[place], before) for after in self.weights)
            for place, before in enumerate(self.start)
        ]

    @property
    def moves_later(self) -> bool:
        """Whether a step after the first one has changed anything."""
        return any(
            not torch.equal(before, after)
            for of_step in self.weights[1:]
            for before, after in zip(self.start, of_step, strict=True)
        )


def try_recipe(
    optimizer: LoadedOptimizer,
    training: TrainingSettings,
    device: str = "cpu",
    import_dirs: Sequence[str] = (),
) -> RecipeTrial:
    """Try an optimizer with a recipe.

    Args:
        training: settings with the recipe.
        device: torch's name of the device to use if the optimizer does not work on the CPU.
        import_dirs: folders that components may be imported from.

    Returns:
        What is wrong with their combination. Only declared mistakes are reported if the optimizer fails
        without a recipe.
    """
    declared = list(find_declared_mistakes(optimizer, training))
    for place in dict.fromkeys(("cpu", device)):
        for build_model in choose_models(optimizer.spec):
            trial = _Trial(optimizer, training, lambda make=build_model, to=place: make().to(to), import_dirs)
            if trial.works:
                at_fault = {key for mistake in declared for key in mistake.keys}
                found = (*declared, *trial.find_mistakes(at_fault))
                return RecipeTrial(found, trial.find_idle_key(), trial.list_pair_settings())
    return RecipeTrial(tuple(declared))


class _Trial:
    def __init__(
        self,
        optimizer: LoadedOptimizer,
        training: TrainingSettings,
        build_model: Any,
        import_dirs: Sequence[str],
    ):
        self._optimizer, self._training, self._import_dirs = optimizer, training, import_dirs
        self._build_model = build_model
        self.works = False
        with suppress(Exception, SystemExit):  # it is tried without a recipe, too, and its error is explained
            self._plain = self._take_steps()
            self.works = True

    def find_mistakes(self, at_fault: set[str]) -> Iterator[RecipeMistake]:
        """Find mistakes in keys that are not at fault already."""
        rates = select_keys(self._training, "schedule", "warmup")
        groups = select_keys(self._training, "weight_decay_on", "groups")
        if rates and not at_fault.intersection(rates):
            yield from self._find_wrong_rates(rates)
        if groups and not at_fault.intersection(groups):
            found = [*self._find_missing_weight_decay(), *self._find_wrong_groups()]
            yield from found or self._find_ignored_groups(groups)

    def find_idle_key(self) -> str:
        """Return a warning if `weight_decay_on` has no effect, because all weight decay is 0."""
        if self._training.weight_decay_on == "all":
            return ""
        decays = [
            group.get("weight_decay") for part in self._plain.parts.values() for group in _groups_of(part)
        ]
        if any(decay is None or decay for decay in decays):
            return ""
        return f"weight_decay_on has no effect on '{self._optimizer.name}', whose weight_decay is 0"

    def list_pair_settings(self) -> PairSettings | None:
        """List the settings of both parts of a pair; None for an optimizer of all parameters."""
        if self._optimizer.rest is None:
            return None
        matrices, rest = (
            PartSettings(self._name_of(part), tuple(list_settings(self._plain.parts[part])))
            for part in (MATRICES, REST)
        )
        return PairSettings(matrices, rest, self._optimizer.spec.flattens_kernels)

    def _find_wrong_rates(self, keys: tuple[str, ...]) -> Iterator[RecipeMistake]:
        for name, part in self._plain.parts.items():
            who = self._name_of(name)
            try:
                read_rates(self._training.model_copy(update={"min_lr": 0.0}), part, who)
            except XbenchError as error:
                yield make_mistake(keys, error.message)
                continue
            try:
                rates = read_rates(self._training, part, who)
            except XbenchError as error:
                yield RecipeMistake(("min_lr",), error.message, error.hint)
                continue
            if rates and min(rates) > 0 and self._ignores_rates(name):
                yield make_mistake(
                    keys,
                    f"the steps of '{who}' do not depend on the 'lr' of its param groups, so {keys[0]} has "
                    "no effect",
                )
        for pattern, settings in self._training.groups.items():
            rate = settings.get("lr")
            if isinstance(rate, int | float) and rate < self._training.min_lr:
                message = (
                    f"min_lr = {self._training.min_lr:g} is above the lr of the group '{pattern}', {rate:g}"
                )
                yield RecipeMistake(("min_lr",), message)

    def _ignores_rates(self, part: str) -> bool:
        """Return whether the weights are the same with half the rates from the second step on.

        Nothing is known of an optimizer that does not move in these steps.
        """
        if not self._plain.moves_later:
            return False
        slow = self._take_steps(slow=part)
        if len(slow.weights) < len(self._plain.weights):  # a step did not end
            return False
        return all(
            torch.equal(one, other)
            for of_step, of_slow_step in zip(self._plain.weights, slow.weights, strict=False)
            for one, other in zip(of_step, of_slow_step, strict=True)
        )

    def _find_missing_weight_decay(self) -> Iterator[RecipeMistake]:
        if self._training.weight_decay_on == "all":
            return
        for name, part in self._plain.parts.items():
            known = list_settings(part)
            if "weight_decay" not in known:
                message = explain_unknown_setting("weight_decay", self._name_of(name), known)
                yield make_mistake(("weight_decay_on",), message)

    def _find_wrong_groups(self) -> Iterator[RecipeMistake]:
        known = {name: list_settings(part) for name, part in self._plain.parts.items()}
        for pattern, settings in self._training.groups.items():
            for key in settings:
                if not any(key in settings_of_part for settings_of_part in known.values()):
                    every = list(dict.fromkeys(other for of_part in known.values() for other in of_part))
                    message = explain_unknown_setting(key, self._optimizer.name, every)
                    yield RecipeMistake(("groups",), message, pattern=pattern)
            for name in known:
                if wrong := self._explain_wrong_values(name, settings):
                    message = f"the group '{pattern}' of '{self._name_of(name)}': {wrong}"
                    yield RecipeMistake(("groups",), message, pattern=pattern)

    def _explain_wrong_values(self, name: str, settings: Mapping[str, Any]) -> str | None:
        """Explain what is wrong with the settings of a group, by building an optimizer with them."""
        part = self._part(name)
        signature = settings_of(part.spec)
        own = {key: value for key, value in settings.items() if key in signature.names}
        wrong = [told for key, value in own.items() if (told := signature.wrong_type(key, value))]
        if wrong or not own:
            return wrong[0] if wrong else None
        rest = {} if part.rest is None else {"rest": {"name": part.rest.name, **part.rest.params}}
        device = str(self._plain.start[0].device)

        def complain(more: Mapping[str, Any]) -> str | None:
            return try_optimizer(part.spec, {**part.params, **rest, **more}, device, self._import_dirs)

        complaint = complain(own)
        return None if complaint is None or complaint == complain({}) else complaint

    def _find_ignored_groups(self, keys: tuple[str, ...]) -> Iterator[RecipeMistake]:
        """Check that the optimizer takes several groups, and updates the parameters of all of them."""
        name = self._optimizer.name
        try:
            grouped = self._take_steps(_SOME_PARAMETERS)
        except (Exception, SystemExit) as error:  # plugins may raise anything
            why = describe_error(error) if place_in_own_code(error) else str(error) or type(error).__name__
            yield make_mistake(keys, f"'{name}' takes no param groups: {why}")
            return
        if any(before and not now for before, now in zip(self._plain.moved, grouped.moved, strict=True)):
            yield make_mistake(keys, f"'{name}' does not update the parameters of all of its param groups")

    def _take_steps(self, training: TrainingSettings | None = None, slow: str | None = None) -> _Steps:
        """Take a few steps with a new model and a new optimizer.

        Each step begins at the same weights, since one step of some methods reaches the minimum of so small a
        problem.

        Args:
            training: settings of param groups.
            slow: the part whose learning rates are halved from the second step on; None for none.
        """
        with guard_globals():
            seed_everything(0)
            model: nn.Module = self._build_model()
            built = self._optimizer.build(model, find_trial_roles(model), TRIAL_RUN, 0, training)
            parts = {"": built} if self._optimizer.rest is None else built.parts
            parameters = [p.detach() for p in model.parameters()]
            start = [p.clone() for p in parameters]
            weights: list[list[torch.Tensor]] = []
            closure = TrialClosure(self._optimizer.spec, model, Outcome())
            if has_modes(built):
                built.train()
            with suppress(Endless):
                for step in range(_STEPS):
                    if slow is not None and step == 1:
                        _halve_rates(parts[slow])
                    model.zero_grad()
                    for parameter, value in zip(parameters, start, strict=True):
                        parameter.copy_(value)
                    built.step(closure)
                    weights.append([p.clone() for p in parameters])
        return _Steps(parts, start, weights)

    def _part(self, name: str) -> LoadedOptimizer:
        return self._optimizer.rest if name == REST and self._optimizer.rest else self._optimizer

    def _name_of(self, part: str) -> str:
        return self._part(part).name


def _groups_of(part: Any) -> list[dict[str, Any]]:
    return getattr(part, "param_groups", None) or []


def _halve_rates(part: Any) -> None:
    for group in part.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].mul_(0.5)
        else:
            group["lr"] *= 0.5
