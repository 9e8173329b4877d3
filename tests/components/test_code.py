"""Tests that the stamp of a component's code changes with its own files only."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from xbench.components import code
from xbench.components.code import code_stamp, latest_change, own_stamp
from xbench.components.code_files import ImportDirs, place_of

FILES = {
    "mine.py": "import os, torch\nfrom helpers.layers import thing\ndef f(): ...\n",
    "helpers/layers.py": "thing = 1\n",
    "alone.py": "raise SystemExit('nobody imports me')\n",
    "net.json": '{"side": 2}\n',
    "start.pt": "weights\n",
    "notes.txt": "text\n",
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path, FILES)
    return tmp_path


def stamp(*folders: Path, reference: str = "mine:build", left_out: tuple[Path, ...] = ()) -> str:
    """Compute a stamp without the cache, as another process would."""
    code_stamp.cache_clear()
    dirs = ImportDirs(tuple(map(str, folders)), frozenset(map(place_of, left_out)))
    return code_stamp("model", reference, dirs)


class TestUserCode:
    @pytest.mark.parametrize("name", sorted(FILES))
    def test_every_file_counts(self, folder, name):
        before = stamp(folder)
        (folder / name).write_text(FILES[name] + "# more\n")
        changed = stamp(folder)
        (folder / name).write_text(FILES[name])
        assert changed != before == stamp(folder)

    @pytest.mark.parametrize("name", sorted(FILES))
    def test_other_files_can_be_left_out(self, folder, name):
        def of_modules() -> str:
            code_stamp.cache_clear()
            return code_stamp("model", "mine:build", ImportDirs((str(folder),)), only_modules=True)

        before = of_modules()
        (folder / name).write_text(FILES[name] + "# more\n")
        assert (of_modules() != before) == name.endswith(".py")

    @pytest.mark.parametrize("name", ["new.py", "helpers/new.json", "new"])
    def test_a_new_file_counts(self, folder, name):
        before = stamp(folder)
        (folder / name).write_text("")
        assert stamp(folder) != before

    def test_a_name_counts(self, folder):
        before = stamp(folder)
        (folder / "net.json").rename(folder / "other.json")
        assert stamp(folder) != before

    def test_content_counts_but_not_the_time_of_change(self, folder):
        before = stamp(folder)
        os.utime(folder / "net.json", (1, 1))
        assert stamp(folder) == before

    def test_code_is_not_run(self, folder):
        assert stamp(folder)
        assert not {"mine", "helpers", "alone"} & set(sys.modules)

    def test_all_references_have_the_same_stamp(self, folder):
        assert stamp(folder, reference="alone:x") == stamp(folder, reference="helpers.layers:thing")

    def test_every_allowed_folder_and_their_order_count(self, folder, tmp_path_factory):
        other = tmp_path_factory.mktemp("other")
        write(other, {"more.py": "a = 1\n"})
        both = stamp(folder, other)
        assert len({stamp(folder), both, stamp(other, folder)}) == 3
        write(other, {"more.py": "a = 2\n"})
        assert stamp(folder, other) != both

    def test_path_of_the_folder_does_not_count(self, folder, tmp_path_factory):
        other = tmp_path_factory.mktemp("other")
        write(other, FILES)
        assert stamp(other) == stamp(folder)

    def test_left_out_files_do_not_count(self, folder):
        write(folder, {"pictures/1.txt": "1"})
        before = stamp(folder, left_out=(folder / "pictures",))
        write(folder, {"pictures/1.txt": "2", "pictures/2.txt": "2"})
        assert stamp(folder, left_out=(folder / "pictures",)) == before

    @pytest.mark.parametrize("broken", ["def (", "\0", "import mine\nimport broken\n"])
    def test_broken_file_counts(self, folder, broken):
        write(folder, {"broken.py": broken})
        assert stamp(folder)

    def test_unreadable_file_counts_by_size_and_time_of_change(self, folder, monkeypatch):
        def unreadable(path):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(code, "read_regular", unreadable)
        before = stamp(folder)
        (folder / "net.json").write_text("of another size")
        assert stamp(folder) != before

    @pytest.mark.parametrize(("name", "size"), [("start.pt", 10_000_001), ("picture.png", 10)])
    def test_large_files_and_images_count_by_size_and_time_of_change(self, folder, name, size):
        path = folder / name
        path.write_bytes(bytes(size))
        os.utime(path, (1, 1))
        before = stamp(folder)
        path.write_bytes(bytes(size - 1) + b"x")
        os.utime(path, (1, 1))
        assert stamp(folder) == before
        os.utime(path, (2, 2))
        assert stamp(folder) != before

    def test_the_file_that_was_changed_last_is_named(self, folder):
        for name in FILES:
            os.utime(folder / name, (1, 1))
        os.utime(folder / "net.json", (2, 2))
        assert latest_change([str(folder)]).path == folder / "net.json"
        assert latest_change([]) is None

    def test_imported_packages_do_not_count(self, folder, tmp_path_factory, monkeypatch):
        site = tmp_path_factory.mktemp("site")
        monkeypatch.syspath_prepend(str(site))
        write(site, {"plugged/__init__.py": "a = 1\n"})
        write(folder, {"mine.py": "import plugged\n"})
        before = stamp(folder)
        write(site, {"plugged/__init__.py": "a = 2\n"})
        assert stamp(folder) == before

    def test_xbench_below_the_folder_does_not_count(self, folder, monkeypatch):
        write(folder, {"xbench/part.py": "a = 1\n"})
        monkeypatch.setattr(code, "XBENCH", folder / "xbench")
        before = stamp(folder)
        write(folder, {"xbench/part.py": "a = 2\n"})
        assert stamp(folder) == before


class Claim:
    """An entry point."""

    def __init__(self, module: str):
        self.module = module


class TestPackages:
    @pytest.fixture
    def stamp_of(self, tmp_path, monkeypatch):
        """`stamp_of(module)`: of a component in a module of the package `plugged`."""
        plugged = "import elsewhere\nraise RuntimeError\n"
        write(tmp_path, {"plugged/__init__.py": plugged, "plugged/inner/part.py": "a = 1\n"})
        write(tmp_path, {"flat.py": "a = 1\n", "plugged/net.json": "{}\n", "elsewhere.py": "b = 1\n"})
        monkeypatch.syspath_prepend(str(tmp_path))

        def of(module: str) -> str:
            registered = type("Registered", (), {"claims": (Claim(module),)})
            monkeypatch.setattr(code, "find", lambda kind, name: registered)
            code_stamp.cache_clear()
            return code_stamp("optimizer", "plugged")

        return of

    @pytest.mark.parametrize("name", ["plugged/__init__.py", "plugged/inner/part.py", "plugged/net.json"])
    def test_every_file_of_an_editable_package_counts(self, stamp_of, tmp_path, name):
        before = stamp_of("plugged.inner")
        (tmp_path / name).write_text("a = 2\n")
        assert before != stamp_of("plugged.inner") != ""

    @pytest.mark.parametrize("name", ["plugged/__pycache__/a.pyc", "plugged/.hidden", "elsewhere.py"])
    def test_files_outside_an_editable_package_do_not_count(self, stamp_of, tmp_path, name):
        before = stamp_of("plugged")
        write(tmp_path, {name: "a = 2\n"})
        assert stamp_of("plugged") == before

    def test_single_file_module_counts(self, stamp_of, tmp_path):
        before = stamp_of("flat")
        (tmp_path / "flat.py").write_text("a = 2\n")
        assert before != stamp_of("flat") != ""

    def test_installed_package_has_no_stamp(self, stamp_of, tmp_path, monkeypatch):
        """Its version is part of the component's origin."""
        monkeypatch.setattr(code.sysconfig, "get_path", lambda name: str(tmp_path))
        assert stamp_of("plugged") == stamp_of("flat") == ""

    @pytest.mark.parametrize("module", ["no_such_package", "sys"])
    def test_module_without_files_has_no_stamp(self, stamp_of, module):
        assert stamp_of(module) == ""

    def test_built_in_component_has_no_stamp(self, stamp_of):
        assert stamp_of("xbench.components.optimizers") == ""

    def test_unknown_name_has_no_stamp(self):
        code_stamp.cache_clear()
        assert code_stamp("model", "nobody-knows-it") == ""


class TestOwn:
    @pytest.fixture
    def own_of(self, monkeypatch, tmp_path):
        """The stamp of a package of these files, in place."""
        monkeypatch.setattr(code, "XBENCH", tmp_path)

        def of(files: dict[str, str]) -> str:
            write(tmp_path, files)
            own_stamp.cache_clear()
            return own_stamp()

        yield of
        own_stamp.cache_clear()

    def test_code_that_cells_run_counts(self, own_of):
        files = {f"{room}/part.py": "" for room in ("components", "data", "isolation", "memory", "training")}
        files["records/metrics.py"] = ""
        stamps = {own_of(files)} | {own_of({name: "a = 1\n"}) for name in files}
        assert len(stamps) == 7

    def test_report_code_does_not_count(self, own_of):
        before = own_of(
            {"training/loop.py": "", "records/metrics.py": "", "cli/run.py": "", "report/rows.py": ""}
        )
        assert own_of({"cli/run.py": "a = 1\n", "report/rows.py": "a = 1\n"}) == before

    def test_installed_xbench_has_no_stamp(self, monkeypatch):
        monkeypatch.setattr(code, "is_installed", lambda path: True)
        own_stamp.cache_clear()
        assert own_stamp() == ""
        own_stamp.cache_clear()
