"""Searches for settings, from the command line: trials, the cells with their outcome, and resuming."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from tests.cli.cli_process import copy_user_code, one_line, wait_for

SUITE = """
[suite]
name = "tuned"
seeds = 2

[[experiment]]
name = "wine"
model = { name = "mlp", hidden = [4] }
dataset = "wine"
epochs = 2
batch_size = 16
tune = { trials = 3 }
optimizer = ["sgd", { name = "adam", lr = 0.01, tune = false }]
"""


def lines_of(folder: Path, run: str = "*") -> list[dict[str, Any]]:
    """The lines of all runs, the oldest run first."""
    files = sorted(folder.glob(f"results/tuned/{run}/cells.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def trials_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["trial"]]


def cells_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if not line["trial"]]


class Ended:
    """A suite in a folder of its own, whose run has ended."""

    def __init__(self, xbench, folder: Path, text: str, *flags: str):
        self.folder, self._xbench, self._flags = folder, xbench, flags
        copy_user_code(folder / "code", "tuned_parts.py")
        (folder / "suite.toml").write_text(text)
        self.run()

    def run(self, *flags: str) -> None:
        self.done = self._xbench.run_suite(self.folder, *self._flags, *flags)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return lines_of(self.folder)

    @property
    def begun(self) -> list[float]:
        """The rates with which optimizers of `tuned_parts` began, memory passes included."""
        path = self.folder / "trials"
        return [float(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def plain(xbench, tmp_path_factory):
    return Ended(xbench, tmp_path_factory.mktemp("tuned"), SUITE)


class TestARun:
    def test_has_trials_and_then_the_cells_with_the_best_settings(self, plain):
        assert plain.done.returncode == 0, plain.done.stderr
        places = [(line["column"], line["seed"], bool(line["trial"])) for line in plain.lines]
        assert places == [
            *[("sgd", 10_000, True)] * 3,
            ("sgd", 0, False),
            ("adam", 0, False),
            ("sgd", 1, False),
            ("adam", 1, False),
        ]
        trials = trials_of(plain.lines)
        best = min(trials, key=lambda line: line["trial"]["score"])
        found = {
            "trial": best["trial"]["number"],
            "values": best["trial"]["values"],
            "trials": [line["cell_id"] for line in trials],
        }
        for cell in cells_of(plain.lines):
            if cell["column"] == "sgd":
                assert cell["tuned"] == found
                assert cell["optimizer"]["params"] == best["trial"]["values"]
            else:
                assert (cell["tuned"], cell["optimizer"]["params"]) == (None, {"lr": 0.01})

    def test_trials_are_numbered_and_scored_at_the_selected_epoch(self, plain):
        trials = trials_of(plain.lines)
        assert [line["trial"]["number"] for line in trials] == [1, 2, 3]
        for line in trials:
            selected = line["epochs"][line["selected_epoch"] - 1]
            assert line["trial"]["score"] == selected["values"]["validation_loss"]
            assert line["optimizer"]["params"] == line["trial"]["values"]

    def test_trials_do_not_see_the_test_rows(self, plain):
        for line in trials_of(plain.lines):
            assert line["status"] == "done"
            assert line["metrics"] == {}
            assert line["outputs_crc32"] is None
            assert all("test" not in name for epoch in line["epochs"] for name in epoch["values"])
        assert all(cell["metrics"]["test_accuracy"] is not None for cell in cells_of(plain.lines))
        assert len(list(plain.folder.glob("results/*/*/outputs/*.parquet"))) == 4

    def test_trials_have_traces(self, plain):
        (run,) = plain.folder.glob("results/tuned/[!.]*")
        for line in trials_of(plain.lines):
            assert pyarrow.parquet.read_table(run / "traces" / f"{line['cell_id']}.parquet").num_rows > 0

    def test_trials_share_a_memory_pass_with_the_cells(self, plain):
        of_sgd = [line for line in plain.lines if line["column"] == "sgd"]
        assert [line["time"]["memory_pass_s"] is not None for line in of_sgd] == [True] + 4 * [False]
        assert len({line["memory_pass"]["configuration"] for line in of_sgd}) == 1

    def test_the_search_is_declared(self, plain):
        (path,) = plain.folder.glob("results/tuned/*/run.json")
        run = json.loads(path.read_text())
        assert run["experiments"][0]["tuning"] == {
            "search": "quasi-random",
            "budget": 3,
            "budget_unit": "trials",
            "metric": "validation_loss",
            "direction": "min",
            "seed": 10_000,
            "spaces": {
                "sgd": {
                    "lr": {"low": 1e-4, "high": 1.0, "scale": "log", "integer": False, "choices": []},
                }
            },
        }
        assert len(run["cells"]) == 4

    def test_progress_names_trials(self, plain):
        told = one_line(plain.done.stderr)
        assert "4 cells; records in" in told
        for number in (1, 2, 3):
            assert f"trial {number} of 3 of wine / sgd / seed 10000: done, lr = " in told
        assert "[1/4] wine / sgd / seed 0: done" in told

    def test_tables_leave_trials_out(self, plain, xbench):
        shown = json.loads(xbench(plain.folder, "show", "--format", "json").stdout)
        (experiment,) = shown["experiments"]
        assert [len(column["statuses"]) for column in experiment["columns"]] == [2, 2]
        assert all(cell["trial"] is None for cell in experiment["cells"])
        listed = xbench(plain.folder, "runs").stdout
        assert "4 done" in one_line(listed)

    def test_a_second_command_runs_nothing(self, xbench, plain):
        before = len(plain.lines)
        again = xbench(plain.folder, "run", "suite.toml")
        assert again.returncode == 0
        assert "every cell has already ended" in again.stderr
        assert len(plain.lines) == before

    def test_a_dry_run_says_what_is_searched(self, plain, xbench):
        document = json.loads(
            xbench(plain.folder, "run", "suite.toml", "--dry-run", "--format", "json").stdout
        )
        (search,) = document["searches"]
        assert (search["cell"], search["budget"], search["seed"]) == ("sgd", "3 trials", 10_000)
        assert search["space"] == "lr: 0.0001 to 1 (log)"
        assert search["estimated_s"] > 0
        assert len(document["cells"]) == 4
        assert document["estimated_s"] > search["estimated_s"]
        shown = xbench(plain.folder, "run", "suite.toml", "--dry-run").stdout
        assert "for the trials of searches" in one_line(shown)


def test_more_seeds_take_over_the_trials(plain, xbench, tmp_path_factory):
    """In a new folder, as the suite has changed."""
    before = {line["cell_id"]: line["trial"] for line in trials_of(plain.lines)}
    done = xbench(plain.folder, "run", "suite.toml", "--seeds", "3")
    assert done.returncode == 0, done.stderr
    latest = sorted(plain.folder.glob("results/tuned/[!.]*"))[-1].name
    lines = lines_of(plain.folder, latest)
    assert {line["cell_id"]: line["trial"] for line in trials_of(lines)} == before
    assert all(line["reused_from"] for line in trials_of(lines))
    assert [(line["column"], line["seed"]) for line in lines if not line["reused_from"]] == [
        ("sgd", 2),
        ("adam", 2),
    ]


def test_cells_that_are_taken_over_bring_their_trials(plain, xbench):
    before = {line["cell_id"]: line["trial"] for line in trials_of(plain.lines)}
    done = xbench(plain.folder, "run", "suite.toml", "--seeds", "1")
    assert done.returncode == 0, done.stderr
    latest = sorted(plain.folder.glob("results/tuned/[!.]*"))[-1].name
    lines = lines_of(plain.folder, latest)
    assert all(line["reused_from"] for line in lines)
    assert {line["cell_id"]: line["trial"] for line in trials_of(lines)} == before
    shown = one_line(xbench(plain.folder, "show").stdout)
    assert "trials that succeeded" in shown and "not in the records" not in shown


PICKY = """
[suite]
name = "tuned"

