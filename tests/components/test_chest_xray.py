"""Tests of the chest X-ray archive: its listing, its patients, and the images that its splits move."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xbench.components.chest_xray import CHEST_XRAY, CLASSES, ROOT_VARIABLE, build_chest_xray
from xbench.components.images import read_image
from xbench.errors import DataNotFound, XbenchError

FOLDERS = ("train/NORMAL", "train/PNEUMONIA", "test/NORMAL", "test/PNEUMONIA")

# A small archive with every spelling of file names in Kaggle's.
SMALL = {
    "train/NORMAL": ["IM-0115-0001.jpeg", "NORMAL2-IM-0115-0001.jpeg", "IM-0117-0001.jpeg"],
    "train/PNEUMONIA": [
        "person12_bacteria_34.jpeg",
        "person12_bacteria_35.jpeg",
        "person12_virus_40.jpeg",
        "person120_virus_41.jpeg",
    ],
    "val/NORMAL": ["NORMAL2-IM-0117-0001.jpeg"],
    "val/PNEUMONIA": ["person1946_bacteria_4874.jpeg"],
    "test/NORMAL": ["IM-0115-0001.jpeg"],
    "test/PNEUMONIA": ["person12_virus_34.jpeg", "odd name.png"],
}

MOVED = 231
# Of 150 patients numbered from 0, all come before this one.
LATE_PATIENT = "IM-1422-0001.jpeg"
# The images of `large_archive` that move. Every result depends on them, so they must not change unnoticed.
MOVED_DIGEST = "1627349b3d3e1f90"
REAL_MOVED_DIGEST = "3af96acd116240a0"


def make_archive(root: Path, files: dict[str, list[str]]) -> Path:
    """Make an archive of empty files, because a dataset only lists its images."""
    for folder, names in files.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (root / folder / name).touch()
    return root


def large_archive(root: Path) -> Path:
    """160 NORMAL patients with 1 to 4 images each, 400 in all; every patient's images lie apart by name."""
    normal = [
        f"{prefix}IM-{patient:04d}-{image:04d}.jpeg"
        for patient in range(160)
        for image, prefix in enumerate(["", "NORMAL2-", "", "NORMAL2-"][: patient % 4 + 1], start=1)
    ]
    return make_archive(root, SMALL | {"train/NORMAL": normal, "val/NORMAL": []})


def names_of(dataset, split, label=None):
    return {e.name for e in dataset.examples if e.split == split and label in (None, e.label)}


def groups_of(dataset) -> dict[str, set[str]]:
    groups = defaultdict(set)
    for example in dataset.examples:
        groups[example.group].add(example.name)
    return groups


def moved_names(dataset) -> set[str]:
    return {name for name in names_of(dataset, "test") if not name.startswith("test/")}


