"""The rates by which the threshold of near-duplicates was chosen, measured on real X-rays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.data.look_alikes import CHANGES, change
from xbench.components.chest_xray import build_chest_xray
from xbench.data.perceptual import MAX_DISTANCE, MAX_FALSE_ALARM_RATE, find_close_pairs, hash_images
from xbench.memory.processor import usable_cpus

# The least share of changed X-rays that is found, by change, as docs/data.md states it.
RECALL = {"compress": 0.999, "shrink": 0.999, "brighten": 0.999, "crop": 0.99, "crop_one_side": 0.95}


@pytest.mark.slow
def test_false_alarms_are_rare_and_changed_images_are_found(real_images):
    dataset = build_chest_xray(str(real_images), split="kaggle")
    examples = dataset.examples

    def hashes_of(index: int) -> np.ndarray:
        """Hash an X-ray, and every tenth one in all changed versions as well."""
        pixels = np.asarray(Image.open(examples[index].path).convert("RGB"))
        changed = [change(pixels, how) for how in CHANGES] if index % 10 == 0 else []
        return hash_images(np.stack([pixels, *changed]))

    with ThreadPoolExecutor(usable_cpus()) as pool:
        found = list(pool.map(hashes_of, range(len(examples))))

    _, patients = np.unique([example.group for example in examples], return_inverse=True)
    sizes = np.bincount(patients)
    different = (len(examples) ** 2 - (sizes**2).sum()) // 2
    assert different > 17_000_000
    alarms = 0
    for pairs in find_close_pairs(np.stack([hashes[0] for hashes in found]), MAX_DISTANCE, lambda *at: None):
        alarms += int((patients[pairs[:, 0]] != patients[pairs[:, 1]]).sum())
    assert alarms / different <= MAX_FALSE_ALARM_RATE <= 1e-5

    distances = np.stack([(h[1:] != h[0]).sum(axis=1) for h in found[::10]])
    recall = {
        how.__name__: np.mean(column <= MAX_DISTANCE)
        for how, column in zip(CHANGES, distances.T, strict=True)
    }
    assert len(distances) > 500
    assert all(recall[name] >= least for name, least in RECALL.items()), recall