[[experiment]]
name = "wine"
model = { name = "mlp", hidden = [4] }
dataset = "wine"
batch_size = 16
epochs = 2
optimizer = [{ name = "tuned_parts:PICKY", label = "picky", way = "WAY", most = MOST }]
tune = { trials = 4 }
"""


def picky(way: str, most: float, **changes: str) -> str:
    text = PICKY.replace("WAY", way).replace("MOST", str(most))
    for old, new in changes.items():
        text = text.replace(f"{old} = ", f"{old} = {new} # ")
    return text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "status"), [("diverge", "diverged"), ("raise", "error"), ("hoard", "oom"), ("die", "error")]
)
def test_trials_that_fail_are_charged_and_do_not_fail_the_run(xbench, tmp_path, way, status):
    ran = Ended(xbench, tmp_path, picky(way, 0.1))
    assert ran.done.returncode == 0, ran.done.stderr
    # Memory that malloc kept may be returned in another attempt.
    trials = list({line["cell_id"]: line for line in trials_of(ran.lines)}.values())
    assert len(trials) == 4
    fast = [line["trial"]["values"]["lr"] > 0.1 for line in trials]
    assert 0 < sum(fast) < 4
    assert [line["status"] for line in trials] == [status if is_fast else "done" for is_fast in fast]
    assert all(line["trial"]["score"] is None for line, is_fast in zip(trials, fast, strict=True) if is_fast)
    (cell,) = cells_of(ran.lines)
    assert (cell["status"], cell["tuned"]["values"]["lr"] <= 0.1) == ("done", True)


@pytest.fixture(scope="module")
def failed(xbench, tmp_path_factory):
    return Ended(xbench, tmp_path_factory.mktemp("none"), picky("diverge", 0.0))


class TestIfNoTrialSucceeds:
    def test_its_cells_are_errors_that_say_so(self, failed):
        assert failed.done.returncode == 1
        (cell,) = cells_of(failed.lines)
        assert cell["status"] == "error"
        assert cell["reason"].startswith("no trial of its search succeeded (4 diverged): ")
        assert cell["tuned"] is None
        assert "no trial of its search succeeded" in one_line(failed.done.stderr)

    def test_another_run_does_not_repeat_them(self, failed):
        failed.run()
        assert failed.done.returncode == 1
        assert len(trials_of(failed.lines)) == 4
        assert [cell["attempt"] for cell in cells_of(failed.lines)] == [1, 2]


@pytest.mark.slow
def test_errors_are_tried_again_if_no_trial_succeeded(xbench, tmp_path):
    ran = Ended(xbench, tmp_path, picky("raise", 0.0))
    ran.run()
    counts = Counter((line["trial"]["number"], line["attempt"]) for line in trials_of(ran.lines))
    assert counts == {(number, attempt): 1 for number in (1, 2, 3, 4) for attempt in (1, 2)}


@pytest.mark.slow
def test_a_budget_of_evaluations_is_not_exceeded(xbench, tmp_path):
    ran = Ended(xbench, tmp_path, picky("diverge", 100.0, tune="{ closures = 70 }"))
    trials = trials_of(ran.lines)
    each = trials[0]["closures"]
    assert [line["closures"] for line in trials] == [each] * (70 // each)
    assert "(0 of 70 gradient evaluations used)" in one_line(ran.done.stderr)


@pytest.mark.slow
def test_tpe_and_grid_run_too(xbench, tmp_path):
    for search in ("tpe", "grid"):
        folder = tmp_path / search
        folder.mkdir()
        ran = Ended(xbench, folder, picky("diverge", 1.0, tune=f'{{ trials = 6, search = "{search}" }}'))
        assert ran.done.returncode == 0, ran.done.stderr
        rates = [line["trial"]["values"]["lr"] for line in trials_of(ran.lines)]
        assert len(set(rates)) == 6
        assert "optuna" not in ran.done.stderr.lower()


@pytest.mark.slow
def test_a_killed_run_repeats_no_trial_that_had_ended(xbench, tmp_path):
    copy_user_code(tmp_path / "code", "tuned_parts.py")
    text = picky("diverge", 100.0, tune='{ trials = 6, search = "tpe" }')
    (tmp_path / "suite.toml").write_text(text)
    (tmp_path / "slow").touch()
    command = ("run", "suite.toml", "--allow-import", "code")

    def count() -> int:
        return len(trials_of(lines_of(tmp_path)))

    with xbench.start(tmp_path, *command) as process:
        wait_for(lambda: count() == 2, "two trials", process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    (tmp_path / "slow").unlink()
    ended = [line["cell_id"] for line in trials_of(lines_of(tmp_path))]
    done = xbench(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    trials = trials_of(lines_of(tmp_path))
    assert [line["trial"]["number"] for line in trials] == [1, 2, 3, 4, 5, 6]
    assert [line["cell_id"] for line in trials][: len(ended)] == ended
    assert f"trial {len(ended) + 1} of 6" in one_line(done.stderr)
    assert "trial 1 of 6" not in one_line(done.stderr)


@pytest.mark.slow
def test_an_interrupted_trial_goes_on(xbench, tmp_path):
    copy_user_code(tmp_path / "code", "tuned_parts.py")
    (tmp_path / "suite.toml").write_text(picky("diverge", 100.0))
    (tmp_path / "slow").touch()
    command = ("run", "suite.toml", "--allow-import", "code")
    with xbench.start(tmp_path, *command) as process:
        wait_for(lambda: any(tmp_path.glob("results/tuned/*/checkpoints/*")), "a trial", process)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=100)
    (tmp_path / "slow").unlink()
    assert process.returncode == 130
    assert "trial 1 of 4 of wine / picky" in one_line(told)
    assert xbench(tmp_path, *command).returncode == 0
    assert [line["trial"]["number"] for line in trials_of(lines_of(tmp_path))] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("validation = 0.0", "wine has no validation rows to compare trials by"),
        ("selection = 'test_loss'", "trials do not see the test rows"),
        ("", "wine has no metric 'validation_speed' that is measured on validation rows"),
    ],
)
def test_a_search_that_cannot_be_scored_is_a_mistake(xbench, tmp_path, change, told):
    text = SUITE.replace("epochs = 2", f"epochs = 2\n{change}")
    if not change:
        text = text.replace("trials = 3", "trials = 3, metric = 'validation_speed'")
    (tmp_path / "suite.toml").write_text(text)
    done = xbench(tmp_path, "run", "suite.toml")
    assert done.returncode == 2
    assert f": {told}" in one_line(done.stderr)
    assert "suite.toml:1" in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_rate_that_the_optimizer_refuses_is_a_mistake_at_its_line(xbench, tmp_path):
    table = "{ name = 'sgd', tune = { lr = { low = -1.0, high = 1.0 } } }"
    (tmp_path / "suite.toml").write_text(SUITE.replace('"sgd"', table))
    done = xbench(tmp_path, "run", "suite.toml")
    assert done.returncode == 2
    assert one_line(done.stderr).startswith("error: suite.toml:13: optimizer 'sgd'")
    assert "Invalid learning rate: -1.0" in one_line(done.stderr)


def test_a_setting_that_is_both_searched_and_adapted_is_a_mistake_at_its_line(xbench, tmp_path):
    table = "{ name = 'lbfgs', tune = { max_iter = [2, 4], history_size = { low = 2, high = 9 } } }"
    text = SUITE.replace('optimizer = ["sgd"', f'adapt = ["history_size"]\noptimizer = [{table}')
    (tmp_path / "suite.toml").write_text(text)
    done = xbench(tmp_path, "run", "suite.toml")
    assert done.returncode == 2
    told = "error: suite.toml:14: 'history_size' is searched, so it cannot be reduced to fit into memory"
    assert one_line(done.stderr).startswith(told)
    (tmp_path / "suite.toml").write_text(text.replace("history_size = {", "tolerance_grad = {"))
    assert xbench(tmp_path, "run", "suite.toml", "--dry-run").returncode == 0
