"""Images of the same content: across train and test, across classes, and where they do no harm."""

from __future__ import annotations

import numpy as np
import pytest

from xbench.components.image_dataset import Dataset, Example
from xbench.data.decode import decode


@pytest.fixture
def decoded_with(tmp_path, monkeypatch):
    """Decodes images of which (name, split, label, content) are given; with "" for content it has no hash."""
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))

    def decoded(*images: tuple[str, str, int, str], unreadable: tuple[str, ...] = (), classes: int = 2):
        def read(example: Example) -> np.ndarray:
            if example.name in unreadable:
                raise ValueError("garbled")
            return np.zeros((2, 2, 3), np.uint8)

        examples = tuple(Example(n, label, split, content=c) for n, split, label, c in images)
        names = tuple("abc"[:classes])
        dataset = Dataset(names, "b", (3, 2, 2), examples, read)
        return decode(dataset, "set", "", False, lambda done, total: None)

    return decoded


PLAIN = (("a1", "train", 0, "1"), ("b1", "train", 1, "2"), ("a2", "test", 0, "3"), ("b2", "test", 1, "4"))


def test_without_any_there_is_nothing_to_tell(decoded_with):
    assert decoded_with(*PLAIN).duplicates.warnings == []


def test_copies_within_a_class_and_split_do_no_harm(decoded_with):
    copies = (("a1 copy", "train", 0, "1"), ("b2 copy", "test", 1, "4"))
    assert decoded_with(*PLAIN, *copies).duplicates.warnings == []


def test_images_without_a_content_are_not_compared(decoded_with):
    assert (
        decoded_with(*((name, split, label, "") for name, split, label, _ in PLAIN)).duplicates.warnings == []
    )


def test_test_images_that_are_trained_on(decoded_with):
    copies = (("t1", "test", 0, "1"), ("t2", "test", 0, "1"), ("t3", "test", 1, "2"))
    duplicates = decoded_with(*PLAIN, *copies).duplicates
    assert duplicates.in_test == (("t1", "a1"), ("t2", "a1"), ("t3", "b1"))
    assert duplicates.across_classes == ()
    (warning,) = duplicates.warnings
    assert warning.startswith("3 of 5 test images are copies of training images")
    assert warning.endswith("t1 is a1; t2 is a1; t3 is b1")


def test_images_in_two_classes(decoded_with):
    copies = (("b copy", "train", 1, "1"), ("b copy 2", "train", 1, "1"))
    duplicates = decoded_with(*PLAIN, *copies).duplicates
    assert duplicates.across_classes == (("a1", "b copy"), ("b copy", "a1"), ("b copy 2", "a1"))
    (warning,) = duplicates.warnings
    assert warning.startswith("3 of 6 images have a copy in another class")


def test_many_are_counted_and_a_few_named(decoded_with):
    trained = [(f"train {i}", "train", i % 2, str(i)) for i in range(20)]
    tested = [(f"test {i:02}", "test", i % 2, str(i)) for i in range(20)]
    (warning,) = decoded_with(*trained, *tested).duplicates.warnings
    assert warning.startswith("20 of 20 test images")
    assert warning.endswith("test 00 is train 0; test 01 is train 1; test 02 is train 2; and 17 more")


def test_what_is_unreadable_is_no_copy(decoded_with):
    data = decoded_with(*PLAIN, ("t1", "test", 0, "1"), unreadable=("t1",))
    assert data.duplicates.warnings == []
