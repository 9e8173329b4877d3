"""Commands that train nothing: help, lists, checks of a suite, and mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from tests.cli.cli_process import one_line

SUITE = """[suite]
name = "usage"

[[experiment]]
name = "first"
model = "report-cnn"
dataset = { name = "synthetic-xray", train = 40, test = 10 }
optimizer = ["sgd", "adam"]

[[experiment]]
name = "second"
model = "report-cnn"
dataset = { name = "synthetic-xray", train = 40, test = 10 }
epochs = 4
optimizer = [{ name = "adam", lr = 1e-3 }, { name = "sgd", label = "plain" }]
"""

MISTAKES = """[suite]
name = "mistakes"
sedes = 3

[[experiment]]
name = "first"
model = "report-cn"
dataset = "synthetic-xray"
epochs = 0
batchsize = 5

  [[experiment.optimizer]]
  name = "adm"

  [[experiment.optimizer]]
  name = "sgd"
  lr = "fast"

[[experiment]]
name = "second"
model = "report-cnn"
dataset = { name = "synthetic-xray", image_size = 4 }
optimizer = { name = "adam", momentun = 0.9 }

[[experiment]]
name = "third"
model = "tiny_parts:build_model"
dataset = { name = "synthetic-xray", train = 40, test = 10 }
optimizer = { name = "adam", lr = -1.0 }
"""

LISTS = """[suite]
name = "lists"

[[experiment]]
name = "first"
model = { name = "picky_parts:build", width = [
  4,
  0,
] }
dataset = { name = "synthetic-xray", train = 40, test = 10, image_size = [
  32, 2] }

  [[experiment.optimizer]]
  name = "lbfgs"
  history_size = [10, 0, 5, -1]

  [[experiment.optimizer]]
  name = "picky_parts:Picky"
  momentum = [0.0, 0.9]
  rho = [
    2,
    3,
  ]

  [[experiment.optimizer]]
  name = "sgd"
  momentum = -5.0
  lr = [0.1, 0.2]

  [[experiment.optimizer]]
  name = "sam"
  rho = [0.05, "0.1"]

[[experiment]]
name = "second"
model = "report-cnn"
dataset = { name = "picky_parts:pictures", size = [
  1, # too small, and
  2, # too small, too
] }
optimizer = "sgd"

[[experiment]]
name = "third"
model = "report-cnn"
dataset = { name = "picky_parts:empty", size = [
  1,
  2,
] }
optimizer = "sgd"
"""

PICKY_PARTS = """from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


def build(num_classes, width=8):
    if width < 1:
        raise ValueError("too narrow")
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, num_classes))


def pictures(size):
    raise ValueError("too small")


def empty(size=8):
    raise ValueError("no pictures")


class Picky(torch.optim.SGD):
    def __init__(self, params, rho, lr: float | Tensor = 0.1, momentum=0):
        if rho > 1:
            raise ValueError("out of range")
        super().__init__(params, lr=lr, momentum=momentum)
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "suite.toml").write_text(SUITE)
    return tmp_path


BUGGY_PARTS = """import torch
from torch import nn


class Step(torch.optim.SGD):
    def step(self, closure):
        loss = closure()
        self.tempo += 1  # line 8
        return loss


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = nn.LazyLinear(num_classes)

    def forward(self, images):
        return self.layer(images.flaten(1))  # line 18


def images():
    return {}["train"]  # line 22
"""
BUGGY = """
[suite]
name = "buggy"

[[experiment]]
name = "one"
optimizer = "buggy_parts:Step"
dataset = "synthetic-xray"
model = "report-cnn"
[[experiment]]
name = "two"
optimizer = "sgd"
dataset = "synthetic-xray"
model = "buggy_parts:Net"
[[experiment]]
name = "three"
optimizer = "sgd"
dataset = "buggy_parts:images"
model = "report-cnn"
[[experiment]]
name = "four"
optimizer = "broken_parts:Step"
dataset = "synthetic-xray"
model = "report-cnn"
"""


