"""The metrics that a task declares."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from xbench.components.facts import suggest
from xbench.components.specs import import_attribute
from xbench.errors import XbenchError
from xbench.text import format_value, quote_some

if TYPE_CHECKING:
    from torch import Tensor

# A tensor, or a nested tuple, list or dict of tensors, whose first dimension counts rows.
Batch: TypeAlias = Any

Split = Literal["train", "validation", "test"]
_SPLITS: tuple[Split, ...] = get_args(Split)

NAME = re.compile(r"[a-z][a-z0-9_]*")
# Names of the metrics that xbench itself declares for every task.
RESERVED_METRICS = frozenset({"loss", "suboptimality", "gradient_norm"})
# Records put these before the names of averages and losses.
SPLIT_PREFIXES = ("train_", "validation_", "test_")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of a task: either an average over rows, or a function of all collected outputs.

    Attributes:
        name: lower-case letters, digits and `_`. Records name an average after its split: `test_accuracy`.
        direction: `"max"` if higher values are better, `"min"` if lower values are.
        unit: unit of the values; "" for ratios and other numbers without a unit.
        title: title in tables; by default the name, with spaces. The split is put before the title of an
            average, and before the name of a `function` without a title.
        method: how it is computed, in words.
        value: `value(outputs, batch) -> (n,)`: one number for each row; or `"loss"` for the loss of each row.
            They are averaged while the rows are evaluated, in the measured process.
        weighted: whether the average is the sum of values divided by the sum of the task's weights, as for
            the loss. Otherwise it is divided by the number of rows.
        finish: function of the average, such as `math.exp` for a perplexity.
        function: `function(collected) -> float`, or its `"module:attribute"`. It runs outside of the measured
            process. `collected` is what `Task.collect` returned, concatenated over all rows, as NumPy arrays.
        on: the splits on which an average is taken. On `"validation"` it is taken after each epoch.
    """

    name: str
    direction: Literal["max", "min"]
    unit: str = ""
    title: str = ""
    method: str = ""
    value: Callable[[Any, Batch], Tensor] | Literal["loss"] | None = None
    weighted: bool = False
    finish: Callable[[float], float] | None = None
    function: Callable[[Any], float] | str | None = None
    on: tuple[Split, ...] = _SPLITS

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name) or self.name in RESERVED_METRICS:
            raise XbenchError(
                f"a metric cannot be named {self.name!r}",
                hint="use lower-case letters, digits and `_`, and none of "
                + quote_some(sorted(RESERVED_METRICS)),
            )
        if self.name.startswith(SPLIT_PREFIXES):
            raise XbenchError(
                f"a metric cannot be named {self.name!r}",
                hint="leave out the split, which records put before the names of averages and losses",
            )
        if self.direction not in ("max", "min"):
            raise XbenchError(f"metric '{self.name}': direction {self.direction!r} is not 'max' or 'min'")
        if (self.value is None) == (self.function is None):
            have = "neither `value` nor" if self.value is None else "both `value` and"
            raise XbenchError(f"metric '{self.name}' has {have} `function`, and needs one of them")
        if self.function is None:
            self._check_average()
        else:
            self._check_function()

    def _check_average(self) -> None:
        """Check what only metrics with a `value` have."""
        if self.value != "loss":
            check_callable(f"metric '{self.name}': `value`", self.value, "a function, or 'loss'")
        if self.finish is not None:
            check_callable(f"metric '{self.name}': `finish`", self.finish)
        if not isinstance(self.on, tuple | list) or not self.on:
            raise XbenchError(
                f"metric '{self.name}': `on` is {format_value(self.on)}, not a tuple of splits",
                hint='write on=("test",) for a single split',
            )
        for split in self.on:
            if split not in _SPLITS:
                guess = suggest(split, _SPLITS)
                raise XbenchError(
                    f"metric '{self.name}': `on` names no split {format_value(split)}.{guess}",
                    hint=f"the splits are {quote_some(_SPLITS)}",
                )

    def _check_function(self) -> None:
        """Check that a metric with a `function` has nothing that applies to averages only."""
        if not isinstance(self.function, str):
            check_callable(f"metric '{self.name}': `function`", self.function, "a function, or its name")
        unused = {"finish": self.finish, "weighted": self.weighted, "on": self.on != _SPLITS}
        for name, is_set in unused.items():
            if is_set:
                raise XbenchError(
                    f"metric '{self.name}' has a `function`, to which `{name}` does not apply",
                    hint="leave it out, or compute an average with `value`",
                )

    def load_function(self) -> Callable[[Any], float]:
        """Return `function`, after importing it if it is a string.

        Raises:
            XbenchError: it cannot be imported, or the metric has none.
        """
        if self.function is None:
            raise XbenchError(f"metric '{self.name}' has no function")
        return import_attribute("function", self.function)


def check_metrics(what: str, metrics: object) -> None:
    if not isinstance(metrics, tuple | list):
        raise XbenchError(
            f"{what} is a {type(metrics).__name__}, not a tuple of metrics",
            hint="write metrics=(metric,) for a single metric",
        )
    for metric in metrics:
        if not isinstance(metric, Metric):
            raise XbenchError(
                f"{what} has a {type(metric).__name__}, not an xbench.Metric",
                hint="declare each metric as Metric(name=..., direction=..., value=...)",
            )


def check_callable(what: str, value: object, expected: str = "a function") -> None:
    if not callable(value):
        raise XbenchError(f"{what} is {format_value(value)}, not {expected}")
