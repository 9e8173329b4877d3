"""What a dataset's fingerprint depends on."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import PIL
import pytest

from tests.data.raw_images import (
    CHANNELS,
    HEIGHT,
    WIDTH,
    decoded,
    pixels_of,
)
from xbench.components.image_dataset import Example


@pytest.mark.parametrize("change", [{"label": 1}, {"split": "test", "group": ""}, {"group": "train-9"}])
def test_the_fingerprint_changes_with_what_training_sees_but_pixels_are_shared(images, change):
    before = decoded(images.dataset())
    first, *others = images.examples
    after = decoded(images.dataset(replace(first, **change), *others))
    assert after.fingerprint != before.fingerprint
    assert after.pixels_path == before.pixels_path
    assert sum(images.reads.values()) == 6


@pytest.mark.parametrize(
    "change", [{"positive": "NORMAL"}, {"classes": ("HEALTHY", "PNEUMONIA")}, {"classes": ("PNEUMONIA", "x")}]
)
def test_the_fingerprint_changes_with_the_classes_but_pixels_are_shared(images, change):
    before = decoded(images.dataset())
    after = decoded(replace(images.dataset(), **change))
    assert after.fingerprint != before.fingerprint
    assert after.pixels_path == before.pixels_path


def test_another_pillow_decodes_files_again_and_nothing_else(images, monkeypatch):
    read = images.dataset()
    made = replace(read, examples=tuple(replace(e, path=None, content="x") for e in images.examples))
    made = replace(made, read=lambda e: np.zeros((HEIGHT, WIDTH, CHANNELS), np.uint8))
    before = [decoded(read), decoded(made)]
    monkeypatch.setattr(PIL, "__version__", "0.0.1")
    after = [decoded(read), decoded(made)]
    assert after[1].pixels_path == before[1].pixels_path
    assert after[1].fingerprint == before[1].fingerprint
    assert after[0].pixels_path != before[0].pixels_path
    assert after[0].fingerprint != before[0].fingerprint
    assert np.array_equal(pixels_of(after[0]), pixels_of(before[0]))


def test_the_fingerprint_changes_with_the_set_and_with_names(images):
    first, *others = images.examples
    whole = decoded(images.dataset()).fingerprint
    without = decoded(images.dataset(*others)).fingerprint
    renamed = decoded(images.dataset(replace(first, name="image-00"), *others)).fingerprint
    assert len({whole, without, renamed}) == 3


def test_the_fingerprint_changes_with_the_shape(images):
    flat = replace(
        images.dataset(), shape=(CHANNELS, 1, HEIGHT * WIDTH), read=lambda e: images.read(e).reshape(1, -1, 3)
    )
    assert decoded(flat).fingerprint != decoded(images.dataset()).fingerprint
    assert decoded(flat).pixels_path != decoded(images.dataset()).pixels_path


def test_the_fingerprint_does_not_change_with_the_place(images, tmp_path):
    before = decoded(images.dataset())
    shutil.copytree(images.folder, tmp_path / "moved")
    elsewhere = [replace(e, path=tmp_path / "moved" / e.path.name) for e in images.examples]
    after = decoded(images.dataset(*elsewhere))
    assert (after.fingerprint, after.pixels_path) == (before.fingerprint, before.pixels_path)
    assert sum(images.reads.values()) == 6


def test_images_without_files_are_known_by_their_content(images, tmp_path):
    def made_up(version):
        examples = [Example(f"{i}", i % 2, "train", content=f"{version} {i}") for i in range(3)]
        return images.dataset(*examples)

    images.read = lambda example: np.full((HEIGHT, WIDTH, CHANNELS), len(example.content), np.uint8)
    first = decoded(made_up("v1"))
    assert decoded(made_up("v1")).fingerprint == first.fingerprint
    second = decoded(made_up("version 2"))
    assert second.fingerprint != first.fingerprint
    assert (pixels_of(first) == len("v1 0")).all()
    assert (pixels_of(second) == len("version 2 0")).all()


def test_settings_that_change_the_pixels_of_a_file_are_not_mixed_up(images):
    def inverted(example):
        return 255 - images.read(example)

    plain = decoded(images.dataset())
    other = replace(images.dataset(*(replace(e, content="inverted") for e in images.examples)), read=inverted)
    assert np.array_equal(pixels_of(decoded(other)), 255 - pixels_of(plain))
