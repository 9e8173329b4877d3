"""What is known of a dataset's rows, and of what a model returns for them, before there are any tensors."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, get_args

from xbench.errors import XbenchError
from xbench.text import format_value, quote_some

OutputKind = Literal["classes", "tokens", "values"]


@dataclass(frozen=True)
class Output:
    """What a model returns for a row.

    Attributes:
        kind: `"classes"` for a logit per class, `"tokens"` for logits of the next token at every position, or
            `"values"` for numbers.
        size: number of classes, of tokens in the vocabulary, or of values.
    """

    kind: OutputKind
    size: int

    def __post_init__(self) -> None:
        kinds = get_args(OutputKind)
        if self.kind not in kinds:
            raise XbenchError(
                f"an output cannot be of kind {format_value(self.kind)}.{suggest(self.kind, kinds)}",
                hint=f"the kinds are {quote_some(kinds)}",
            )
        if not isinstance(self.size, Integral) or self.size < 1:
            raise XbenchError(
                f"an output of kind '{self.kind}' cannot have the size {format_value(self.size)}",
                hint="give a whole number of at least 1",
            )


@dataclass(frozen=True)
class TensorFacts:
    """Shape of one row of a tensor, without the batch's dimension, and its dtype, such as `"float32"`."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Facts:
    """What a model's factory may know of the data, if it has a parameter `facts`.

    Attributes:
        row: the structure of a batch, with `TensorFacts` in place of tensors.
        output: what the model returns for a row; None if the task does not say.
        rows: number of training rows.
    """

    row: Any
    output: Output | None
    rows: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first tensor of a row: usually the model's input."""
        return first_tensor(self.row).shape


def first_tensor(row: Any) -> TensorFacts:
    """Return the first `TensorFacts` of a row's structure.

    Raises:
        XbenchError: it has none.
    """
    found = _find_tensor(row)
    if found is None:
        raise XbenchError("a row has no tensor")
    return found


def _find_tensor(row: Any) -> TensorFacts | None:
    if isinstance(row, TensorFacts):
        return row
    parts = row.values() if isinstance(row, Mapping) else row if isinstance(row, tuple | list) else ()
    return next((found for part in parts if (found := _find_tensor(part)) is not None), None)


def suggest(name: object, known: tuple[str, ...]) -> str:
    """Return ` Did you mean 'x'?` if a known name is similar; otherwise ""."""
    close = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) else []
    return f" Did you mean '{close[0]}'?" if close else ""