def refused(done, place) -> str:
    """What a command says that is wrong in itself: on stderr only, without a trace of code or results."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert not (place / "results").exists()
    return done.stderr


def test_the_version(xbench, tmp_path):
    done = xbench(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"xbench {version('xbench')}\n")


def test_shell_completion_knows_the_commands():
    asked = {"_XBENCH_COMPLETE": "complete_bash", "COMP_WORDS": "xbench pro", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['xbench']; from xbench.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["probe-capacity"]


class TestHelp:
    def test_of_all(self, xbench, tmp_path):
        done = xbench(tmp_path, "--help")
        assert done.returncode == 0
        for command in ("run", "show", "list", "info", "plugins"):
            assert f" {command} " in done.stdout

    def test_of_run(self, xbench, tmp_path):
        done = xbench(tmp_path, "run", "--help")
        assert done.returncode == 0
        for option in (
            "--only",
            "--set",
            "--dry-run",
            "--allow-import",
            "--memory-limit",
            "--format",
            "--out",
        ):
            assert option in done.stdout
        assert "Exit codes: 0" in one_line(done.stdout)


class TestList:
    def test_all_without_torch(self, xbench, place):
        (place / "suites").mkdir()
        (place / "suites" / "mine.toml").write_text(SUITE)
        done = xbench(place, "list", python=("-X", "importtime"))
        assert done.returncode == 0
        for name in ("report-cnn", "chest-xray", "synthetic-xray", "adam", "lbfgs", "suites/mine.toml"):
            assert name in done.stdout
        assert "broken" not in done.stdout
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "xbench.components.registry" in imported
        assert not imported & {"torch", "torchvision", "numpy"}

    def test_one_kind(self, xbench, place):
        done = xbench(place, "list", "models")
        assert "report-cnn" in done.stdout
        assert "lbfgs" not in done.stdout


class TestInfo:
    def test_of_a_dataset_shows_its_rows_and_its_task(self, xbench, tmp_path):
        done = xbench(tmp_path, "info", "wine")
        assert done.returncode == 0, done.stderr
        shown = one_line(done.stdout)
        for text in ("train 142, test 36", "(float64 (13,), int64 ())", "classes: 3", "mean cross entropy"):
            assert text in shown

    def test_of_a_dataset_that_is_not_here_says_so(self, xbench, tmp_path):
        done = xbench(tmp_path, "info", "chest-xray")
        assert done.returncode == 0, done.stderr
        assert "its rows are not known here: chest-xray" in one_line(done.stdout)
        assert "image_size" in done.stdout

    def test_of_a_suite_says_how_to_run_it(self, xbench, tmp_path):
        done = xbench(tmp_path, "info", "tabular")
        assert done.returncode == 2
        assert "error: 'tabular' is a suite, not a component" in done.stderr
        assert "xbench run tabular --dry-run" in one_line(done.stderr)

    def test_descriptions_of_suites_are_their_first_sentence(self, xbench, tmp_path):
        (tmp_path / "suites").mkdir()
        (tmp_path / "suites/mine.toml").write_text("# Mine: is it\n# good? Yes.\n", encoding="utf-8")
        (tmp_path / "suites/bare.toml").write_text("[suite]\n", encoding="utf-8")
        shown = one_line(xbench(tmp_path, "list", "suites").stdout)
        assert "Mine: is it good?" in shown
        assert "Yes" not in shown
        assert "Test functions of optimization" in shown


class TestWrongCommands:
    @pytest.mark.parametrize(
        ("command", "said"),
        [
            (["bogus"], "bogus"),
            (["run"], "suite"),
            (["run", "suite.toml", "--nope"], "--nope"),
            (["run", "suite.toml", "--format", "xml"], "xml"),
            (["run", "suite.toml", "--allow-import", "nowhere"], "nowhere"),
            (["run", "nowhere.toml"], "nowhere.toml"),
            (["show", "nothing"], "nothing"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_are_refused(self, xbench, place, command, said):
        assert said in refused(xbench(place, *command), place)

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (["--only", "secnd"], "Did you mean 'second'?"),
            (["--set", "epochs"], "not KEY=VALUE"),
            (["--set", "adan.lr=1"], "nothing in the suite is called 'adan'"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_flags_that_do_not_suit_the_suite(self, xbench, place, flags, said):
        text = refused(xbench(place, "run", "suite.toml", *flags), place)
        assert said in text
        assert " ".join(flags) in text
        assert "hint: " in text


class TestWrongSuites:
    def test_all_mistakes_in_one_go_in_the_order_of_the_file(self, xbench, tmp_path):
        (tmp_path / "wrong.toml").write_text(MISTAKES)
        text = refused(xbench(tmp_path, "run", "wrong.toml"), tmp_path)
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        lines = MISTAKES.splitlines()
        expected = [
            ("sedes = 3", "Did you mean 'seeds'?"),
            ('model = "report-cn"', "Did you mean 'report-cnn'?"),
            ("epochs = 0", "epochs"),
            ("batchsize = 5", "Did you mean 'batch_size'?"),
            ('  name = "adm"', "Did you mean 'adam'?"),
            ('  lr = "fast"', "'fast'"),
            ('dataset = { name = "synthetic-xray", image_size = 4 }', "image_size"),
            ('optimizer = { name = "adam", momentun = 0.9 }', "momentun"),
            ('model = "tiny_parts:build_model"', "code outside any package"),
            ('optimizer = { name = "adam", lr = -1.0 }', "Invalid learning rate: -1.0"),
        ]
        assert len(errors) == len(expected)
        for error, (line, said) in zip(errors, expected, strict=True):
            assert error.startswith(f"error: wrong.toml:{lines.index(line) + 1}: ")
            assert said in error
        assert "hint: " in text
        assert "--allow-import" in text

    def test_each_wrong_value_of_a_list_is_named_with_its_line(self, xbench, tmp_path):
        (tmp_path / "lists.toml").write_text(LISTS)
        (tmp_path / "picky_parts.py").write_text(PICKY_PARTS)
        flags = ["--allow-import", ".", "--set", 'sam.lr=["a", -1, 0.1]', "--dry-run"]
        text = refused(xbench(tmp_path, "run", "lists.toml", *flags), tmp_path)
        errors = [line.removeprefix("error: ") for line in text.splitlines() if line.startswith("error: ")]
        picky, lr = "optimizer 'picky_parts:Picky'", "--set sam.lr=[\"a\", -1, 0.1]: optimizer 'sam'"
        expected = [
            f"{lr}: 'lr' should be a number, not 'a'",
            "lists.toml:8: model 'picky_parts:build' with width = 0 cannot be built: ValueError: too narrow",
            "lists.toml:11: synthetic-xray: image_size = 2 is not valid",
            "lists.toml:15: optimizer 'lbfgs' with history_size = 0: ",
            "lists.toml:15: optimizer 'lbfgs' with history_size = -1: ",
            f"lists.toml:21: {picky} with rho = 2: out of range",
            f"lists.toml:22: {picky} with rho = 3: out of range",
            "lists.toml:27: optimizer 'sgd' with momentum = -5.0: Invalid momentum value: -5.0",
            "lists.toml:32: optimizer 'sam': 'rho' should be a number, not '0.1'",
            "lists.toml:38: dataset 'picky_parts:pictures' with size = 1 is broken: ValueError: too small",
            "lists.toml:39: dataset 'picky_parts:pictures' with size = 2 is broken: ValueError: too small",
            "lists.toml:46: dataset 'picky_parts:empty' is broken: ValueError: no pictures",  # at any size
        ]
        # What the optimizer says of -1 is its own affair.
        of_trial = [error for error in errors if error.startswith(lr) and "-1" in error.removeprefix(lr)]
        rest = [error for error in errors if error not in of_trial]
        assert (len(of_trial), len(rest)) == (1, len(expected))
        for error, beginning in zip(rest, expected, strict=True):
            assert error.startswith(beginning)

    def test_bugs_of_own_code_are_told_with_the_line_of_the_code(self, xbench, tmp_path):
        (tmp_path / "buggy.toml").write_text(BUGGY)
        (tmp_path / "buggy_parts.py").write_text(BUGGY_PARTS)
        (tmp_path / "broken_parts.py").write_text("import torch\nStep = torch.optim.Stochastic\n")
        text = refused(xbench(tmp_path, "run", "buggy.toml", "--allow-import", ".", "--dry-run"), tmp_path)
        for line, said, place in [
            (7, "it raised AttributeError: 'Step' object has no attribute 'tempo'", "buggy_parts.py:8"),
            (14, "AttributeError: 'Tensor' object has no attribute 'flaten'", "buggy_parts.py:18"),
            (18, "dataset 'buggy_parts:images' is broken: KeyError: 'train'", "buggy_parts.py:22"),
            (22, "AttributeError: module 'torch.optim' has no attribute 'Stochastic'", "broken_parts.py:2"),
        ]:
            (error,) = [told for told in text.splitlines() if f"error: buggy.toml:{line}: " in told]
            assert said in error
            assert f"({place})" in error

    def test_a_probes_settings_are_checked_alike(self, xbench, tmp_path):
        settings = ["--set", "adam.betas=0.9", "--set", 'adam.foreach="false"', "--set", "dataset.train=4.0"]
        command = ["probe-capacity", "--optimizer", "adam", "--dataset", "synthetic-xray", *settings]
        text = refused(xbench(tmp_path, *command), tmp_path)
        assert [line for line in text.splitlines() if line.startswith("error: ")] == [
            "error: --set adam.betas=0.9: optimizer 'adam': 'betas' should be a list of 2 numbers, not 0.9",
            "error: --set adam.foreach=\"false\": optimizer 'adam': 'foreach' should be true or false, "
            "not 'false'",
            "error: --set dataset.train=4.0: dataset 'synthetic-xray': 'train' should be an integer, not 4.0",
        ]
        assert "write foreach = false, without quotes" in text

    def test_no_toml(self, xbench, tmp_path):
        (tmp_path / "wrong.toml").write_text("[suite]\nname = tiny\n")
        text = refused(xbench(tmp_path, "run", "wrong.toml"), tmp_path)
        assert "wrong.toml:2: not valid TOML" in text


class TestDryRun:
    def test_prints_the_cells_and_makes_nothing(self, xbench, place):
        done = xbench(place, "run", "suite.toml", "--dry-run")
        assert done.returncode == 0, done.stderr
        for expected in ("usage: 4 cells on ", "first", "second", "plain", "report-cnn", "synthetic-xray"):
            assert expected in done.stdout
        assert not (place / "results").exists()

    def test_only_set_and_seeds(self, xbench, place):
        flags = ["--only", "second", "--set", "epochs=2", "--set", "adam.lr=[1e-4,1e-3]", "--seeds", "2"]
        done = xbench(place, "run", "suite.toml", "--dry-run", "--format", "json", "--device", "cpu", *flags)
        document = json.loads(done.stdout)
        assert (document["suite"], document["device"]) == ("usage", "cpu")
        columns = ["adam lr=0.0001", "adam lr=0.001", "plain"]
        assert [
            (cell["experiment"], cell["cell"], cell["seed"], cell["epochs"]) for cell in document["cells"]
        ] == [("second", column, seed, 2) for seed in (0, 1) for column in columns]
