"""Two things timed in turn, A B A B, so that a machine whose speed drifts does not move their ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def paired(benchmark, a: Callable[[], object], b: Callable[[], object], rounds: int) -> float:
    """Benchmark `a`, with `b` before each of its rounds.

    Returns:
        The median over rounds of time of a / time of b; also in the benchmark's `extra_info`.
    """
    b_times: list[float] = []

    def run_b() -> None:
        started = time.perf_counter()
        b()
        b_times.append(time.perf_counter() - started)

    benchmark.pedantic(a, setup=run_b, rounds=rounds, warmup_rounds=2)
    ratios = [x / y for x, y in zip(benchmark.stats.stats.data, b_times[2:], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    benchmark.extra_info |= {
        "ratio_median": round(statistics.median(ratios), 4),
        "ratio_quartiles": [round(low, 4), round(high, 4)],
    }
    print(f"\n{benchmark.name}: {benchmark.extra_info}")
    return statistics.median(ratios)
