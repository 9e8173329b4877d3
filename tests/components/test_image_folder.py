"""Tests of the user's own images: listing, held-out images, and layouts that are refused."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xbench.components.image_folder import FOLDER, build_folder
from xbench.errors import DataNotFound, XbenchError

# Of 20 images per class. Every result depends on this choice, so it must not change unnoticed.
HELD_OUT_OF_20 = {"cat/018.png", "dog/002.png", "dog/010.png", "dog/013.png", "dog/015.png", "dog/016.png"}


def make(root: Path, *names: str) -> Path:
    """Make empty files, because a dataset only lists its images."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def many(root: Path, count: int = 200, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    return make(root, *(f"{name}/{i:03d}.png" for name in classes for i in range(count)))


def split_of(dataset) -> dict[str, str]:
    return {example.name: example.split for example in dataset.examples}


def names_of(dataset, split: str) -> set[str]:
    return {name for name, of in split_of(dataset).items() if of == split}


CHOOSE = "; `pattern` and `exclude` select among them"

SPLIT = (
    "train/ant/a.png",
    "train/bee/deep/er/b.JPG",
    "train/bee/b2.jpeg",
    "train/cow/c.png",
    "test/ant/a.png",
    "test/bee/b.png",
    "test/cow/c.png",
)


class TestTrainAndTestFolders:
    def test_classes_are_the_folders_in_them(self, tmp_path):
        dataset = build_folder(str(make(tmp_path, *SPLIT)), image_size=32)
        assert dataset.classes == ("ant", "bee", "cow")
        assert dataset.positive == "cow"
        assert dataset.shape == (3, 32, 32)
        assert dataset.notes == (f"1 of 7 images are in subfolders of their classes: 1 in deep/{CHOOSE}",)
        assert {e.name for e in dataset.examples} == set(SPLIT)
        for example in dataset.examples:
            part, class_name = example.name.split("/")[:2]
            assert (example.split, dataset.classes[example.label]) == (part, class_name)
            assert example.path == tmp_path / example.name
            assert example.group == ""

    @pytest.mark.parametrize("part", ["val", "valid", "validation"])
    def test_validation_counts_as_train_with_a_note(self, tmp_path, part):
        dataset = build_folder(str(make(tmp_path, *SPLIT, f"{part}/ant/v.png")))
        assert split_of(dataset)[f"{part}/ant/v.png"] == "train"
        assert dataset.notes[0] == f"images in {part}/ count as train"

    def test_other_folders_are_left_out_and_named(self, tmp_path):
        dataset = build_folder(str(make(tmp_path, *SPLIT, "unlabelled/x/1.png", ".git/x/1.png")))
        assert {e.name for e in dataset.examples} == set(SPLIT)
        assert dataset.notes[0] == "not used, because they are neither train nor test: 'unlabelled'"

    @pytest.mark.parametrize(("there", "missing"), [("train", "test"), ("test", "train")])
    def test_split_folder_without_the_other_is_refused(self, tmp_path, there, missing):
        root = make(tmp_path, *(name for name in SPLIT if name.startswith(there)), "val/ant/v.png")
        with pytest.raises(XbenchError, match=f"holds {there}/ and val/ but no {missing}/"):
            build_folder(str(root))

    def test_a_group_in_both_is_named(self, tmp_path):
        root = make(tmp_path, *SPLIT, "train/ant/p7_1.png", "test/bee/p7_2.png")
        assert len(build_folder(str(root)).examples) == len(SPLIT) + 2
        with pytest.raises(XbenchError, match="group '7' is in both train and test") as caught:
            build_folder(str(root), group=r"p(\d+)_")
        assert "train/ant/p7_1.png" in caught.value.message and "test/bee/p7_2.png" in caught.value.message

    def test_class_without_training_images_is_refused(self, tmp_path):
        with pytest.raises(XbenchError, match=r"class 'elk' .* has no images to train on"):
            build_folder(str(make(tmp_path, *SPLIT, "test/elk/e.png")))

    @pytest.mark.parametrize("train", ["train", "Training", "TRAIN", "train_set", "Train Data", "trainset"])
    @pytest.mark.parametrize("test", ["test", "Testing", "TEST", "test-images"])
    def test_common_spellings(self, tmp_path, train, test):
        names = (f"{train}/cat/1.png", f"{train}/dog/1.png", f"{test}/cat/2.png", f"{test}/dog/2.png")
        dataset = build_folder(str(make(tmp_path, *names, "Validation/cat/3.png")))
        assert dataset.classes == ("cat", "dog")
        assert names_of(dataset, "test") == set(names[2:])
        assert names_of(dataset, "train") == {*names[:2], "Validation/cat/3.png"}

    @pytest.mark.parametrize(("first", "second"), [("train", "Training"), ("test", "TEST_SET")])
    def test_two_folders_for_one_split_are_named(self, tmp_path, first, second):
        root = make(tmp_path, *SPLIT, f"{second}/ant/x.png")
        with pytest.raises(XbenchError, match=f"2 folders for {first}: '{second}', '{first}'"):
            build_folder(str(root))

    def test_validation_is_test_if_test_folder_says_so(self, tmp_path):
        names = ("train/cat/1.png", "train/dog/1.png", "val/cat/2.png", "val/dog/2.png")
        root = str(make(tmp_path, *names))
        with pytest.raises(XbenchError) as caught:
            build_folder(root)
        assert 'test_folder = "val"' in caught.value.hint and f"{root}/train" in caught.value.hint
        dataset = build_folder(root, test_folder="val")
        assert names_of(dataset, "test") == set(names[2:])
        assert dataset.notes == ("test is val/",)
        with pytest.raises(XbenchError, match="test_folder 'va' is not a folder in"):
            build_folder(root, test_folder="va")
        with pytest.raises(XbenchError, match="test_folder 'train' is the folder of training images"):
            build_folder(root, test_folder="train")

    @pytest.mark.parametrize(
        ("name", "twin"), [("NORMAL", "Normal"), ("no_tumor", "notumor"), ("é", "e\u0301")]
    )
    def test_two_spellings_of_a_class_are_named(self, tmp_path, name, twin):
        root = make(tmp_path, f"train/{name}/1.png", "train/x/1.png", f"test/{twin}/1.png", "test/x/1.png")
        with pytest.raises(XbenchError, match="seem to be one class") as caught:
            build_folder(str(root))
        assert f"'{name}' in train/" in caught.value.message and f"'{twin}' in test/" in caught.value.message

    def test_two_spellings_side_by_side_are_two_classes(self, tmp_path):
        root = make(tmp_path, *(f"{part}/{name}/1.png" for part in ("train", "test") for name in "aA"))
        assert build_folder(str(root)).classes == ("A", "a")

    def test_superfluous_level_in_the_splits_is_named(self, tmp_path):
        root = make(
            tmp_path, *(f"{p}/{p}/{name}/1.png" for p in ("train", "test") for name in ("cat", "dog"))
        )
        with pytest.raises(
            XbenchError, match=r"holds only the folder 't.+', which seems to hold the classes"
        ) as caught:
            build_folder(str(root))
        assert "up into" in caught.value.hint

    def test_a_test_folder_may_hold_one_class_with_sub_folders(self, tmp_path):
        names = [*SPLIT[:4], "test/ant/p1/1.png", "test/ant/p2/1.png"]
        assert len(build_folder(str(make(tmp_path, *names))).examples) == 6

    def test_empty_test_folder_is_refused(self, tmp_path):
        root = make(tmp_path, "train/ant/a.png", "train/bee/b.png", "test/ant/a.txt")
        with pytest.raises(XbenchError, match="no images to test on"):
            build_folder(str(root))


