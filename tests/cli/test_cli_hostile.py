"""Suites that mean harm: they run no code of other folders, take no memory, and print nothing but text."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

HEAD = '[suite]\nname = "hostile"\n[[experiment]]\nname = "one"\n'
PARTS = 'dataset = "tiny_parts:build_dataset"\noptimizer = "sgd"\n'
TOUCHES = "from pathlib import Path\nPath('was-here').touch()\ndef build(num_classes):\n    pass\n"


def unsafe(text: str) -> set[str]:
    """Characters that a terminal obeys."""
    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


@pytest.fixture
def dry_run(xbench, tmp_path):
    def run(text: str, *flags: str):
        (tmp_path / "my.toml").write_text(text, encoding="utf-8")
        return xbench(tmp_path, "run", "my.toml", "--dry-run", *flags)

    return run


def test_code_of_other_folders_is_not_imported(dry_run, tmp_path):
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (tmp_path / "elsewhere.py").write_text(TOUCHES)
    (allowed / "inner").mkdir()
    names = ["elsewhere:build", "../elsewhere:build", "..elsewhere:build", "inner/../../elsewhere:build"]
    names += [f"{tmp_path}/elsewhere:build", "antigravity:build", "os:system", "inner:build", "allowed.x:y"]
    models = "\n".join(
        f'[[experiment]]\nname = "e{place}"\nmodel = "{name}"\ndataset = "synthetic-xray"\noptimizer = "sgd"'
        for place, name in enumerate(names)
    )
    done = dry_run(f'[suite]\nname = "hostile"\n{models}\n', "--allow-import", str(allowed))
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(names)
    for place, (name, error) in enumerate(zip(names, errors, strict=True)):
        assert error.startswith(f"error: my.toml:{5 + 5 * place}: model '{name}' cannot be imported: ")
        assert "No module named" in error
    assert not list(tmp_path.rglob("was-here"))


def test_a_model_that_no_memory_can_hold_is_told_with_its_line(dry_run, allow_user_code):
    model = '{ name = "sized_parts:build_wide", ballast = 1_000_000_000_000 }'
    text = f'{HEAD}model = ["tiny_parts:build_model", {model}]\n{PARTS}'
    done = dry_run(text, *allow_user_code)
    (error,) = done.stderr.splitlines()
    assert error.startswith(
        "error: my.toml:5: model 'sized_parts:build_wide' with ballast = 1000000000000 cannot be built: "
        "it needs more memory"
    )
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.slow
def test_a_dataset_that_no_memory_can_hold_is_told_with_its_line(dry_run, tmp_path):
    (tmp_path / "endless.py").write_text("def build(images):\n    return [0] * images\n")
    dataset = '{ name = "endless:build", images = 1_000_000_000_000 }'
    done = dry_run(
        f'{HEAD}model = "report-cnn"\ndataset = {dataset}\noptimizer = "sgd"\n',
        "--allow-import",
        str(tmp_path),
    )
    (error,) = done.stderr.splitlines()
    assert error.startswith(
        "error: my.toml:6: dataset 'endless:build' cannot be listed: it needs more memory"
    )
    assert (done.returncode, done.stdout) == (2, "")


def test_a_dataset_of_too_many_images_is_told(dry_run):
    dataset = '{ name = "synthetic-xray", train = 1_000_000_000_000 }'
    done = dry_run(f'{HEAD}model = "report-cnn"\ndataset = {dataset}\noptimizer = "sgd"\n')
    assert done.returncode == 2
    assert "error: my.toml:6: synthetic-xray: train = 1000000000000 is not valid\n" in done.stderr
    assert "hint: set train to at most 1,000,000\n" in done.stderr


@pytest.mark.slow
def test_a_step_that_never_ends_does_not_hold_up_the_check(dry_run):
    settings = "lr = 1e-9, max_iter = 1_000_000_000_000, tolerance_grad = -1, tolerance_change = -1"
    optimizer = f'{{ name = "lbfgs", {settings} }}'
    text = f'{HEAD}model = "nowhere"\ndataset = "synthetic-xray"\noptimizer = {optimizer}\n'
    done = dry_run(text)
    (error, _) = done.stderr.splitlines()
    assert error == "error: my.toml:5: unknown model 'nowhere'."


def test_names_do_nothing_to_the_terminal(run_suite):
    evil = r"\u001b[31m\u202e\u009bx[red]|`"
    optimizers = f'{{ name = "sgd", label = "{evil}" }}, {{ name = "adam", lr = 1e30, label = "b{evil}" }}'
    columns = f'{{ "{evil}" = {{ auc = 0.5 }} }}'
    text = (
        f'{HEAD}title = "title {evil}\\nnext\\rline\\t\\u0007"\nmodel = "tiny_parts:build_model"\n'
        f'dataset = "tiny_parts:build_dataset"\noptimizer = [{optimizers}]\n'
        f'reference = {{ name = "ref {evil}", note = "note {evil}", columns = {columns} }}\n'
    )
    done = run_suite(text).done
    assert done.returncode in (0, 1), done.stderr
    assert unsafe(done.stdout + done.stderr) == set()
    for output in (done.stdout, done.stderr):
        assert r"\x1b[31m\u202e\x9bx[red]|`" in output
    assert r"\nnext\rline\t\x07" in " ".join(done.stdout.split())


@pytest.mark.slow
def test_files_of_the_current_folder_stand_in_for_no_module(xbench, tmp_path):
    """Of `grp`, which torch's imports end with, as a script that somebody has called so."""
    (tmp_path / "grp.py").write_text("open('was_run', 'w').close()\n")
    command = Path(sys.executable).with_name("xbench")
    done = subprocess.run(
        [command, "doctor", "--device", "cpu"],
        cwd=tmp_path,
        env=xbench.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "was_run").exists()
