"""Check how figures changed between runs against the thresholds that a user sets."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from xbench.errors import XbenchError
from xbench.report.change_text import describe_estimate, format_amount
from xbench.report.effects import EffectKind, paired_effect
from xbench.report.rows import Row
from xbench.report.run_comparison import SAME_MEASUREMENT, Change, ComparedExperiment, RunComparison
from xbench.text import format_value, name_seeds

# Other names of rows.
ALIASES = {"peak_memory": "needed_bytes", "training_time": "training_s"}

# From this number of pairs on, a change has to be significant as well.
MIN_PAIRS = 3

_RULE = re.compile(r"\s*([a-z][a-z0-9_]*)\s*:\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*(%?)\s*", re.I)
_HINT = "write FIGURE:CHANGE, such as peak_memory:5%, training_time:10% or test_accuracy:-0.01"


@dataclass(frozen=True)
class Rule:
    """The worst change of a figure that a gate allows.

    Attributes:
        text: the rule as the user wrote it.
        kind: whether the threshold is compared with a difference or with a ratio.
        threshold: the worst difference, or the worst ratio (1.05 for `5%`).
    """

    text: str
    row: Row
    kind: EffectKind
    threshold: float

    def is_beyond(self, estimate: float) -> bool:
        """Return whether a change is worse than the threshold allows. NaN is."""
        within = estimate >= self.threshold if self.row.better == "max" else estimate <= self.threshold
        return not within

    @property
    def needs_improvement(self) -> bool:
        """Whether a figure that stays as it is breaks the rule."""
        return self.is_beyond(0.0 if self.kind == "difference" else 1.0)


@dataclass(frozen=True)
class Check:
    """A rule applied to one column.

    Attributes:
        run: name of the run that was compared with the reference.
        outcome: `unchecked` if the reference has no figure to compare with.
        why: what decided.
        change: how the figure changed; None if no column has it.
    """

    rule: Rule
    run: str
    experiment: str
    column: str
    outcome: Literal["passed", "failed", "unchecked"]
    why: str
    change: Change | None = None


def parse_rules(texts: Sequence[str], figures: Sequence[Row]) -> tuple[Rule, ...]:
    """Parse the rules of a gate.

    Args:
        texts: rules such as `peak_memory:5%`.
        figures: the rows that a rule may name.

    Raises:
        XbenchError: a rule is malformed, names an unknown figure, or gives a percentage for a figure of which
            only differences have a meaning.
    """
    return tuple(_parse_rule(text, {row.key: row for row in figures}) for text in texts)


def _parse_rule(text: str, figures: dict[str, Row]) -> Rule:
    match = _RULE.fullmatch(text)
    if not match:
        raise XbenchError(f"--fail-on {format_value(text)}: not a figure and a change", hint=_HINT)
    name, number, percent = match.groups()
    row = figures.get(name) or figures.get(ALIASES.get(name, ""))
    if row is None:
        aliases = [alias for alias, key in ALIASES.items() if key in figures and alias not in figures]
        known = ", ".join([*aliases, *figures])
        raise XbenchError(f"--fail-on {format_value(text)}: no figure '{name}'", hint=f"known: {known}")
    is_metric = row.finding == "difference"
    if percent and row.better == "max":
        raise XbenchError(
            f"--fail-on {format_value(text)}: {name} is compared by its difference, not in percent",
            hint=f"write the difference, such as {name}:-0.01 to allow a fall of 0.01",
        )
    change = float(number) / 100 if percent else float(number)
    if not math.isfinite(change):
        raise XbenchError(f"--fail-on {format_value(text)}: the change is not finite", hint=_HINT)
    if is_metric and not percent:
        return Rule(text.strip(), row, "difference", change)
    if change <= -1:
        raise XbenchError(
            f"--fail-on {format_value(text)}: {name} cannot fall by 100 % or more",
            hint=f"write the largest rise to allow, such as {name}:5%",
        )
    return Rule(text.strip(), row, "ratio", 1 + change)


def check_gate(rules: Sequence[Rule], comparisons: Sequence[RunComparison]) -> tuple[Check, ...]:
    """Apply every rule to every column of every comparison.

    A rule is broken if a seed that has the figure in the reference lacks it in the other run, if the figures
    cannot be compared, or if the estimated change is beyond the threshold. With `MIN_PAIRS` pairs or more,
    the change has to be significant as well, unless the rule demands an improvement. A rule that cannot be
    applied to any column is broken, too.
    """
    return tuple(
        check for comparison in comparisons for rule in rules for check in _check_rule(rule, comparison)
    )


def _check_rule(rule: Rule, comparison: RunComparison) -> Iterator[Check]:
    names = comparison.reference.name, comparison.other.name
    checks = [
        _check_change(rule, change, experiment, names)
        for experiment in comparison.experiments
        for change in experiment.changes
        if change.row.key == rule.row.key
    ]
    yield from checks
    if all(check.outcome == "unchecked" for check in checks):
        why = f"no column of {names[0]} has the figure, so nothing was checked"
        yield Check(rule, names[1], "", "", "failed", why)


def _check_change(
    rule: Rule, change: Change, experiment: ComparedExperiment, names: tuple[str, str]
) -> Check:
    reference, other = names
    outcome, why = _decide(rule, change, reference, other)
    if change.missing:
        gaps = [gap for gap in experiment.gaps if gap.column == change.column and gap.seed in change.missing]
        ends = ", ".join(dict.fromkeys(f"{gap.after or 'not declared'}" for gap in gaps)) or "no value"
        why = f"{name_seeds(change.missing)}: done in {reference}, {ends} in {other}"
    return Check(rule, other, experiment.name, change.column, outcome, why, change)


def _decide(
    rule: Rule, change: Change, reference: str, other: str
) -> tuple[Literal["passed", "failed", "unchecked"], str]:
    if change.before is None:
        return "unchecked", f"{reference} has no value"
    if change.missing or change.after is None:
        return "failed", f"{other} has no value"
    effect = change.effect
    if change.reason == SAME_MEASUREMENT:
        return "passed", change.reason  # it is taken over only if nothing has changed that it depends on
    if effect is not None and effect.kind != rule.kind and change.pairs is not None:
        effect = paired_effect(rule.kind, *change.pairs)
    if effect is None:
        return "failed", change.reason or "its ratio is not defined: a value is not above zero"
    if not math.isfinite(effect.estimate):
        return "failed", "the change is not a finite number"
    found = describe_estimate(change.row, effect)
    if change.is_apart is not None:
        found += ", measured once in each run"
    allowed = _describe_threshold(rule)
    if not rule.is_beyond(effect.estimate):
        return "passed", f"{found}; {allowed}"
    if change.is_apart is not None:
        return "failed", f"{found}; {allowed}"
    if effect.n >= MIN_PAIRS and not effect.is_significant and not rule.needs_improvement:
        return "passed", f"{found}; {allowed}, but the change is not significant"
    significance = ""
    if effect.n >= MIN_PAIRS and effect.is_significant:
        significance = ", and the change is significant"
    elif effect.n < MIN_PAIRS:
        significance = f" (fewer than {MIN_PAIRS} seeds: the estimate alone decides)"
    return "failed", f"{found}; {allowed}{significance}"


def _describe_threshold(rule: Rule) -> str:
    amount = format_amount(rule.row, rule.kind, rule.threshold)
    if rule.needs_improvement:
        return f"{amount} is required at least"
    return f"{amount} is allowed"


def describe_failures(checks: Sequence[Check]) -> tuple[str, ...]:
    """Write a sentence for each check that failed."""
    return tuple(
        f"{check.rule.text} failed in {check.run}{_name_place(check)}: {check.why}"
        for check in checks
        if check.outcome == "failed"
    )


def _name_place(check: Check) -> str:
    return f" for {check.column} of {check.experiment}" if check.column else ""
