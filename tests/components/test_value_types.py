"""Tests of inferring the types of settings from annotations and defaults."""

from __future__ import annotations

import enum
import inspect
import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, Optional, Protocol, TypeVar, Union

import pytest
import torch

from xbench.components.annotations import find_globals, parameter_type
from xbench.components.value_types import allows, describe, is_sequence

if TYPE_CHECKING:
    from nowhere import Schedule

Rate = NewType("Rate", float)
NumberT = TypeVar("NumberT", int, float)


class Mode(enum.StrEnum):
    FAST = "fast"


class Stepping(Protocol):
    def step(self) -> None: ...


def factory(
    number: float,
    integer: int,
    flag: bool,
    text: str,
    anything: Any,
    optional: float | None,
    old_optional: Optional[bool],  # noqa: UP045
    old_union: Union[int, str],  # noqa: UP007
    tensor: float | torch.Tensor,
    tensors: tuple[float | torch.Tensor, float],
    named_only_for_checkers: float | Schedule | None,
    unknown: Schedule,
    only_a_tensor: torch.Tensor | None,
    choice: Literal["a", "b"],
    integer_or_word: int | Literal["auto"],
    pair: tuple[float, float],
    mixed: tuple[int, str],
    half_optional: tuple[float | None, float],
    many: tuple[int, ...],
    sequence: Sequence[float],
    bare_sequence: Sequence,
    pairs: list[tuple[int, int]],
    strings: set[str],
    string_or_strings: str | Sequence[str],
    table: dict[str, float],
    mapping: Mapping[str, Any],
    path: Path,
    function: Callable[[float], float],
    function_or_name: str | Callable[[float], float],
    annotated: Annotated[int, "more"],
    rate: Rate,
    variable: NumberT,
    mode: Mode,
    protocol: Stepping,
    of_no_use: 1 / 0,
    false_default: int = 0.5,
    untyped_default=0,
    untyped_pair=(0.9, 0.999),
    untyped_mode=Mode.FAST,
    untyped_function=len,
    any_default: Any = 3,
    schedule: Schedule = 0.1,
    untyped=None,
    untyped_text="auto",
    untyped_table={"a": 1},  # noqa: B006
    untyped_flag=False,
    untyped_nest=((1, 2), (3,)),
    automatic: float = "auto",
    false_flag: float = False,
    word_or_function: str | Callable = len,
):
    pass


KINDS = {
    name: parameter_type(parameter, find_globals(factory))
    for name, parameter in inspect.signature(factory).parameters.items()
}


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("number", "a number"),
        ("integer", "an integer"),
        ("flag", "true or false"),
        ("text", "a string"),
        ("optional", "a number"),
        ("old_optional", "true or false"),
        ("old_union", "an integer or a string"),
        ("tensor", "a number"),
        ("tensors", "a list of 2 numbers"),
        ("named_only_for_checkers", "a number"),
        ("choice", "'a' or 'b'"),
        ("integer_or_word", "an integer or 'auto'"),
        ("pair", "a list of 2 numbers"),
        ("mixed", "a list of 2 values"),
        ("half_optional", "a list of 2 numbers"),
        ("many", "a list of integers"),
        ("sequence", "a list of numbers"),
        ("bare_sequence", "a list"),
        ("pairs", "a list of lists"),
        ("strings", "a list of strings"),
        ("string_or_strings", "a string or a list of strings"),
        ("table", "a table"),
        ("mapping", "a table"),
        ("path", "a string"),
        ("function_or_name", "a string"),
        ("annotated", "an integer"),
        ("rate", "a number"),
        ("variable", "an integer or a number"),
        ("false_default", "a number"),
        ("untyped_default", "a number"),
        ("untyped_pair", "a list of numbers"),
        ("schedule", "a number"),
        ("untyped_flag", "true or false"),
        ("untyped_nest", "a list of lists"),
        ("word_or_function", "a string"),
    ],
)
def test_types_are_understood(name, description):
    assert describe(KINDS[name]) == description
    assert pickle.loads(pickle.dumps(KINDS[name])) == KINDS[name]


@pytest.mark.parametrize(
    "name",
    [
        "anything",
        "unknown",
        "only_a_tensor",
        "function",
        "mode",
        "protocol",
        "of_no_use",
        "untyped_mode",
        "untyped_function",
        "any_default",
        "untyped",
        "untyped_text",
        "untyped_table",
        "automatic",
    ],
)
def test_parameter_of_unknown_type_is_not_checked(name):
    assert KINDS[name] is Any
    assert allows(KINDS[name], object())


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("number", [1, 0.5, float("inf")], [True, "1", [1], {}]),
        ("integer", [1, -3], [1.0, True, "1"]),
        ("flag", [True], [0, 1, "false"]),
        ("text", [""], [1, ["a"]]),
        ("optional", [1, 2.5], ["none", False]),
        ("choice", ["a"], ["c", 1]),
        ("integer_or_word", [3, "auto"], ["all", 3.0]),
        ("pair", [[0.9, 1]], [0.9, "ab", [0.9], [0.9, "1"], [True, 0.9], {"a": 1, "b": 2}]),
        ("mixed", [[1, "a"]], [["a", 1]]),
        ("half_optional", [[1e-30, 1e-3]], [[1e-3]]),
        ("many", [[], [1, 2, 3]], [1, [1.0]]),
        ("bare_sequence", [[1, "a"]], [0.9, "ab"]),
        ("pairs", [[[1, 2], [3, 4]]], [[1, 2], [[1, 2, 3]]]),
        ("string_or_strings", ["a", ["a", "b"]], [1, [1]]),
        ("table", [{"a": 1}], [{"a": "x"}, [1]]),
        ("untyped_default", [0.9, 3, False], ["0.9", [1], {}]),
        ("untyped_pair", [[1], [1, 2, 3], "auto", False], [0.9, ["a"]]),
        ("untyped_flag", [True, 0.5, [1, 2], {}], ["false"]),
        ("untyped_nest", [[[0.5], [2, 3]]], [1, [1], [["a"]]]),
        ("false_default", [1, 0.5, False], ["1", [1]]),
        ("false_flag", [True, 2], ["true"]),
    ],
)
def test_values(name, right, wrong):
    assert [value for value in right if not allows(KINDS[name], value)] == []
    assert [value for value in wrong if allows(KINDS[name], value)] == []


def test_sequences_are_distinguished_from_unions():
    sequences = {name for name, kind in KINDS.items() if is_sequence(kind)}
    assert {"pair", "many", "sequence", "pairs", "strings", "untyped_pair"} <= sequences
    assert not {"string_or_strings", "text", "anything", "table"} & sequences


def test_names_are_globals_of_the_module_that_defines_the_signature():
    class Optimizer:
        def __init__(self, params, mode: Mode, rate: Rate):
            pass

    class Derived(Optimizer):
        pass

    class Callee:
        def __call__(self, rate: Rate):
            pass

    @wraps(factory)
    def wrapped(*args, **kwargs):
        pass

    for maker in (factory, Derived, Callee(), partial(partial(factory)), wrapped):
        assert find_globals(maker) is globals()
    assert find_globals(int) == {}
