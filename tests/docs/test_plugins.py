"""The shortest plugin of the page on plugins works as it is shown."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.cli.cli_process import Cli

PAGE = (Path(__file__).parents[2] / "docs/plugins.md").read_text(encoding="utf-8")

# A block of a file begins with its name.
FILES = dict(re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))

# The page leaves the optimizer itself to the reader.
MY_PACKAGE = """
import torch


class MyOptimizer(torch.optim.SGD):
    pass
"""


@pytest.fixture
def python(tmp_path):
    """`python(arguments)`: what Python prints where the plugin of the page is installed."""
    site = tmp_path / "site"
    info = site / "xbench_myopt-0.1.dist-info"
    info.mkdir(parents=True)
    (site / "xbench_myopt.py").write_text(FILES["xbench_myopt.py"], encoding="utf-8")
    (site / "my_package.py").write_text(MY_PACKAGE, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: xbench-myopt\nVersion: 0.1\n")
    header, entry = FILES["pyproject.toml"].splitlines()
    group = re.fullmatch(r'\[project\.entry-points\."(.*)"\]', header)[1]
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry.replace(chr(34), '')}\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_contract.py").write_text(FILES["tests/test_contract.py"], encoding="utf-8")
    cli = Cli(tmp_path / "cache")
    cli.environment["PYTHONPATH"] = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])

    def python(*arguments: str) -> str:
        done = cli.run_python(tmp_path, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return python


def test_the_plugin_of_the_page_is_listed(python):
    listed = python("-m", "xbench", "list", "optimizers")
    assert re.search(r"myopt +│ xbench-myopt 0.1 +│ a one-line description", listed)


def test_the_plugin_of_the_page_keeps_to_the_contract(python):
    checked = python("-m", "xbench", "plugins", "check", "myopt")
    assert "1 component: " in checked
    assert ", 0 failed, " in checked


def test_the_test_of_the_page_passes(python):
    assert " passed" in python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")


def test_the_page_says_what_the_module_for_tests_offers():
    from xbench import testing

    assert not [name for name in testing.__all__ if name.startswith(("check", "conf")) and name not in PAGE]
