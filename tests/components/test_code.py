"""The stamp of code changes when the code does that a component runs, and only then."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from xbench.components import code
from xbench.components.code import code_stamp, own_stamp
from xbench.components.imports import files_behind

FILES = {
    "mine.py": "import os, torch\nfrom helpers.layers import thing\nfrom pack import part\ndef f(): ...\n",
    "helpers/layers.py": "import deep\nthing = 1\n",  # a folder without an `__init__.py`
    "deep.py": "depth = 2\n",
    "pack/__init__.py": "from . import part\n",
    "pack/part.py": "from .other import *\n",
    "pack/other.py": "other = 3\n",
    "alone.py": "raise SystemExit('nobody imports me')\n",
    "notes.txt": "no code\n",
}
BEHIND_MINE = set(FILES) - {"alone.py", "notes.txt"}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path, FILES)
    return tmp_path


def stamp(folder: Path, reference: str = "mine:build") -> str:
    """As another process would see it."""
    code_stamp.cache_clear()
    return code_stamp("model", reference, (str(folder),))


class TestUserCode:
    def test_files(self, folder):
        found = {str(path.relative_to(folder)) for path in files_behind("mine", [str(folder)])}
        assert found == BEHIND_MINE

    def test_nothing_is_run(self, folder):
        assert files_behind("alone", [str(folder)]) == [folder / "alone.py"]
        assert not {"mine", "helpers", "deep", "pack", "alone"} & set(sys.modules)

    @pytest.mark.parametrize("name", sorted(BEHIND_MINE))
    def test_whatever_it_imports_from_there_counts(self, folder, name):
        before = stamp(folder)
        (folder / name).write_text(FILES[name] + "# more\n")
        changed = stamp(folder)
        (folder / name).write_text(FILES[name])
        assert changed != before == stamp(folder)

    @pytest.mark.parametrize("name", ["alone.py", "notes.txt", "new.py"])
    def test_what_it_does_not_import_does_not(self, folder, name):
        before = stamp(folder)
        (folder / name).write_text("another = 1\n")
        assert stamp(folder) == before

    def test_what_it_names_in_a_text(self, folder):
        write(folder, {"mine.py": 'SPEC = dict(factory="alone:build")\n'})
        before = stamp(folder)
        (folder / "alone.py").write_text("another = 1\n")
        assert stamp(folder) != before

    def test_a_module_that_was_missing(self, folder):
        write(folder, {"mine.py": "try:\n    import later\nexcept ImportError:\n    later = None\n"})
        before = stamp(folder)
        (folder / "later.py").write_text("")
        assert stamp(folder) != before

    def test_where_it_lies_does_not_matter(self, folder, tmp_path_factory):
        other = tmp_path_factory.mktemp("other")
        write(other, FILES)
        assert stamp(other) == stamp(folder)

    def test_a_package(self, folder):
        write(folder, {"pack/sub/parts.py": "from ..other import other\ndef build(): ...\n"})
        before = stamp(folder, "pack.sub.parts:build")
        (folder / "pack/other.py").write_text("other = 4\n")
        assert stamp(folder, "pack.sub.parts:build") != before

    def test_folders_of_no_code_that_have_the_name_of_a_package(self, folder):
        write(folder, {"wandb/log.txt": "", "mine.py": "import wandb, wandb.sdk\nfrom wandb import *\n"})
        assert files_behind("mine", [str(folder)]) == [folder / "mine.py"]
        assert stamp(folder)

    @pytest.mark.parametrize("broken", ["def (", "\0", "import mine\nimport broken\n"])
    def test_what_it_imports_may_be_broken(self, folder, broken):
        write(folder, {"mine.py": "import broken, deep\n", "broken.py": broken})
        before = stamp(folder)
        (folder / "deep.py").write_text("depth = 3\n")
        assert stamp(folder) != before

    def test_a_package_may_be_broken(self, folder):
        write(folder, {"mine.py": "import pack\n", "pack/__init__.py": "def ("})
        before = stamp(folder)
        (folder / "pack/__init__.py").write_text("def f(): ...\n")
        assert stamp(folder) != before

    @pytest.mark.parametrize("text", [None, "def ("])
    def test_without_a_module_there_is_none(self, folder, text):
        (folder / "mine.py").unlink()
        if text:
            (folder / "mine.py").write_text(text)
        assert stamp(folder) == ""


class Claim:
    """An entry point."""

    def __init__(self, module: str):
        self.module = module


class TestPackages:
    @pytest.fixture
    def stamp_of(self, tmp_path, monkeypatch):
        """`stamp_of(module)`: of a component in a module of the package `plugged`."""
        plugged = "def build():\n    import elsewhere\n    raise RuntimeError\n"
        write(tmp_path, {"plugged/__init__.py": plugged, "plugged/inner/part.py": "a = 1\n"})
        write(tmp_path, {"flat.py": "a = 1\n", "plugged/readme.md": "text\n", "elsewhere.py": "b = 1\n"})
        monkeypatch.syspath_prepend(str(tmp_path))

        def of(module: str) -> str:
            registered = type("Registered", (), {"claims": (Claim(module),)})
            monkeypatch.setattr(code, "find", lambda kind, name: registered)
            code_stamp.cache_clear()
            return code_stamp("optimizer", "plugged")

        return of

    @pytest.mark.parametrize("name", ["plugged/__init__.py", "plugged/inner/part.py", "elsewhere.py"])
    def test_in_place_every_file_counts(self, stamp_of, tmp_path, name):
        before = stamp_of("plugged.inner")
        (tmp_path / name).write_text("a = 2\n")
        assert before != stamp_of("plugged.inner") != ""

    @pytest.mark.parametrize(
        ("text", "beside"),
        [
            ("import elsewhere", "elsewhere.py"),
            ("import elsewhere", "deep.py"),
            ('SPEC = dict(factory="elsewhere:Lion")', "deep.py"),
            ("from part import Lion", "part.py"),
        ],
    )
    def test_so_does_what_it_needs_from_beside_it(self, stamp_of, tmp_path, text, beside):
        """At one remove, too, named in a text, or by a name that a file of its own has."""
        write(tmp_path, {"plugged/__init__.py": text, "elsewhere.py": "import deep\n", "part.py": "a = 1\n"})
        write(tmp_path, {"deep.py": "c = 1\n"})
        before = stamp_of("plugged")
        (tmp_path / beside).write_text("import deep\nc = 2\n")
        assert stamp_of("plugged") != before

    def test_what_is_no_code_does_not(self, stamp_of, tmp_path):
        before = stamp_of("plugged")
        (tmp_path / "plugged/readme.md").write_text("more text\n")
        assert stamp_of("plugged") == before

    def test_one_file(self, stamp_of, tmp_path):
        before = stamp_of("flat")
        (tmp_path / "flat.py").write_text("a = 2\n")
        assert before != stamp_of("flat") != ""

    def test_of_what_is_installed_only_what_it_needs_counts(self, stamp_of, tmp_path, monkeypatch):
        monkeypatch.setattr(code.sysconfig, "get_path", lambda name: str(tmp_path))
        assert stamp_of("plugged") == ""
        versions = iter(["1.0", "1.1"])
        monkeypatch.setattr(code, "packages_distributions", lambda: {"elsewhere": ["else-where"]})
        monkeypatch.setattr(code, "version", lambda name: next(versions))
        assert stamp_of("plugged") != stamp_of("plugged") != ""

    def test_xbench_has_a_stamp_of_its_own(self, stamp_of):
        assert stamp_of("xbench.components.optimizers") == ""

    def test_nobody_knows_the_name(self):
        code_stamp.cache_clear()
        assert code_stamp("model", "nobody-knows-it") == ""


class TestOwn:
    @pytest.fixture
    def own_of(self, monkeypatch, tmp_path):
        """The stamp of a package of these files, in place."""
        monkeypatch.setattr(code, "__file__", str(tmp_path / "components" / "code.py"))

        def of(files: dict[str, str]) -> str:
            write(tmp_path, files)
            own_stamp.cache_clear()
            return own_stamp()

        yield of
        own_stamp.cache_clear()

    def test_what_cells_run_counts(self, own_of):
        files = {f"{room}/part.py": "" for room in ("components", "data", "isolation", "memory", "training")}
        stamps = {own_of(files)} | {own_of({name: "a = 1\n"}) for name in files}
        assert len(stamps) == 6

    def test_how_results_are_shown_does_not(self, own_of):
        before = own_of({"training/loop.py": "", "cli/run.py": "", "report/rows.py": ""})
        assert own_of({"cli/run.py": "a = 1\n", "report/rows.py": "a = 1\n"}) == before

    def test_none_where_a_version_stands_for_it(self, monkeypatch):
        monkeypatch.setattr(code, "_is_installed", lambda path: True)
        own_stamp.cache_clear()
        assert own_stamp() == ""
        own_stamp.cache_clear()
