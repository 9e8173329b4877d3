"""Check components in child processes, so that one that dies or hangs fails a check and nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xbench.components.code_files import ImportDirs
from xbench.components.registry import (
    KINDS,
    Kind,
    describe_unknown_name,
    find,
    import_reference,
    suggest_component,
    suggest_name,
)
from xbench.components.specs import Family
from xbench.conformance.checks import CHECKS, Finding, Verdict, failed
from xbench.conformance.common import Subject
from xbench.errors import XbenchError
from xbench.isolation.ask import ask, ask_each
from xbench.isolation.run import ChildFailed, Timeouts
from xbench.text import escape_controls, shorten

# The slowest check, that of a large model on a slow machine, takes less time.
TIMEOUT_S = 180.0

# Some libraries write paragraphs into their exceptions.
_MAX_TEXT_CHARS = 500


def find_subjects(
    name: str,
    params: dict[str, Any],
    import_dirs: Sequence[str] = (),
    partner: str = "",
    kind: Kind | None = None,
) -> list[Subject]:
    """Find the components that a name stands for: a model and a dataset may share one, and a family has many.

    Args:
        params: settings for each of them.
        partner: see `Subject`.
        kind: their kind; None for all kinds that have the name.

    Raises:
        XbenchError: the component is unknown, or the members of a family cannot be listed.
    """
    dirs = ImportDirs.of(import_dirs)
    if ":" in name:
        kinds = (kind,) if kind else ask(_find_kinds, name, dirs)
        return [Subject(of_kind, name, params, dirs, partner) for of_kind in kinds]
    wanted = (kind,) if kind else KINDS
    found = [of_kind for of_kind in wanted if find(of_kind, name) is not None]
    if not found:
        guess = suggest_component(name, wanted)
        raise XbenchError(
            f"unknown {kind or 'component'} '{shorten(escape_controls(name))}'.{guess}",
            hint="`xbench list` shows all names",
        )
    subjects = [Subject(of_kind, name, params, dirs, partner) for of_kind in found]
    return [member for subject in subjects for member in _list_members(subject)]


def check(
    subject: Subject,
    names: Sequence[str] = (),
    timeout_s: float = TIMEOUT_S,
) -> list[Finding]:
    """Run checks of a component in child processes.

    Args:
        names: names of the checks; all of the component's kind by default.
        timeout_s: seconds after which a check has failed.

    Raises:
        XbenchError: a check is unknown, or a setting or the partner of the subject is wrong.
    """
    _check_partner(subject)
    names = list(names or CHECKS[subject.kind])
    for name in names:
        if name not in CHECKS[subject.kind]:
            guess = suggest_name(name, CHECKS[subject.kind])
            raise XbenchError(
                f"unknown check '{name}'.{guess}",
                hint=f"the checks of {subject.kind}s are {', '.join(CHECKS[subject.kind])}",
            )
    with tempfile.TemporaryDirectory(prefix="xbench-check-") as folder:
        answers = ask_each(_run_checks, names, subject, folder, timeouts=Timeouts(silence_s=timeout_s))
    return [make_finding(subject, name, _judge(answer)) for name, answer in zip(names, answers, strict=True)]


def _check_partner(subject: Subject) -> None:
    """Check that a partner is registered, unless it is code outside a package.

    Raises:
        XbenchError: the model or dataset is unknown, or an optimizer has a partner.
    """
    if not subject.partner or ":" in subject.partner:
        return
    if subject.kind == "optimizer":
        raise XbenchError(
            f"optimizer '{subject.name}' cannot be checked with '{subject.partner}'",
            hint="optimizers are checked on models of xbench: leave out --with",
        )
    kind: Kind = "dataset" if subject.kind == "model" else "model"
    if find(kind, subject.partner) is None and subject.dirs.find_packed(kind, subject.partner) is None:
        raise XbenchError(
            describe_unknown_name(kind, subject.partner), hint=f"`xbench list {kind}s` shows all names"
        )


def make_finding(subject: Subject, check: str, verdict: Verdict) -> Finding:
    """Add the component and the check to a verdict."""
    text = shorten(" ".join(verdict.text.split()), _MAX_TEXT_CHARS)
    return Finding(verdict.outcome, text, verdict.values, subject.kind, subject.name, check)


def _judge(answer: Verdict | ChildFailed) -> Verdict:
    if isinstance(answer, Verdict):
        return answer
    return failed(answer.message)


def _run_checks(send: Callable[[Any], None], names: Sequence[str], subject: Subject, folder: str) -> None:
    """Send the verdict of each check. Runs in a child process."""
    from xbench.conformance.child import open_checks

    checks = open_checks(subject, Path(folder))
    for name in names:
        send(checks(name))


def _find_kinds(send: Callable[[Any], None], name: str, dirs: ImportDirs) -> tuple[Kind, ...]:
    from xbench.components.kinds import list_kinds

    return list_kinds(name, import_reference("component", name, dirs))


def _list_members(subject: Subject) -> list[Subject]:
    """List the members of a family; of any other component, the component itself.

    Raises:
        XbenchError: the family cannot list its members.
    """
    registration = find(subject.kind, subject.name)
    try:
        component = registration.load() if registration else None
    except XbenchError:
        return [subject]  # its first check says why it cannot be loaded
    if registration is None or not isinstance(component, Family):
        return [subject]
    if member := subject.name.partition("/")[2]:
        registration.check_member(component, member)
        return [subject]
    if component.members is None:
        raise XbenchError(
            f"'{subject.name}' is a family of {subject.kind}s that does not list its members",
            hint=f"name one of them as `{subject.name}/NAME`",
        )
    return [replace(subject, name=f"{subject.name}/{member}") for member in component.members()]
