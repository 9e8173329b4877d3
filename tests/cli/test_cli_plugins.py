"""`xbench plugins check`: its exit codes, its table and its JSON."""

from __future__ import annotations

import json

import pytest

WRONG = """
import torch

class Still(torch.optim.SGD):
    def step(self, closure):
        return closure()

def diverging(params, lr=1e30):
    return torch.optim.SGD(params, lr=lr)

def unusual(weights, lr=0.1):
    return torch.optim.SGD(weights, lr=lr)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(WRONG)
    return tmp_path


def test_without_a_command_the_plugins_are_listed(xbench, tmp_path):
    done = xbench(tmp_path, "plugins")
    assert done.returncode == 0
    assert "lbfgs" in done.stdout


def test_a_component_that_keeps_to_the_contract(xbench, tmp_path):
    done = xbench(tmp_path, "plugins", "check", "sgd", "--set", "momentum=0.9", "--format", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    found = {one["check"]: one for one in document["findings"]}
    assert document["failed"] == 0
    assert found["state-size"] == {
        "kind": "optimizer",
        "component": "sgd",
        "check": "state-size",
        "outcome": "pass",
        "text": "the state takes 1 times as much memory as the parameters; state_vectors says 1",
        "values": {"state_vectors": 1.0, "declared": 1.0},
    }


def test_a_failed_check_sets_the_exit_code(xbench, folder):
    command = ["plugins", "check", "mine:diverging", "mine:Still", "--only", "loss", "--allow-import", "."]
    done = xbench(folder, *command)
    assert done.returncode == 1, done.stderr
    assert "the loss diverges" in done.stdout
    assert "does not lower the loss of a small problem" in done.stdout
    assert "2 components: 0 passed, 1 failed, 1 fact, 0 not applicable" in done.stdout


def test_the_table_of_a_component_is_printed_before_the_next_one_is_checked(xbench, tmp_path):
    done = xbench(tmp_path, "plugins", "check", "sgd", "rprop", "--set", "momentum=0.9", "--only", "loads")
    assert done.returncode == 2
    assert "optimizer sgd" in done.stdout
    assert "optimizer 'rprop': unknown setting 'momentum'" in done.stderr


def test_the_kind_of_a_factory_can_be_named(xbench, folder):
    command = ["plugins", "check", "mine:unusual", "--allow-import", ".", "--only", "loads"]
    assert "dataset mine:unusual" in xbench(folder, *command).stdout  # a guess
    assert "optimizer mine:unusual" in xbench(folder, *command, "--kind", "optimizer").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sdg"], "unknown component 'sdg'. Did you mean 'sgd'?"),
        (["sgd", "--kind", "model"], "unknown model 'sgd'"),
        (["sgd", "--only", "los"], "unknown check 'los'. Did you mean 'loss'?"),
        (["adam", "--set", "lr=x"], "optimizer 'adam': 'lr' should be"),
        (["adam", "--set", "nope=1"], "optimizer 'adam': unknown setting 'nope'"),
        (["mlp", "--with", "nope"], "unknown dataset 'nope'"),
        (["sgd", "--set", "lr"], "--set lr: not KEY=VALUE"),
        (["mine:Still"], "not imported unless you allow it"),
        (["mine:missing", "--allow-import", "."], "cannot be imported"),
    ],
)
def test_bad_input_is_refused(xbench, folder, arguments, said):
    done = xbench(folder, "plugins", "check", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
