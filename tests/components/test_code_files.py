"""Tests that all files in a folder of code count, except those that cannot be code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from xbench.components import code_files as listing
from xbench.components.code_files import ImportDirs, code_files, place_of
from xbench.errors import XbenchError


def write(folder: Path, *names: str, content: str = "x") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def names(folder: Path, *left_out: Path) -> list[str]:
    return [file.name for file in code_files(folder, frozenset(map(place_of, left_out)))]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))


def test_every_suffix_counts_at_any_depth(tmp_path):
    wanted = ["a.py", "deep/er/weights.pt", "module.so", "net.json", "no_suffix", "words.txt"]
    write(tmp_path, *wanted)
    assert names(tmp_path) == wanted


@pytest.mark.parametrize(
    "name",
    [
        ".hidden",
        ".git/config",
        "pack/.idea/a.xml",
        "__pycache__/a.pyc",
        "pack/__pycache__/a.pyc",
        "node_modules/left-pad/index.js",
        "train.log",
        "nohup.out",
        "a.py~",
        "cache/images/pixels",
    ],
)
def test_files_that_cannot_be_code_do_not_count(tmp_path, name):
    write(tmp_path, "a.py", name)
    assert names(tmp_path) == ["a.py"]


@pytest.mark.parametrize("environment", ["venv", "env", "anything"])
def test_virtual_environments_do_not_count(tmp_path, environment):
    write(tmp_path, "a.py", f"{environment}/pyvenv.cfg", f"{environment}/lib/torch.py")
    assert names(tmp_path) == ["a.py"]


def test_folder_named_like_an_environment_counts(tmp_path):
    write(tmp_path, "env/world.py")
    assert names(tmp_path) == ["env/world.py"]


@pytest.mark.parametrize("beside", ["suite.toml", "cells.jsonl"])
def test_runs_do_not_count(tmp_path, beside):
    run = "results/suite/20260131-120000"
    write(tmp_path, "a.py", f"{run}/run.json", f"{run}/{beside}", f"{run}/traces/a.parquet")
    assert names(tmp_path) == ["a.py"]


def test_code_beside_runs_counts(tmp_path):
    write(tmp_path, "exp/net.py", "exp/run.json", "exp/suite/1/run.json", "exp/suite/1/cells.jsonl")
    assert names(tmp_path) == ["exp/net.py", "exp/run.json"]


@pytest.mark.parametrize(
    "text",
    [
        '[suite]\nname = "a"\n[[experiment]]\nname = "b"\n',
        'suite.name = "a"\n[[ experiment ]]\n',
        'suite = { name = "a" }\nexperiment = []\n',
    ],
)
def test_suites_do_not_count(tmp_path, text):
    write(tmp_path, "a.py")
    write(tmp_path, "sub/suite.toml", content=text)
    assert names(tmp_path) == ["a.py"]


def test_other_toml_files_count(tmp_path):
    write(tmp_path, "net.toml", content='[net]\nwidth = 3\ntitle = "of the [suite], [[experiment]]"\n')
    assert names(tmp_path) == ["net.toml"]


@pytest.mark.parametrize("text", ["[suite", "\0", "x = " + "[" * 5000])
def test_files_that_are_not_toml_count_whatever_their_name(tmp_path, text):
    write(tmp_path, "net.toml", content=text)
    assert names(tmp_path) == ["net.toml"]


def test_root_that_is_a_file_is_listed_alone(tmp_path):
    write(tmp_path, "flat.py", "beside.py")
    assert names(tmp_path / "flat.py") == ["flat.py"]


def test_files_left_out_by_place_do_not_count(tmp_path):
    write(tmp_path, "a.py", "pictures/1.png", "more/2.png", "out.json")
    (tmp_path / "link").symlink_to(tmp_path / "pictures")
    assert names(tmp_path, tmp_path / "link", tmp_path / "out.json") == ["a.py", "more/2.png"]


class TestIgnoreFile:
    @pytest.mark.parametrize(
        ("patterns", "left"),
        [
            ("notes/\n", ["a.py", "b/c.txt", "b/d.txt"]),
            ("*.txt\n", ["a.py"]),
            ("# a comment\n\nb/*.txt\n!b/d.txt\n", ["a.py", "b/d.txt", "notes/e.txt"]),
            ("/b\n", ["a.py", "notes/e.txt"]),
            ("", ["a.py", "b/c.txt", "b/d.txt", "notes/e.txt"]),
            ("!kept.log\n*.txt\n", ["a.py", "kept.log"]),
        ],
    )
    def test_patterns_are_those_of_a_gitignore(self, tmp_path, patterns, left):
        write(tmp_path, "a.py", "b/c.txt", "b/d.txt", "notes/e.txt", "kept.log")
        write(tmp_path, ".xbenchignore", content=patterns)
        assert names(tmp_path) == left

    def test_invalid_file_is_an_error(self, tmp_path):
        write(tmp_path, ".xbenchignore", content="!\n")
        with pytest.raises(XbenchError, match="xbenchignore"):
            names(tmp_path)

    def test_unreadable_file_is_an_error(self, tmp_path):
        (tmp_path / ".xbenchignore").mkdir()
        with pytest.raises(XbenchError, match=r"xbenchignore cannot be read"):
            names(tmp_path)


class TestLinks:
    def test_links_are_followed(self, tmp_path):
        write(tmp_path, "elsewhere/pack/net.json")
        (tmp_path / "code").mkdir()
        (tmp_path / "code/pack").symlink_to(tmp_path / "elsewhere/pack")
        assert names(tmp_path / "code") == ["pack/net.json"]

    def test_circular_links_end(self, tmp_path):
        write(tmp_path, "pack/a.py")
        (tmp_path / "pack/up").symlink_to(tmp_path)
        (tmp_path / "pack/self").symlink_to(tmp_path / "pack")
        (tmp_path / "loop").symlink_to("loop")
        assert names(tmp_path) == ["pack/a.py"]

    def test_broken_links_do_not_count(self, tmp_path):
        write(tmp_path, "a.py")
        (tmp_path / "gone").symlink_to(tmp_path / "nothing")
        assert names(tmp_path) == ["a.py"]


def test_pipes_are_not_opened(tmp_path):
    write(tmp_path, "a.py")
    os.mkfifo(tmp_path / "pipe.toml")
    assert names(tmp_path) == ["a.py"]


class TestBounds:
    @pytest.fixture
    def few(self, monkeypatch):
        monkeypatch.setattr(listing, "MAX_FILES", 20)

    def test_too_many_files_are_an_error_with_a_hint(self, tmp_path, few):
        write(tmp_path, *(f"{number}.txt" for number in range(30)))
        with pytest.raises(XbenchError, match="more than 20 files") as raised:
            names(tmp_path)
        assert str(tmp_path / ".xbenchignore") in raised.value.hint
        write(tmp_path, ".xbenchignore", content="*.txt\n")
        assert names(tmp_path) == []

    def test_folders_count_too(self, tmp_path, few):
        for number in range(30):
            (tmp_path / str(number)).mkdir()
        with pytest.raises(XbenchError):
            names(tmp_path)

    def test_too_many_bytes_are_an_error(self, tmp_path, monkeypatch):
        monkeypatch.setattr(listing, "MAX_TOTAL_BYTES", 10)
        write(tmp_path, "a", "b", content="123456")
        with pytest.raises(XbenchError):
            names(tmp_path)
        monkeypatch.setattr(listing, "MAX_READ_BYTES", 5)  # these are not read
        assert names(tmp_path) == ["a", "b"]


class TestImportDirs:
    def test_import_dirs_are_a_sequence_of_paths(self):
        assert list(ImportDirs(("a", "b"))) == ["a", "b"]
        assert bool(ImportDirs()) is False
        assert ", ".join(ImportDirs.of(["a", "b"])) == "a, b"

    def test_import_dirs_can_be_pickled(self):
        dirs = ImportDirs(("a",), frozenset({(1, 2)}))
        assert pickle.loads(pickle.dumps(dirs)) == dirs == ImportDirs.of(dirs)
        assert hash(dirs) != hash(ImportDirs(("a",)))
