"""Student's t distribution in plain Python: importing scipy would take longer than showing a run."""

from __future__ import annotations

import math
from functools import lru_cache

# From here on, squares would overflow.
_HUGE = 1e150


def two_sided_p(t: float, freedom: float) -> float:
    """Return the probability that Student's t is at least as far from zero as `t`.

    Args:
        freedom: degrees of freedom, at least 1; they need not be whole.
    """
    if abs(t) > _HUGE:
        return 0.0
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t), t * t / (freedom + t * t))


@lru_cache(maxsize=1000)
def quantile(freedom: float, level: float) -> float:
    """Return the t whose `two_sided_p` is `level`, which must be at most 0.05.

    By Newton's method, which never passes the solution: `two_sided_p` is convex, and the quantile of the
    normal distribution, from which it starts, is below it.
    """
    t, last = _NORMAL, 0.0
    while t - last > 1e-12 * t:
        last = t
        t += (two_sided_p(t, freedom) - level) / (2 * _density(t, freedom))
    return t


# Below the quantile of every t distribution for levels of 0.05 and less.
_NORMAL = 1.959963984540054


def _density(t: float, freedom: float) -> float:
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    return math.exp(log_scale - (freedom + 1) / 2 * math.log1p(t * t / freedom))


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """Return the regularised incomplete beta function, by its continued fraction (DLMF 8.17.22).

    Args:
        rest: 1 - x, without its rounding error.
    """
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side
        return 1 - _incomplete_beta(b, a, rest, x)
    log_scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    value = 1.0
    for place in range(60 + int(4 * math.sqrt(a + b)), 0, -1):
        m = place // 2
        if place % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        value = 1 + term / value
    return math.exp(log_scale) / (a * value)
