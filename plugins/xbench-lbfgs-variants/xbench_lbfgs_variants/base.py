"""What the optimizers of this package have in common: flat vectors, the history and its settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.optim.optimizer import Optimizer, ParamsT

from xbench_lbfgs_variants.pairs import PairHistory

# Ratio of step to change in a history that is filled for a measurement. It is a power of two, so it is exact
# in bfloat16, and it keeps the step that follows small.
FILLED_SCALE = 2.0**-10


class PairOptimizer(Optimizer):
    """An optimizer that remembers pairs of steps and changes of the gradient.

    All arithmetic is done on flat vectors in float32, or in the parameters' dtype if that is wider. The
    optimizer's only state between steps is the history, which takes `2 * history_size` vectors in
    `pairs_dtype`, and a few numbers.

    Args:
        params: floating-point parameters of one dtype on one device; one parameter group.
        defaults: settings of the subclass.
        history_size: maximum number of pairs, at least 1.
        pairs_dtype: dtype of the pairs; None for the parameters' dtype.
        pairs_on: `"device"` for the parameters' device, or `"host"` for page-locked memory of the host, from
            which every product transfers its operand again.

    Raises:
        ValueError: a setting is out of range, or `pairs_on` is `"host"` and the parameters are there already.
    """

    def __init__(
        self,
        params: ParamsT,
        defaults: Mapping[str, Any],
        history_size: int,
        pairs_dtype: str | None,
        pairs_on: str,
    ):
        if history_size < 1:
            raise ValueError(f"invalid history_size: {history_size} is below 1")
        if pairs_dtype not in (None, "float32", "bfloat16"):
            raise ValueError(f"invalid pairs_dtype: {pairs_dtype!r} is not 'float32' or 'bfloat16'")
        if pairs_on not in ("device", "host"):
            raise ValueError(f"invalid pairs_on: {pairs_on!r} is not 'device' or 'host'")
        of_pairs = {"history_size": history_size, "pairs_dtype": pairs_dtype, "pairs_on": pairs_on}
        super().__init__(params, {**defaults, **of_pairs})
        first = self._parameters[0]
        for parameter in self._parameters:
            if not parameter.is_floating_point():
                raise ValueError(f"a parameter has the dtype {parameter.dtype}, which is not a real number")
            if (parameter.dtype, parameter.device) != (first.dtype, first.device):
                raise ValueError("the parameters differ in dtype or device")
        if pairs_on == "host" and first.device.type == "cpu":
            # A suite that compares both values would train twice, with the same results and the same memory.
            raise ValueError(
                "pairs_on = 'host' changes nothing on a CPU, where the parameters are on the host"
            )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add the only parameter group.

        Raises:
            ValueError: there is a group already. One inverse Hessian covers all parameters.
        """
        if self.param_groups:
            raise ValueError(
                f"{type(self).__name__} has one parameter group: all settings apply to all of it"
            )
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, and leave the dtypes of its tensors as they are.

        (torch casts states to the parameters' dtype, and moves them to their device.) As in torch, tensors
        are not copied unless they are on another device.
        """
        super().load_state_dict({**state_dict, "state": {}})
        for index, saved in state_dict["state"].items():
            self.state[self._parameters[index]] = {
                key: self._place(key, value) for key, value in saved.items()
            }

    def _place(self, key: str, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if key in ("steps", "changes") and self._group["pairs_on"] == "host":
            return value.cpu().pin_memory()
        return value.to(self._parameters[0].device)

    def fill_history(self) -> None:
        """Fill the history of a fresh optimizer with pairs, to measure the memory of a step with all of it.

        The next step goes in a direction of descent.
        """
        self._open_history().fill(FILLED_SCALE)

    @property
    def _group(self) -> dict[str, Any]:
        return self.param_groups[0]

    @property
    def _parameters(self) -> list[torch.Tensor]:
        return self._group["params"]

    @property
    def _pairs_dtype(self) -> torch.dtype:
        name = self._group["pairs_dtype"]
        return self._parameters[0].dtype if name is None else getattr(torch, name)

    @property
    def _own_state(self) -> dict[str, Any]:
        """The whole state, which is that of the first parameter."""
        return self.state[self._parameters[0]]

    def _open_history(self) -> PairHistory:
        """Return the history, which is allocated when it is first used."""
        state = self._own_state
        if "steps" not in state:
            group = self._group
            length = sum(p.numel() for p in self._parameters)
            state |= PairHistory.allocate(
                group["history_size"],
                self._new_vector(0),
                length,
                self._pairs_dtype,
                group["pairs_on"] == "host",
            )
        return PairHistory(state)

    def _new_vector(self, length: int) -> torch.Tensor:
        first = self._parameters[0]
        return torch.empty(length, dtype=torch.promote_types(first.dtype, torch.float32), device=first.device)

    def _read_parameters(self, out: torch.Tensor | None = None) -> torch.Tensor:
        """Copy all parameters into one vector."""
        return self._flatten(self._parameters, out)

    def _read_gradient(self, out: torch.Tensor | None = None) -> torch.Tensor:
        """Copy all gradients into one vector; parameters without a gradient have zeros there."""
        return self._flatten([p.grad for p in self._parameters], out)

    def _flatten(self, tensors: Iterable[torch.Tensor | None], out: torch.Tensor | None) -> torch.Tensor:
        if out is None:
            out = self._new_vector(sum(p.numel() for p in self._parameters))
        for tensor, part in zip(tensors, self._split(out), strict=True):
            if tensor is None:
                part.zero_()
            else:
                part.copy_(tensor)
        return out

    def _write_parameters(self, vector: torch.Tensor) -> None:
        """Set all parameters to the values in a vector."""
        for parameter, part in zip(self._parameters, self._split(vector), strict=True):
            parameter.copy_(part)

    def _move(self, direction: torch.Tensor, size: float) -> None:
        """Move the parameters along a direction."""
        for parameter, part in zip(self._parameters, self._split(direction), strict=True):
            parameter.add_(part, alpha=size)

    def _split(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """Return views of a flat vector in the shapes of the parameters."""
        parts = vector.split([p.numel() for p in self._parameters])
        return [part.view(p.shape) for part, p in zip(parts, self._parameters, strict=True)]


def check_range(name: str, value: float, lowest: float, includes: bool = True) -> None:
    """Check that a setting is finite and not too small.

    Args:
        lowest: the lower bound.
        includes: whether the bound itself is allowed.

    Raises:
        ValueError: it is not.
    """
    if not (lowest <= value if includes else lowest < value) or not math.isfinite(value):
        bound = "at least" if includes else "above"
        raise ValueError(f"invalid {name}: {value} is not a finite number {bound} {lowest}")
