"""Images of one's own, one folder a class: what is listed, what is held out, and what is refused."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xbench.components.image_folder import FOLDER, build_folder
from xbench.errors import DataNotFound, XbenchError

# Of 20 images a class: the choice is part of every result, so it must never change unnoticed.
HELD_OUT_OF_20 = {"cat/018.png", "dog/002.png", "dog/010.png", "dog/013.png", "dog/015.png", "dog/016.png"}


def make(root: Path, *names: str) -> Path:
    """Empty files: a dataset lists its images and reads none."""
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
        assert dataset.notes == ()
        assert {e.name for e in dataset.examples} == set(SPLIT)
        for example in dataset.examples:
            part, class_name = example.name.split("/")[:2]
            assert (example.split, dataset.classes[example.label]) == (part, class_name)
            assert example.path == tmp_path / example.name
            assert example.group == ""

    @pytest.mark.parametrize("part", ["val", "valid", "validation"])
    def test_validation_counts_as_train_and_it_says_so(self, tmp_path, part):
        dataset = build_folder(str(make(tmp_path, *SPLIT, f"{part}/ant/v.png")))
        assert split_of(dataset)[f"{part}/ant/v.png"] == "train"
        assert dataset.notes == (f"images of {part}/ count as train",)

    def test_other_folders_are_left_out_and_named(self, tmp_path):
        dataset = build_folder(str(make(tmp_path, *SPLIT, "unlabelled/x/1.png", ".git/x/1.png")))
        assert {e.name for e in dataset.examples} == set(SPLIT)
        assert dataset.notes == ("not used, as they are neither train nor test: 'unlabelled'",)

    @pytest.mark.parametrize(("there", "missing"), [("train", "test"), ("test", "train")])
    def test_one_without_the_other_is_no_class(self, tmp_path, there, missing):
        root = make(tmp_path, *(name for name in SPLIT if name.startswith(there)), "val/ant/v.png")
        with pytest.raises(XbenchError, match=f"holds {there}/ but no {missing}/"):
            build_folder(str(root))

    def test_a_group_in_both_is_named(self, tmp_path):
        root = make(tmp_path, *SPLIT, "train/ant/p7_1.png", "test/bee/p7_2.png")
        assert len(build_folder(str(root)).examples) == len(SPLIT) + 2
        with pytest.raises(XbenchError, match="group '7' lies in both train and test") as caught:
            build_folder(str(root), group=r"p(\d+)_")
        assert "train/ant/p7_1.png" in caught.value.message and "test/bee/p7_2.png" in caught.value.message

    def test_a_class_that_is_only_in_test_cannot_be_learnt(self, tmp_path):
        with pytest.raises(XbenchError, match=r"class 'elk' .* has no images to train on"):
            build_folder(str(make(tmp_path, *SPLIT, "test/elk/e.png")))

    def test_a_class_that_is_not_in_test_is_noted(self, tmp_path):
        dataset = build_folder(str(make(tmp_path, *SPLIT, "train/elk/e.png")))
        assert dataset.notes == ("no image is left to test these classes on: 'elk'",)

    def test_nothing_in_test(self, tmp_path):
        root = make(tmp_path, "train/ant/a.png", "train/bee/b.png", "test/ant/a.txt")
        with pytest.raises(XbenchError, match="no images to test on"):
            build_folder(str(root))


class TestHeldOut:
    def test_about_the_share_of_every_class(self, tmp_path):
        dataset = build_folder(str(many(tmp_path)), test=0.25)
        for label in (0, 1):
            held_out = sum(e.split == "test" for e in dataset.examples if e.label == label)
            assert 35 <= held_out <= 65
        (note,) = dataset.notes
        assert f"test is {len(names_of(dataset, 'test'))} of 400 images" in note
        assert "test = 0.25" in note

    def test_the_choice_is_fixed_by_names_for_good(self, tmp_path):
        assert names_of(build_folder(str(many(tmp_path, 20))), "test") == HELD_OUT_OF_20

    def test_it_does_not_change_when_images_come_and_go(self, tmp_path):
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
        assert "1 of 361 images belong to no group" in dataset.notes[1]

    def test_groups_may_be_folders(self, tmp_path):
        names = [f"{c}/patient {p}/{i}.png" for c in ("cat", "dog") for p in range(20) for i in range(2)]
        dataset = build_folder(str(make(tmp_path, *names)), group="^([^/]+)/")
        assert {e.group for e in dataset.examples} == {f"patient {p}" for p in range(20)}


def test_what_is_no_image_or_hidden_is_not_listed(tmp_path):
    clutter = ["cat/._000.png", "cat/.hidden/1.png", "__MACOSX/cat/1.png", ".dot/1.png", "cat/notes.txt"]
    root = make(many(tmp_path, 20), *clutter)
    dataset = build_folder(str(root))
    assert dataset.classes == ("cat", "dog")
    assert len(dataset.examples) == 40


def test_odd_names_are_names(tmp_path):
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


def test_images_are_read_to_the_size(tmp_path):
    root = many(tmp_path, 20)
    Image.new("RGB", (9, 30), (10, 200, 30)).save(root / "cat/000.png")
    dataset = build_folder(str(root), image_size=16)
    pixels = dataset.read(next(e for e in dataset.examples if e.name == "cat/000.png"))
    assert (pixels.dtype, pixels.shape) == (np.uint8, (16, 16, 3))
    assert (pixels == (10, 200, 30)).all()


@pytest.mark.parametrize("root", ["", "not here", "cat/000.png"])
def test_no_folder_is_data_not_found(tmp_path, monkeypatch, root):
    monkeypatch.chdir(many(tmp_path, 3))
    with pytest.raises(DataNotFound) as caught:
        build_folder(root)
    assert f"'{root}'" in caught.value.message
    assert "root" in caught.value.hint


@pytest.mark.parametrize("names", [(), ("cat/1.png",), ("1.png", "2.png")])
def test_it_takes_two_classes(tmp_path, names):
    with pytest.raises(XbenchError, match="takes two") as caught:
        build_folder(str(make(tmp_path, *names)))
    assert not isinstance(caught.value, DataNotFound)
    assert caught.value.hint


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
        ({"group": "("}, "no regular expression"),
        ({"group": "p"}, "has 0 groups"),
        ({"group": "(p)(q)"}, "has 2 groups"),
        ({"group": "patient(x)"}, "matches no image"),
        ({"positive": "cow"}, "positive 'cow' is no class"),
        ({"test": 1e-9}, "no images to test on"),
        ({"test": 1 - 1e-9}, "class 'cat' .* no images to train on"),
    ],
)
def test_settings_that_are_no_good_are_refused(tmp_path, settings, complaint):
    with pytest.raises(XbenchError, match=complaint) as caught:
        build_folder(str(many(tmp_path)), **settings)
    assert not isinstance(caught.value, DataNotFound)
    assert caught.value.hint


def test_a_class_without_images_is_named(tmp_path):
    with pytest.raises(XbenchError, match=r"class 'docs' .* has no images") as caught:
        build_folder(str(make(many(tmp_path), "docs/readme.txt")))
    assert caught.value.hint


def test_a_name_that_is_no_text_is_named(tmp_path):
    root = many(tmp_path, 20)
    try:
        (root / "cat" / "caf\udce9.png").touch()
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    with pytest.raises(XbenchError, match="no UTF-8 name"):
        build_folder(str(root))


def test_it_is_no_stand_in_and_needs_no_torch():
    assert FOLDER.stand_in == ""
    assert FOLDER.source is None
