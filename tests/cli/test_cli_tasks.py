"""Suites on rows with tasks of a user's own: mistakes before a run, failures in it, and what is recorded."""

from __future__ import annotations

import json
import re

import pyarrow.parquet
import pytest

from tests.cli.cli_process import USER_CODE, one_line

pytestmark = pytest.mark.slow


# Lines of a suite that each of its experiments takes up.
LINES = 8


def experiments(*tables: tuple[str, str]) -> str:
    """A suite with an experiment for each name and its keys."""
    parts = ['suite.name = "tasks"' + "\n" * LINES]
    for name, keys in tables:
        lines = f'[[experiment]]\nname = "{name}"\n{keys}\n'
        if "optimizer =" not in keys:
            lines += 'optimizer = "sgd"\n'
        if "model =" not in keys and "problem =" not in keys:
            lines += 'model = "task_parts:build_model"\n'
        parts.append(lines + "\n" * (LINES - lines.count("\n")))
    return "".join(parts)


def rows(**settings: object) -> str:
    """The line of a dataset with these settings."""
    parts = ['name = "task_parts:build_rows"']
    parts += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    return f"dataset = {{ {', '.join(parts)} }}"


class Complaints:
    """What a command that does not run says of each experiment of its suite."""

    def __init__(self, xbench, folder, tables, *flags):
        (folder / "suite.toml").write_text(experiments(*tables))
        self.names = [name for name, _ in tables]
        self.done = xbench(folder, "run", "suite.toml", "--allow-import", str(USER_CODE), *flags)
        assert not list(folder.glob("results/*/*/cells.jsonl"))

    def of(self, name: str) -> str:
        """The lines without hints."""
        first = LINES * (1 + self.names.index(name))
        return "\n".join(line for number, line in self.located if first < number <= first + LINES)

    @property
    def located(self) -> list[tuple[int, str]]:
        found = re.findall(r"^error: suite\.toml:(\d+): (.*)$", self.done.stderr, re.MULTILINE)
        return [(int(number), line) for number, line in found]


TEXT = 'dataset = { name = "generated-text", size = 2000, context = 8 }'

MISTAKES = {
    "mean": (rows(task="mean"), "loss returns a tensor of shape (), not a number for each row"),
    "column": (rows(task="column"), "loss returns a tensor of shape (8, 1), not a number for each row"),
    "expanded": (rows(task="expanded"), "is not additive"),
    "contrast": (rows(task="contrast"), "is not additive"),
    "centred": (rows(task="centred"), "is not additive"),
    "infinite": (rows(task="infinite"), "has a loss of inf on a row, before any training"),
    "detached": (rows(task="detached"), "has losses without a gradient"),
    "key": (rows(task="key"), "TypeError: tuple indices must be integers or slices, not str (task_parts.py:"),
    "derived": (rows(task="derived"), "fails in evaluation: RuntimeError"),
    "metric-shape": (rows(task="metric shape"), "metric 'm' returns a tensor of shape () for 8 rows"),
    "metric-fails": (rows(task="metric fails"), "its metrics fail: ArithmeticError: I cannot go on"),
    "no-number": (rows(task="function is not a number"), "its function returns a str, not a number"),
    "collect": (rows(task="collect"), "what the task collects has a tensor of shape (1,) for 6 rows"),
    "narrow": (rows() + '\nmodel = "task_parts:build_narrow"', "(8x4 and 3x1)"),
    "in-parts": (rows(task="honest") + "\nmicro_batch = 4", "is not additive, so its batches cannot be"),
    "outputs": (
        'model = "task_parts:build_ten"\ndataset = "wine"',
        "returns outputs of shape (8, 10), and the task of dataset 'wine' declares a last dimension of 3",
    ),
    "test-shape": (
        'dataset = { name = "task_parts:build_other_rows", kind = "narrow test" }',
        "test rows, of (float32 (3,), float32 (1,)), where training rows are (float32 (4,), float32 (1,))",
    ),
    "storage": (rows(storage="float32"), "storage = 'float32' is for images"),
    "weights": (
        rows() + "\nclass_weights = { a = 2.0 }",
        "has no classes, so 'class_weights' has no meaning",
    ),
    "balance": (rows() + '\nbalance = "oversample"', "has no classes, so 'balance' has no meaning"),
    "selection": (rows(test=0) + '\nselection = "test_loss"', "has no test rows to select by"),
    "validation": (rows(validation=4) + "\nvalidation = 0.2", "brings validation rows, so none are held out"),
    "augmented": (
        'dataset = { name = "task_parts:build_other_rows", kind = "augmented" }',
        "a row differs when it is read again",
    ),
    "failing": (
        'dataset = { name = "task_parts:build_other_rows", kind = "failing" }',
        "cannot be read: FileNotFoundError: row 13 is gone (task_parts.py:",
    ),
    "heads": (
        f'model = {{ name = "gpt-mini", width = 30, heads = 4 }}\n{TEXT}',
        "width = 30 is not divisible by heads = 4",
    ),
    "context": (
        'model = "gpt-mini"\ndataset = { name = "generated-text", size = 200, context = 128 }',
        "200 bytes, too few for a context of 128",
    ),
    "tokenless": ('model = "gpt-mini"\ndataset = "wine"', "predicts outputs of kind 'tokens'"),
    "no-row-of-numbers": (
        f'model = "mlp"\n{TEXT}',
        "the task asks for tokens",
    ),
    "both": ('problem = "task_parts:PROBLEM"\nmodel = "mlp"', "'model' cannot name another"),
}


