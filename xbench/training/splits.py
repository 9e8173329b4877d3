"""Choose the examples for training, validation and testing, and their order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xbench.data.decoded import DecodedDataset
from xbench.data.prepared import PreparedData, RowData
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
    """Hold validation out of the train split, by group or at its end, then draw the training examples from
    the rest.

    If `train_size` is a word, all of the rest is used. A dataset that brings validation rows keeps them. If
    the task has several terms, both are done in the same proportion within each term, and each term keeps
    at least one row to train on.

    Raises:
        XbenchError: the data has fewer examples than the settings ask for, or `train_size` is too small for
            all terms.
    """
    pool = np.flatnonzero(~data.is_test & ~data.is_validation)
    if not len(pool) or (isinstance(data, DecodedDataset) and not data.is_test.any()):
        raise XbenchError(
            f"{data.name} has {len(pool)} training images and {int(data.is_test.sum())} test images; "
            "both are needed"
        )
    validation = np.flatnonzero(data.is_validation)
    if settings.validation and isinstance(data, RowData) and data.holds_out_end:
        pool, validation = _hold_out_end(pool, settings.validation)
    elif settings.validation:
        validation = _hold_out(data, pool, settings.validation, seed)
        pool = np.setdiff1d(pool, validation, assume_unique=True)
    train = _draw_train(data, pool, settings, seed)
    if lost := missing_terms(data, train):
        which = f"term{'s' * (len(lost) > 1)} {', '.join(map(repr, lost))}"
        raise XbenchError(
            f"train_size {settings.train_size} leaves no row of the {which} to train on",
            hint='raise train_size, or use train_size = "all"',
        )
    return Split(
        train=train,
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


def missing_terms(data: PreparedData, part: np.ndarray) -> list[str]:
    """Name the terms that have training rows, but no row in a part of a dataset.

    Args:
        part: indices of the part's rows.
    """
    if not isinstance(data, RowData) or not data.term_names:
        return []
    trained = data.terms[~data.is_test & ~data.is_validation]
    return [data.term_names[place] for place in np.setdiff1d(trained, data.terms[part])]


def mix_terms(terms: np.ndarray) -> np.ndarray:
    """Return an order of rows whose beginnings, of whatever length, have all terms in proportion.

    The first rows are one of each term. Rows of the same term keep their order, so the order of rows of a
    single term stays as it is.

    Args:
        terms: (n,) term of each row.

    Returns:
        (n,) int64: places of the rows.
    """
    share_before = np.empty(len(terms))  # of the row's term
    for term in np.unique(terms):
        members = np.flatnonzero(terms == term)
        share_before[members] = np.arange(len(members)) / len(members)
    return np.argsort(share_before, kind="stable")


def epoch_order(train: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return the training examples in the order of an epoch, which is the same for every optimizer."""
    return np.random.default_rng([_ORDER_STREAM, seed, epoch]).permutation(train)


