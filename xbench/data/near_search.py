"""Find the images of a decoded dataset that look alike, once, and remember them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xbench.data.decoded import DecodedDataset
from xbench.data.near_copies import (
    ONE_GROUP,
    RELATIONS,
    TRAIN_AND_TEST,
    TWO_CLASSES,
    TWO_GROUPS,
    NearCopies,
    RelatedPairs,
)
from xbench.data.perceptual import (
    MAX_DISTANCE,
    METHOD_VERSION,
    MIN_SIDE,
    OnProgress,
    find_close_pairs,
    hash_rows,
)
from xbench.errors import XbenchError
from xbench.storage.cache import load, save

_NAMESPACE = "near-duplicates"

# To compare all pairs of more images would take minutes.
_MAX_IMAGES = 50_000

# A bound for memory: n images that hardly differ, such as empty frames, make n^2 / 2 pairs.
_MAX_PAIRS = 100_000

_MAX_NAMED = 10


def find_near_copies(data: DecodedDataset, on_progress: OnProgress) -> NearCopies:
    """Compare all images of a dataset by their perceptual hashes, or remember the result.

    Args:
        on_progress: called with (compared, total) pairs at intervals.

    Raises:
        XbenchError: the decoded images cannot be read.
    """
    copies = _relate_pairs(data, _pair_copies(data.duplicates.contents))
    if reason := _explain_no_search(data):
        return NearCopies(reason, copies=copies)
    key = f"{METHOD_VERSION} {data.pixels_path}"
    found = load(_NAMESPACE, key)
    if found is None:
        try:
            pairs, is_cut = _compare(data, on_progress)
        except OSError as error:
            raise XbenchError(f"the decoded images of {data.name} cannot be read: {error}") from error
        save(_NAMESPACE, key, {"pairs": pairs.tolist(), "is_cut": is_cut})
    else:
        pairs, is_cut = np.array(found["pairs"], np.int64).reshape(-1, 2), found["is_cut"]
    return replace(_describe(data, pairs), is_cut=is_cut, copies=copies)


def _explain_no_search(data: DecodedDataset) -> str:
    """Explain why the images of a dataset are not compared; "" if they are."""
    if data.stand_in:
        return "the images are made up, each on its own"
    if min(data.shape[1:]) < MIN_SIDE:
        return f"images of less than {MIN_SIDE} pixels in height or width have too little detail"
    if len(data.rows) > _MAX_IMAGES:
        return f"of more than {_MAX_IMAGES:,} images, not all pairs are compared"
    return ""


def _pair_copies(contents: np.ndarray) -> np.ndarray:
    """Pair the first image of each content with each of its copies: (pairs, 2)."""
    _, firsts, numbers = np.unique(contents, return_index=True, return_inverse=True)
    first_of = firsts[numbers]
    copies = np.flatnonzero(first_of != np.arange(len(contents)))
    return np.stack([first_of[copies], copies], axis=1)


def _compare(data: DecodedDataset, on_progress: OnProgress) -> tuple[np.ndarray, bool]:
    """Find the pairs of images that look alike but differ in content, up to a maximum number."""
    contents, left = data.duplicates.contents, _MAX_PAIRS
    kept = [np.empty((0, 2), np.int64)]
    hashes = hash_rows(data.pixels_path, data.shape, data.rows)
    varied = np.flatnonzero(hashes.any(axis=1))  # flat images have nothing to compare
    for positions in find_close_pairs(hashes[varied], MAX_DISTANCE, on_progress):
        pairs = varied[positions]
        differing = pairs[contents[pairs[:, 0]] != contents[pairs[:, 1]]]
        kept.append(differing[:left])
        left -= len(differing)
        if left < 0:
            break
    return np.concatenate(kept), left < 0


def _describe(data: DecodedDataset, pairs: np.ndarray) -> NearCopies:
    """Describe the pairs of images that look alike."""
    in_test: dict[str, str] = {}
    across: dict[str, str] = {}
    for one, other in pairs.tolist():
        name, other_name = data.names[one], data.names[other]
        if data.is_test[one] != data.is_test[other]:
            test, train = (name, other_name) if data.is_test[one] else (other_name, name)
            in_test.setdefault(test, train)
        if data.labels[one] != data.labels[other]:
            across.setdefault(name, other_name)
            across.setdefault(other_name, name)
    for copy, _ in data.duplicates.in_test:
        in_test.pop(copy, None)
    for copy, _ in data.duplicates.across_classes:
        across.pop(copy, None)
    return NearCopies(
        images=len(data.rows),
        test=int(data.is_test.sum()),
        pairs=pairs,
        related=_relate_pairs(data, pairs),
        in_test=tuple(sorted(in_test.items())),
        across_classes=tuple(sorted(across.items())),
    )


def _relate_pairs(data: DecodedDataset, pairs: np.ndarray) -> RelatedPairs:
    """Name pairs of images, and sort them by what they have in common."""
    found: dict[str, list[tuple[str, str]]] = {relation: [] for relation in RELATIONS}
    for one, other in pairs.tolist():
        found[_relate(data, one, other)].append((data.names[one], data.names[other]))
    return RelatedPairs(
        {relation: len(names) for relation, names in found.items()},
        {relation: tuple(names[:_MAX_NAMED]) for relation, names in found.items()},
    )


def _relate(data: DecodedDataset, one: int, other: int) -> str:
    if data.is_test[one] != data.is_test[other]:
        return TRAIN_AND_TEST
    if data.labels[one] != data.labels[other]:
        return TWO_CLASSES
    return ONE_GROUP if data.groups[one] == data.groups[other] else TWO_GROUPS
