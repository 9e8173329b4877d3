"""Suites as dicts and other arguments: what is wrong is one error, raised before anything runs."""

from __future__ import annotations

import threading
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import xbench
from xbench.api.run import _write_seeds
from xbench.suite.tables import read_tables, to_toml

EXPERIMENT = {"name": "first", "model": "report-cnn", "dataset": "synthetic-xray", "optimizer": ["sgd"]}


def suite(**changes: Any) -> dict[str, Any]:
    return {"suite": {"name": "small"}, "experiment": [EXPERIMENT | changes]}


def complaints(tables: dict[str, Any]) -> list[str]:
    with pytest.raises(xbench.XbenchError) as raised:
        read_tables(tables).problems.raise_if_any()
    return raised.value.message.splitlines()


class TestADict:
    @pytest.mark.parametrize(
        ("tables", "message"),
        [
            (suite(epoch=2), "experiment[0].epoch: unknown key 'epoch'. Did you mean 'epochs'?"),
            (suite(optimizer=[{"lr": 1}]), "experiment[0].optimizer[0]: 'name' is missing"),
            ({"suite": {"name": "s"}}, "the suite: 'experiment' is missing"),
            (suite(name=3), "experiment[0].name: "),
            (suite(epochs=None), "experiment[0].epochs: a suite cannot hold None"),
            (suite(model=torch.nn.Linear(1, 1)), "experiment[0].model: a suite cannot hold a Linear"),
            (suite(optimizer=[torch.optim.SGD]), "experiment[0].optimizer[0]: a suite cannot hold a class"),
            (suite(epochs=2**70), "experiment[0].epochs: 'epochs' is a number of more than 64 bits"),
            (suite(title="a\0b"), "experiment[0].title: the text of 'title' contains a NUL character"),
            (suite(params={1: 2}), "experiment[0].params: the key 1 is not a string"),
        ],
    )
    def test_has_mistakes_at_their_key_paths(self, tables, message):
        (found,) = complaints(tables)
        assert found.startswith(message)

    def test_that_contains_itself_is_an_error(self):
        tables = suite()
        tables["experiment"][0]["model"] = tables
        assert "nested too deeply" in complaints(tables)[0]

    def test_has_all_mistakes_in_one_error(self):
        assert len(complaints(suite(epoch=2, name=3))) == 2

    def test_suggests_to_register_an_object(self):
        with pytest.raises(xbench.XbenchError) as raised:
            read_tables(suite(model=torch.nn.Identity()))
        assert "xbench.register_model(NAME" in str(raised.value.hint)

    def test_may_have_values_of_numpy_paths_and_tuples(self):
        tables = suite(
            epochs=np.int64(3),
            batch_size=torch.tensor(4),
            optimizer=({"name": "sgd", "lr": np.float32(0.5)},),
            dataset={"name": "folder", "root": Path("images")},
        )
        read = tomllib.loads(read_tables(tables).text)["experiment"][0]
        assert (read["epochs"], read["batch_size"]) == (3, 4)
        assert read["optimizer"] == [{"name": "sgd", "lr": 0.5}]
        assert read["dataset"]["root"] == "images"

    def test_is_not_changed_by_overrides(self):
        tables = suite()
        read_tables(tables, ["epochs=7", "sgd.lr=0.5"])
        assert tables == suite()


@pytest.mark.parametrize(
    "document",
    [
        {"suite": {"name": "x", "seeds": [0, 1]}, "experiment": [{"name": "a"}, {"name": "b", "lr": 1e-5}]},
        {"top": 1, "suite": {"nested": {"deep": [{"a": []}, {}], "on": True}}},
        {"suite": {"text": 'quote " slash \\ tab \t del \x7f line \n \u2028 é', "odd key.": "", "": 1}},
        {"suite": {"numbers": [1e300, -0.0, 1e-05, float("inf"), -(2**63)]}},
    ],
)
def test_toml_has_the_same_content(document):
    assert tomllib.loads(to_toml(document)) == document


class TestArguments:
    """None of these starts a worker process."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"suite": "nope.toml"}, "nope.toml: no such suite"),
            ({"suite": 3}, "a suite is a path, a name or a dict, not a int"),
            ({"suite": suite(), "only": "second"}, "--only second: the suite has no such experiment"),
            ({"suite": suite(), "set": "epochs"}, "--set epochs: not KEY=VALUE"),
            ({"suite": suite(), "allow_import": "nowhere"}, "allow_import 'nowhere': no such folder"),
        ],
    )
    def test_of_run_that_are_wrong(self, tmp_path, monkeypatch, arguments, message):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(xbench.XbenchError, match="^" + message.replace("(", r"\(")):
            xbench.run(arguments.pop("suite"), **arguments)
        assert list(tmp_path.iterdir()) == []

    def test_of_probe_that_are_wrong(self):
        with pytest.raises(xbench.XbenchError, match="there is no axis 'size'"):
            xbench.probe("sgd", axes="size")


class TestRegister:
    @pytest.mark.parametrize("name", ["", " ", "a:b", "a/b", 3])
    def test_refuses_what_is_no_name(self, name):
        with pytest.raises(xbench.XbenchError, match="cannot be the name of a model"):
            xbench.register_model(name, torch.nn.Linear)

    def test_refuses_the_name_of_an_installed_component(self):
        with pytest.raises(xbench.XbenchError, match="optimizer 'adam' is registered by xbench"):
            xbench.register_optimizer("adam", torch.optim.Adam)

    @pytest.mark.parametrize("component", [3, None, xbench.ModelSpec(factory=torch.nn.Linear)])
    def test_refuses_what_is_neither_a_factory_nor_a_spec_of_the_kind(self, component):
        with pytest.raises(xbench.XbenchError, match="dataset 'mine' is a "):
            xbench.register_dataset("mine", component)

    def test_refuses_at_a_run_what_cannot_be_sent(self, tmp_path):
        lock = threading.Lock()
        xbench.register_model("locked", lambda num_classes: lock)
        with pytest.raises(xbench.XbenchError, match="model 'locked' cannot be sent to a worker process"):
            xbench.run(suite(model="locked"), out=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        (3, 3),
        (range(2), [0, 1]),
        ({"weights": 2, "order": (5, 7)}, {"weights": 2, "order": [5, 7]}),
    ],
)
def test_seeds_are_written_as_toml(seeds, expected):
    assert tomllib.loads(f"seeds = {_write_seeds(seeds)}") == {"seeds": expected}
