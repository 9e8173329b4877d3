"""Perceptual hashes: close for changed versions of an image, far apart for different images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.data.look_alikes import CHANGES, change, make_scene
from xbench.data import perceptual
from xbench.data.perceptual import HASH_BITS, MAX_DISTANCE, MIN_SIDE, find_close_pairs, hash_images, hash_rows


def ignore(done: int, total: int) -> None:
    pass


def distances(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Number of bits in which the hashes of images differ from that of one image."""
    return (hash_images(one[None]) != hash_images(others)).sum(axis=1)


def pairs_of(hashes: np.ndarray, max_distance: int) -> list[tuple[int, int]]:
    found = [pairs for pairs in find_close_pairs(hashes, max_distance, ignore)]
    return [tuple(pair) for pair in np.concatenate(found).tolist()]


@pytest.mark.parametrize("how", CHANGES, ids=lambda how: how.__name__)
def test_changed_images_have_close_hashes(how):
    scenes = [make_scene(seed) for seed in range(20)]
    changed = [distances(scene, change(scene, how)[None])[0] for scene in scenes]
    assert max(changed) <= MAX_DISTANCE


def test_different_images_have_distant_hashes():
    scenes = np.stack([make_scene(seed) for seed in range(60)])
    assert pairs_of(hash_images(scenes), MAX_DISTANCE) == []
    assert min(distances(scenes[0], scenes[1:])) > HASH_BITS / 3


def test_different_images_of_one_kind_have_distant_hashes():
    """Their largest waves are the same, and their details differ."""
    scenes = np.stack([make_scene(seed, same=1000) for seed in range(60)])
    assert pairs_of(hash_images(scenes), MAX_DISTANCE) == []


def test_neither_size_nor_brightness_nor_contrast_changes_much():
    scene = make_scene(3, side=224)
    small = np.asarray(Image.fromarray(scene).resize((64, 64), Image.Resampling.BOX))
    dim = (scene // 2 + 40).astype(np.uint8)
    grey = np.repeat(scene.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    assert (hash_images(scene[None]) != hash_images(small[None])).sum() <= MAX_DISTANCE / 2
    assert max(distances(scene, np.stack([dim, grey]))) <= 6


def test_a_negative_is_far_from_its_original():
    scene = make_scene(3)
    assert distances(scene, 255 - scene[None])[0] > 0.9 * HASH_BITS


def test_flat_images_have_equal_hashes_that_are_far_from_all_others():
    flat = np.stack([np.full((40, 50, 1), value, np.uint8) for value in (0, 7, 255)])
    assert not hash_images(flat).any()
    other = make_scene(1)[:40, :50, :1]
    assert min(distances(other, flat)) > MAX_DISTANCE


@pytest.mark.parametrize("shape", [(MIN_SIDE, MIN_SIDE, 1), (MIN_SIDE, 300, 3), (77, 33, 4)])
def test_images_may_have_any_shape(shape):
    images = np.random.default_rng(0).integers(0, 256, (5, *shape)).astype(np.uint8)
    hashes = hash_images(images)
    assert (hashes.shape, hashes.dtype) == ((5, HASH_BITS), bool)
    assert not hashes[:, 0].any()


def test_rows_of_a_file_are_hashed_in_their_order(tmp_path, monkeypatch):
    scenes = np.stack([make_scene(seed, side=40) for seed in range(9)])
    (tmp_path / "pixels").write_bytes(scenes.tobytes())
    monkeypatch.setattr(perceptual, "_BLOCK_BYTES", 2 * 3 * 40 * 40)
    rows = np.array([8, 0, 3, 5, 1])
    assert (hash_rows(tmp_path / "pixels", (3, 40, 40), rows) == hash_images(scenes[rows])).all()
    with pytest.raises(OSError, match="ends within row 9"):
        hash_rows(tmp_path / "pixels", (3, 40, 40), np.array([9]))


@pytest.mark.parametrize("block_pairs", [1, 100, 1 << 20])
def test_all_close_pairs_are_found_whatever_the_size_of_a_block(monkeypatch, block_pairs):
    monkeypatch.setattr(perceptual, "_BLOCK_PAIRS", block_pairs)
    hashes = np.random.default_rng(0).random((70, 64)) < 0.5
    hashes[[20, 69]] = hashes[[3, 3]]
    hashes[69, :10] ^= True
    expected = [(i, j) for i in range(70) for j in range(i + 1, 70) if (hashes[i] != hashes[j]).sum() <= 22]
    assert len(expected) > 10 and {(3, 20), (3, 69), (20, 69)} <= set(expected)
    assert pairs_of(hashes, 22) == expected
    assert pairs_of(hashes, 10) == [(3, 20), (3, 69), (20, 69)]
    assert pairs_of(hashes, 9) == [(3, 20)]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_make_no_pair(count):
    found = list(find_close_pairs(np.zeros((count, 64), bool), 5, ignore))
    assert sum(len(pairs) for pairs in found) == 0


def test_progress_counts_pairs(monkeypatch):
    monkeypatch.setattr(perceptual, "_BLOCK_PAIRS", 20)
    told = []
    list(find_close_pairs(np.eye(10, 64, dtype=bool), 0, lambda done, total: told.append((done, total))))
    assert told == [(0, 45), (17, 45), (30, 45), (39, 45), (44, 45)]