def _hold_out(data: PreparedData, pool: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Hold out whole groups, in random order, until each class of each term has reached its share of rows.

    A group that would exceed a share stays in train, so the share is approached from below. As a share is at
    most a half, a single row is not held out, and no term loses all its rows.
    """
    groups = _number_groups(data.groups, pool)
    turns = np.random.default_rng([_VALIDATION_STREAM, seed]).permutation(groups.max() + 1)
    turn_of = np.empty_like(turns)
    turn_of[turns] = np.arange(len(turns))
    in_turn = np.argsort(turn_of[groups], kind="stable")
    rows, sizes = pool[in_turn], np.bincount(groups)[turns]
    classes = max(1, len(data.classes))
    strata = _terms_of(data) * classes + data.labels
    held_out = rows[_choose(strata[rows], sizes, share, int(strata.max()) + 1)]
    if not len(held_out):
        what = "images" if isinstance(data, DecodedDataset) else "rows"
        is_grouped = any(data.groups[index] for index in pool)
        why = f"no group of {what} is small enough" if is_grouped else f"there are too few {what}"
        raise XbenchError(
            f"validation {share} holds nothing out: {why} for that share",
            hint="raise validation, or set validation = 0",
        )
    return np.sort(held_out)


def _number_groups(groups: Sequence[str], pool: np.ndarray) -> np.ndarray:
    """Number the groups of rows in the order of their names.

    A row without a group is one by itself, named `alone-` and its index. These names are not made, as there
    may be millions, but they keep their places: other numbers would give another split.

    Args:
        groups: name of each row's group; "" for none.
        pool: (n,) indices of the rows.

    Returns:
        The number of each row's group, (n,), from 0.
    """
    names = [groups[index] for index in pool.tolist()]
    distinct = sorted(set(names) - {""})
    alone = np.flatnonzero([not name for name in names])
    in_order = alone[_argsort_as_text(pool[alone])]
    # Number of rows without a group whose names come before each group's.
    before = [bisect_left(in_order, name, key=lambda place: f"alone-{pool[place]}") for name in distinct]
    places = {name: before[number] + number for number, name in enumerate(distinct)}
    numbers = np.fromiter((places.get(name, -1) for name in names), np.int64, len(names))
    numbers[in_order] = np.arange(len(alone)) + np.searchsorted(before, np.arange(len(alone)), side="right")
    return numbers


def _argsort_as_text(numbers: np.ndarray) -> np.ndarray:
    """Return the order of numbers, from 0, as decimal text: 1, 10, 2."""
    digits = 1 + np.searchsorted(10 ** np.arange(1, 19), numbers, side="right")
    filled = numbers * 10 ** (digits.max(initial=1) - digits)
    return np.lexsort((digits, filled))


def _choose(labels: np.ndarray, sizes: np.ndarray, share: float, classes: int) -> np.ndarray:
    """Choose groups, one after the other, that do not exceed the share of a class.

    Args:
        labels: (n,) labels of the rows, group by group.
        sizes: number of rows of each group.

    Returns:
        Whether each row is chosen, (n,).
    """
    missing = np.round(np.bincount(labels, minlength=classes) * share).astype(int)
    chosen = np.zeros(len(labels), dtype=bool)
    ends, several = np.cumsum(sizes), np.flatnonzero(sizes > 1)
    starts, done = ends - sizes, 0
    for start, end in [*zip(starts[several], ends[several], strict=True), (len(labels), len(labels))]:
        single, group = slice(done, start), slice(start, end)
        if start > done:  # rows between two groups of several rows: the first ones of each class are chosen
            chosen[single] = _rank_in_class(labels[single]) < missing[labels[single]]
            missing -= np.bincount(labels[single][chosen[single]], minlength=classes)
        taken = np.bincount(labels[group], minlength=classes)
        if (taken <= missing).all():
            missing -= taken
            chosen[group] = True
        if not missing.any():
            break
        done = end
    return chosen


def _rank_in_class(labels: np.ndarray) -> np.ndarray:
    """Count the earlier rows of the same label, for each row."""
    by_label = np.argsort(labels, kind="stable")
    in_order = labels[by_label]
    ranks = np.empty_like(by_label)
    ranks[by_label] = np.arange(len(labels)) - np.searchsorted(in_order, in_order)
    return ranks


def _terms_of(data: PreparedData) -> np.ndarray:
    """Return the place of each row's term (rows,); 0 if the task has a single term."""
    return data.terms if isinstance(data, RowData) else np.zeros_like(data.labels)


def _hold_out_end(pool: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Hold out the last rows, and leave out the row before them, so that no row has a neighbour in training.

    Returns:
        The rows that are left, and those that are held out.
    """
    count = round(share * len(pool))
    if not 0 < count < len(pool) - 1:
        raise XbenchError(
            f"validation {share} is not possible with {len(pool)} rows: it holds out {count}, and leaves out "
            "the row before them",
            hint="use more rows, raise validation, or set validation = 0",
        )
    return pool[: -count - 1], pool[-count:]


def _draw_train(data: PreparedData, pool: np.ndarray, settings: TrainingSettings, seed: int) -> np.ndarray:
    random = np.random.default_rng([_DRAW_STREAM, seed])
    if settings.balance == "oversample":
        return _draw_balanced(data.labels, pool, settings.train_size, random)
    if isinstance(settings.train_size, str):
        return pool
    if settings.train_size > len(pool):
        raise XbenchError(
            f"train_size {settings.train_size} is more than the {len(pool)} examples left after validation",
            hint='use train_size = "all"',
        )
    drawn = random.permutation(pool)
    return np.sort(drawn[mix_terms(_terms_of(data)[drawn])][: settings.train_size])


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
