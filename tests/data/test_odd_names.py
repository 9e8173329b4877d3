"""Names of files and folders as people and programs give them: from listing to records, and back."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.records import record_samples
from xbench.components.image_folder import build_folder
from xbench.data.decode import decode
from xbench.records.schema import DataRecord
from xbench.records.store import RunFolder

STEMS = (
    "with spaces ",
    'it\'s "quoted"',
    "two\nlines",
    "a\ttab",
    "-rf",
    "--help",
    "🩻 emoji",
    "e\u0301 combined",
    "\u00e9 composed",
    "100% %s %d",
    "[red]loud[bold]",
    "\x1b[31mescape",
    "a{b}c*?",
    "back\\slash",
    "~",
    "x" * 251,
)
NAMES = sorted(f"{stem}.png" for stem in STEMS)
CLASSES = ("-class", "[red] two\nlines")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "the cache's [place]"))
    root = tmp_path / "my 100% 'set'\n"
    for part in ("train", "test"):
        for label, class_name in enumerate(CLASSES):
            (root / part / class_name).mkdir(parents=True)
            for number, name in enumerate(NAMES):
                image = Image.new("RGB", (8, 8), (number, label, 100 + (part == "test")))
                image.save(root / part / class_name / name)
    return root


def build(root: Path, **settings):
    return build_folder(str(root), image_size=8, **settings)


def decoded(dataset):
    return decode(dataset, "odd", "", False, lambda done, total: None)


def test_each_is_listed_decoded_and_known_again(root):
    dataset = build(root)
    expected = {f"{part}/{c}/{name}" for part in ("train", "test") for c in CLASSES for name in NAMES}
    assert {example.name for example in dataset.examples} == expected
    data = decoded(dataset)
    assert (data.unreadable, data.classes) == ((), CLASSES)
    in_order = sorted(dataset.examples, key=lambda example: example.name)
    with data.reader(len(in_order)) as reader:
        for example, pixels in zip(in_order, reader.read(data.rows), strict=True):
            number, split = NAMES.index(example.path.name), 100 + (example.split == "test")
            assert np.array_equal(pixels[0, 0], (number, example.label, split))
    assert decoded(build(root)).fingerprint == data.fingerprint


def test_two_spellings_of_a_name_are_two_files(root):
    assert sum("combined" in name or "composed" in name for name in NAMES) == 2
    assert len({example.path for example in build(root).examples}) == 4 * len(NAMES)


def test_groups_are_cut_out_of_them(root):
    for part in ("train", "test"):  # the same names lie in both
        for path in (root / part).glob("*/*"):
            path.rename(path.with_name(f"{path.name[:-4][:240]}_{part}.png"))
    data = decoded(build(root, group=r"(?s)(.*_(?:train|test))\.png"))
    assert len(set(data.groups)) == 2 * len(NAMES)
    assert "two\nlines_train" in data.groups


def test_unreadable_ones_are_named_in_records_as_they_are(root, tmp_path):
    for name in NAMES:
        (root / "train" / CLASSES[0] / name).write_bytes(b"no image")
        os.truncate(root / "train" / CLASSES[1] / name, 40)
    (root / "train" / CLASSES[0] / "good.png").write_bytes(
        (root / "test" / CLASSES[0] / NAMES[0]).read_bytes()
    )
    (root / "train" / CLASSES[1] / "good.png").write_bytes(
        (root / "test" / CLASSES[0] / NAMES[0]).read_bytes()
    )
    data = decoded(build(root))
    assert {name for name, _ in data.unreadable} == {f"train/{c}/{name}" for c in CLASSES for name in NAMES}
    assert all("\n" not in reason for _, reason in data.unreadable)
    record = DataRecord(
        requested="odd", name="odd", fingerprint=data.fingerprint, unreadable=list(data.unreadable)
    )
    folder = RunFolder.create(tmp_path / "results", "", record_samples.run("one"))
    folder.append(record_samples.cell("one", dataset=record))
    _, (cell,) = folder.read()
    assert cell.dataset == record
    assert decoded(build(root)).unreadable == data.unreadable  # from the cache
