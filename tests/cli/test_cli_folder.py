"""Runs on folders of images that are not as they should be: what a user is told, and what is recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.cli_process import Ran, one_line
from tests.data.look_alikes import brighten, compress, crop, make_scene

SUITE = """
suite.name = "folders"
[[experiment]]
name = "folders"
model = "tiny_parts:build_model"
dataset = {{ name = "folder", root = "images", image_size = 8 {settings} }}
optimizer = "sgd"
epochs = 1
batch_size = 4
validation = 0.2
"""


def save(path: Path, seed: int, values: int = 256, dtype: type = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(values // 2, values, (8, 8)).astype(dtype)
    pixels[0, 0] = values - 1
    Image.fromarray(pixels).save(path)


@pytest.fixture
def run(xbench, allow_user_code, tmp_path):
    def run(settings: str = "") -> Ran:
        (tmp_path / "suite.toml").write_text(SUITE.format(settings=settings))
        return Ran(xbench(tmp_path, "run", "suite.toml", *allow_user_code), tmp_path)

    return run


def test_odd_files_copies_and_masks_are_told_and_recorded(run, tmp_path):
    for number, name in enumerate(("cat", "dog")):
        for i in range(10):
            save(tmp_path / f"images/Training/{name}/scans/{i}.bmp", 100 * number + i)
            save(tmp_path / f"images/Training/{name}/masks/{i}.png", 1000 + 100 * number + i)
            save(tmp_path / f"images/Training/{name}/@eaDir/{i}.png", i)
        for i in range(4):
            save(tmp_path / f"images/Testing/{name}/scans/{i}.bmp", 500 + 100 * number + i)
    (tmp_path / "images/Testing/cat/scans/9.bmp").write_bytes(
        (tmp_path / "images/Training/cat/scans/9.bmp").read_bytes()
    )
    (tmp_path / "images/Training/dog/scans/copy.bmp").write_bytes(
        (tmp_path / "images/Training/cat/scans/0.bmp").read_bytes()
    )
    ran = run(", exclude = 'masks/*'")
    assert ran.done.returncode == 0, ran.done.stderr
    told = one_line(ran.done.stdout)
    for expected in (
        "5 test/cat, 4 test/dog, 10 train/cat, 11 train/dog; positive: dog",
        "1 of 9 test images are copies of training images, so test metrics are optimistic: "
        "Testing/cat/scans/9.bmp is Training/cat/scans/9.bmp",
        "2 of 30 images have a copy in another class, which contradicts their label: "
        "Training/cat/scans/0.bmp is Training/dog/scans/copy.bmp",
        "30 of 30 images are in subfolders of their classes: 30 in scans/",
        "20 images were left out by exclude = 'masks/*'",
        "20 hidden images and thumbnails of other programs were left out: 20 '@eaDir'",
    ):
        assert expected in told
    (record,) = ran.cells("folders")
    data = record["dataset"]
    assert (data["classes"], data["facts"]) == (["cat", "dog"], {"positive": "dog"})
    assert (data["test_copies"], data["cross_class_copies"]) == (1, 2)
    assert len(data["notes"]) == 3
    (run_file,) = tmp_path.glob("results/folders/*/run.json")
    *_, leak = warnings = json.loads(run_file.read_text())["warnings"]
    assert len(warnings) == 3
    assert leak.startswith(
        "folders, seed 0: 1 of 4 validation images of folder are copies or near-duplicates"
    )


POOLED = """
from torch import nn

def build_model(num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, num_classes))
"""


def test_near_duplicates_are_told_below_the_table_and_recorded(xbench, tmp_path):
    for number, name in enumerate(("cat", "dog")):
        for split, count in (("train", 10), ("test", 3)):
            for i in range(count):
                path = tmp_path / f"images/{split}/{name}/{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(make_scene(100 * number + 10 * count + i)).save(path)
    trained = Image.open(tmp_path / "images/train/cat/0.png")
    for name, how in (("test/cat/near", compress), ("train/dog/near", crop), ("train/cat/near", brighten)):
        how(trained).save(tmp_path / f"images/{name}.png")
    (tmp_path / "pooled.py").write_text(POOLED)
    text = (
        SUITE.format(settings="").replace("tiny_parts", "pooled").replace("image_size = 8", "image_size = 64")
    )
    (tmp_path / "suite.toml").write_text(text)
    ran = Ran(xbench(tmp_path, "run", "suite.toml", "--allow-import", "."), tmp_path)
    assert ran.done.returncode == 0, ran.done.stderr
    told = one_line(ran.done.stdout)
    assert (
        "1 of 7 test images are near-duplicates of training images, so test metrics may be optimistic: "
        "test/cat/near.png looks like train/cat/0.png"
    ) in told
    assert (
        "4 of 29 images are near-duplicates of an image of another class, so a label may be wrong: " in told
    )
    (record,) = ran.cells("folders")
    data = record["dataset"]
    assert (data["near_copies"], data["cross_class_near_copies"]) == (1, 4)
    assert (data["test_copies"], data["cross_class_copies"]) == (0, 0)


@pytest.mark.slow
def test_12_bits_are_seen_by_the_model_and_noted(run, tmp_path):
    for name, values in (("bright", 4096), ("dark", 2048)):
        for i in range(10):
            save(tmp_path / f"images/{name}/{i}.png", i, values, np.uint16)
    ran = run()
    assert ran.done.returncode == 0, ran.done.stderr
    note = "20 16-bit images have no value above 4,095; all were scaled with 4,095 as white (12 bits)"
    assert note in one_line(ran.done.stdout)


def test_a_class_that_cannot_be_read_ends_the_run(run, tmp_path):
    for i in range(6):
        for part in ("train", "test"):
            save(tmp_path / f"images/{part}/a/{i}.png", i)
            save(tmp_path / f"images/{part}/b/{i}.png", 100 + i)
        (tmp_path / f"images/train/b/{i}.png").write_bytes(b"no image")
    ran = run()
    assert ran.done.returncode == 2
    assert "class 'b' has no readable training image; train/b/0.png: " in one_line(ran.done.stderr)
    assert not list(tmp_path.glob("results/folders/*/cells.jsonl"))


@pytest.mark.slow
def test_a_class_that_validation_lacks_is_told(run, tmp_path):
    for part, count in (("train", 10), ("test", 3)):
        for i in range(count):
            save(tmp_path / f"images/{part}/a/{i}.png", i)
            save(tmp_path / f"images/{part}/b/{i}.png", 100 + i)
        save(tmp_path / f"images/{part}/rare/0.png", 1000 + count)
    ran = run()
    assert ran.done.returncode == 0, ran.done.stderr
    warning = "warning: folders, seed 0: folder has no image of 'rare' for validation"
    assert warning in one_line(ran.done.stdout)