class TestHeldOut:
    def test_each_class_is_held_out_in_about_the_same_share(self, tmp_path):
        dataset = build_folder(str(many(tmp_path)), test=0.25)
        for label in (0, 1):
            held_out = sum(e.split == "test" for e in dataset.examples if e.label == label)
            assert 35 <= held_out <= 65
        (note,) = dataset.notes
        assert f"test is {len(names_of(dataset, 'test'))} of 400 images" in note
        assert "test = 0.25" in note

    def test_held_out_images_depend_on_names_only(self, tmp_path):
        assert names_of(build_folder(str(many(tmp_path, 20))), "test") == HELD_OUT_OF_20

    def test_held_out_images_do_not_change_when_others_are_added_or_removed(self, tmp_path):
        before = split_of(build_folder(str(many(tmp_path / "a", 50))))
        after = split_of(build_folder(str(many(tmp_path / "b", 80, ("cat", "dog", "eel")))))
        assert {name: after[name] for name in before} == before

    def test_a_larger_share_keeps_the_smaller_one(self, tmp_path):
        root = str(many(tmp_path))
        small, large = (names_of(build_folder(root, test=share), "test") for share in (0.1, 0.3))
        assert small < large

    def test_whole_groups_are_held_out(self, tmp_path):
        names = [f"{c}/p{patient}_{i}.png" for c in ("cat", "dog") for patient in range(60) for i in range(3)]
        dataset = build_folder(str(make(tmp_path, *names, "cat/other.png")), group=r"^p(\d+)_")
        sides = defaultdict(set)
        for example in dataset.examples:
            sides[example.group].add(example.split)
        assert sides.pop("") == {split_of(dataset)["cat/other.png"]}
        assert set(sides) == {str(patient) for patient in range(60)}
        assert all(len(side) == 1 for side in sides.values())
        assert {side for (side,) in sides.values()} == {"train", "test"}
        assert "1 of 361 images have no group" in dataset.notes[1]

    def test_groups_may_be_folders(self, tmp_path):
        names = [f"{c}/patient {p}/{i}.png" for c in ("cat", "dog") for p in range(20) for i in range(2)]
        dataset = build_folder(str(make(tmp_path, *names)), group="^([^/]+)/")
        assert {e.group for e in dataset.examples} == {f"patient {p}" for p in range(20)}


