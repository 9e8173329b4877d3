"""Tests of finding the component that raised an exception."""

from __future__ import annotations

import sys
import textwrap
from types import ModuleType

import pytest

from xbench.components import tracebacks
from xbench.components.tracebacks import find_component


def module_of(name: str, text: str, **known) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(known)
    exec(textwrap.dedent(text), module.__dict__)
    return module


class Claims:
    def __init__(self, *modules: str):
        self.claims = [type("Claim", (), {"module": module}) for module in modules]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Register `sam` from a package of its own, and `adam` as a built-in optimizer."""
    known = {"sam": Claims("xbench_sam.optimizers"), "adam": Claims("xbench.components.optimizers")}
    of = {"sam": "xbench-sam 0.1.0", "adam": "xbench 0.1.0"}
    monkeypatch.setattr(tracebacks, "find", lambda kind, name: known.get(name))
    monkeypatch.setattr(tracebacks, "origin", lambda kind, name: of.get(name, ""))


COMPONENTS = [("optimizer", "sam"), ("model", "my_models:tiny")]


def error_of(call, *args) -> BaseException:
    with pytest.raises(Exception) as caught:
        call(*args)
    return caught.value


def raising(name: str):
    return module_of(name, "def step(closure=None):\n    raise ArithmeticError('no')").step


def calling(name: str, other):
    return module_of(name, "def step():\n    return other()", other=other).step


def test_package_of_the_component_is_found():
    assert find_component(error_of(raising("xbench_sam.optimizers")), COMPONENTS) == (
        "optimizer 'sam' of xbench-sam 0.1.0"
    )


def test_any_module_of_the_package_counts():
    assert "'sam'" in find_component(error_of(raising("xbench_sam.deep.inside")), COMPONENTS)


def test_own_code_is_found():
    assert find_component(error_of(raising("my_models")), COMPONENTS) == "model 'my_models:tiny'"


def test_component_that_called_torch_is_found():
    assert "'sam'" in find_component(
        error_of(calling("xbench_sam", raising("torch.nn.functional"))), COMPONENTS
    )


def test_innermost_component_is_found():
    model_in_optimizer = calling("xbench_sam", calling("torch.nn", raising("my_models")))
    assert find_component(error_of(model_in_optimizer), COMPONENTS) == "model 'my_models:tiny'"
    optimizer_in_model = calling("my_models", raising("xbench_sam"))
    assert "'sam'" in find_component(error_of(optimizer_in_model), COMPONENTS)


def test_first_component_of_a_shared_module_is_found():
    both = [("optimizer", "parts:Step"), ("model", "parts:net")]
    assert find_component(error_of(raising("parts")), both) == "optimizer 'parts:Step'"


@pytest.mark.parametrize("name", ["torch.optim.adam", "xbench.training.loop", "xbench_sample", "xbench_sa"])
def test_no_component_is_found_for_other_code(name):
    assert find_component(error_of(raising(name)), COMPONENTS) == ""


def test_built_in_component_is_never_found():
    error = error_of(raising("xbench.components.optimizers"))
    assert find_component(error, [("optimizer", "adam"), ("model", "unknown")]) == ""


def test_no_component_is_found_without_a_traceback():
    assert find_component(ValueError("no"), COMPONENTS) == ""


def test_module_without_a_name_is_ignored():
    hidden = module_of("xbench_sam", "def step():\n    raise ValueError").step
    hidden.__globals__.pop("__name__")
    loaded = set(sys.modules)
    assert find_component(error_of(hidden), COMPONENTS) == ""
    assert set(sys.modules) == loaded
