"""What the README and the pages say is true: keys, links, recipes."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

import xbench
from xbench.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_reference_of_suites_is_that_of_the_schema():
    done = subprocess.run([sys.executable, ROOT / "docs/reference.py", "--check"], check=False)
    assert done.returncode == 0, "run `python docs/reference.py`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    for target in targets:
        if not target.startswith("http"):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_the_modules_that_the_architecture_names_exist():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_]+/[a-z_]+\.py)`", text)
    assert named
    places = (ROOT / "xbench", ROOT)
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_every_page_is_reached_from_the_readme():
    seen, to_read = set(), [ROOT / "README.md"]
    while to_read:
        page = to_read.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)#]+\.md)", page.read_text(encoding="utf-8")):
            to_read.append((page.parent / target).resolve())
    assert seen >= set(PAGES)


def test_every_command_and_option_is_documented():
    text = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    to_see = [("xbench", typer.main.get_command(app))]
    while to_see:
        name, command = to_see.pop()
        to_see += [(f"{name} {sub}", found) for sub, found in getattr(command, "commands", {}).items()]
        if name != "xbench":
            assert f"# `{name}`\n" in text, "run `python docs/reference.py`"
            section = text.split(f"# `{name}`\n")[1].split("\n## ")[0]
            options = [option for parameter in command.params for option in parameter.opts]
            assert not [o for o in options if o.startswith("--") and f"`{o}" not in section], name


def test_every_public_name_is_documented():
    text = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("plugins.md", "python.md"))
    assert not [name for name in xbench.__all__ if not re.search(rf"\bxbench\.{name}\b", text)]


def test_all_built_in_datasets_models_and_suites_are_described():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    suites = [path.stem for path in (ROOT / "suites").glob("*.toml")]
    assert suites
    text = (ROOT / "docs/built-in.md").read_text(encoding="utf-8")
    names = [*declared["xbench.datasets"], *declared["xbench.models"], *suites]
    assert [name for name in names if not re.search(rf"`{name}[`/]", text)] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_recipes_of_the_readme_run(xbench, tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    suite, _ = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (model,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "rates.toml").write_text(suite, encoding="utf-8")
    (tmp_path / "my_models.py").write_text(model, encoding="utf-8")
    command = ["run", "rates.toml", "--set", "model=my_models:tiny", "--allow-import", ".", "--dry-run"]
    done = xbench(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert "12 cells" in done.stdout
