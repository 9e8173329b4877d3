"""State what follows from the figures of a comparison: who is better than the baseline, and by how much."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from xbench.records.aggregate import CONFIDENCE, LEVEL
from xbench.report.columns import Column, group_by_data
from xbench.report.effects import Effect, paired_effect
from xbench.report.holm import correct
from xbench.report.repeatability import (
    REPEATABILITY,
    REPEATABLE_SHARE,
    are_apart,
    drop_test,
    shares_measurements,
)
from xbench.report.rows import Row
from xbench.report.sign_flips import MIN_PAIRS
from xbench.text import pluralize

# Below a difference of this size three decimals would show a zero.
_MIN_SHOWN = 0.0005

ONE_SEED = "one seed: no claim"
MEASURED_ONCE = "measured once each"


@dataclass(frozen=True)
class Finding:
    """How one column compares with the baseline in one figure.

    Attributes:
        row: the figure.
        column, baseline: names of the columns.
        effect: the paired difference or ratio; None if it cannot be told.
        reason: why it cannot; "" if it can.
        p: p value of no change, corrected for all comparisons of the table; None if there is no test.
        is_apart: of figures that were measured once, whether they differ by more than repeated measurements;
            None for all others.
    """

    row: Row
    column: str
    baseline: str
    effect: Effect | None
    reason: str = ""
    p: float | None = None
    is_apart: bool | None = None

    @property
    def is_significant(self) -> bool | None:
        """Whether a change is shown, after correction for all comparisons; None if there is no test."""
        return None if self.p is None else self.p <= LEVEL

    @property
    def is_better(self) -> bool | None:
        """Whether the column is shown to be better (True) or worse (False), by a test or by measurements that
        are further apart than repeated ones; None if neither is shown."""
        if self.effect is None or not (self.is_significant or self.is_apart):
            return None
        return (self.effect.estimate > self.effect.no_change) == (self.row.better == "max")

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
    findings = [
        _compare(row, column, base)
        for row in rows
        if row.finding is not None
        for column, base in pairs
        if row.key in column.figures or row.key in base.figures or _is_shared(row, columns)
    ]
    tested = [
        (place, p)
        for place, found in enumerate(findings)
        if (p := compute_p(found.row, found.effect)) is not None
    ]
    for (place, _), p in zip(tested, correct([p for _, p in tested]), strict=True):
        findings[place] = replace(findings[place], p=p)
    return tuple(findings)


def compute_p(row: Row, effect: Effect | None) -> float | None:
    """Return the p value of an effect, not corrected for other comparisons; None if there is no test.

    A size that differs by the same amount for all seeds is not drawn at random, so no test is needed.
    """
    if effect is None:
        return None
    return 0.0 if row.is_size and effect.method == "constant" and not effect.is_tie else effect.p


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
    if effect and any(shares_measurements(row, side.records) for side in (column, base)):
        apart = are_apart(column.figures[row.key], base.figures[row.key])
        return Finding(row, column.name, base.name, drop_test(effect), is_apart=apart)
    return Finding(row, column.name, base.name, effect, "" if effect else problem)


def summarise(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Write the findings as sentences: one for each figure, then the method."""
    lines = [
        f"{row.title.strip()}: {_join_claims(list(group))}"
        for row, group in groupby(findings, lambda finding: finding.row)
    ]
    return (*lines, *describe_method(findings))


