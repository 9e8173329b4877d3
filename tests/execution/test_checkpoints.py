"""What is kept of a cell that was interrupted, and whether it may be used."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cell_samples import cell_of
from xbench.capacity.cost_model import count_steps
from xbench.data.features import FeatureFile
from xbench.execution.checkpoints import Transcript, find_done_share, load_checkpoint, save_checkpoint
from xbench.planning.planned import MemoryPlan
from xbench.records.schema import EpochRecord
from xbench.records.traces import TraceRow
from xbench.training.events import CheckpointWritten
from xbench.training.settings import Choice


@pytest.fixture
def cell(tiny_data):
    return cell_of(tiny_data, batch_size=5, micro_batch=5)


def heard_until(step: int) -> Transcript:
    rows = [
        TraceRow(
            step=i,
            epoch=1,
            loss=1 / i,
            wall_s=0.1,
            closures=1,
            host_peak_bytes=10**8,
            device_peak_bytes=None,
            device_reserved_bytes=None,
        )
        for i in range(1, step + 1)
    ]
    epochs = [EpochRecord(epoch=1, values={"train_loss": 0.1 + step, "validation_loss": float("inf")})]
    return Transcript(trace=rows, epochs=epochs, resumed_at=[2])


def write(folder: Path, step: int) -> CheckpointWritten:
    """What a cell's process leaves."""
    written = CheckpointWritten(folder / f".step-{step:09}", step)
    written.aside.mkdir(parents=True)
    (written.aside / "model.pt").write_bytes(b"weights")
    return written


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "checkpoints" / "cell"


@pytest.fixture
def kept(folder, cell) -> Transcript:
    heard = heard_until(7)
    save_checkpoint(write(folder, 7), cell, heard)
    return heard


