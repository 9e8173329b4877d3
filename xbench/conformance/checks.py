"""Names of the checks of each kind of component, and what a check reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from xbench.components.registry import Kind

Outcome = Literal["pass", "fail", "fact", "not applicable"]

# The first check of every kind. If it fails, the other checks are not applicable.
LOADS = "loads"

# Check `state-size` of an optimizer is the function `check_state_size`, in one of the modules of `child.py`.
CHECKS: dict[Kind, tuple[str, ...]] = {
    "optimizer": (
        LOADS,
        "listing",
        "settings",
        "trial",
        "loss",
        "closures",
        "repeats",
        "random-numbers",
        "resume",
        "state-size",
        "state-growth",
        "gradients",
        "parameters",
        "backward",
        "line-search",
        "needs-loss",
        "recipe",
    ),
    "model": (
        LOADS,
        "listing",
        "settings",
        "weights",
        "outputs",
        "repeats",
        "roles",
        "state-dict",
        "micro-batches",
        "scales",
    ),
    "dataset": (
        LOADS,
        "listing",
        "settings",
        "rows",
        "fingerprint",
        "splits",
        "images",
        "task",
        "scales",
    ),
}


class Inapplicable(Exception):
    """Raised by a check that does not apply to a component; the message says why."""


@dataclass(frozen=True)
class Verdict:
    """What a check of a component found.

    Attributes:
        outcome: `"fact"` is worth knowing, but neither right nor wrong.
        text: one line.
        values: measured values by name: numbers, strings and booleans.
    """

    outcome: Outcome
    text: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding(Verdict):
    """A verdict on a component.

    Attributes:
        kind, component: kind and name of the component.
        check: name of the check.
    """

    kind: Kind = "optimizer"
    component: str = ""
    check: str = ""

    def __str__(self) -> str:
        return f"{self.kind} '{self.component}', {self.check}: {self.text}"


def passed(text: str, **values: Any) -> Verdict:
    return Verdict("pass", text, values)


def failed(text: str, **values: Any) -> Verdict:
    return Verdict("fail", text, values)


def fact(text: str, **values: Any) -> Verdict:
    return Verdict("fact", text, values)


def not_applicable(text: str) -> Verdict:
    return Verdict("not applicable", text)
