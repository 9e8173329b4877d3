"""Test and interval for a mean difference by flipping signs, where Student's t does not fit.

If the two optimizers of a pair could as well be exchanged, each difference could as well have the other sign.
Comparing the mean difference with those of all choices of signs is therefore an exact test, whatever the
distribution (Fisher 1935). The means of all subsets of the differences bound the intervals of this test
(Hartigan 1969). Both are exact as well if the choices are drawn (Hemerik and Goeman 2018). Every subset is
drawn with its complement, which stands for the opposite signs: otherwise the two-sided test would not belong
to the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from xbench.records.aggregate import LEVEL

if TYPE_CHECKING:
    import numpy as np

# With fewer pairs, even the most extreme choice of signs has a probability above `LEVEL`.
MIN_PAIRS = 6

# Up to this many pairs, all choices of signs are tried: 4,096. Of more pairs, as many are drawn without
# replacement.
_MAX_EXACT = 12
_DRAWN = 1 << _MAX_EXACT

# Sums of equal differences differ by rounding, relative to the sum of their sizes.
_ROUNDING = 1e-12


def compute_p(differences: Sequence[float]) -> float:
    """Return the two-sided p value of a mean difference of zero; 1 if all differences are zero."""
    import numpy as np  # late, since most runs need none of this

    values = np.array(differences) / _largest(differences)
    total = values.sum()
    least = abs(total) - _ROUNDING * np.abs(values).sum()
    return float(np.mean(np.abs(2 * (_choose_subsets(len(values)) @ values) - total) >= least))


def find_bounds(differences: Sequence[float]) -> tuple[float, float]:
    """Return the interval of the means that the test does not reject.

    It excludes zero if and only if `compute_p` is at most `LEVEL`.

    Args:
        differences: at least `MIN_PAIRS` numbers.
    """
    import numpy as np

    subsets, scale = _choose_subsets(len(differences))[1:], _largest(differences)
    values = np.array(differences) / scale
    sums = subsets @ values
    sums[np.abs(sums) <= _ROUNDING * np.abs(values).sum()] = 0
    means = np.sort(sums / subsets.sum(axis=1)) * scale
    place = int(LEVEL / 2 * (len(means) + 1))
    return float(means[place - 1]), float(means[-place])


def _largest(differences: Sequence[float]) -> float:
    """Return the size of the largest difference, by which all are divided, as their sum may overflow."""
    return max(map(abs, differences)) or 1.0


@lru_cache(maxsize=8)
def _choose_subsets(count: int) -> np.ndarray:
    """Return a row of zeros and ones for every subset, or for many that are drawn; the first is empty."""
    import numpy as np

    if count <= _MAX_EXACT:
        return (np.arange(1 << count)[:, None] >> np.arange(count) & 1).astype(float)
    random = np.random.default_rng(count)
    # Of a subset and its complement, this is the one without the last element. Some are drawn several times.
    drawn = np.unique(random.integers(0, 2, (4 * _DRAWN, count - 1)), axis=0)
    chosen = random.permutation(drawn[drawn.any(axis=1)])[: _DRAWN // 2 - 1]
    half = np.zeros((_DRAWN // 2, count))
    half[1:, :-1] = chosen
    return np.concatenate([half, 1 - half])
