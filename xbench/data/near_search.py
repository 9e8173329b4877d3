"""Find the images of a decoded dataset that look alike, once, and remember them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xbench.data.decoded import DecodedDataset
from xbench.data.near_copies import RELATIONS, NearCopies, RelatedPairs
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

# Pairs that are kept of each image and relation. A bound for memory: n images that hardly differ, such as
# empty frames, make n^2 / 2 pairs.
_MAX_KEPT = 10

_MAX_NAMED = 10


def find_near_copies(data: DecodedDataset, on_progress: OnProgress) -> NearCopies:
    """Compare all images of a dataset by their perceptual hashes, or remember the result.

    Args:
        on_progress: called with (compared, total) pairs at intervals.

    Raises:
        XbenchError: the decoded images cannot be read.
    """
    copies = _relate_copies(data)
    if data.stand_in:
        return NearCopies("the images are made up, each on its own", copies=copies)
    if min(data.shape[1:]) < MIN_SIDE:
        reason = f"images of less than {MIN_SIDE} pixels in height or width have too little detail"
        return NearCopies(reason, copies=copies)
    if len(data.rows) > _MAX_IMAGES:
        reason = f"of more than {_MAX_IMAGES:,} images, not all pairs are compared"
        return NearCopies(reason, is_too_large=True, copies=copies)
    key = f"{METHOD_VERSION} {data.fingerprint}"
    found = load(_NAMESPACE, key)
    if found is None:
        try:
            found = _compare(data, on_progress)
        except OSError as error:
            raise XbenchError(f"the decoded images of {data.name} cannot be read: {error}") from error
        save(_NAMESPACE, key, found)
    return _describe(data, found, copies)


class _Parts(NamedTuple):
    """What the images of pairs may have in common, as numbers that are equal where it is: (images,) each."""

    is_test: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, data: DecodedDataset) -> _Parts:
        return cls(data.is_test, data.labels, np.unique(data.groups, return_inverse=True)[1])

    def relate(self, pairs: np.ndarray) -> np.ndarray:
        """Return the place of each pair's relation in `RELATIONS`: of the first part that differs."""
        differ = [part[pairs[:, 0]] != part[pairs[:, 1]] for part in self]
        return np.argmax([*differ, np.ones(len(pairs), bool)], axis=0)


def _relate_copies(data: DecodedDataset) -> RelatedPairs:
    """Pair the first image of each content with each of its copies, and relate the pairs."""
    contents = data.duplicates.contents
    _, firsts, numbers = np.unique(contents, return_index=True, return_inverse=True)
    first_of = firsts[numbers]
    copies = np.flatnonzero(first_of != np.arange(len(contents)))
    pairs = np.stack([first_of[copies], copies], axis=1)
    relations = _Parts.of(data).relate(pairs)
    named = [pairs[relations == place][:_MAX_NAMED].tolist() for place in range(len(RELATIONS))]
    return _name_pairs(data, np.bincount(relations, minlength=len(RELATIONS)).tolist(), named)


def _compare(data: DecodedDataset, on_progress: OnProgress) -> dict[str, Any]:
    """Find the pairs of images that look alike but differ in content.

    Returns:
        JSON values: `counts` and the first pairs (`named`) of each relation; a bounded number of all pairs
        (`pairs`), and whether there are more (`is_cut`); and [image, other] for each test image that looks
        like a training image (`in_test`), and each image that looks like one of another class
        (`across_classes`), where `other` is the first such image.
    """
    contents, parts, images = data.duplicates.contents, _Parts.of(data), len(data.rows)
    counts = [0] * len(RELATIONS)
    named: list[list[list[int]]] = [[] for _ in RELATIONS]
    kept = [np.empty((0, 2), np.int64)]
    first_in_training, first_in_class = np.full((2, images), images)
    hashes = hash_rows(data.pixels_path, data.shape, data.rows)
    varied = np.flatnonzero(hashes.any(axis=1))  # flat images have nothing to compare
    for positions in find_close_pairs(hashes[varied], MAX_DISTANCE, on_progress):
        pairs = varied[positions]
        pairs = pairs[contents[pairs[:, 0]] != contents[pairs[:, 1]]]
        relations, is_kept = parts.relate(pairs), np.zeros(len(pairs), bool)
        for place, first in enumerate(named):
            related = np.flatnonzero(relations == place)
            counts[place] += len(related)
            first += pairs[related[: _MAX_NAMED - len(first)]].tolist()
            ones = pairs[related, 0]  # in ascending order
            is_kept[related[np.arange(len(ones)) - np.searchsorted(ones, ones) < _MAX_KEPT]] = True
        kept.append(pairs[is_kept])
        # The first image that looks like another one is told, so lower ones come first.
        for one, other in (pairs.T[::-1], pairs.T):
            _note_first(first_in_training, one, other, parts.is_test[one] & ~parts.is_test[other])
            _note_first(first_in_class, one, other, parts.labels[one] != parts.labels[other])
    together = np.concatenate(kept)
    return {
        "counts": counts,
        "named": named,
        "pairs": together.tolist(),
        "is_cut": len(together) < sum(counts),
        "in_test": _list_found(first_in_training),
        "across_classes": _list_found(first_in_class),
    }


def _note_first(first: np.ndarray, images: np.ndarray, others: np.ndarray, which: np.ndarray) -> None:
    """Note the first of the others for each image that has none yet, which has the number of images."""
    noted = np.flatnonzero(which & (first[images] == len(first)))
    last_first = noted[::-1]  # of several values for a place, numpy assigns the last one
    first[images[last_first]] = others[last_first]


def _list_found(first: np.ndarray) -> list[list[int]]:
    """List [image, first other] for each image that has one; the others have the number of images."""
    images = np.flatnonzero(first < len(first))
    return np.stack([images, first[images]], axis=1).tolist()


def _describe(data: DecodedDataset, found: dict[str, Any], copies: RelatedPairs) -> NearCopies:
    """Describe the pairs of images that look alike, except for exact copies."""

    def name(pairs: list[list[int]], known: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        copied = {copy for copy, _ in known}
        named = ((data.names[one], data.names[other]) for one, other in pairs)
        return tuple(sorted(pair for pair in named if pair[0] not in copied))

    return NearCopies(
        images=len(data.rows),
        test=int(data.is_test.sum()),
        pairs=np.array(found["pairs"], np.int64).reshape(-1, 2),
        is_cut=found["is_cut"],
        related=_name_pairs(data, found["counts"], found["named"]),
        copies=copies,
        in_test=name(found["in_test"], data.duplicates.in_test),
        across_classes=name(found["across_classes"], data.duplicates.across_classes),
    )


def _name_pairs(data: DecodedDataset, counts: list[int], named: list[list[list[int]]]) -> RelatedPairs:
    names = (tuple((data.names[one], data.names[other]) for one, other in pairs) for pairs in named)
    return RelatedPairs(dict(zip(RELATIONS, counts, strict=True)), dict(zip(RELATIONS, names, strict=True)))
