"""Code that writes files beside itself runs all the same; a module that is changed meanwhile does not."""

from __future__ import annotations

import pytest

from tests.cli.cli_process import records_of

SUITE = """
[suite]
name = "writing"

[[experiment]]
name = "small"
model = "tiny_parts:build_model"
dataset = "tiny_parts:build_dataset"
train_size = 20
batch_size = 5
optimizer = ["mine:Mine", "adam"]
"""
MINE = """from pathlib import Path
from torch.optim import SGD

class Mine(SGD):
    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)

    def step(self, closure):
        with Path(__file__).with_name("{file}").open("a") as file:
            file.write("# a step\\n")
        return super().step(closure)
"""


@pytest.mark.parametrize(
    ("file", "statuses"),
    [pytest.param("steps.txt", ["done", "done"], marks=pytest.mark.slow), ("new.py", ["error", "error"])],
)
def test_by_what_it_writes(xbench, tmp_path, allow_user_code, file, statuses):
    code = tmp_path / "code"
    code.mkdir()
    (code / "mine.py").write_text(MINE.replace("{file}", file))
    (tmp_path / "suite.toml").write_text(SUITE)
    xbench.run_suite(tmp_path, *allow_user_code)
    records = records_of(tmp_path)
    assert [record["status"] for record in records] == statuses
    for record in records:
        if record["status"] == "error":
            assert "its code changed during the run" in record["reason"]
            assert "new.py" in record["reason"]
