"""Write how a figure changed between runs."""

from __future__ import annotations

import math

from xbench.report.effects import Effect, EffectKind
from xbench.report.findings import choose_format, format_ratio
from xbench.report.rows import Row


def format_effect(row: Row, effect: Effect) -> str:
    """Format an estimate: a signed difference such as `+0.012`, or a ratio such as `1.05x`."""
    return _format_value(row, effect, effect.estimate)


def format_interval(row: Row, effect: Effect) -> str:
    """Format the interval of an effect; "" if it has none."""
    if effect.low is None or effect.high is None:
        return ""
    return f"[{_format_value(row, effect, effect.low)}, {_format_value(row, effect, effect.high)}]"


def _format_value(row: Row, effect: Effect, value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    if effect.kind == "ratio":
        return f"{format_ratio(value)}x"
    sign = "+" if value > 0 else "-" if value < 0 else ""
    return f"{sign}{choose_format(row, effect)(abs(value))}"


def describe_estimate(row: Row, effect: Effect) -> str:
    """Say by how much a figure changed: `it fell by 0.012`, `it rose by 5.2 %`, `it did not change`."""
    if effect.estimate == effect.no_change:
        return "it did not change"
    if effect.kind == "ratio":
        rise = effect.estimate - 1
        return f"it {'rose' if rise > 0 else 'fell'} by {abs(rise) * 100:.3g} %"
    amount = choose_format(row, effect)(abs(effect.estimate))
    return f"it {'rose' if effect.estimate > 0 else 'fell'} by {amount}"


def format_amount(row: Row, kind: EffectKind, threshold: float) -> str:
    """Name the change that a threshold stands for: `a fall of 0.01`, `a rise of 5%`, `no change`."""
    rise = threshold - 1 if kind == "ratio" else threshold
    if rise == 0:
        return "no rise" if row.better == "min" else "no fall"
    size = f"{abs(rise):.6g}" if kind == "difference" else f"{abs(rise) * 100:.6g} %"
    return f"a {'rise' if rise > 0 else 'fall'} of {size}"