OF_THE_TASK = (
    *("mean", "column", "expanded", "contrast", "centred", "infinite", "detached", "derived"),
    *("metric-shape", "metric-fails", "collect"),
)


@pytest.fixture(scope="module")
def complaints(xbench, tmp_path_factory):
    tables = [(name, keys) for name, (keys, _) in MISTAKES.items()]
    return Complaints(xbench, tmp_path_factory.mktemp("mistakes"), tables)


class TestMistakes:
    """One error reports all of them, each with its line."""

    def test_are_told_before_the_run(self, complaints):
        assert (complaints.done.returncode, complaints.done.stdout) == (2, "")
        assert "Traceback" not in complaints.done.stderr

    @pytest.mark.parametrize("name", OF_THE_TASK)
    def test_of_a_task_are_told_at_the_line_of_the_dataset(self, complaints, name):
        place = LINES * (1 + complaints.names.index(name))
        assert [number - place for number, _ in complaints.located if 0 < number - place <= LINES] == [3]

    @pytest.mark.parametrize("name", MISTAKES)
    def test_are_one_line_at_the_experiment(self, complaints, name):
        assert complaints.of(name).count("\n") == 0
        assert MISTAKES[name][1] in complaints.of(name)


PROBLEMS = {
    "unknown": ('problem = "nosuch"', "unknown problem 'nosuch'"),
    "misnamed": (
        'problem = "task_parts:MISNAMED"',
        "problem 'task_parts:MISNAMED': unknown model 'mpl'. Did you mean 'mlp'?",
    ),
    "quoted": (
        'problem = "task_parts:QUOTED"',
        "problem 'task_parts:QUOTED': unknown model 'task_parts:build_model'.",
    ),
    "missing": (
        'problem = "task_parts:NOSUCH"',
        "problem 'task_parts:NOSUCH' cannot be imported: AttributeError: module 'task_parts'",
    ),
    "number": ('problem = "task_parts:NOT_A_PROBLEM"', "is a int, not a factory or a spec"),
    "optimizer": (
        'problem = "task_parts:PROBLEM"\noptimizer = "task_parts:PROBLEM"',
        "optimizer 'task_parts:PROBLEM' is an xbench.Problem, which has no optimizer",
    ),
}


def test_problems_that_are_none(xbench, tmp_path):
    tables = [(name, keys) for name, (keys, _) in PROBLEMS.items()]
    (tmp_path / "suite.toml").write_text(experiments(*tables))
    done = xbench(tmp_path, "run", "suite.toml", "--allow-import", str(USER_CODE))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for _, told in PROBLEMS.values():
        assert told in one_line(done.stderr)
    assert len(re.findall("^error: ", done.stderr, re.MULTILINE)) == len(PROBLEMS)


def test_a_mistake_that_takes_all_rows_to_find(xbench, tmp_path):
    found = Complaints(xbench, tmp_path, [("weight", rows(task="weight"))])
    assert found.done.returncode == 2
    assert found.located == [(LINES + 3, "dataset 'task_parts:build_rows': a row has a weight of -1.0")]


RUNS = [
    ("plain", rows()),
    ("functions", rows(task="function fails")),
    ("unlike", 'dataset = { name = "task_parts:build_other_rows", kind = "unlike" }'),
    (
        "late-token",
        'dataset = { name = "task_parts:build_other_rows", kind = "late token" }\n'
        'validation = 0\nselection = "last"\nmodel = { name = "gpt-mini", width = 4, depth = 1 }',
    ),
    (
        "gaps",
        'dataset = { name = "task_parts:build_other_rows", kind = "gaps" }\n'
        'validation = 0\nselection = "last"',
    ),
    ("honest", rows(task="honest")),
    ("derived", rows(task="honestly derived")),
    ("own-validation", rows(validation=5) + "\nvalidation = 0"),
    ("no-test", rows(test=0, task="known") + "\nvalidation = 0"),
    ("held-out", rows(task="known") + "\nvalidation = 0.25"),
    ("problem", 'problem = "task_parts:PROBLEM"'),
    ("ready", 'problem = "task_parts:READY"'),
    ("named", 'problem = "task_parts:NAMED"\nmodel = { hidden = [4], activation = "tanh" }'),
]


@pytest.fixture(scope="module")
def ran(run_suite):
    return run_suite(experiments(*RUNS))


@pytest.fixture(scope="module")
def run_folder(ran):
    return next(ran.folder.glob("results/*/*/cells.jsonl")).parent


@pytest.fixture(scope="module")
def records(ran):
    return {record["experiment"]: record for record in ran.lines}