def processor(cell) -> str:
    return cell.machine.device_facts["name"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestKeep:
    def test_and_recall(self, folder, cell, kept):
        recalled = load_checkpoint(folder, cell)
        place = folder / "step-000000007"
        assert recalled == replace(kept, checkpoint=place, processors=[processor(cell)])
        assert (recalled.checkpoint / "model.pt").read_bytes() == b"weights"

    def test_in_place_of_those_before(self, folder, cell, kept):
        for step in (9, 12):
            save_checkpoint(write(folder, step), cell, heard_until(step))
        assert names(folder) == ["step-000000012"]
        assert len(load_checkpoint(folder, cell).trace) == 12

    def test_the_same_step_again(self, folder, cell, kept):
        save_checkpoint(write(folder, 7), cell, replace(kept, resumed_at=[2, 5]))
        assert load_checkpoint(folder, cell).resumed_at == [2, 5]

    def test_it_names_the_processors_on_which_the_cell_ran(self, folder, cell, kept):
        assert load_checkpoint(folder, cell).processors == [processor(cell)]
        moved = replace(cell, machine=replace(cell.machine, device_facts={"type": "cpu", "name": "another"}))
        heard = load_checkpoint(folder, moved)
        for step in (9, 12):
            save_checkpoint(
                write(folder, step), moved, replace(heard_until(step), processors=heard.processors)
            )
        assert load_checkpoint(folder, cell).processors == [processor(cell), "another"]

    def test_an_older_one_that_names_none_can_be_used(self, folder, cell, kept):
        path = folder / "step-000000007" / "heard.json"
        rest = json.loads(path.read_text())
        del rest["processors"]
        path.write_text(json.dumps(rest))
        assert load_checkpoint(folder, cell).processors == []

    def test_one_that_cannot_be_kept_leaves_the_one_before(self, folder, cell, kept, monkeypatch):
        def full(path, content):
            raise OSError(28, "No space left on device")

        written = write(folder, 9)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr("xbench.execution.checkpoints.atomic_write", full)
            save_checkpoint(written, cell, heard_until(9))
        assert load_checkpoint(folder, cell).checkpoint == folder / "step-000000007"


def test_the_latest_checkpoint_tells_how_much_is_done(folder, cell, kept, tmp_path):
    steps = count_steps(cell.sized)
    assert find_done_share([folder], cell) == 7 / steps
    assert find_done_share([tmp_path / "nowhere", folder], cell) == 7 / steps
    assert find_done_share([tmp_path / "nowhere"], cell) == 0


class TestRecall:
    def test_nothing(self, folder, cell):
        assert load_checkpoint(folder, cell) == Transcript()

    def test_one_that_was_not_put_in_its_place(self, folder, cell):
        write(folder, 7)
        assert load_checkpoint(folder, cell) == Transcript()
        assert not folder.exists()

    @pytest.mark.parametrize(
        "other",
        [
            lambda cell: replace(cell, settings=replace(cell.settings, seed=1)),
            lambda cell: replace(
                cell,
                settings=replace(
                    cell.settings, training=cell.settings.training.model_copy(update={"micro_batch": 1})
                ),
            ),
            lambda cell: replace(cell, settings=replace(cell.settings, optimizer=Choice("opt", {"lr": 0.1}))),
            lambda cell: replace(cell, data=replace(cell.data, fingerprint="other")),
            lambda cell: replace(cell, features=FeatureFile(Path("f/other"), (4,), "float32", 9)),
        ],
        ids=["seed", "micro_batch", "optimizer", "data", "features"],
    )
    def test_of_another_training_is_not_used_and_goes(self, folder, cell, kept, other):
        assert load_checkpoint(folder, other(cell)) == Transcript()
        assert not folder.exists()

    def test_what_is_no_part_of_training_does_not_matter(self, folder, cell, kept):
        other = replace(cell, checkpoint_every_s=1.0, memory=MemoryPlan(10**10))
        assert load_checkpoint(folder, other).trace == kept.trace

    @pytest.mark.parametrize("name", ["heard.json", "trace.parquet"])
    @pytest.mark.parametrize("damage", [None, b"", b"{", b"\xff\xfe" * 300, b"[1]", b'"text"', b"3", b"{}"])
    def test_damaged_it_begins_anew(self, folder, cell, kept, name, damage):
        self.damage(folder / "step-000000007" / name, damage)
        assert load_checkpoint(folder, cell) == Transcript()
        assert not folder.exists()

    def test_a_pipe_in_its_place_is_not_waited_for(self, folder, cell, kept):
        (folder / "step-000000007/heard.json").unlink()
        os.mkfifo(folder / "step-000000007/heard.json")
        assert load_checkpoint(folder, cell) == Transcript()

    @pytest.mark.parametrize("name", ["heard.json", "trace.parquet"])
    @pytest.mark.parametrize("damage", [None, b"{"])
    def test_damaged_an_older_one_is_used(self, folder, cell, kept, name, damage):
        older = folder / "step-000000007"
        older.rename(folder.parent / "older")
        save_checkpoint(write(folder, 9), cell, heard_until(9))
        (folder.parent / "older").rename(older)
        assert load_checkpoint(folder, cell).checkpoint == folder / "step-000000009"
        self.damage(folder / "step-000000009" / name, damage)
        assert load_checkpoint(folder, cell) == replace(kept, checkpoint=older, processors=[processor(cell)])

    @pytest.mark.parametrize(
        "edit",
        [
            {"epochs": [{"epoch": "one"}]},
            {"epochs": ["one"]},
            {"epochs": [{"epoch": 1, "train_loss": 0.5}]},
            {"epochs": 3},
            {"epochs": {"a": 1}},
            {"resumed_at": ["x"]},
            {"resumed_at": None},
            {"processors": None},
        ],
    )
    def test_of_another_form_it_begins_anew(self, folder, cell, kept, edit):
        path = folder / "step-000000007" / "heard.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | edit))
        assert load_checkpoint(folder, cell) == Transcript()

    def damage(self, path: Path, content: bytes | None) -> None:
        path.unlink()
        if content is not None:
            path.write_bytes(content)