def digest(names) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Hide any archive on this machine."""
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)


@pytest.fixture
def small(tmp_path):
    return make_archive(tmp_path / "small", SMALL)


@pytest.fixture
def large(tmp_path):
    return large_archive(tmp_path / "large")


def test_kaggles_split_is_as_published_with_val_in_train(small):
    dataset = build_chest_xray(str(small), split="kaggle", image_size=32)
    assert dataset.classes == ("NORMAL", "PNEUMONIA")
    assert dataset.positive == "PNEUMONIA"
    assert dataset.shape == (3, 32, 32)
    assert dataset.notes == ()
    counts = Counter((e.split, e.label) for e in dataset.examples)
    assert counts == {("train", 0): 4, ("train", 1): 5, ("test", 0): 1, ("test", 1): 2}
    expected = {f"{folder}/{name}" for folder, names in SMALL.items() for name in names}
    assert {e.name for e in dataset.examples} == expected
    for example in dataset.examples:
        part, class_name, _ = example.name.split("/")
        assert example.split == ("test" if part == "test" else "train")
        assert dataset.classes[example.label] == class_name
        assert example.path == small / example.name
        assert example.content == ""


def test_archive_without_val_is_complete(small, tmp_path):
    files = {folder: names for folder, names in SMALL.items() if not folder.startswith("val")}
    root = make_archive(tmp_path / "no-val", files)
    dataset = build_chest_xray(str(root), split="kaggle")
    assert names_of(dataset, "train") == {
        name
        for name in names_of(build_chest_xray(str(small), split="kaggle"), "train")
        if not name.startswith("val")
    }


def test_other_files_are_not_listed(small):
    folder = small / "train/NORMAL"
    for name in ("._IM-0115-0001.jpeg", ".hidden.png", ".DS_Store", "Thumbs.db", "notes.txt", "IM-0300-0001"):
        (folder / name).touch()
    for name in ("IM-0301-0001.JPEG", "IM-0302-0001.jpg", "IM-0303-0001.Png"):
        (folder / name).touch()
    listed = {Path(n).name for n in names_of(build_chest_xray(str(small), split="kaggle"), "train", 0)}
    assert listed == {
        *SMALL["train/NORMAL"],
        *SMALL["val/NORMAL"],
        "IM-0301-0001.JPEG",
        "IM-0302-0001.jpg",
        "IM-0303-0001.Png",
    }


def test_images_of_a_patient_are_one_group_whatever_their_spelling(small):
    groups = {frozenset(names) for names in groups_of(build_chest_xray(str(small), split="kaggle")).values()}
    assert groups == {
        frozenset({"train/NORMAL/IM-0115-0001.jpeg", "train/NORMAL/NORMAL2-IM-0115-0001.jpeg"}),
        frozenset({"train/NORMAL/IM-0117-0001.jpeg", "val/NORMAL/NORMAL2-IM-0117-0001.jpeg"}),
        frozenset(f"train/PNEUMONIA/{name}" for name in SMALL["train/PNEUMONIA"][:3]),
        frozenset({"train/PNEUMONIA/person120_virus_41.jpeg"}),
        frozenset({"val/PNEUMONIA/person1946_bacteria_4874.jpeg"}),
        # Kaggle numbers the patients of test separately, so these are other people.
        frozenset({"test/NORMAL/IM-0115-0001.jpeg"}),
        frozenset({"test/PNEUMONIA/person12_virus_34.jpeg"}),
        frozenset({"test/PNEUMONIA/odd name.png"}),
    }


def test_the_reports_split_moves_231_normal_images_of_whole_patients(large):
    kaggle = build_chest_xray(str(large), split="kaggle")
    report = build_chest_xray(str(large))
    moved = moved_names(report)
    assert len(moved) == MOVED
    assert names_of(report, "test") == names_of(kaggle, "test") | moved
    assert names_of(report, "train") == names_of(kaggle, "train") - moved
    assert names_of(report, "train", 1) == names_of(kaggle, "train", 1)
    for members in groups_of(report).values():
        assert members <= moved or not members & moved
    assert {(e.name, e.label, e.group, e.path) for e in report.examples} == {
        (e.name, e.label, e.group, e.path) for e in kaggle.examples
    }


def test_report_split_is_the_default_and_has_a_note(large):
    assert build_chest_xray(str(large)).examples == build_chest_xray(str(large), split="report").examples
    (note,) = build_chest_xray(str(large)).notes
    assert "231 NORMAL images of whole patients" in note


def test_report_split_depends_on_names_only(large):
    assert digest(moved_names(build_chest_xray(str(large)))) == MOVED_DIGEST


def test_a_copy_without_val_has_the_same_test_set(large, tmp_path):
    without_val = names_of(build_chest_xray(str(large)), "test")
    make_archive(large, {"val/NORMAL": [f"NORMAL2-IM-{patient}-0001.jpeg" for patient in range(1427, 1435)]})
    assert names_of(build_chest_xray(str(large)), "test") == without_val


def test_test_set_does_not_depend_on_listing_order_place_or_seeds(large, tmp_path, monkeypatch):
    expected = build_chest_xray(str(large)).examples
    elsewhere = build_chest_xray(str(large_archive(tmp_path / "else" / "where"))).examples
    assert [(e.name, e.split, e.group) for e in elsewhere] == [(e.name, e.split, e.group) for e in expected]
    list_folder = Path.iterdir
    for seed in range(3):
        random.seed(seed)
        np.random.seed(seed)
        shuffled = random.Random(seed)

        def iterdir(folder, shuffled=shuffled):
            entries = list(list_folder(folder))
            shuffled.shuffle(entries)
            return iter(entries)

        monkeypatch.setattr(Path, "iterdir", iterdir)
        assert build_chest_xray(str(large)).examples == expected


def test_test_set_does_not_depend_on_the_hash_seed(large):
    code = (
        "import sys; from xbench.components.chest_xray import build_chest_xray as build\n"
        "print(*[e.name for e in build(sys.argv[1]).examples if e.split == 'test'], sep='\\n')"
    )
    expected = [e.name for e in build_chest_xray(str(large)).examples if e.split == "test"]
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, str(large)]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert result.stdout.splitlines() == expected


@pytest.mark.parametrize(
    ("patients", "images"),
    [(100, 1), (57, 4), (200, 2), (77, 5)],
    ids=["too few", "230", "pairs make no odd number", "fives make no 231"],
)
def test_report_split_is_refused_if_231_images_cannot_be_moved(tmp_path, patients, images):
    normal = [f"IM-{p:04d}-{i:04d}.jpeg" for p in range(patients) for i in range(images)]
    root = make_archive(tmp_path / "few", SMALL | {"train/NORMAL": normal, "val/NORMAL": []})
    with pytest.raises(XbenchError, match="231 NORMAL images of whole patients") as caught:
        build_chest_xray(str(root))
    assert not isinstance(caught.value, DataNotFound)
    assert f"of the {patients * images} in train" in caught.value.message
    assert caught.value.hint == 'use split = "kaggle"'
    assert len(names_of(build_chest_xray(str(root), split="kaggle"), "train", 0)) == patients * images


def test_patients_with_too_many_images_are_skipped(tmp_path):
    # All have two images but the last in the order of hashes, so that one of 231 comes from there.
    pairs = [f"IM-{p:04d}-{i:04d}.jpeg" for p in range(150) for i in range(2)]
    root = make_archive(
        tmp_path / "pairs", SMALL | {"train/NORMAL": [*pairs, LATE_PATIENT], "val/NORMAL": []}
    )
    moved = moved_names(build_chest_xray(str(root)))
    assert len(moved) == MOVED
    assert f"train/NORMAL/{LATE_PATIENT}" in moved


def test_exactly_231_images_are_enough(tmp_path):
    normal = [f"IM-{p:04d}-0001.jpeg" for p in range(230)] + ["IM-9999-0001.jpeg"]
    root = make_archive(tmp_path / "just", SMALL | {"train/NORMAL": normal, "val/NORMAL": []})
    assert len(moved_names(build_chest_xray(str(root)))) == MOVED


def test_the_root_is_found_in_a_nested_folder(tmp_path):
    make_archive(tmp_path / "unpacked" / "chest_xray", SMALL)
    dataset = build_chest_xray(str(tmp_path / "unpacked"), split="kaggle")
    assert dataset.examples[0].path.is_relative_to(tmp_path / "unpacked" / "chest_xray")
    # Names do not depend on the folder, so that results of two machines can be compared.
    assert names_of(dataset, "test", 0) == {"test/NORMAL/IM-0115-0001.jpeg"}


def test_root_comes_from_the_setting_then_the_variable_then_the_cache(tmp_path, monkeypatch):
    make_archive(tmp_path / "cache" / "chest-xray", SMALL)
    by_variable = make_archive(tmp_path / "variable", SMALL)
    by_setting = make_archive(tmp_path / "setting", SMALL)

    def found(root=None):
        path = build_chest_xray(root, split="kaggle").examples[0].path
        return path.relative_to(tmp_path).parts[0]

    assert found() == "cache"
    monkeypatch.setenv(ROOT_VARIABLE, str(by_variable))
    assert found() == "variable"
    assert found(str(by_setting)) == "setting"


def test_tilde_in_the_root_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_archive(tmp_path / "xrays", SMALL)
    assert len(build_chest_xray("~/xrays", split="kaggle").examples) == 12


@pytest.mark.parametrize("present", [(), FOLDERS[:2], FOLDERS[2:]], ids=["nothing", "no test", "no train"])
def test_missing_archive_raises_data_not_found(tmp_path, monkeypatch, present):
    root = make_archive(tmp_path / "partial", {folder: SMALL[folder] for folder in present})
    with pytest.raises(DataNotFound) as caught:
        build_chest_xray(str(root))
    assert str(root) in caught.value.message
    assert ROOT_VARIABLE in caught.value.hint
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    with pytest.raises(DataNotFound, match="partial"):
        build_chest_xray()


def test_missing_archive_in_the_cache_raises_data_not_found(tmp_path):
    with pytest.raises(DataNotFound, match=str(tmp_path / "cache" / "chest-xray")):
        build_chest_xray()


@pytest.mark.parametrize("folder", FOLDERS)
def test_empty_class_does_not_trigger_the_fallback(tmp_path, folder):
    root = make_archive(tmp_path / "half", SMALL | {folder: ["._IM-0001-0001.jpeg"], "val/NORMAL": []})
    if folder == "train/PNEUMONIA":
        (root / "val/PNEUMONIA" / SMALL["val/PNEUMONIA"][0]).unlink()
    with pytest.raises(XbenchError) as caught:
        build_chest_xray(str(root), split="kaggle")
    assert not isinstance(caught.value, DataNotFound)
    assert f"{root / folder} holds no images" in caught.value.message


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"split": "mine"}, "split 'mine' of chest-xray is unknown"),
        ({"image_size": 7}, "image_size 7 of chest-xray is not .* 8 to 4096"),
        ({"image_size": 4097}, "image_size 4097"),
    ],
)
def test_settings_out_of_range_are_refused(small, settings, complaint):
    with pytest.raises(XbenchError, match=complaint) as caught:
        build_chest_xray(str(small), **settings)
    assert not isinstance(caught.value, DataNotFound)


def test_image_size_must_be_an_integer(small):
    with pytest.raises(XbenchError, match="image_size"):
        build_chest_xray(str(small), split="kaggle", image_size=32.5)


def test_grey_and_rgb_images_are_read_as_rgb(small):
    colour = (10, 200, 30)
    Image.new("L", (20, 10), 77).save(small / "train/NORMAL/IM-0001-0001.png")
    Image.new("RGB", (9, 30), colour).save(small / "train/NORMAL/IM-0002-0001.png")
    Image.new("L", (40, 30), 140).save(small / "train/NORMAL/IM-0003-0001.jpeg")
    dataset = build_chest_xray(str(small), split="kaggle", image_size=16)
    by_name = {Path(e.name).name: e for e in dataset.examples}
    grey = dataset.read(by_name["IM-0001-0001.png"])
    assert (grey.dtype, grey.shape) == (np.uint8, (16, 16, 3))
    assert (grey == 77).all()
    assert (dataset.read(by_name["IM-0002-0001.png"]) == colour).all()
    jpeg = dataset.read(by_name["IM-0003-0001.jpeg"]).astype(int)
    assert jpeg.shape == (16, 16, 3) and abs(jpeg - 140).max() <= 2


def test_images_are_squashed_not_cropped(tmp_path):
    wide = np.zeros((10, 80), dtype=np.uint8)
    wide[:, :20] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    pixels = read_image(tmp_path / "wide.png", height=16, width=16)[:, :, 0]
    assert (pixels[:, :3] == 255).all() and (pixels[:, 6:] == 0).all()


def test_image_of_the_right_size_is_not_resized(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "exact.png")
    assert (read_image(tmp_path / "exact.png", height=12, width=8) == pixels).all()


@pytest.mark.parametrize("content", [b"", b"no image", "truncated"])
def test_a_damaged_file_raises(tmp_path, content):
    path = tmp_path / "damaged.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000] if content == "truncated" else content)
    with pytest.raises((OSError, ValueError)):
        read_image(path, 8, 8)


def test_spec_has_a_reference_and_no_stand_in():
    assert CHEST_XRAY.stand_in == ""
    assert "rscbjbr9sj" in CHEST_XRAY.reference


def test_source_is_the_published_archive():
    source = CHEST_XRAY.source
    assert sum(source.counts.values()) == 5856
    assert set(source.counts) == {f"{part}/{name}" for part in ("train", "test") for name in CLASSES}
    assert len(bytes.fromhex(source.sha256)) == 32
    assert "rscbjbr9sj" in source.url and source.url.startswith("https://")
    assert "10.17632/rscbjbr9sj.2" in source.citation and "CC BY 4.0" in source.licence


def test_find_root_finds_the_folder_that_the_factory_reads(tmp_path, monkeypatch):
    with pytest.raises(DataNotFound, match="chest-xray") as caught:
        CHEST_XRAY.find_root()
    assert "xbench data fetch chest-xray" in caught.value.hint
    in_cache = make_archive(tmp_path / "cache" / CHEST_XRAY.source.folder, SMALL)
    assert CHEST_XRAY.find_root() == in_cache
    monkeypatch.setenv(ROOT_VARIABLE, str(make_archive(tmp_path / "mine" / "chest_xray", SMALL).parent))
    assert CHEST_XRAY.find_root() == tmp_path / "mine" / "chest_xray"
    assert build_chest_xray(split="kaggle").examples[0].path.is_relative_to(CHEST_XRAY.find_root())


def test_find_root_finds_an_incomplete_archive(tmp_path, monkeypatch):
    half = make_archive(tmp_path / "half", {"train/NORMAL": SMALL["train/NORMAL"]})
    monkeypatch.setenv(ROOT_VARIABLE, str(half))
    assert CHEST_XRAY.find_root() == half


class TestRealImages:
    def test_counts_are_those_of_the_report(self, real_images):
        dataset = build_chest_xray(str(real_images))
        counts = Counter((e.split, dataset.classes[e.label]) for e in dataset.examples)
        assert counts == {
            ("train", "NORMAL"): 1110,
            ("train", "PNEUMONIA"): 3875,
            ("test", "NORMAL"): 465,
            ("test", "PNEUMONIA"): 390,
        }

    def test_no_group_is_on_both_sides(self, real_images):
        sides = defaultdict(set)
        for example in build_chest_xray(str(real_images)).examples:
            sides[example.group].add((example.split, example.label))
        assert all(len(side) == 1 for side in sides.values())
        assert 1000 < len(sides) < 5840

    def test_the_moved_images_never_change(self, real_images):
        assert digest(moved_names(build_chest_xray(str(real_images)))) == REAL_MOVED_DIGEST

    def test_images_are_read(self, real_images):
        dataset = build_chest_xray(str(real_images), image_size=64)
        pixels = dataset.read(dataset.examples[0])
        assert (pixels.dtype, pixels.shape) == (np.uint8, (64, 64, 3))
        assert 20 < pixels.mean() < 235 and pixels.std() > 10
