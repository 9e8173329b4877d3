"""Load and build the optimizer of a cell, which may consist of two optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from xbench.components.optimizer_factory import RunFacts, call_factory
from xbench.components.roles import Role, hidden_matrices
from xbench.components.settings import settings_of
from xbench.components.specs import DEFAULT_REST, OptimizerSpec
from xbench.errors import XbenchError
from xbench.training.composite import Composite
from xbench.training.footprint import storage_bytes
from xbench.training.global_state import guard_globals, load_component
from xbench.training.param_groups import check_settings, make_param_groups
from xbench.training.seeding import seed_everything
from xbench.training.settings import Choice, TrainingSettings

# Names of the parts of a composite.
MATRICES, REST = "matrices", "rest"

Named = list[tuple[str, nn.Parameter]]


@dataclass(frozen=True)
class LoadedOptimizer:
    """An optimizer with its spec and its settings.

    Attributes:
        name: its name in the suite.
        params: the settings that the suite gives, without `rest`.
        rest: the optimizer of the parameters that this one leaves; None if it updates all of them.
    """

    name: str
    spec: OptimizerSpec
    params: Mapping[str, Any]
    rest: LoadedOptimizer | None = None

    @property
    def resumable(self) -> bool:
        return self.spec.resumable and (self.rest is None or self.rest.resumable)

    @property
    def compares_losses(self) -> bool:
        """Whether this optimizer, apart from `rest`, compares losses to choose the length of its steps."""
        return bool(self.spec.line_search({**settings_of(self.spec).defaults, **self.params}))

    @property
    def memory_period(self) -> int | None:
        """Number of steps after which all parts have done everything that they do at least once."""
        period = self.spec.memory_period
        periods = [
            period({**settings_of(self.spec).defaults, **self.params}) if callable(period) else period,
            self.rest.memory_period if self.rest else None,
        ]
        return max((period for period in periods if period is not None), default=None)

    def divide(self, model: nn.Module, roles: Mapping[str, Role]) -> dict[str, Named]:
        """Divide the trained parameters of a model among the parts.

        Args:
            roles: the roles of the model's trained parameters, by name.

        Returns:
            The parameters of each part that has any, by the part's name; of the single part "" if there is no
            `rest`.
        """
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if self.rest is None:
            return {"": named}
        ours = hidden_matrices(model, roles, self.spec.flattens_kernels)
        divided = {
            MATRICES: [(name, p) for name, p in named if name in ours],
            REST: [(name, p) for name, p in named if name not in ours],
        }
        return {part: of_part for part, of_part in divided.items() if of_part}

    def build(
        self,
        model: nn.Module,
        roles: Mapping[str, Role],
        run: RunFacts,
        seed: int,
        training: TrainingSettings | None = None,
        prefix: str = "",
    ) -> Any:
        """Build the optimizer for a model.

        Args:
            roles: the roles of the model's trained parameters, by name.
            seed: seed for optimizers that draw random numbers when they are built.
            training: the settings that divide the parameters into groups; None for no groups.
            prefix: comes before the names of parameters in the whole model.

        Raises:
            XbenchError: the param groups of a part do not have a setting of a group.
        """
        divided = self.divide(model, roles)
        with guard_globals():
            seed_everything(seed)
            built = {
                name: self._part(name)._call(model, named, run, training, prefix)
                for name, named in divided.items()
            }
        return built[""] if self.rest is None else Composite(built)

    def fill_state(self, optimizer: Any) -> None:
        """Put a fresh optimizer into the state in which its next step takes the most memory."""
        for name, part in self._parts_of(optimizer).items():
            fill = self._part(name).spec.load_fill_state()
            if fill is not None:
                fill(part)

    def expected_state_vectors(
        self, optimizer: Any, model: nn.Module, roles: Mapping[str, Role]
    ) -> float | None:
        """Return the size of the state in theory, as a multiple of the trained parameters' size.

        Returns:
            None if that of a part is not known.
        """
        divided = self.divide(model, roles)
        parameters = {name: [p for _, p in named] for name, named in divided.items()}
        vectors = {
            name: self._part(name).spec.state_vectors(self._part(name).facts_of_state(part, parameters[name]))
            for name, part in self._parts_of(optimizer).items()
        }
        known = {name: count for name, count in vectors.items() if count is not None}
        if len(known) < len(vectors):
            return None
        if self.rest is None:
            return known[""]
        sizes = {name: storage_bytes(of_part) for name, of_part in parameters.items()}
        return sum(count * sizes[name] for name, count in known.items()) / sum(sizes.values())

    def hyperparameters(self, built: Any) -> dict[str, Any]:
        """Return all settings of an optimizer of one part that has been built, defaults included.

        An optimizer may keep some of its settings elsewhere than in its `defaults`.
        """
        return {**settings_of(self.spec).defaults, **self.params, **getattr(built, "defaults", {})}

    def facts_of_state(self, built: Any, parameters: Sequence[nn.Parameter]) -> dict[str, Any]:
        """Return what the size of the state may depend on: see `OptimizerSpec.state_vectors`.

        Args:
            built: an optimizer of one part that has been built.
            parameters: those that it updates, at least one.
        """
        bytes_of_all = sum(p.numel() * p.element_size() for p in parameters)
        element_bytes = bytes_of_all / sum(p.numel() for p in parameters)  # of several dtypes, the mean
        return self.hyperparameters(built) | {"element_bytes": element_bytes}

    def _call(
        self, model: nn.Module, named: Named, run: RunFacts, training: TrainingSettings | None, prefix: str
    ) -> Any:
        factory = self.spec.load_factory()
        if training is None or not training.has_groups:
            return call_factory(factory, model, named, run, self.params)
        groups = make_param_groups([(prefix + name, parameter) for name, parameter in named], training)
        given = [set(group) for group in groups]
        built = call_factory(factory, model, named, run, self.params, groups)
        check_settings(built, given, self.name)
        return built

    def _part(self, name: str) -> LoadedOptimizer:
        return self.rest if name == REST and self.rest is not None else self

    def _parts_of(self, optimizer: Any) -> dict[str, Any]:
        return optimizer.parts if self.rest is not None else {"": optimizer}


def load_optimizer(choice: Choice, import_dirs: Sequence[str] = ()) -> LoadedOptimizer:
    """Load an optimizer, and the optimizer of the parameters that it leaves.

    Raises:
        XbenchError: one of them cannot be loaded, or they cannot be combined.
    """
    spec = load_component("optimizer", choice.name, import_dirs)
    return with_rest(choice, spec, import_dirs)


def with_rest(choice: Choice, spec: OptimizerSpec, import_dirs: Sequence[str] = ()) -> LoadedOptimizer:
    """Add the optimizer of the parameters that an optimizer leaves.

    Raises:
        XbenchError: that optimizer cannot be loaded, or they cannot be combined.
    """
    if spec.parameters != "matrices":
        return LoadedOptimizer(choice.name, spec, choice.params)
    params = {name: value for name, value in choice.params.items() if name != REST}
    rest = load_optimizer(choice.rest or Choice(DEFAULT_REST, {}), import_dirs)
    if rest.spec.parameters == "matrices":
        raise XbenchError(
            f"rest = '{rest.name}' updates hidden matrices only, as {choice.name} does",
            hint=f"name an optimizer of all parameters, such as rest = '{DEFAULT_REST}'",
        )
    for part in (LoadedOptimizer(choice.name, spec, params), rest):
        if part.spec.backward != "plain":
            needs = (
                "gradients that can be differentiated"
                if part.spec.backward == "create_graph"
                else "a backward pass of its own"
            )
            raise XbenchError(f"{part.name} needs {needs}, so it cannot share a model with another optimizer")
        if part.spec.needs_loss:
            raise XbenchError(
                f"{part.name} needs the loss of each step, which two optimizers that share a model do not see"
            )
    return LoadedOptimizer(choice.name, spec, params, rest)
