"""Describe images that look alike without being exact copies: across train and test, classes, and groups.

Barz and Denzler (2020), "Do We Train on Test Data? Purging CIFAR of Near-Duplicates", measure how much such
images raise test accuracies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from xbench.data.duplicates import Duplicates, list_some
from xbench.data.perceptual import MAX_FALSE_ALARM_RATE

# Where the images of a pair differ first: in their split, their class or their group.
TRAIN_AND_TEST, TWO_CLASSES, TWO_GROUPS, ONE_GROUP = (
    "train and test",
    "two classes",
    "two groups",
    "one group",
)
RELATIONS = (TRAIN_AND_TEST, TWO_CLASSES, TWO_GROUPS, ONE_GROUP)


@dataclass(frozen=True)
class RelatedPairs:
    """Pairs of images, counted by what they have in common.

    Attributes:
        counts: number of pairs by relation (see `RELATIONS`). Images without a group are of one group.
        named: names of the first pairs of each relation.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    named: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class NearCopies:
    """Pairs of images that look alike but differ in content.

    Attributes:
        not_compared: why the images were not compared; "" if they were.
        is_too_large: whether they were not compared because there are too many.
        images, test: the number of images that were compared, and of test images among them.
        pairs: int64 array (pairs, 2): indices of the images among the readable ones, the lower one first. Of
            an image that looks like very many others, some pairs are left out.
        is_cut: whether there are more pairs than these. All are in the numbers and names below.
        related: the pairs by what their images have in common.
        copies: pairs of exact copies: the first image of each content, and each of its copies.
        in_test: (test image, training image) for each test image that looks like a training image, except
            exact copies of one.
        across_classes: (image, other) for each image that looks like one of another class, except exact
            copies of one.
    """

    not_compared: str = ""
    is_too_large: bool = False
    images: int = 0
    test: int = 0
    pairs: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64), compare=False)
    is_cut: bool = False
    related: RelatedPairs = RelatedPairs()
    copies: RelatedPairs = RelatedPairs()
    in_test: tuple[tuple[str, str], ...] = ()
    across_classes: tuple[tuple[str, str], ...] = ()

    @property
    def compared_pairs(self) -> int:
        return self.images * (self.images - 1) // 2

    @property
    def max_false_alarms(self) -> float:
        """Bound of the number of pairs to expect by chance, if images differ like X-rays of two patients."""
        return self.compared_pairs * MAX_FALSE_ALARM_RATE

    @property
    def warnings(self) -> list[str]:
        """Warnings for readers of the results."""
        warnings = []
        if self.is_too_large:
            warnings.append(
                f"near-duplicates were not looked for, so none are known in the test set: {self.not_compared}"
            )
        if self.in_test:
            warnings.append(
                f"{len(self.in_test):,} of {self.test:,} test images are near-duplicates of training images, "
                f"so test metrics may be optimistic: {list_some(self.in_test, 'looks like')}"
            )
        if self.across_classes:
            warnings.append(
                f"{len(self.across_classes):,} of {self.images:,} images are near-duplicates of an image of "
                f"another class, so a label may be wrong: {list_some(self.across_classes, 'looks like')}"
            )
        return warnings


NOT_COMPARED = NearCopies("only a sample of the images was decoded")


def count_alike(duplicates: Duplicates, near: NearCopies, part: np.ndarray, others: np.ndarray) -> int:
    """Count the images of one part of a dataset that are copies or near-duplicates of images of another part.

    The number is a lower bound if `near.is_cut`.

    Args:
        part, others: indices of the images of each part.
    """
    count = len(duplicates.contents)
    if not count:  # of a sample
        return 0
    in_part, in_others = np.zeros((2, count), bool)
    in_part[part], in_others[others] = True, True
    is_alike = np.isin(duplicates.contents, duplicates.contents[others])
    for one, other in (near.pairs.T, near.pairs.T[::-1]):
        is_alike[one[in_others[other]]] = True
    return int((is_alike & in_part).sum())
