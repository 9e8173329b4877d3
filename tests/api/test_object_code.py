"""The identity of objects without a module: what changes it, and what does not."""

from __future__ import annotations

import threading
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xbench import ModelSpec
from xbench.components.object_code import NoSource, identify

MODULE = "script_under_test"


@pytest.fixture
def script(tmp_path) -> Callable[[str], types.SimpleNamespace]:
    """`script(source)`: the names that a script defines, whose module cannot be imported."""
    count = 0

    def run(source: str) -> types.SimpleNamespace:
        nonlocal count
        count += 1
        path = tmp_path / f"script_{count}.py"
        path.write_text(source)
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(source, str(path), "exec"), names)
        return types.SimpleNamespace(**names)

    return run


SOURCE = """
import torch
rate = 0.1
table = {"a": [1, 2], "b": {3, 1, 2}}
def inner(x):
    return x * rate
def outer(x, scale=2):
    return [inner(item) for item in table["a"]] + [x, scale]
"""


def digest(value: Any) -> str:
    return identify(value).digest


def test_is_that_of_the_source_wherever_it_stands(script):
    assert digest(script(SOURCE).outer) == digest(script(f"# moved\n\nother = 1\n{SOURCE}").outer)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("scale=2", "scale=3"),
        ("[x, scale]", "[scale, x]"),
        ("rate = 0.1", "rate = 0.2"),
        ("x * rate", "x + rate"),
        ("{3, 1, 2}", "{3, 1, 4}"),
        ("return x * rate", "return x * rate  # a comment"),
    ],
)
def test_changes_with_whatever_the_function_uses(script, old, new):
    assert old in SOURCE
    assert digest(script(SOURCE).outer) != digest(script(SOURCE.replace(old, new)).outer)


def test_of_closures_has_their_values(script):
    names = script("def make(width):\n    def build():\n        return width\n    return build\n")
    assert digest(names.make(1)) == digest(names.make(1))
    assert digest(names.make(1)) != digest(names.make(2))
    assert digest(partial(names.make, 1)) != digest(partial(names.make, 2))


def test_of_lambdas_on_one_line_differs(script):
    names = script("first, second = (lambda: 1 + len('')), (lambda: 2 + len(''))\n")
    assert digest(names.first) != digest(names.second)


CLASS = """
import dataclasses, torch
@dataclasses.dataclass
class Options:
    width: int = 3
    def double(self):
        return 2 * self.width
class Net(torch.nn.Module):
    options = Options()
    def __init__(self):
        super().__init__()
    @property
    def size(self):
        return self.options.double()
"""


@pytest.mark.parametrize("new", ["width: int = 4", "width: float = 3"])
def test_of_a_class_has_its_members(script, new):
    assert digest(script(CLASS).Net) == digest(script(CLASS).Net)
    assert digest(script(CLASS).Net) != digest(script(CLASS.replace("width: int = 3", new)).Net)
    assert digest(script(CLASS).Net) != digest(script(CLASS.replace("2 * self", "3 * self")).Net)


def test_of_values_has_their_content():
    for make in (np.arange, torch.arange):
        assert digest(make(5)) == digest(make(5))
        assert digest(make(5)) != digest(make(6))
    assert digest(Path("a")) != digest(Path("b"))
    assert digest(torch.float32) != digest(torch.float64)


def test_of_values_that_contain_themselves_ends():
    circle: list[Any] = [1]
    circle.append(circle)
    assert digest(circle) == digest(circle)


def test_of_a_spec_has_the_module_that_a_string_names(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "named_parts.py").write_text("def build(num_classes):\n    return None\n")
    assert identify(ModelSpec(factory="named_parts:build")).places == (tmp_path,)


def test_of_installed_code_needs_no_place():
    assert identify(torch.optim.SGD).places == ()
    assert identify(digest).places == (Path(__file__).parents[1],)  # the package of the tests


def test_is_not_known_without_a_source_or_a_state():
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("def build(): return 1", names)
    for value in (names["build"], threading.Lock(), partial(print, (item for item in ()))):
        with pytest.raises(NoSource):
            identify(value)


@pytest.mark.parametrize("base", ["float", "int", "str"])
def test_methods_of_a_value_of_a_subclass_count(script, base):
    source = f"class Own({base}):\n    def scaled(self): return self * 1\n"
    source += "value = Own()\ndef f(): return value.scaled()\n"
    assert digest(script(source).f) == digest(script(source).f)
    assert digest(script(source).f) != digest(script(source.replace("* 1", "* 2")).f)


def test_methods_of_an_enumeration_count(script):
    source = (
        "from enum import IntEnum\nclass Width(IntEnum):\n    SMALL = 8\n"
        "    def scaled(self): return self * 1\ndef f(): return Width.SMALL.scaled()\n"
    )
    assert digest(script(source).f) == digest(script(source).f)
    assert digest(script(source).f) != digest(script(source.replace("* 1", "* 2")).f)