class TestFoldersThatAreNotClasses:
    def test_archive_unpacked_one_level_too_deep_is_refused(self, tmp_path):
        make(tmp_path, *(f"chest_xray/{name}" for name in SPLIT), "__MACOSX/x.png")
        with pytest.raises(XbenchError, match=r"only the folder 'chest_xray': .* one level deeper") as caught:
            build_folder(str(tmp_path))
        assert f"set root to {tmp_path}/chest_xray, which holds 'test', 'train'" in caught.value.hint

    def test_splits_inside_a_folder_beside_others_are_refused(self, tmp_path):
        make(tmp_path, *(f"chest_xray/{name}" for name in SPLIT), "more/x.png")
        with pytest.raises(XbenchError, match=r"'chest_xray' .* is not a class: it holds 'test', 'train'"):
            build_folder(str(tmp_path))

    def test_folders_named_like_splits_are_refused(self, tmp_path):
        make(
            tmp_path,
            *(f"seg_{p}/seg_{p}/{c}/1.png" for p in ("train", "test") for c in "ab"),
            "seg_pred/1.png",
        )
        with pytest.raises(XbenchError, match=r"'seg_train', 'seg_test' .* look like splits") as caught:
            build_folder(str(tmp_path))
        assert f"{tmp_path}/seg_train/seg_train" in caught.value.hint

    @pytest.mark.parametrize("sure", [{}, {"pattern": "*"}, {"exclude": ["x/*"]}])
    @pytest.mark.parametrize("prefix", ["", "train/"])
    def test_folders_with_the_same_subfolders_are_refused(self, tmp_path, prefix, sure):
        many(tmp_path / prefix / "site 1", 20)
        many(tmp_path / prefix / "site 2", 20)
        if prefix:
            make(tmp_path, "test/site 1/cat/1.png", "test/site 2/cat/1.png")
        if sure:
            assert build_folder(str(tmp_path), **sure).classes == ("site 1", "site 2")
            return
        with pytest.raises(XbenchError, match="hold the same folders, 'cat', 'dog'") as caught:
            build_folder(str(tmp_path))
        assert "pattern = '*'" in caught.value.hint

    def test_class_cannot_be_named_train(self, tmp_path):
        with pytest.raises(XbenchError) as caught:
            build_folder(str(many(tmp_path, 3, ("bus", "train"))))
        assert "if 'train' is a class, rename its folder" in caught.value.hint


