"""Precisions, and compiled models, that a suite asks for and that cannot be right."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tests.cell_samples import cell_of
from xbench.errors import Mistakes, XbenchError
from xbench.isolation.run import run_in_child
from xbench.planning import precision_checks
from xbench.planning.precision_checks import (
    check_compiler,
    check_optimizers_precision,
    check_precision,
    describe_needs,
    try_compiler,
)
from xbench.suite.axes import Value
from xbench.suite.problems import Problems
from xbench.training.settings import Choice

LBFGS = Choice("lbfgs", {"line_search_fn": "strong_wolfe"})


def sample_of(data, optimizer=None, **said):
    sample = cell_of(data, **said)
    values = tuple(
        Value("training", key, value, ("experiment", 0, key), False) for key, value in said.items()
    )
    declared = replace(sample.declared, values=values)
    return sample, declared if optimizer is None else replace(declared, optimizer=optimizer)


def collect(check, *args) -> str:
    """Return the mistakes that a check finds."""
    problems = Problems("suite.toml", "")
    check(*args, problems)
    try:
        problems.raise_if_any()
    except Mistakes as found:
        return found.message
    return ""


class TestTasks:
    @pytest.fixture
    def find(self, tiny_data):
        def find_mistakes(said, **task):
            sample, cell = sample_of(tiny_data, **said)
            facts = sample.resolved.facts
            resolved = replace(sample.resolved, facts=replace(facts, task=replace(facts.task, **task)))
            return collect(check_precision, [cell], {repr(cell.dataset): resolved})

        return find_mistakes

    @pytest.mark.parametrize("said", [{"autocast": "bfloat16"}, {"compile": True}, {"dtype": "bfloat16"}])
    def test_of_labels_allow_everything(self, find, said):
        assert find(said) == ""

    def test_with_derivatives_allow_neither_autocast_nor_compiling(self, find):
        assert "backward passes should not run under autocast" in find(
            {"autocast": "bfloat16"}, differentiates=True
        )
        assert "differentiate a compiled backward pass" in find(
            {"compile": True}, differentiates=True, has_terms=True
        )
        assert find({"dtype": "bfloat16"}, differentiates=True) == ""

    def test_with_several_terms_do_not_allow_compiling(self, find):
        assert "has several terms" in find({"compile": True}, has_terms=True)
        assert find({"autocast": "bfloat16"}, has_terms=True) == ""


class TestOptimizers:
    @pytest.fixture
    def find(self, tiny_data, monkeypatch):
        def find_mistakes(optimizer, needs, **said):
            monkeypatch.setattr(precision_checks, "ask", lambda *args, **kwargs: [needs])
            _, cell = sample_of(tiny_data, optimizer, **said)
            return collect(check_optimizers_precision, [cell], ())

        return find_mistakes

    @pytest.mark.parametrize("key", ["dtype", "autocast"])
    def test_with_a_line_search_do_not_allow_bfloat16(self, find, key):
        assert f"with {key} = 'bfloat16' it would follow rounding" in find(
            LBFGS, (True, False), **{key: "bfloat16"}
        )
        assert find(LBFGS, (False, False), **{key: "bfloat16"}) == ""

    def test_with_a_line_search_allow_compiling(self, find):
        assert find(LBFGS, (True, False), compile=True) == ""

    def test_that_differentiate_gradients_do_not_allow_compiling(self, find):
        assert "differentiates gradients" in find(LBFGS, (False, True), compile=True)
        assert find(LBFGS, (False, True), dtype="bfloat16") == ""

    def test_are_not_loaded_unless_a_cell_asks_for_something(self, tiny_data, monkeypatch):
        monkeypatch.setattr(precision_checks, "ask", lambda *args: pytest.fail("a child would have started"))
        _, cell = sample_of(tiny_data, LBFGS)
        assert collect(check_optimizers_precision, [cell], ()) == ""
        assert collect(check_compiler, [cell], "cpu") == ""

    def test_say_themselves_whether_they_search(self):
        choices = [LBFGS, Choice("lbfgs", {}), Choice("sgd", {"lr": 0.1}), Choice("no-such-optimizer", {})]
        needs = describe_needs(lambda message: None, choices, ())
        assert needs == [(True, False), (False, False), (False, False), (False, False)]


def try_without_compiler(send, folder):
    import torch._inductor.config

    torch._inductor.config.cpp.cxx = (f"{folder}/no-compiler",)
    os.environ["XBENCH_CACHE_DIR"] = str(folder)
    try_compiler(send, "cpu")


class TestCompiler:
    def test_that_is_missing_is_told(self, tmp_path):
        ending = run_in_child(try_without_compiler, tmp_path)
        assert ending.outcome == "refused"
        assert ending.reason.startswith("this machine cannot compile: ")
        assert "No working C++ compiler" in ending.reason
        assert "install a C++ compiler" in ending.error.hint

    def test_is_told_where_the_suite_asks_for_it(self, tiny_data, monkeypatch):
        def fail(*args, **kwargs):
            raise XbenchError("this machine cannot compile: there is no g++", "install one")

        monkeypatch.setattr(precision_checks, "ask", fail)
        _, cell = sample_of(tiny_data, compile=True)
        assert collect(check_compiler, [cell], "cpu") == (
            "suite.toml:1: compile = true: this machine cannot compile: there is no g++"
        )
