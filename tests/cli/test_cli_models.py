"""What is wrong with a model is told with its line before anything is decoded; the rest is for its cells."""

from __future__ import annotations

import pytest

from tests.cli.cli_process import one_line

SUITE = """
[suite]
name = "models"
[[experiment]]
name = "e"
dataset = {{ name = "tiny_parts:build_dataset", train = 24 }}
train_size = 20
validation = 0
selection = "last"
epochs = 1
batch_size = 5
optimizer = "sgd"
  [[experiment.model]]
  name = "tiny_parts:build_model"
{models}
"""


def model(name: str, more: str = "") -> str:
    return f'  [[experiment.model]]\n  name = "wrong_parts:{name}"\n{more}'


def test_all_mistakes_are_told_at_once(xbench, tmp_path, allow_user_code):
    models = [model("build_thousand"), model("build_fixed"), model("build_raising")]
    models += [model("Late", "  n_classes = 2\n")]
    (tmp_path / "my.toml").write_text(SUITE.format(models="".join(models)))
    done = xbench(tmp_path, "run", "my.toml", *allow_user_code)
    assert (done.returncode, done.stdout) == (2, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    wanted = [
        (15, "build_thousand' returns shape (1, 1000) for one image; expected (1, 2): one logit per class"),
        (17, "build_fixed' returns shape (1, 3) for one image; expected (1, 2): one logit per class"),
        (19, "build_raising' cannot be built: RuntimeError: not with this model (wrong_parts.py:"),
        (23, "Late': 'n_classes' is not a setting: xbench passes the dataset's number of classes in it"),
    ]
    assert len(errors) == len(wanted)
    for error, (line, words) in zip(errors, wanted, strict=True):
        assert error.startswith(f"error: my.toml:{line}: model 'wrong_parts:{words}")
    hint = "the signature build_fixed(hidden=8) has no parameter for the number of classes: name it"
    assert one_line(done.stderr).count(hint) == 1
    assert not list(tmp_path.glob("results"))


@pytest.fixture(scope="module")
def ran(run_suite):
    models = [model("build_softmaxed"), model("Late", "  hidden = 6\n"), model("Killing")]
    return run_suite(SUITE.format(models="".join(models)))


def test_what_happens_in_training_alone_or_kills_is_a_cells_status(ran):
    assert ran.done.returncode == 1
    ended = {line["model"]["name"].partition(":")[2]: (line["status"], line["reason"]) for line in ran.lines}
    assert ended["build_model"][0] == ended["build_softmaxed"][0] == "done"
    assert ended["Late"][0] == ended["Killing"][0] == "error"
    assert "ArithmeticError: not in training" in ended["Late"][1]
    assert "killed by SIGKILL" in ended["Killing"][1]


@pytest.mark.parametrize(
    "warning",
    [
        "model 'wrong_parts:build_softmaxed' returns what looks like probabilities",
        "model 'wrong_parts:Killing' could not be tried: a worker process failed: killed by SIGKILL",
    ],
)
def test_warnings_are_told_and_kept(ran, xbench, warning):
    for text in (ran.done.stderr, ran.done.stdout, xbench(ran.folder, "show").stdout):
        assert one_line(text).count(f"warning: {warning}") == 1


@pytest.mark.slow
def test_a_dry_run_warns_too(xbench, tmp_path, allow_user_code):
    (tmp_path / "my.toml").write_text(SUITE.format(models=model("build_softmaxed")))
    done = xbench(tmp_path, "run", "my.toml", "--dry-run", *allow_user_code)
    assert done.returncode == 0, done.stderr
    assert "build_softmaxed' returns what looks like probabilities" in done.stderr