def describe_method(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Say in one sentence how the intervals and the claims of findings were computed; nothing without any."""
    effects = [finding.effect for finding in findings if finding.effect and finding.p is not None]
    parts = [*_describe_tests(effects)] if effects else []
    if any(finding.is_apart is not None for finding in findings):
        parts.append(
            f"memory is measured once for all seeds of an optimizer, and no difference up to {REPEATABILITY} "
            "is claimed"
        )
    return ("; ".join(parts),) if parts else ()


def _describe_tests(effects: Sequence[Effect]) -> Iterator[str]:
    bracketed = [effect for effect in effects if effect.method in ("t", "sign flips")]
    if bracketed:
        yield (
            f"brackets hold {CONFIDENCE:.0%} paired t intervals over the n seeds that both columns have, "
            "which are not corrected for multiple comparisons"
        )
    if any(effect.method == "t" and effect.n < MIN_PAIRS for effect in bracketed):
        yield f"with fewer than {MIN_PAIRS} seeds they are approximate"
    if any(effect.method == "sign flips" for effect in bracketed):
        yield "exact intervals are of sign flips, because t does not fit"
    yield (f"claims hold at {LEVEL:.0%} after Holm's correction for {pluralize(len(effects), 'comparison')}")
    if any(effect.kind == "ratio" for effect in effects):
        yield "ratios are geometric means"


def _join_claims(findings: Sequence[Finding]) -> str:
    """Write one claim for each column; columns that share a reason share a claim."""
    claims: list[str] = []
    by_reason: dict[str, list[str]] = {}
    for finding in findings:
        if finding.effect is None:
            by_reason.setdefault(finding.reason, []).append(finding.column)
        else:
            claims.append(finding.text)
    for end in (f" ({ONE_SEED})", f" ({MEASURED_ONCE})"):
        if all(claim.endswith(end) for claim in claims):
            claims = [*(claim.removesuffix(end) for claim in claims[:-1]), *claims[-1:]]
    claims += [f"{', '.join(names)} cannot be compared ({why})" for why, names in by_reason.items()]
    return "; ".join(claims)


def _describe_difference(finding: Finding, effect: Effect) -> str:
    column, baseline = finding.column, finding.baseline
    if not math.isfinite(effect.estimate):
        return f"the difference between {column} and {baseline} is not finite"
    if effect.is_tie:
        return _describe_tie(finding, effect)
    show = choose_format(finding.row, effect)
    amount = show(abs(effect.estimate))
    verdict = f"{amount} {'higher' if effect.estimate > 0 else 'lower'} than"
    if effect.n == 1:
        return f"{column} is {verdict if effect.estimate else 'equal to'} {baseline} ({ONE_SEED})"
    if effect.method == "constant" and not finding.is_significant:
        return f"{column} is {verdict} {baseline} in each of {effect.n} seeds ({_NO_CLAIM})"
    if not finding.is_significant:
        return _describe_no_change(finding, effect, partial(_show_signed, show))
    claim = f"{column} is {'better' if finding.is_better else 'worse'} than {baseline} by {amount}"
    if effect.method == "constant":
        return f"{claim} in each of {effect.n} seeds"
    assert effect.low is not None and effect.high is not None
    low, high = sorted(math.copysign(1, effect.estimate) * end for end in (effect.low, effect.high))
    return f"{claim} [{_show_signed(show, low)}, {_show_signed(show, high)}; {_count(effect)}]"


def _show_signed(show: Callable[[float], str], value: float) -> str:
    return f"{'-' * (value < 0)}{show(abs(value))}"


def _describe_ratio(finding: Finding, effect: Effect) -> str:
    if effect.is_tie:
        return _describe_tie(finding, effect)
    if finding.is_apart is False:
        pair = f"{finding.column} and {finding.baseline}"
        return f"no difference above {REPEATABLE_SHARE:.0%} between {pair} ({MEASURED_ONCE})"
    if finding.is_significant is False and effect.method != "constant":
        return _describe_no_change(finding, effect, format_ratio)
    shown = {format_ratio(value) for value in (effect.estimate, effect.low, effect.high) if value is not None}
    times = "" if shown == {"1.00"} else f"{format_ratio(effect.estimate)} times "
    claim = f"{finding.column} takes {times}as much as {finding.baseline}"
    if effect.low is None or effect.high is None:
        return f"{claim} ({MEASURED_ONCE if finding.is_apart else ONE_SEED})"
    if effect.method == "constant":
        return f"{claim} in each of {effect.n} seeds{'' if finding.is_significant else f' ({_NO_CLAIM})'}"
    return f"{claim} [{format_ratio(effect.low)}, {format_ratio(effect.high)}; {_count(effect)}]"


# Why an amount that is the same in all of a few seeds is not said to be better or worse.
_NO_CLAIM = "no claim: t does not fit equal differences, and the exact test is not significant"


def _describe_tie(finding: Finding, effect: Effect) -> str:
    return f"{finding.column} and {finding.baseline} are equal in all {effect.n} seeds"


def _describe_no_change(finding: Finding, effect: Effect, show: Callable[[float], str]) -> str:
    if effect.low is None or effect.high is None:
        return f"{finding.column} cannot be compared with {finding.baseline}: no interval"
    corrected = " after Holm's correction" if effect.p is not None and effect.p <= LEVEL else ""
    return (
        f"no significant difference between {finding.column} and {finding.baseline}{corrected}: "
        f"{show(effect.estimate)}{' times' * (effect.kind == 'ratio')} "
        f"[{show(effect.low)}, {show(effect.high)}; {_count(effect)}]"
    )


def _count(effect: Effect) -> str:
    return f"n = {effect.n}{', exact' * (effect.method == 'sign flips')}"


def format_ratio(value: float) -> str:
    return f"{value:.2f}" if 0.1 <= value < 100 else f"{value:.3g}"


def choose_format(row: Row, effect: Effect) -> Callable[[float], str]:
    """Show a difference as the table shows figures, unless that would round it to zero."""
    sizes = [abs(value) for value in (effect.estimate, effect.low, effect.high) if value]
    if sizes and min(sizes) < _MIN_SHOWN:
        return "{:.2g}".format
    return row.show