class TestWhichFilesAreImages:
    @pytest.fixture
    def masked(self, tmp_path) -> str:
        names = [
            f"{c}/{sub}/{i}.png" for c in ("cat", "dog") for sub in ("images", "masks") for i in range(20)
        ]
        return str(make(tmp_path, *names))

    def test_subfolders_are_counted(self, masked):
        dataset = build_folder(masked)
        assert len(dataset.examples) == 80
        counts = "40 in images/, 40 in masks/"
        assert dataset.notes[1] == f"80 of 80 images are in subfolders of their classes: {counts}{CHOOSE}"

    @pytest.mark.parametrize(
        ("chosen", "told"),
        [
            ({"pattern": "images/*"}, "pattern = 'images/*'"),
            ({"exclude": "masks/*"}, "exclude = 'masks/*'"),
            ({"exclude": ["*mask*", "no/*"]}, "exclude = '*mask*', 'no/*'"),
            ({"pattern": ["i*", "m*"], "exclude": "m*"}, "pattern = 'i*', 'm*' and exclude = 'm*'"),
        ],
    )
    def test_globs_select_among_subfolders(self, masked, chosen, told):
        dataset = build_folder(masked, **chosen)
        assert {e.name.split("/")[1] for e in dataset.examples} == {"images"}
        assert len(dataset.examples) == 40
        assert dataset.notes[1:] == (
            "40 of 40 images are in subfolders of their classes: 40 in images/",
            f"40 images were left out by {told}",
        )

    def test_globs_that_leave_no_images_are_named(self, masked):
        with pytest.raises(XbenchError, match=r"'image/\*' leaves class 'cat' .* without images") as caught:
            build_folder(masked, pattern="image/*")
        assert "'images/0.png'" in caught.value.hint

    def test_globs_must_be_strings(self, masked):
        with pytest.raises(XbenchError, match=r"exclude .* is not a glob"):
            build_folder(masked, exclude=[1])

    def test_thumbnails_of_other_programs_are_counted(self, tmp_path):
        root = many(tmp_path, 20)
        clutter = ("@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg", ".thumbnails/a.jpg", "._000.png", "Thumbs.db")
        make(
            root, *(f"cat/{name}" for name in clutter), "dog/.DS_Store", "dog/desktop.ini", "dog/.x/notes.txt"
        )
        dataset = build_folder(str(root))
        assert len(dataset.examples) == 40
        assert dataset.notes[1:] == (
            "4 hidden images and thumbnails of other programs were left out: "
            "1 '._*', 1 '.thumbnails', 1 '@eaDir', 1 'Thumbs.db'",
        )

    def test_other_files_are_counted_and_named(self, tmp_path):
        root = make(many(tmp_path, 20), "cat/a.svg", "cat/deep/b.SVG", "dog/c.dcm", "dog/LICENCE")
        (note,) = build_folder(str(root)).notes[1:]
        assert note == (
            "4 files in the classes' folders are not images in a supported format "
            "(2 .svg, 1 .dcm, 1 no suffix): 'cat/a.svg', 'cat/deep/b.SVG', 'dog/LICENCE' and 1 more"
        )

    @pytest.mark.parametrize("names", [("1.png", "2.bmp"), ()])
    def test_loose_images_are_counted_and_named(self, tmp_path, names):
        root = make(tmp_path, *SPLIT[3:], "train/ant/a.png", "train/bee/b.png", "test/loose.png", *names)
        (note,) = build_folder(str(root)).notes
        named = ", ".join(f"'{name}'" for name in (*names, "test/loose.png"))
        assert note == f"{len(names) + 1} images outside the classes' folders are not used: {named}"

    def test_a_test_folder_without_classes(self, tmp_path):
        root = make(tmp_path, "train/cat/1.png", "train/dog/1.png", "test/1.png", "test/2.png")
        with pytest.raises(XbenchError, match="no images to test on") as caught:
            build_folder(str(root))
        assert f"set root to {root}/train" in caught.value.hint

    @pytest.mark.parametrize(
        "suffix",
        ["bmp", "dib", "gif", "jfif", "jpe", "pbm", "pgm", "pnm", "ppm", "tif", "tiff", "webp", "apng"],
    )
    def test_all_image_suffixes_are_listed(self, tmp_path, suffix):
        root = make(many(tmp_path, 20, ("cat",)), *(f"dog/{i}.{suffix}" for i in range(20)))
        assert len(build_folder(str(root)).examples) == 40


def test_hidden_and_other_files_are_not_listed(tmp_path):
    clutter = ["cat/._000.png", "cat/.hidden/1.png", "__MACOSX/cat/1.png", ".dot/1.png", "cat/notes.txt"]
    root = make(many(tmp_path, 20), *clutter)
    dataset = build_folder(str(root))
    assert dataset.classes == ("cat", "dog")
    assert len(dataset.examples) == 40


def test_unusual_names_are_accepted(tmp_path):
    names = ['it\'s "odd"/naïve café 1.png', "ラベル/画像 & co.png"]
    root = make(tmp_path / "my images", *names, *(f"ラベル/{i}.png" for i in range(20)))
    dataset = build_folder(str(root))
    assert dataset.classes == ('it\'s "odd"', "ラベル")
    assert set(names) <= {e.name for e in dataset.examples}


def test_linked_images_and_folders_are_followed(tmp_path):
    root = many(tmp_path / "root", 20)
    make(tmp_path / "else", "1.png", "2.png")
    (root / "cat/linked.png").symlink_to(tmp_path / "else/1.png")
    (root / "eel").symlink_to(tmp_path / "else")
    (root / "dog/circle").symlink_to(root / "dog")
    dataset = build_folder(str(root), test=0.5)
    counts = Counter(dataset.classes[e.label] for e in dataset.examples)
    assert counts == {"cat": 21, "dog": 20, "eel": 2}