class TestRuns:
    """Cells that fail are recorded, and do not keep others from running."""

    def test_all_cells_are_recorded(self, ran, records):
        assert list(records) == [name for name, _ in RUNS]
        failed = [name for name, record in records.items() if record["status"] != "done"]
        assert failed == ["functions", "unlike", "late-token", "gaps"]
        assert ran.done.returncode == 1
        assert "Traceback" not in ran.done.stderr

    def test_the_same_rows_with_another_task_are_another_cell(self, records):
        plain, honest = records["plain"], records["honest"]
        assert plain["cell_id"] != honest["cell_id"]
        assert plain["metrics"]["test_loss"] != honest["metrics"]["test_loss"]

    def test_a_metric_that_fails_after_training_is_an_error_of_its_cell(self, ran, records):
        record = records["functions"]
        assert record["status"] == "error"
        assert re.fullmatch(
            r"metric 'bad' fails: ArithmeticError: I cannot go on \(task_parts\.py:\d+\)", record["reason"]
        )
        undefined = {name for name, value in record["metrics"].items() if value is None}
        assert undefined == {"bad"}  # what was measured is kept
        assert record["steps"] == 1
        assert "error: metric 'bad' fails" in ran.done.stderr

    def test_rows_that_another_process_does_not_get_again_are_refused(self, records):
        assert records["unlike"]["reason"] == (
            "dataset 'task_parts:build_other_rows' returns other rows than when the run was planned: "
            "its factory must seed every random number that it draws, and sort the files that it lists"
        )

    def test_a_token_that_is_too_large_is_told_in_a_late_row_too(self, records):
        reason = records["late-token"]["reason"]
        assert "index out of range in self: an embedding has too few entries for a token" in reason

    def test_values_that_are_not_finite_are_told_with_the_divergence_that_follows(self, ran, records):
        told = "1 row holds NaN or infinite values: row 12 of train (from 0)"
        assert f"warning: task_parts:build_other_rows: {told}" in one_line(ran.done.stderr)
        assert records["gaps"]["status"] == "diverged"
        assert records["gaps"]["reason"] == f"the loss of step 1 is nan; {told}"
        assert records["gaps"]["dataset"]["notes"] == [f"{told}."]

    def test_rows_of_the_datasets_own_validation_are_not_trained_on(self, records):
        ran = records["own-validation"]["ran"]
        assert (ran["train_size"], ran["validation_size"]) == (24, 5)
        assert records["own-validation"]["epochs"][0]["values"]["validation_loss"] > 0
        assert records["plain"]["ran"]["validation_size"] == 2

    def test_metrics_without_test_rows_are_those_of_training(self, ran, records):
        values = records["no-test"]["metrics"]
        assert list(values) == ["train_loss", "suboptimality", "gradient_norm"]
        assert values["suboptimality"] == values["train_loss"] > 0
        assert values["gradient_norm"] > 0
        assert "outputs_crc32" not in {key for key, value in records["no-test"].items() if value is not None}

    def test_a_distance_to_the_optimum_of_all_rows_is_left_out_if_some_are_held_out(self, records):
        values = records["held-out"]["metrics"]
        assert values["test_loss"] > 0
        assert (values["suboptimality"], values["gradient_norm"]) == (None, None)

    def test_problems_are_their_model_and_their_rows(self, records):
        for name in ("problem", "ready", "named"):
            assert records[name]["metrics"]["test_loss"] == records["plain"]["metrics"]["test_loss"]
            assert records[name]["dataset"]["fingerprint"] == records["plain"]["dataset"]["fingerprint"]

    def test_a_known_optimum_that_is_not_shown_is_told(self, ran):
        assert (
            "held-out: the known minimum of task_parts:build_rows is that of all training rows"
            in one_line(ran.done.stderr)
        )

    def test_outputs_of_test_rows_are_kept(self, run_folder, records):
        table = pyarrow.parquet.read_table(run_folder / f"outputs/{records['plain']['cell_id']}.parquet")
        assert table.column_names[:3] == ["name", "group", "loss"]
        assert table["name"].to_pylist() == [f"row {24 + place}" for place in range(6)]
        mean = sum(table["loss"].to_pylist()) / 6
        assert mean == pytest.approx(records["plain"]["metrics"]["test_loss"], rel=1e-6)

    def test_are_found_again(self, ran, xbench):
        only = ("--only", "plain", "--only", "honest")
        again = xbench(ran.folder, "run", "suite.toml", "--allow-import", str(USER_CODE), *only)
        assert again.returncode == 0, again.stderr
        assert "every cell has already ended" in again.stderr

    @pytest.mark.parametrize("command", ["show", "report", "export"])
    def test_can_be_shown(self, ran, run_folder, xbench, command):
        flags = []
        if command == "export":
            pytest.importorskip("tensorboard")
            flags = ["--tensorboard", "board"]
        done = xbench(ran.folder, command, str(run_folder), *flags)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        if command == "show":
            assert "loss above minimum" in done.stdout
            assert "metric 'bad' fails" in one_line(done.stdout)
