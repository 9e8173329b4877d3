"""A finished run is the answer as long as nothing that it depends on has changed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from run_samples import planned, record, run_of, suite_of

from xbench.components import code
from xbench.data.listing import listing_folders
from xbench.execution import request
from xbench.execution.component_trials import ResolvedData
from xbench.execution.history import MOST_ATTEMPTS
from xbench.execution.inspection import DatasetFacts, ModelFacts
from xbench.execution.request import answered_before, describe_request
from xbench.records.store import RunFolder
from xbench.suite.grid import DatasetChoice
from xbench.training.settings import Choice

SUITE = """
suite.name = "sample"
[[experiment]]
name = "exp"
model = "mine:net"
dataset = { name = "chest-xray", fallback = "synthetic-xray" }
optimizer = ["sgd", "adam"]
"""
CELLS = [planned("a"), planned("b", column="adam")]
DONE = (record("a"), record("b"))


@dataclass
class World:
    """All that a run depends on, and the run.

    Attributes:
        choice: the dataset that is asked for; its stand-in runs.
        files: of trained weights; None if they may be anywhere.
    """

    folder: Path
    choice: Choice = Choice("chest-xray", {"split": "report"})  # noqa: RUF009
    files: tuple[str, ...] | None = ()
    text: str = SUITE
    overrides: tuple[str, ...] = ()

    @property
    def suite(self):
        return suite_of(self.text, *self.overrides)

    def run(self, *records) -> RunFolder:
        """What a run leaves."""
        facts = DatasetFacts(("n", "p"), (3, 8, 8), {}, "", listing_folders(self.images()))
        plan = SimpleNamespace(
            suite=self.suite,
            import_dirs=(str(self.folder / "code"),),
            data=[ResolvedData("chest-xray", Choice("synthetic-xray", {}), False, facts, "")],
            cells=[SimpleNamespace(dataset=DatasetChoice(self.choice, Choice("synthetic-xray", {}), False))],
            models=[ModelFacts(None, "", files=self.files)],
        )
        asked = describe_request(plan)
        return run_of(self.folder / "results", self.suite, CELLS, *records, request=asked)

    def images(self) -> list[Path]:
        return sorted((self.folder / "images").rglob("*.png"))

    def answer(self) -> RunFolder | None:
        """As another process would find it."""
        code.code_stamp.cache_clear()
        return answered_before(self.suite, [str(self.folder / "code")], self.folder / "results")


@pytest.fixture
def world(tmp_path, monkeypatch) -> World:
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("XBENCH_CHEST_XRAY_ROOT", raising=False)
    for name in ("images/train/n/1.png", "images/train/p/2.png", "images/test/p/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text("import part\n")
    (tmp_path / "code" / "net.json").write_text("{}")
    (tmp_path / "weights.pth").write_text("weights")
    yield World(tmp_path)
    code.code_stamp.cache_clear()


def test_the_same_is_answered(world):
    folder = world.run(*DONE)
    assert world.answer() == folder


def test_before_the_first_run_nothing_is(world):
    assert world.answer() is None


@pytest.mark.parametrize("attempt", range(1, MOST_ATTEMPTS + 2))
def test_failures_are_answered_once_they_are_settled(world, attempt):
    folder = world.run(record("a", "error", attempt), record("b"))
    assert world.answer() == (folder if attempt >= MOST_ATTEMPTS else None)


@pytest.mark.parametrize(
    "records", [(), DONE[:1], (DONE[0], record("b", "skipped", waits_for="time"))], ids=len
)
def test_what_is_not_settled_is_not(world, records):
    world.run(*records)
    assert world.answer() is None


def test_what_would_be_skipped_again_is(world):
    assert world.run(DONE[0], record("b", "skipped")) == world.answer()


def test_a_suite_with_mistakes_is_not(world):
    world.text += "epoch = 3\n"
    world.run(*DONE)
    assert world.suite.problems
    assert world.answer() is None


def touch(path: Path) -> None:
    os.utime(path, (time.time() + 100, time.time() + 100))


CHANGES = {
    "an image is added": lambda here: (here / "images/train/n/new.png").write_text("x"),
    "an image is removed": lambda here: (here / "images/test/p/3.png").unlink(),
    "an image is renamed": lambda here: (here / "images/test/p/3.png").rename(here / "images/test/p/4.png"),
    "an image is changed": lambda here: (here / "images/train/n/1.png").write_text("other content"),
    "an image is touched": lambda here: touch(here / "images/train/n/1.png"),
    "a class is added": lambda here: (here / "images/train/q").mkdir(),
    "all images are gone": lambda here: (here / "images").rename(here / "elsewhere"),
    "a module is changed": lambda here: (here / "code/mine.py").write_text("import part\na = 1\n"),
    "a file beside it is changed": lambda here: (here / "code/net.json").write_text("{ }"),
    "another module": lambda here: (here / "code/other.py").write_text("a = 1\n"),
    "the real data is here": lambda here: (here / "cache/chest-xray/train/NORMAL").mkdir(parents=True),
}
NO_CHANGES = {
    "nothing": lambda here: None,
    "a suite beside the code": lambda here: (here / "code/other.toml").write_text(SUITE),
    "a log beside the code": lambda here: (here / "code/train.log").write_text("text"),
    "another file": lambda here: (here / "notes.txt").write_text("text"),
    "something in the cache": lambda here: (here / "cache/decoded").mkdir(parents=True),
}


@pytest.mark.parametrize("what", CHANGES)
def test_once_something_changed_it_is_not(world, what, monkeypatch):
    world.run(*DONE)
    assert world.answer() is not None
    if what == "the real data is here":  # as `find_root` of the dataset itself tells
        monkeypatch.setattr("xbench.components.chest_xray._find_root", lambda root, whole: world.folder)
    CHANGES[what](world.folder)
    assert world.answer() is None


@pytest.mark.parametrize("what", NO_CHANGES)
def test_by_what_does_not_matter_it_is(world, what):
    folder = world.run(*DONE)
    NO_CHANGES[what](world.folder)
    assert world.answer() == folder


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("XBENCH_ANYTHING", "1"),
        ("XBENCH_CHEST_XRAY_ROOT", "/nowhere"),
        ("OMP_NUM_THREADS", "7"),
        ("MKL_NUM_THREADS", "7"),
        ("CUDA_VISIBLE_DEVICES", "3"),
        ("TORCH_HOME", "/elsewhere"),
        ("MALLOC_ARENA_MAX", "4"),
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("GLIBC_TUNABLES", "glibc.malloc.arena_max=4"),
        ("LD_PRELOAD", "libnothing.so"),
        ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
    ],
)
def test_in_another_environment_it_is_not(world, monkeypatch, name, value):
    folder = world.run(*DONE)
    with monkeypatch.context() as patch:
        patch.setenv(name, value)
        assert world.answer() is None
    monkeypatch.setenv("COLUMNS", "77")
    assert world.answer() == folder


def test_in_another_folder_it_is_not(world, monkeypatch):
    world.run(*DONE)
    monkeypatch.chdir(world.folder)
    assert world.answer() is None


def test_with_another_version_it_is_not(world, monkeypatch):
    world.run(*DONE)
    monkeypatch.setattr(request, "version", lambda name: "99")
    assert world.answer() is None


def test_with_another_xbench_in_place_it_is_not(world, monkeypatch):
    world.run(*DONE)
    monkeypatch.setattr(request, "own_stamp", lambda: "other")
    assert world.answer() is None


class TestWeights:
    @pytest.fixture
    def path(self, world) -> Path:
        world.files = (str(world.folder / "weights.pth"), str(world.folder / "absent.pth"))
        world.run(*DONE)
        assert world.answer() is not None
        return world.folder / "weights.pth"

    def test_changed(self, world, path):
        path.write_text("other weights")
        assert world.answer() is None

    def test_touched(self, world, path):
        touch(path)
        assert world.answer() is None

    def test_gone(self, world, path):
        path.unlink()
        assert world.answer() is None

    def test_appeared(self, world, path):
        path.with_name("absent.pth").write_text("weights")
        assert world.answer() is None

    def test_that_may_be_anywhere(self, world):
        world.files = None
        folder = world.run(*DONE)
        assert folder.read_run().request.stamp == ""
        assert world.answer() is None


class TestStandIn:
    def test_for_data_that_may_be_anywhere(self, world):
        world.choice = Choice("chest-xray", {"root": "/data/of/mine"})
        assert world.run(*DONE).read_run().request.stamp == ""
        assert world.answer() is None

    def test_for_data_of_which_nobody_can_tell(self, world, monkeypatch):
        monkeypatch.setattr(request, "find", lambda kind, name: None)
        assert world.run(*DONE).read_run().request.stamp == ""

    def test_what_it_stands_in_for_is_noted(self, world):
        assert world.run(*DONE).read_run().request.absent == ["chest-xray"]
