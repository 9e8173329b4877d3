"""A dataset as it is listed, with a few images that stand for all."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from xbench.components.image_dataset import Dataset, Example
from xbench.data.decode import decode
from xbench.data.sample import decode_sample
from xbench.errors import XbenchError
from xbench.training.settings import TrainingSettings
from xbench.training.splits import split_examples

OF_EACH_CLASS = 32  # of two classes


class Listed:
    """Images of one shade each class.

    Attributes:
        reads: of each image.
        broken: what cannot be read.
    """

    def __init__(self, *sizes: tuple[int, int], broken=lambda name: False):
        self.reads = Counter()
        self.broken = broken
        examples = [
            Example(
                name=f"{split}/{label}-{i:04d}",
                label=label,
                split=split,
                group=f"{split} {label} {i // 2}",
                content=f"sample {split} {label} {i}",
            )
            for label, counts in enumerate(sizes)
            for split, count in zip(("train", "test"), counts, strict=True)
            for i in range(count)
        ]
        self.dataset = Dataset(
            classes=tuple(f"class {label}" for label in range(len(sizes))),
            positive="class 1",
            shape=(3, 4, 4),
            examples=tuple(examples),
            read=self.read,
            notes=("a note",),
        )

    def read(self, example: Example) -> np.ndarray:
        self.reads[example.name] += 1
        if self.broken(example.name):
            raise ValueError("garbled")
        return np.full((4, 4, 3), 100 * example.label, dtype=np.uint8)

    def sampled(self):
        return decode_sample(self.dataset, "listed", "made up")

    def shades(self, data) -> list[int]:
        """Of each example, by its label."""
        with data.reader(len(data.rows)) as reader:
            return reader.read(data.rows)[:, 0, 0, 0].tolist()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_all_are_listed_and_few_are_read():
    listed = Listed((300, 50), (90, 20))
    data = listed.sampled()
    assert len(data.rows) == len(data.labels) == len(data.is_test) == len(data.groups) == 460
    assert len(listed.reads) == 2 * OF_EACH_CLASS
    assert set(listed.reads.values()) == {1}
    assert (data.name, data.stand_in, data.shape, data.notes) == ("listed", "made up", (3, 4, 4), ("a note",))


def test_pixels_are_of_the_class():
    listed = Listed((300, 50), (90, 20), (40, 7))
    data = listed.sampled()
    assert listed.shades(data) == [100 * label for label in data.labels]
    for label in range(3):
        assert len(set(data.rows[data.labels == label])) == 2 * OF_EACH_CLASS // 3


def test_of_many_classes_some_stand_for_all():
    data = Listed(*[(2, 1)] * 100).sampled()
    assert len(data.rows) == 300
    assert len(set(data.rows)) <= 2 * OF_EACH_CLASS + 1


def test_splits_are_those_of_the_whole():
    listed = Listed((300, 50), (90, 20))
    data = listed.sampled()
    whole = decode(listed.dataset, "listed", "made up", False, lambda done, total: None)
    assert Counter(zip(data.labels, data.is_test, strict=True)) == Counter(
        zip(whole.labels, whole.is_test, strict=True)
    )
    assert sorted(data.groups) == sorted(whole.groups)
    for settings in (TrainingSettings(), TrainingSettings(balance="oversample")):
        ours, theirs = (split_examples(each, settings, 0) for each in (data, whole))
        assert len(ours.train) == len(theirs.train)
        assert len(ours.validation) == len(theirs.validation)
    with pytest.raises(XbenchError, match=r"train_size 391 is more than the \d+ examples"):
        split_examples(data, TrainingSettings(train_size=391), 0)


def test_the_whole_is_not_decoded(cache):
    listed = Listed((300, 50), (90, 20))
    listed.sampled()
    assert len(list(cache.glob("images/*"))) == 1
    (pixels,) = cache.glob("images/*/pixels.u8")
    assert pixels.stat().st_size == 2 * OF_EACH_CLASS * 3 * 4 * 4


def test_a_small_dataset_is_its_own_sample():
    listed = Listed((6, 3), (5, 2))
    data = listed.sampled()
    whole = decode(listed.dataset, "listed", "made up", False, lambda done, total: None)
    assert set(listed.reads.values()) == {1}
    assert data.pixels_path == whole.pixels_path
    assert data.fingerprint == whole.fingerprint
    assert listed.shades(data) == [100 * label for label in data.labels]


def test_unreadable_images_are_stood_for_by_others():
    listed = Listed((300, 50), (90, 20), broken=lambda name: int(name[-1]) % 2 == 0)
    data = listed.sampled()
    assert len(data.rows) == 460
    assert listed.shades(data) == [100 * label for label in data.labels]
    assert len(set(data.rows)) == len(data.unreadable) == OF_EACH_CLASS


def test_a_class_without_a_readable_image_is_stood_for_by_another():
    listed = Listed((30, 5), (30, 5), broken=lambda name: name.startswith(("train/1", "test/1")))
    data = listed.sampled()
    assert set(listed.shades(data)) == {0}
    assert (data.labels == 1).sum() == 35


def test_a_class_without_an_image():
    listed = Listed((30, 5), (0, 0), (8, 2))
    data = listed.sampled()
    assert listed.shades(data) == [100 * label for label in data.labels]
    assert set(data.labels) == {0, 2}


def test_there_must_be_one():
    with pytest.raises(XbenchError, match="none of its 64 images is readable"):
        Listed((30, 5), (30, 5), broken=lambda name: True).sampled()


def test_nothing_is_listed():
    with pytest.raises(XbenchError, match="lists no images"):
        Listed((0, 0), (0, 0)).sampled()
