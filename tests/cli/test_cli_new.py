"""`xbench new` writes packages that pass their own tests."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

KINDS = ("optimizer", "model", "dataset")


def run(*command, **environment):
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def packages(xbench, tmp_path):
    """A package of each kind, by kind."""
    for kind in KINDS:
        done = xbench(tmp_path, "new", kind, f"my-own-{kind}")
        assert done.returncode == 0, done.stderr
        assert f"next: pip install -e my-own-{kind} && pytest my-own-{kind}\n" in done.stdout
    return {kind: tmp_path / f"my-own-{kind}" for kind in KINDS}


@pytest.mark.slow
def test_written_packages_pass_their_tests_when_they_are_installed(packages, tmp_path):
    pytest.importorskip("setuptools")
    pytest.importorskip("pip")
    target = tmp_path / "installed"
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", target)
    run("pip", "install", *options, *packages.values())
    path = os.pathsep.join([str(target), *filter(None, [os.environ.get("PYTHONPATH")])])
    listed = run("xbench", "list", PYTHONPATH=path)
    assert all(f"my-own-{kind} 0.1.0" in listed for kind in KINDS)
    tests = [package / "tests" for package in packages.values()]
    options = ("-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", "--import-mode=importlib")
    shown = run("pytest", *options, *tests, PYTHONPATH=path)
    assert " passed" in shown
    assert "failed" not in shown


def test_a_written_package_passes_its_tests_before_it_is_installed(packages):
    assert " passed" in run("pytest", "-q", "-p", "no:cacheprovider", packages["optimizer"])


def test_written_code_is_short_and_has_no_lint(packages):
    run("ruff", "check", "--no-cache", *packages.values())
    run("ruff", "format", "--check", "--no-cache", *packages.values())
    for package in packages.values():
        for file in package.glob("my_own_*/*.py"):
            assert len(file.read_text(encoding="utf-8").splitlines()) <= 50


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("optimizer", "adam", "optimizer 'adam' is registered by xbench "),
        ("optimizer", "xbench-adam", "optimizer 'adam' is registered by xbench "),
        ("model", "torch", "a module 'torch' can already be imported here"),
        ("model", "My Model", "'My Model' cannot be the name of a package"),
        ("model", "../model", "'../model' cannot be the name of a package"),
        ("dataset", "1st", "'1st' cannot be the name of a package"),
        ("dataset", "a--b", "'a--b' cannot be the name of a package"),
        ("dataset", "class", "Python has a keyword or a module of this name"),
        ("dataset", "json", "Python has a keyword or a module of this name"),
        ("optimizer", "xbench-4bit", "its class would be called 4bit, which is not a name in Python"),
        ("optimizer", "none", "its class would be called None, which is not a name in Python"),
        ("optimizer", "xbench-true", "its class would be called True"),
    ],
)
def test_names_that_cannot_be_used_are_refused(xbench, tmp_path, kind, name, said):
    done = xbench(tmp_path, "new", kind, name)
    assert done.returncode == 2
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten(xbench, tmp_path):
    (tmp_path / "mine").mkdir()
    done = xbench(tmp_path, "new", "model", "mine")
    assert done.returncode == 2
    assert "mine exists, and is not overwritten" in done.stderr
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_package_is_written_in_another_folder(xbench, tmp_path):
    done = xbench(tmp_path, "new", "model", "mine", "--dir", "some where")
    assert done.returncode == 0, done.stderr
    assert "pytest 'some where/mine'" in done.stdout
    assert (tmp_path / "some where/mine/mine/__init__.py").is_file()


def test_an_unknown_kind_is_refused(xbench, tmp_path):
    done = xbench(tmp_path, "new", "suite", "mine")
    assert done.returncode == 2
    assert "Invalid value for 'KIND'" in done.stderr
