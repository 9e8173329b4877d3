"""Tests of finding the component that raised an exception."""

from __future__ import annotations

import importlib
import sys
import textwrap
from types import ModuleType

import pytest

from xbench.components import tracebacks
from xbench.components.tracebacks import describe_error, find_component, place_in_own_code


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


def written(folder, name: str, text: str, **known):
    """Return the function `run` of a module in a file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    namespace = {"__name__": path.stem, **known}
    exec(compile(text, str(path), "exec"), namespace)
    return namespace["run"]


def test_line_of_own_code_is_named(tmp_path):
    own = written(tmp_path, "mine.py", "def run():\n    x = None\n    return x.lr\n")
    told = "AttributeError: 'NoneType' object has no attribute 'lr'"
    assert describe_error(error_of(own)) == f"{told} (mine.py:3)"


def test_line_of_own_code_is_preferred_to_one_of_a_package(tmp_path, monkeypatch):
    monkeypatch.setattr(tracebacks, "_PACKAGES", (str(tmp_path / "site-packages"),))
    library = written(tmp_path / "site-packages", "library.py", "def run():\n    raise ValueError\n")
    own = written(tmp_path, "mine.py", "def run():\n    other()\n", other=library)
    assert place_in_own_code(error_of(own)) == "mine.py:2"
    monkeypatch.setattr(tracebacks, "_PACKAGES", ("/",))
    assert place_in_own_code(error_of(own)) == "library.py:2"


def test_line_of_pythons_own_modules_is_not_named():
    error = error_of(importlib.import_module, "no_such_module")
    own_test, _, _ = place_in_own_code(error).partition(":")
    assert own_test == "test_tracebacks.py"


def test_source_of_a_syntax_error_is_left_out(tmp_path):
    error = error_of(compile, "def run(:", str(tmp_path / "mine.py"), "exec")
    assert describe_error(error).startswith("SyntaxError: invalid syntax (mine.py, line 1)")
