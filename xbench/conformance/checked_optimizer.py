"""An optimizer that is being checked, and the runs that its checks share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from xbench.components.code_files import ImportDirs
from xbench.components.specs import ModelSpec, OptimizerSpec
from xbench.components.tracebacks import describe_error
from xbench.conformance.bench import Data, Run, open_unregistered, train
from xbench.conformance.checks import Inapplicable
from xbench.conformance.common import Subject
from xbench.errors import Unsupported
from xbench.memory.exhaustion import raise_if_exhausted
from xbench.training.loop import Trainer
from xbench.training.optimizer import MATRICES, REST, LoadedOptimizer, with_rest
from xbench.training.settings import Choice

STEPS = 20


@dataclass
class CheckedOptimizer:
    """An optimizer that is being checked.

    Attributes:
        params: its settings; others keep their defaults.
        folder: folder for checkpoints, which must exist and be empty.
        name: its name, for messages.
        dirs: where it is imported from.
    """

    spec: OptimizerSpec
    params: Mapping[str, Any]
    folder: Path
    name: str = "optimizer"
    dirs: ImportDirs = field(default_factory=ImportDirs)

    @cached_property
    def data(self) -> Data:
        return open_unregistered("rows", {}, self.dirs, self.folder)

    @cached_property
    def problem(self) -> str:
        """Name of the model that it is checked on."""
        return "sparse" if self.spec.gradients == "sparse" else "mixed"

    @cached_property
    def attempt(self) -> Run | str:
        """A run of `STEPS` steps, or what went wrong in it.

        Raises:
            Unsupported: the optimizer's factory does not support the model.
        """
        try:
            return self.train()
        except Unsupported:
            raise
        except Exception as error:  # a plugin may raise anything
            raise_if_exhausted(error)
            return describe_error(error)

    @property
    def whole(self) -> Run:
        """A run of `STEPS` steps, with the seed that all runs have."""
        if isinstance(self.attempt, str):
            raise Inapplicable("it cannot be trained: see `loss`")
        if not self.attempt.closures:
            raise Inapplicable("its first step diverges: see `loss`")
        return self.attempt

    @cached_property
    def again(self) -> Run:
        """The same run once more."""
        return self.train()

    @property
    def repeats(self) -> bool:
        one, other = self.whole, self.again
        return (one.losses, one.weights) == (other.losses, other.weights)

    @property
    def repeatable(self) -> Run:
        """The run that `whole` is, if another run can be compared with it bit for bit."""
        if self.whole.problem:
            raise Inapplicable(self.whole.problem)
        if not self.repeats:
            raise Inapplicable("two equal runs differ, so no other can be compared with them: see `repeats`")
        return self.whole

    def train(
        self, problem: str = "", steps: int = STEPS, spec: OptimizerSpec | None = None, **more: Any
    ) -> Run:
        """Train the model of a problem.

        Args:
            spec: replaces the optimizer's own spec.
            more: arguments of `bench.train`.
        """
        model = ModelSpec(factory=f"xbench.conformance.problem:build_{problem or self.problem}")
        spec = spec or self.spec
        return train(self.data, model, spec, self.params, self.folder, steps, name=self.name, **more)

    @cached_property
    def loaded(self) -> LoadedOptimizer:
        """The optimizer, with that of the parameters that it leaves."""
        return with_rest(Choice(self.name, dict(self.params)), self.spec, self.dirs)

    def own_part(self, trainer: Trainer) -> tuple[Any, list[nn.Parameter]]:
        """Return the optimizer of a trainer without that of the parameters that it leaves.

        Returns:
            The optimizer, and the parameters that it updates.
        """
        optimizer: Any = trainer.optimizer
        name = "" if self.loaded.rest is None else MATRICES
        named = self.loaded.divide(trainer.model, trainer.roles)[name]
        part = optimizer if self.loaded.rest is None else optimizer.parts[name]
        return part, [p for _, p in named]


def open_optimizer(spec: OptimizerSpec, subject: Subject, folder: Path) -> CheckedOptimizer:
    params = dict(subject.params)
    if isinstance(params.get(REST), str):  # as a suite may write it
        params[REST] = {"name": params[REST]}
    return CheckedOptimizer(spec, params, folder, subject.name, subject.dirs)
