"""Tests of the synthetic chest images: reproducible, in the real proportions, and hard enough to learn."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from xbench.components.synthetic_xray import SYNTHETIC_XRAY, build_synthetic_xray
from xbench.errors import XbenchError

# Mean brightness of the quarters of four images.
PINNED = (
    [[83.79, 105.34], [164.16, 187.68]],
    [[99.29, 129.54], [172.72, 207.23]],
    [[104.71, 106.8], [140.96, 157.57]],
    [[111.49, 96.01], [171.41, 163.46]],
)


def of_class(dataset, split, label):
    return [example for example in dataset.examples if (example.split, example.label) == (split, label)]


def test_default_has_the_real_sets_counts():
    dataset = build_synthetic_xray()
    assert dataset.classes == ("NORMAL", "PNEUMONIA")
    assert dataset.positive == "PNEUMONIA"
    assert dataset.shape == (3, 224, 224)
    counts = Counter((example.split, example.label) for example in dataset.examples)
    assert counts == {("train", 0): 1110, ("train", 1): 3875, ("test", 0): 465, ("test", 1): 390}
    assert len({example.name for example in dataset.examples}) == 5840
    assert len({example.content for example in dataset.examples}) == 5840
    assert "train/PNEUMONIA/00042" in {example.name for example in dataset.examples}


@pytest.mark.parametrize(("size", "normal", "pneumonia"), [(1, 0, 1), (2, 1, 1), (3, 1, 2), (1000, 223, 777)])
def test_other_sizes_keep_the_proportions_and_both_classes(size, normal, pneumonia):
    dataset = build_synthetic_xray(train=size, test=2)
    assert [len(of_class(dataset, "train", label)) for label in (0, 1)] == [normal, pneumonia]
    assert [len(of_class(dataset, "test", label)) for label in (0, 1)] == [1, 1]


def test_patients_have_one_to_three_images_of_one_class_in_one_split():
    groups = defaultdict(list)
    for example in build_synthetic_xray().examples:
        groups[example.group].append((example.split, example.label))
    assert all(len(set(members)) == 1 for members in groups.values())
    assert {len(members) for members in groups.values()} == {1, 2, 3}
    assert "" not in groups


def test_images_of_a_patient_are_alike_but_not_the_same():
    dataset = build_synthetic_xray(train=400, test=2, image_size=32)
    patients = defaultdict(list)
    for example in of_class(dataset, "train", 0):
        patients[example.group].append(dataset.read(example).astype(float))
    pairs = [images[:2] for images in patients.values() if len(images) > 1]
    same = np.mean([abs(first - second).mean() for first, second in pairs])
    strangers = zip(pairs, pairs[1:] + pairs[:1], strict=True)
    different = np.mean([abs(first - second).mean() for (first, _), (_, second) in strangers])
    assert 1 < same < different


@pytest.mark.parametrize("image_size", [16, 100, 224])
def test_images_are_grey_on_three_channels(image_size):
    dataset = build_synthetic_xray(train=2, test=2, image_size=image_size)
    assert dataset.shape == (3, image_size, image_size)
    for example in dataset.examples:
        image = dataset.read(example)
        assert image.shape == (image_size, image_size, 3)
        assert image.dtype == np.uint8
        assert (image == image[:, :, :1]).all()
        assert image.std() > 20


def test_reads_repeat_in_threads_and_in_another_process():
    settings = {"train": 12, "test": 4, "image_size": 64, "seed": 3}
    dataset = build_synthetic_xray(**settings)
    once = [dataset.read(example) for example in dataset.examples]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(dataset.read, dataset.examples))
    np.testing.assert_array_equal(once, again)

    code = (
        "import hashlib\n"
        "from xbench.components.synthetic_xray import build_synthetic_xray\n"
        f"dataset = build_synthetic_xray(**{settings})\n"
        "pixels = b''.join(dataset.read(example).tobytes() for example in dataset.examples)\n"
        "print(hashlib.sha256(pixels).hexdigest())\n"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == hashlib.sha256(np.array(once).tobytes()).hexdigest()


def test_image_depends_only_on_its_content():
    few, many = (build_synthetic_xray(train=size, test=2, image_size=32) for size in (10, 100))
    by_content = {example.content: example for example in many.examples}
    for example in few.examples:
        twin = by_content[example.content]
        assert twin == example
        np.testing.assert_array_equal(few.read(example), many.read(twin))


def test_pixels_of_this_generator_version_have_not_changed():
    # If this fails, raise GENERATOR and update the numbers, because cache keys contain the version.
    dataset = build_synthetic_xray(train=2, test=2, image_size=64)
    grey = np.array([dataset.read(example)[..., 0] for example in dataset.examples])
    quarters = grey.reshape(-1, 2, 32, 2, 32).mean(axis=(2, 4))
    np.testing.assert_allclose(quarters, PINNED, atol=0.1)


def test_seeds_and_images_differ():
    zero, one = (build_synthetic_xray(train=20, test=20, image_size=32, seed=seed) for seed in (0, 1))
    images = [dataset.read(example).tobytes() for dataset in (zero, one) for example in dataset.examples]
    assert len(set(images)) == 80
    assert not {example.content for example in zero.examples} & {example.content for example in one.examples}


@pytest.mark.parametrize(
    "settings", [{"train": 0}, {"test": -1}, {"image_size": 15}, {"seed": -1}, {"train": 10.5}]
)
def test_invalid_settings_are_refused_with_a_hint(settings):
    (name,) = settings
    with pytest.raises(XbenchError, match=name) as caught:
        build_synthetic_xray(**settings)
    assert name in caught.value.hint


def test_listing_imports_neither_numpy_nor_torch():
    code = (
        "import sys, xbench.components.synthetic_xray as module\n"
        "module.SYNTHETIC_XRAY.load_factory()()\n"
        "assert not {'numpy', 'PIL', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "synthetic" in SYNTHETIC_XRAY.stand_in


@pytest.fixture(scope="module")
def features():
    """Return pixels of small images, (images, 256), and labels, half -1 and half 1, by split."""
    dataset = build_synthetic_xray(train=1800, test=400, image_size=16)
    by_split = {}
    for split, per_class in (("train", 400), ("test", 180)):
        examples = [example for label in (0, 1) for example in of_class(dataset, split, label)[:per_class]]
        pixels = np.array([dataset.read(example)[..., 0].ravel() for example in examples]) / 255
        by_split[split] = pixels, np.array([2 * example.label - 1 for example in examples])
    return by_split


def linear_accuracy(features, reduce) -> float:
    """Compute the test accuracy of ridge regression on `reduce(pixels)`."""
    (train, labels), (test, truth) = ((reduce(pixels), truth) for pixels, truth in features.values())
    centre = train.mean(axis=0)
    train, test = train - centre, test - centre
    weights = np.linalg.solve(train.T @ train + np.eye(train.shape[1]), train.T @ labels)
    return float(np.mean(np.sign(test @ weights) == truth))


def test_classes_can_be_learned_but_not_perfectly(features):
    assert 0.8 < linear_accuracy(features, lambda pixels: pixels) < 0.94


def test_mean_brightness_does_not_predict_the_class(features):
    assert linear_accuracy(features, lambda pixels: pixels.mean(axis=1, keepdims=True)) < 0.65
