"""Name seeds in tables and notes."""

from __future__ import annotations

from collections.abc import Iterable

# A shorter stretch of consecutive seeds is written out.
MIN_STRETCH = 4


def name_seeds(seeds: Iterable[int]) -> str:
    """Write out seeds: `seed 3`, `seeds 0, 2`, `seeds 0 to 9, 12`."""
    ordered = sorted(set(seeds))
    stretches: list[list[int]] = []
    for seed in ordered:
        if stretches and seed == stretches[-1][-1] + 1:
            stretches[-1].append(seed)
        else:
            stretches.append([seed])
    parts = []
    for stretch in stretches:
        if len(stretch) >= MIN_STRETCH:
            parts.append(f"{stretch[0]} to {stretch[-1]}")
        else:
            parts += map(str, stretch)
    return f"seed{'s' * (len(ordered) != 1)} {', '.join(parts)}"
