"""State what follows from the figures of a comparison: who is better than the baseline, and by how much."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from xbench.records.aggregate import CONFIDENCE
from xbench.report.columns import Column, group_by_data
from xbench.report.effects import Effect, paired_effect
from xbench.report.rows import Row

# Below a difference of this size three decimals would show a zero.
_MIN_SHOWN = 0.0005

# Names of the columns with the best figure of a row, and of those not significantly different from it.
Marks = tuple[set[str], set[str]]

ONE_SEED = "one seed: no claim"


@dataclass(frozen=True)
class Finding:
    """How one column compares with the baseline in one figure.

    Attributes:
        row: the figure.
        column, baseline: names of the columns.
        effect: the paired difference or ratio; None if it cannot be told.
        reason: why it cannot; "" if it can.
    """

    row: Row
    column: str
    baseline: str
    effect: Effect | None
    reason: str = ""

    @property
    def is_better(self) -> bool | None:
        """Whether the column is significantly better (True) or worse (False); None if neither is shown."""
        effect = self.effect
        if effect is None or not effect.is_significant:
            return None
        return (effect.estimate > effect.no_change) == (self.row.better == "max")

    @property
    def text(self) -> str:
        """The finding as a sentence without its subject's title and its full stop."""
        if self.effect is None:
            return f"{self.column} cannot be compared with {self.baseline} ({self.reason})"
        words = _describe_ratio if self.effect.kind == "ratio" else _describe_difference
        return words(self, self.effect)


def make_findings(columns: Sequence[Column], rows: Sequence[Row], baseline: str) -> tuple[Finding, ...]:
    """Compare every column with the baseline, in each figure that findings are about.

    Columns are compared with those of the same dataset only. Where the baseline has another one, the first
    column with the dataset takes its place.

    Args:
        baseline: the name of one of the columns.
    """
    pairs = [
        (column, base)
        for group in group_by_data(columns)
        for base in [next((column for column in group if column.name == baseline), group[0])]
        for column in group
        if column is not base
    ]
    return tuple(
        _compare(row, column, base)
        for row in rows
        if row.finding is not None
        for column, base in pairs
        if row.key in column.figures or row.key in base.figures or _is_shared(row, columns)
    )


def _is_shared(row: Row, columns: Sequence[Column]) -> bool:
    """Return whether some column has a figure, and all columns have the same dataset."""
    return len(group_by_data(columns)) == 1 and any(row.key in column.figures for column in columns)


def _compare(row: Row, column: Column, base: Column) -> Finding:
    assert row.finding is not None
    for side in (base, column):
        if row.key not in side.figures:
            return Finding(row, column.name, base.name, None, f"{side.name} has no value")
    if row.is_time and (why := column.unranked_time or base.unranked_time):
        return Finding(row, column.name, base.name, None, f"the times are not ranked: {why}")
    effect = paired_effect(row.finding, column.figures[row.key], base.figures[row.key])
    shared = set(column.figures[row.key].seeds) & set(base.figures[row.key].seeds)
    problem = "a value is not above zero" if shared else f"it shares no seed with {base.name}"
    return Finding(row, column.name, base.name, effect, "" if effect else problem)


def find_marks(row: Row, columns: Sequence[Column]) -> Marks:
    """Find which columns have the best figure of a row, and which are not significantly different from it.

    Columns of each dataset are ranked by themselves.

    Returns:
        The names of the best columns, and of those whose paired interval to the best includes no change. Both
        are empty if the row has no better direction, or fewer than two figures that may be ranked.
    """
    marks = [_find_marks(row, group) for group in group_by_data(columns)]
    return set().union(*(best for best, _ in marks)), set().union(*(alike for _, alike in marks))


def _find_marks(row: Row, columns: Sequence[Column]) -> Marks:
    ranked = [
        column
        for column in columns
        if row.key in column.figures
        and math.isfinite(column.figures[row.key].mean)
        and not (row.is_time and column.unranked_time)
    ]
    if row.better is None or len(ranked) < 2:
        return set(), set()
    means = [column.figures[row.key].mean for column in ranked]
    shown_best = row.show(max(means) if row.better == "max" else min(means))
    # Figures that look the same are the same to a reader.
    best = [column for column, mean in zip(ranked, means, strict=True) if row.show(mean) == shown_best]
    if len(best) == len(ranked):
        return set(), set()
    top = best[0].figures[row.key]
    effects = {
        column.name: paired_effect(row.finding or "ratio", column.figures[row.key], top)
        or paired_effect("difference", column.figures[row.key], top)
        for column in ranked
        if column not in best
    }
    alike = {
        name for name, effect in effects.items() if effect is not None and effect.is_significant is False
    }
    return {column.name for column in best}, alike


