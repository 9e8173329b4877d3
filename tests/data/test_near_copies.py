"""Images that look alike: across train and test, classes and groups, and where they do no harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.data.look_alikes import SIDE, brighten, change, compress, crop, make_scene
from xbench.components.image_dataset import Dataset, Example
from xbench.data import near_search, perceptual
from xbench.data.decode import decode
from xbench.data.decoded import DecodedDataset
from xbench.data.near_copies import RELATIONS, NearCopies, count_alike
from xbench.errors import XbenchError

pytestmark = pytest.mark.usefixtures("cache")

# Two different scenes for each class and split: (name, split, label, group, scene, how it is changed).
PLAIN = (
    ("a1", "train", 0, "", 1, None),
    ("a2", "test", 0, "", 2, None),
    ("b1", "train", 1, "", 3, None),
    ("b2", "test", 1, "", 4, None),
)


def decoded(
    *images: tuple, unreadable: tuple[str, ...] = (), side: int = SIDE, stand_in: str = ""
) -> DecodedDataset:
    """Decode made-up images, of which those of the same scene and change have the same content."""
    of_name = {image[0]: image for image in images}

    def read(example: Example) -> np.ndarray:
        if example.name in unreadable:
            raise ValueError("garbled")
        *_, scene, how = of_name[example.name]
        pixels = make_scene(scene, side)
        return pixels if how is None else change(pixels, how)

    examples = tuple(
        Example(name, label, split, group, content=f"{scene} {how}")
        for name, split, label, group, scene, how in images
    )
    dataset = Dataset(("a", "b"), "b", (3, side, side), examples, read)
    return decode(dataset, "set", stand_in, False, lambda done, total: None)


def near_copies(*images: tuple, **settings) -> NearCopies:
    return decoded(*images, **settings).near


def counts_of(near: NearCopies) -> dict[str, int]:
    return {relation: count for relation, count in near.related.counts.items() if count}


def test_different_images_are_no_near_duplicates():
    near = near_copies(*PLAIN)
    assert (near.not_compared, near.images, near.test, near.compared_pairs) == ("", 4, 2, 6)
    assert (counts_of(near), near.warnings) == ({}, [])


def test_a_changed_training_image_in_the_test_set_is_told():
    near = near_copies(*PLAIN, ("t1", "test", 0, "", 1, compress), ("t2", "test", 0, "", 1, crop))
    assert near.in_test == (("t1", "a1"), ("t2", "a1"))
    assert counts_of(near) == {"train and test": 2, "one group": 1}
    assert near.related.named["train and test"] == (("a1", "t1"), ("a1", "t2"))
    assert near.warnings == [
        "2 of 4 test images are near-duplicates of training images, so test metrics may be optimistic: "
        "t1 looks like a1; t2 looks like a1"
    ]


def test_a_changed_image_in_another_class_is_told_with_both():
    near = near_copies(*PLAIN, ("b3", "train", 1, "", 1, brighten))
    assert near.across_classes == (("a1", "b3"), ("b3", "a1"))
    assert counts_of(near) == {"two classes": 1}
    assert near.warnings == [
        "2 of 5 images are near-duplicates of an image of another class, so a label may be wrong: "
        "a1 looks like b3; b3 looks like a1"
    ]


def test_pairs_within_a_class_and_split_are_only_counted():
    near = near_copies(
        *PLAIN,
        ("p1", "train", 0, "anna", 5, None),
        ("p2", "train", 0, "anna", 5, compress),
        ("p3", "train", 0, "bert", 5, crop),
        ("a3", "train", 0, "", 1, compress),
    )
    assert counts_of(near) == {"two groups": 2, "one group": 2}
    assert near.related.named["two groups"] == (("p1", "p3"), ("p2", "p3"))
    assert near.warnings == []


def test_exact_copies_are_not_told_twice():
    data = decoded(
        *PLAIN,
        ("a1 copy", "train", 0, "", 1, None),
        ("t1", "test", 0, "", 1, None),  # copy of a1, which also looks like a3
        ("a3", "train", 0, "", 1, compress),
        ("t2", "test", 0, "", 1, compress),  # copy of a3
        ("t3", "test", 0, "", 1, crop),
    )
    assert [copy for copy, _ in data.duplicates.in_test] == ["t1", "t2"]
    assert data.near.in_test == (("t3", "a1"),)
    together = {frozenset(pair) for pairs in data.near.related.named.values() for pair in pairs}
    assert {"a1", "a3"} in together
    assert not together & {frozenset({"a1", "a1 copy"}), frozenset({"a1", "t1"}), frozenset({"a3", "t2"})}


def test_exact_copies_are_sorted_in_the_same_way():
    copies = (
        ("c1", "test", 0, "", 1, None),
        ("c2", "train", 0, "", 1, None),
        ("c3", "train", 1, "", 1, None),
        ("c4", "train", 0, "anna", 1, None),
    )
    for side in (SIDE, 16):  # too small for near-duplicates
        near = near_copies(*PLAIN, *copies, side=side)
        assert near.copies.counts == dict.fromkeys(RELATIONS, 1)
        assert near.copies.named == {
            relation: (("a1", copy),)
            for relation, copy in zip(RELATIONS, ("c1", "c3", "c4", "c2"), strict=True)
        }
        assert counts_of(near) == {}


def test_a_copy_in_another_class_is_not_told_twice():
    data = decoded(*PLAIN, ("b3", "train", 1, "", 1, None), ("b4", "train", 1, "", 1, compress))
    assert data.duplicates.across_classes == (("a1", "b3"), ("b3", "a1"))
    assert data.near.across_classes == (("b4", "a1"),)


def test_an_unreadable_image_is_not_compared():
    images = (("a0", "train", 0, "", 1, compress), *PLAIN, ("t1", "test", 0, "", 3, crop))
    data = decoded(*images, unreadable=("a0",))
    assert data.near.images == 5
    assert [data.names[index] for pair in data.near.pairs for index in pair] == ["b1", "t1"]


def test_small_images_are_not_compared():
    near = near_copies(*PLAIN, ("t1", "test", 0, "", 1, compress), side=31)
    assert "less than 32 pixels" in near.not_compared
    assert (near.compared_pairs, near.warnings) == (0, [])


def test_made_up_images_are_not_compared():
    near = near_copies(*PLAIN, ("t1", "test", 0, "", 1, compress), stand_in="synthetic images")
    assert "made up" in near.not_compared


def test_flat_images_are_not_taken_for_near_duplicates():
    def read(example: Example) -> np.ndarray:
        return np.full((40, 40, 3), 10 * example.label, np.uint8)

    examples = tuple(Example(f"{s} {i}", i, s, content=f"{s} {i}") for s in ("train", "test") for i in (0, 1))
    dataset = Dataset(("a", "b"), "b", (3, 40, 40), examples, read)
    near = decode(dataset, "flat", "", False, lambda done, total: None).near
    assert (near.images, counts_of(near)) == (4, {})


def test_very_many_images_are_not_compared_and_a_run_says_so(monkeypatch):
    monkeypatch.setattr(near_search, "_MAX_IMAGES", 3)
    near = near_copies(*PLAIN)
    assert "more than 3 images" in near.not_compared
    assert near.warnings == [
        "near-duplicates were not looked for, so none are known in the test set: of more than 3 images, not "
        "all pairs are compared"
    ]
    assert near_copies(*PLAIN, side=31).warnings == []
    assert near_copies(*PLAIN, stand_in="synthetic images").warnings == []


class TestVeryManyPairs:
    """Of an image that looks like very many others, some pairs are left out, but what they mean is told."""

    # Frames that look alike come first, and a leak and a wrong label last.
    FRAMES = tuple((f"a0{i}", "train", 0, "", 9, how) for i, how in enumerate((None, brighten, compress)))
    LAST = (("y", "test", 1, "", 3, compress), ("z", "train", 1, "", 9, crop))

    @pytest.fixture
    def near(self, monkeypatch) -> NearCopies:
        monkeypatch.setattr(near_search, "_MAX_KEPT", 1)
        return near_copies(*self.FRAMES, *PLAIN, *self.LAST)

    def test_some_are_left_out(self, near):
        assert near.is_cut
        assert near.pairs.tolist() == [[0, 1], [0, 8], [1, 2], [1, 8], [2, 8], [5, 7]]

    def test_all_are_counted(self, near):
        assert counts_of(near) == {"train and test": 1, "two classes": 3, "one group": 3}
        assert near.related.named["one group"] == (("a00", "a01"), ("a00", "a02"), ("a01", "a02"))

    def test_none_hides_a_leak_or_a_wrong_label(self, near):
        assert near.in_test == (("y", "b1"),)
        assert near.across_classes == (("a00", "z"), ("a01", "z"), ("a02", "z"), ("z", "a00"))

    def test_the_first_image_is_told_wherever_blocks_of_pairs_begin(self, near, monkeypatch):
        monkeypatch.setattr(perceptual, "_BLOCK_PAIRS", 1)
        monkeypatch.setattr(near_search, "METHOD_VERSION", "another")
        again = near_copies(*self.FRAMES, *PLAIN, *self.LAST)
        assert again == near
        assert again.pairs.tolist() == near.pairs.tolist()

    def test_usually_none_is_left_out(self):
        near = near_copies(*self.FRAMES, *PLAIN, *self.LAST)
        assert (len(near.pairs), near.is_cut) == (7, False)


def test_the_result_is_remembered_and_computed_again_for_other_images(monkeypatch):
    images = (*PLAIN, ("t1", "test", 0, "", 1, compress))
    first = decoded(*images)
    calls = []
    monkeypatch.setattr(
        near_search, "hash_rows", lambda *args: calls.append(args) or np.zeros((5, 256), bool)
    )
    again = decoded(*images)
    assert calls == []
    assert again.near == first.near
    assert again.near.pairs.tolist() == first.near.pairs.tolist() == [[0, 4]]
    decoded(*PLAIN, ("t1", "test", 0, "", 5, None))
    assert len(calls) == 1


def test_it_is_computed_again_for_other_splits_and_classes():
    near_copies(*PLAIN, ("t1", "test", 0, "", 1, compress))
    moved = near_copies(*PLAIN, ("t1", "train", 1, "", 1, compress))
    assert counts_of(moved) == {"two classes": 1}
    assert (moved.in_test, moved.across_classes) == ((), (("a1", "t1"), ("t1", "a1")))


def test_pixels_that_cannot_be_read_are_told():
    data = decoded(*PLAIN)
    short = data.pixels_path.with_name("short")
    short.write_bytes(data.pixels_path.read_bytes()[:-1])
    with pytest.raises(XbenchError, match=r"the decoded images of set cannot be read: .*ends within row 3"):
        near_search.find_near_copies(
            replace(data, pixels_path=short, fingerprint="other"), lambda done, total: None
        )


def test_training_processes_get_no_pairs():
    data = decoded(*PLAIN, ("t1", "test", 0, "", 1, compress)).for_training()
    assert (data.names, len(data.near.pairs), len(data.duplicates.contents)) == ((), 0, 0)


class TestParts:
    """How many images of one part of a dataset are also in another part."""

    @pytest.fixture
    def data(self) -> DecodedDataset:
        return decoded(
            ("0", "train", 0, "", 1, None),
            ("1", "train", 0, "", 1, None),  # a copy of 0
            ("2", "train", 0, "", 1, compress),
            ("3", "train", 0, "", 2, None),
            ("4", "train", 1, "", 3, None),
            ("5", "train", 1, "", 3, crop),
            ("6", "test", 1, "", 4, None),
        )

    @pytest.mark.parametrize(
        ("part", "others", "count"),
        [
            ([0], [1], 1),
            ([1, 3], [2, 4], 1),
            ([2], [1, 0], 1),
            ([0, 1, 5], [2, 4], 3),
            ([3, 6], [0, 1, 2, 4, 5], 0),
            ([0, 1, 2], [3, 4, 5], 0),
            ([], [0, 1], 0),
        ],
    )
    def test_copies_and_near_duplicates_are_counted_once_each(self, data, part, others, count):
        part, others = np.array(part, int), np.array(others, int)
        assert count_alike(data.duplicates, data.near, part, others) == count