def test_the_positive_class_can_be_chosen(tmp_path):
    assert build_folder(str(many(tmp_path)), positive="cat").positive == "cat"


def test_images_are_read_at_the_image_size(tmp_path):
    root = many(tmp_path, 20)
    Image.new("RGB", (9, 30), (10, 200, 30)).save(root / "cat/000.png")
    dataset = build_folder(str(root), image_size=16)
    pixels = dataset.read(next(e for e in dataset.examples if e.name == "cat/000.png"))
    assert (pixels.dtype, pixels.shape) == (np.uint8, (16, 16, 3))
    assert (pixels == (10, 200, 30)).all()


@pytest.mark.parametrize("root", ["", "not here", "cat/000.png"])
def test_missing_folder_raises_data_not_found(tmp_path, monkeypatch, root):
    monkeypatch.chdir(many(tmp_path, 3))
    with pytest.raises(DataNotFound) as caught:
        build_folder(root)
    assert f"'{root}'" in caught.value.message
    assert "root" in caught.value.hint


@pytest.mark.parametrize("names", [(), ("cat/1.png",), ("1.png", "2.png")])
def test_fewer_than_two_classes_are_refused(tmp_path, names):
    with pytest.raises(XbenchError, match="needs at least 2 classes") as caught:
        build_folder(str(make(tmp_path, *names)))
    assert not isinstance(caught.value, DataNotFound)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("names", "found", "tree"),
    [
        (("1.png", "2.png"), "0 folders of images, and 2 images that", ("cat/cat1.jpg", "dog/dog1.jpg")),
        (("ant/1.png", "2.png"), "1 folder of images, and 1 image that", ("ant/ant1.jpg", "cat/cat1.jpg")),
        (
            ("train/1.png", "train/2.png", "test/3.png"),
            "0 folders of images, and 3 images that",
            ("test/cat/cat1.jpg", "test/dog/dog1.jpg", "train/cat/cat1.jpg", "train/dog/dog1.jpg"),
        ),
    ],
)
def test_images_without_folders_of_classes_are_told_with_the_expected_layout(tmp_path, names, found, tree):
    root = make(tmp_path, *names)
    with pytest.raises(XbenchError, match="one folder per class") as caught:
        build_folder(str(root))
    assert f"{root} holds {found}" in caught.value.message
    assert caught.value.hint.split("\n    ")[1:] == [str(root / path) for path in tree]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"test": 0}, "test 0 "),
        ({"test": 1}, "test 1 "),
        ({"test": -0.5}, "test -0.5 "),
        ({"test": float("nan")}, "test nan "),
        ({"test": "half"}, "test half "),
        ({"image_size": 7}, "image_size 7 of folder"),
        ({"image_size": 5000}, "image_size 5000"),
        ({"image_size": 32.5}, "image_size 32.5"),
        ({"group": "("}, "not a valid regular expression"),
        ({"group": "p"}, "has 0 pairs"),
        ({"group": "(p)(q)"}, "has 2 pairs"),
        ({"group": "patient(x)"}, "does not match any image"),
        ({"positive": "cow"}, "positive 'cow' is not a class"),
        ({"test": 1e-9}, "no images to test on"),
        ({"test": 1 - 1e-9}, "class 'cat' .* no images to train on"),
    ],
)
def test_invalid_settings_are_refused(tmp_path, settings, complaint):
    with pytest.raises(XbenchError, match=complaint) as caught:
        build_folder(str(many(tmp_path)), **settings)
    assert not isinstance(caught.value, DataNotFound)
    assert caught.value.hint


def test_a_class_without_images_is_named(tmp_path):
    with pytest.raises(XbenchError, match=r"class 'docs' .* has no images") as caught:
        build_folder(str(make(many(tmp_path), "docs/readme.txt")))
    assert caught.value.hint


def test_name_that_is_not_utf8_is_reported(tmp_path):
    root = many(tmp_path, 20)
    try:
        (root / "cat" / "caf\udce9.png").touch()
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    with pytest.raises(XbenchError, match="is not valid UTF-8"):
        build_folder(str(root))


def test_spec_is_not_a_stand_in_and_does_not_import_torch():
    assert FOLDER.stand_in == ""
    assert FOLDER.source is None
