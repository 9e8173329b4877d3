"""Choose the examples for training, validation and testing, and their order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbench.data.decoded import DecodedDataset
from xbench.data.prepared import PreparedData
from xbench.errors import XbenchError
from xbench.training.settings import TrainingSettings

# Random number streams of a seed. Each purpose has its own stream, so that none affects another.
_VALIDATION_STREAM, _DRAW_STREAM, _ORDER_STREAM = 1, 2, 3


@dataclass(frozen=True)
class Split:
    """Indices into a dataset's examples (int64 arrays).

    Attributes:
        train: one entry for each example that an epoch sees; a repeated example has several.
        validation, test: each example once.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_examples(data: PreparedData, settings: TrainingSettings, seed: int) -> Split:
    """Hold validation out of the train split by group, then draw the training examples from the rest.

    If `train_size` is a word, all of the rest is used. A dataset that brings validation rows keeps them.

    Raises:
        XbenchError: the data has fewer examples than the settings ask for.
    """
    pool = np.flatnonzero(~data.is_test & ~data.is_validation)
    if not len(pool) or (isinstance(data, DecodedDataset) and not data.is_test.any()):
        raise XbenchError(
            f"{data.name} has {len(pool)} training images and {int(data.is_test.sum())} test images; "
            "both are needed"
        )
    validation = np.flatnonzero(data.is_validation)
    if settings.validation:
        validation = _hold_out(data, pool, settings.validation, seed)
        pool = np.setdiff1d(pool, validation, assume_unique=True)
    return Split(
        train=_draw_train(data.labels, pool, settings, seed),
        validation=validation,
        test=np.flatnonzero(data.is_test),
    )


def missing_classes(data: PreparedData, part: np.ndarray) -> list[str]:
    """Name the classes that have no example in a part of a dataset.

    Args:
        part: indices of the part's examples.
    """
    counts = np.bincount(data.labels[part], minlength=len(data.classes))
    return [name for name, count in zip(data.classes, counts, strict=True) if not count]


def epoch_order(train: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return the training examples in the order of an epoch, which is the same for every optimizer."""
    return np.random.default_rng([_ORDER_STREAM, seed, epoch]).permutation(train)


def _hold_out(data: PreparedData, pool: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Hold out whole groups, in random order, until each class has reached its share of images.

    A group that would exceed a class's share stays in train, so the share is approached from below.
    """
    random = np.random.default_rng([_VALIDATION_STREAM, seed])
    members: dict[str, list[int]] = {}
    for index in pool:
        members.setdefault(data.groups[index] or f"alone-{index}", []).append(index)
    classes = max(1, len(data.classes))
    missing = np.round(np.bincount(data.labels[pool], minlength=classes) * share).astype(int)
    held_out: list[int] = []
    names = sorted(members)
    for place in random.permutation(len(names)):
        group = members[names[place]]
        taken = np.bincount(data.labels[group], minlength=classes)
        if (taken <= missing).all():
            missing -= taken
            held_out += group
    if not held_out:
        rows = "images" if isinstance(data, DecodedDataset) else "rows"
        raise XbenchError(
            f"validation {share} holds nothing out: no group of {rows} is small enough for that share",
            hint="raise validation, or set validation = 0 and selection = 'last'",
        )
    return np.array(sorted(held_out), dtype=np.int64)


def _draw_train(labels: np.ndarray, pool: np.ndarray, settings: TrainingSettings, seed: int) -> np.ndarray:
    random = np.random.default_rng([_DRAW_STREAM, seed])
    if settings.balance == "oversample":
        return _draw_balanced(labels, pool, settings.train_size, random)
    if isinstance(settings.train_size, str):
        return pool
    if settings.train_size > len(pool):
        raise XbenchError(
            f"train_size {settings.train_size} is more than the {len(pool)} examples left after validation",
            hint='use train_size = "all"',
        )
    return np.sort(random.permutation(pool)[: settings.train_size])


def _draw_balanced(
    labels: np.ndarray, pool: np.ndarray, train_size: int | str, random: np.random.Generator
) -> np.ndarray:
    """Draw the same number of examples of each class; the first classes get one more if there is a rest."""
    classes = [pool[labels[pool] == label] for label in np.unique(labels[pool])]
    largest = max(len(members) for members in classes)
    available = largest * len(classes)
    wanted = available if isinstance(train_size, str) else train_size
    if wanted > available:
        raise XbenchError(
            f"train_size {wanted} is more than the {available} examples that the balanced classes have",
            hint='use train_size = "all"',
        )
    if wanted < len(classes):
        raise XbenchError(f"train_size {wanted} is less than the {len(classes)} classes to balance")
    drawn = []
    for place, members in enumerate(classes):
        count = wanted // len(classes) + (place < wanted % len(classes))
        passes = -(-count // len(members))
        repeats = np.concatenate([random.permutation(members) for _ in range(passes)])
        drawn.append(repeats[:count])
    return np.sort(np.concatenate(drawn))
