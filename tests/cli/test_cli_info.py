"""`xbench info module:attribute`: code outside any package, if its folder is allowed."""

from __future__ import annotations

import pytest

from tests.cli.cli_process import USER_CODE, one_line


@pytest.fixture
def info(xbench, tmp_path):
    return lambda *args: xbench(tmp_path, "info", *args)


@pytest.fixture
def allowed(info):
    return lambda name: info(name, "--allow-import", str(USER_CODE))


def test_a_problem_is_its_model_and_its_dataset(allowed):
    done = allowed("task_parts:PROBLEM")
    assert (done.returncode, done.stderr) == (0, "")
    told = one_line(done.stdout)
    assert "model task_parts:PROBLEM imported from task_parts" in told
    assert "hidden │ 4" in told
    assert "dataset task_parts:PROBLEM imported from task_parts" in told
    assert 'task │ ""' in told
    assert "width │ 4" in told


def test_a_factory_has_the_settings_that_xbench_does_not_pass(allowed):
    told = one_line(allowed("task_parts:build_model").stdout)
    assert told.startswith("factory task_parts:build_model imported from task_parts")
    assert "hidden │ 4" in told
    assert "facts" not in told


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("task_parts:NOSUCH", "component 'task_parts:NOSUCH' cannot be imported: AttributeError"),
        (
            "task_parts:NOT_A_PROBLEM",
            "'task_parts:NOT_A_PROBLEM' is a int, not a factory, a spec or a problem",
        ),
        ("task_parts:MISNAMED", "model 'task_parts:MISNAMED': unknown model 'mpl'. Did you mean 'mlp'?"),
    ],
)
def test_what_is_not_a_component_is_an_error(allowed, name, error):
    done = allowed(name)
    assert (done.returncode, done.stdout) == (2, "")
    assert error in one_line(done.stderr)
    assert "Traceback" not in done.stderr


def test_the_folder_must_be_allowed(info):
    done = info("task_parts:PROBLEM")
    assert done.returncode == 2
    assert "is code outside any package" in one_line(done.stderr)
    assert "--allow-import DIR" in one_line(done.stderr)
