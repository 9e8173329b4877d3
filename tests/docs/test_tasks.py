"""The examples of the page on tasks run as they are shown."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/tasks.md").read_text(encoding="utf-8")
MAX_CODE_LINES = 15
MAX_LINE_LENGTH = 110

# A block of a file begins with its name.
FILES = dict(re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)

TEXT = "".join(f"The number {number} times two is {2 * number}.\n" + "So it is.\n" for number in range(40))


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "lines.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


@pytest.fixture
def run(xbench, folder):
    """`run(command)`: what a command of the page prints."""

    def run(command: str) -> str:
        program, *arguments = shlex.split(command)
        start = {"xbench": xbench, "python": xbench.run_python}[program]
        done = start(folder, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def cells_of(folder: Path) -> dict[str, dict]:
    """Read the cells of the only run in a folder, by their columns."""
    (path,) = folder.glob("results/*/*/cells.jsonl")
    cells = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {cell["column"]: cell for cell in cells}


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("my_") and name.endswith(".py")])
def test_examples_are_short(name):
    lines = [line for line in FILES[name].splitlines() if line.strip()]
    assert len(lines) <= MAX_CODE_LINES
    assert max(map(len, lines)) <= MAX_LINE_LENGTH


def test_all_commands_of_the_page_are_tested_here():
    assert COMMANDS == [
        "xbench run my_text.toml --allow-import .\n",
        "xbench run my_pinn.toml --allow-import .\n",
        "python compare.py\n",
    ]


def test_a_language_model_learns_lines_of_text(folder, run):
    assert "test perplexity" in run(COMMANDS[0])
    cells = cells_of(folder)
    assert {cell["status"] for cell in cells.values()} == {"done"}
    assert cells["adamw"]["dataset"]["counts"] == {"test": 8, "train": 72}
    assert cells["adamw"]["metrics"]["test_perplexity"] < 256 / 2  # a model that knows nothing has 256


def test_lbfgs_solves_an_equation(folder, run):
    assert "test error" in run(COMMANDS[1])
    lbfgs = cells_of(folder)["lbfgs"]
    assert lbfgs["status"] == "done"
    assert lbfgs["memory_pass"]["not_resumable"] == ""
    assert lbfgs["metrics"]["test_error"] < 0.01


def test_the_distance_from_the_minimum_of_a_logistic_regression_is_reported(folder, run):
    assert "suboptimality" in run(COMMANDS[2])
    cells = cells_of(folder)
    above = {column: cell["metrics"]["suboptimality"] for column, cell in cells.items()}
    assert abs(above["lbfgs"]) < 1e-6 < above["sgd"]