def summarise(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Write the findings as sentences: one for each figure, then the method."""
    lines = [
        f"{row.title.strip()}: {_join_claims(list(group))}"
        for row, group in groupby(findings, lambda finding: finding.row)
    ]
    if any(finding.effect and finding.effect.n > 1 for finding in findings):
        lines.append(
            f"brackets hold {CONFIDENCE:.0%} paired t intervals over the n seeds that both columns have; "
            "ratios are geometric means; intervals are not corrected for multiple comparisons"
        )
    return tuple(lines)


def _join_claims(findings: Sequence[Finding]) -> str:
    """Write one claim for each column; columns that share a reason share a claim."""
    claims: list[str] = []
    by_reason: dict[str, list[str]] = {}
    for finding in findings:
        if finding.effect is None:
            by_reason.setdefault(finding.reason, []).append(finding.column)
        else:
            claims.append(finding.text)
    end = f" ({ONE_SEED})"
    if all(claim.endswith(end) for claim in claims):
        claims = [*(claim.removesuffix(end) for claim in claims[:-1]), *claims[-1:]]
    claims += [f"{', '.join(names)} cannot be compared ({why})" for why, names in by_reason.items()]
    return "; ".join(claims)


def _describe_difference(finding: Finding, effect: Effect) -> str:
    if not math.isfinite(effect.estimate):
        return f"the difference between {finding.column} and {finding.baseline} is not finite"
    show = choose_format(finding.row, effect)
    if effect.is_significant is False:
        return _describe_no_change(finding, effect, lambda value: f"{'-' * (value < 0)}{show(abs(value))}")
    amount = show(abs(effect.estimate))
    if effect.low is None or effect.high is None:
        verdict = f"{amount} {'higher' if effect.estimate > 0 else 'lower'} than"
        claim = f"{finding.column} is {verdict if effect.estimate else 'equal to'} {finding.baseline}"
        return f"{claim} ({ONE_SEED})"
    verdict = "better" if (effect.estimate > 0) == (finding.row.better == "max") else "worse"
    low, high = sorted((abs(effect.low), abs(effect.high)))
    claim = f"{finding.column} is {verdict} than {finding.baseline} by {amount}"
    return f"{claim} [{show(low)}, {show(high)}; n = {effect.n}]"


def _describe_ratio(finding: Finding, effect: Effect) -> str:
    if effect.is_significant is False:
        return _describe_no_change(finding, effect, format_ratio)
    shown = {format_ratio(value) for value in (effect.estimate, effect.low, effect.high) if value is not None}
    times = "" if shown == {"1.00"} else f"{format_ratio(effect.estimate)} times "
    claim = f"{finding.column} takes {times}as much as {finding.baseline}"
    if effect.low is None or effect.high is None:
        return f"{claim} ({ONE_SEED})"
    return f"{claim} [{format_ratio(effect.low)}, {format_ratio(effect.high)}; n = {effect.n}]"


def _describe_no_change(finding: Finding, effect: Effect, show: Callable[[float], str]) -> str:
    assert effect.low is not None and effect.high is not None
    return (
        f"no significant difference between {finding.column} and {finding.baseline}: "
        f"{show(effect.estimate)}{' times' * (effect.kind == 'ratio')} "
        f"[{show(effect.low)}, {show(effect.high)}; n = {effect.n}]"
    )


def format_ratio(value: float) -> str:
    return f"{value:.2f}" if 0.1 <= value < 100 else f"{value:.3g}"


def choose_format(row: Row, effect: Effect) -> Callable[[float], str]:
    """Show a difference as the table shows figures, unless that would round it to zero."""
    sizes = [abs(value) for value in (effect.estimate, effect.low, effect.high) if value]
    if sizes and min(sizes) < _MIN_SHOWN:
        return "{:.2g}".format
    return row.show
