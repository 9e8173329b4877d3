"""Measure the optimizers of the suite `optimizer-memory`, and write the tables of docs/optimizer-memory.md.

Run `python docs/optimizer_memory.py`. It leaves out optimizers whose plugin is not installed. After an
interrupt, the same command resumes: cells and checks that have ended are not repeated. With `--from RUN`, the
tables are written from a run that has ended, and nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xbench
from xbench.components.registry import find
from xbench.components.specs import Family
from xbench.records.schema import CellRecord, RunRecord
from xbench.records.store import RunFolder
from xbench.storage.atomic import atomic_write
from xbench.units import format_bytes

if TYPE_CHECKING:
    from xbench.conformance.checks import Finding

DOCS = Path(__file__).parent
SUITE = DOCS.parent / "suites" / "optimizer-memory.toml"
PAGE = DOCS / "optimizer-memory.md"
START, END = "<!-- tables: written by docs/optimizer_memory.py -->\n", "<!-- end of tables -->\n"

# The checks of `xbench plugins check` that the tables show, each with the value that answers it.
CHECKS = {"resume": "resumes", "repeats": "repeats"}

MAX_REASON_CHARS = 200

# A state that differs from theory by more than this, in vectors and as a share, is set in bold.
TOLERANCE = 0.02

# Where a mistake is, and what it is: "experiment[1].optimizer[0].name[2]: unknown optimizer 'x'".
_MISTAKE = re.compile(r"experiment\[(\d+)]\.optimizer\[(\d+)](?:\.name\[(\d+)])?[\w.\[\]-]*: (.*)", re.DOTALL)


HEAD = (
    "| optimizer | state | in theory | peak | step | closures | resumes | repeats |",
    "| --- | ---: | ---: | ---: | ---: | ---: | :---: | :---: |",
)

# The end of the message that there are more mistakes than are shown.
_MORE = "mistakes are shown"


@dataclass
class Kept:
    """What a run does not record: a JSON file beside the runs, which is written as each check ends.

    Attributes:
        checks: check name -> an answer ("yes", "no", or "?" if the check failed) and a reason unless it is
            "yes", by cell ID. A check that does not apply is absent.
        left_out: the reason for each optimizer that was not run, by name.
        versions: versions of the packages that the plugins need, by name.
    """

    path: Path
    checks: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Kept:
        """Read the file beside a run's folder; empty if there is none."""
        path = folder.parent / "checks.json"
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return cls(path, **content)

    def write(self) -> None:
        content = {"checks": self.checks, "left_out": self.left_out, "versions": self.versions}
        atomic_write(self.path, json.dumps(content, indent=1).encode())


def measure(suite: dict[str, Any], out: Path) -> tuple[Path, dict[str, str]]:
    """Run the suite without the optimizers that cannot be used.

    Returns:
        The run's folder, and the reason for each optimizer that was left out, by name.

    Raises:
        xbench.XbenchError: the suite cannot run, for another reason than its optimizers.
    """
    unknown = {name for name in list_all(suite) if find("optimizer", name) is None}
    suite = drop(suite, unknown)
    families = {f"{name.partition('/')[0]}/..." if "/" in name else name for name in unknown}
    left_out = dict.fromkeys(families, "its plugin is not installed")
    while True:
        try:
            return xbench.run(suite, out=out).folder, left_out
        except xbench.Mistakes as mistakes:
            messages = [one.message for one in mistakes.mistakes if not one.message.endswith(_MORE)]
            culprits = [name_culprit(suite, message) for message in messages]
            reasons = dict(culprit for culprit in culprits if culprit is not None)
            if not reasons or None in culprits:
                raise
            left_out |= reasons
            suite = drop(suite, reasons)


def name_culprit(suite: Mapping[str, Any], message: str) -> tuple[str, str] | None:
    """Return the name of the optimizer that a mistake is about, and what is wrong.

    Returns:
        None if the mistake is about anything else.
    """
    found = _MISTAKE.fullmatch(message)
    if found is None:
        return None
    experiment, table, place, reason = found.groups()
    names = suite["experiment"][int(experiment)]["optimizer"][int(table)]["name"]
    if isinstance(names, str):
        return names, reason
    if place is not None:
        return names[int(place)], reason
    # A complaint of a trial: "experiment[1].optimizer[0]: optimizer 'x': it raised ...".
    name, _, complaint = reason.removeprefix("optimizer '").partition("'")
    return (name, complaint.lstrip(": ")) if name in names else None


def drop(suite: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return a suite without some optimizers, and without the experiments that have no others."""
    names, experiments = set(names), []
    for experiment in suite["experiment"]:
        tables = []
        for table in experiment["optimizer"]:
            kept = [name for name in list_names({"optimizer": [table]}) if name not in names]
            if kept:
                tables.append({**table, "name": kept if len(kept) > 1 else kept[0]})
        if tables:
            experiments.append({**experiment, "optimizer": tables})
    return {**suite, "experiment": experiments}


def list_refused(suite: Mapping[str, Any]) -> dict[str, str]:
    """Return why members of the suite's families are not in the suite, by name."""
    listed, refused = list_all(suite), {}
    for prefix in sorted({name.partition("/")[0] for name in listed if "/" in name}):
        registration = find("optimizer", prefix)
        family = registration.load() if registration else None
        members = family.members() if isinstance(family, Family) and family.members else ()
        for member in members:
            name = f"{prefix}/{member}"
            if name in listed:
                continue
            try:
                spec = family.load_member(member)
            except xbench.XbenchError as error:
                refused[name] = error.message
                continue
            own = find("optimizer", member)
            if own is None or own.load() != spec:  # not one of torch's
                refused[name] = "it is not in the suite"
    return refused


def list_all(suite: Mapping[str, Any]) -> set[str]:
    """Return the names of all optimizers of a suite."""
    return {name for experiment in suite["experiment"] for name in list_names(experiment)}


def list_names(experiment: Mapping[str, Any]) -> list[str]:
    """Return the names of an experiment's optimizers."""
    tables = [table["name"] for table in experiment["optimizer"]]
    return [name for names in tables for name in ([names] if isinstance(names, str) else names)]


def find_versions(records: Iterable[CellRecord]) -> dict[str, str]:
    """Return the versions of the packages that the optimizers' distributions need, by name."""
    found = {}
    for distribution in {record.optimizer.origin.partition(" ")[0] for record in records} - {"", "xbench"}:
        for requirement in metadata.requires(distribution) or ():
            name = re.split(r"[^\w.-]", requirement)[0]
            if name not in ("torch", "xbench", "pytest"):
                with suppress(metadata.PackageNotFoundError):  # an extra that is not installed
                    found[name] = metadata.version(name)
    return found


def check_all(records: Iterable[CellRecord], kept: Kept) -> None:
    """Check the optimizer of each cell that was measured in time and not checked before."""
    from xbench.conformance.common import Subject
    from xbench.conformance.run import check

    for record in records:
        if record.memory_pass is None or record.status == "timeout" or record.cell_id in kept.checks:
            continue
        print(f"checking {record.column}", file=sys.stderr)
        subject = Subject("optimizer", record.optimizer.name, record.optimizer.params)
        findings = check(subject, list(CHECKS))
        kept.checks[record.cell_id] = {f.check: judge(f) for f in findings if f.outcome != "not applicable"}
        kept.write()


def judge(finding: Finding) -> tuple[str, str]:
    """Return the answer of a check, and a reason unless it is "yes"."""
    answer = finding.values.get(CHECKS[finding.check])
    if answer is None:  # the check ran out of time, or its process died
        return "?", finding.text
    return ("yes", "") if answer else ("no", finding.text)


def write_tables(run: RunRecord, records: Iterable[CellRecord], kept: Kept) -> str:
    """Write a table for each experiment, and a list of the optimizers that are in none, as Markdown."""
    by_id = {record.cell_id: record for record in records}
    # Experiments share the cell of SGD. It is shown in the first of them.
    experiments = {key.cell_id: key.experiment for key in reversed(run.cells)}
    measured = [record for record in by_id.values() if record.memory_pass is not None]
    sgd = next(record for record in measured if record.column == "sgd")
    sections = [describe_run(run, sgd, kept)]
    for experiment in run.experiments:
        cells = [record for record in measured if experiments.get(record.cell_id) == experiment.name]
        rows = [
            write_row(record, sgd, kept.checks.get(record.cell_id, {})) for record in sorted(cells, key=order)
        ]
        if rows:
            sections.append("\n".join([f"### {experiment.title}\n", *HEAD, *rows]))
    unpassed = {
        record.column: "; ".join(why for _, why in kept.checks.get(record.cell_id, {}).values() if why)
        for record in measured
    }
    failed = {r.column: f"{r.status}: {r.reason}" for r in by_id.values() if r.memory_pass is None}
    sections += write_list("Why some do not resume or repeat", unpassed)
    sections += write_list("Not measured", failed | kept.left_out)
    return "\n\n".join(sections) + "\n"


def write_list(title: str, reasons: Mapping[str, str]) -> list[str]:
    """Write a section that names the optimizers for each reason; none if no optimizer has one."""
    names: dict[str, list[str]] = {}
    for name, reason in sorted(reasons.items()):
        if reason:
            names.setdefault(tidy(reason), []).append(f"`{name}`")
    lines = [f"- {', '.join(of_reason)}: {reason}" for reason, of_reason in names.items()]
    return ["\n".join([f"### {title}\n", *lines])] if lines else []


def tidy(reason: str) -> str:
    """Return a reason as one line of limited length, without the colours of a terminal."""
    line = " ".join(re.sub(r"\x1b\[[\d;]*m", "", reason).split())
    return line if len(line) <= MAX_REASON_CHARS else f"{line[:MAX_REASON_CHARS]}..."


def order(record: CellRecord) -> tuple[float, float, str]:
    """Return the key by which rows are sorted: state, peak, name."""
    return round(count_vectors(record, "final_state_bytes"), 2), count_vectors(record), record.column


def count_vectors(record: CellRecord, name: str = "optimizer_peak_bytes") -> float:
    """Return a size of a cell's memory pass in vectors, that is, divided by the size of its parameters."""
    assert record.memory_pass is not None
    return getattr(record.memory_pass, name) / record.memory_pass.parameters_bytes


def write_row(record: CellRecord, sgd: CellRecord, checks: Mapping[str, tuple[str, str]]) -> str:
    """Write the row of one optimizer."""
    state, theory = count_vectors(record, "final_state_bytes"), record.memory.expected_state_vectors
    is_as_expected = theory is None or math.isclose(state, theory, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    step_ms, sgd_ms = record.time.step_ms_median, sgd.time.step_ms_median
    cells = [
        f"`{record.column}`{'' if record.status == 'done' else f' ({record.status})'}",
        f"{state:.2f}" if is_as_expected else f"**{state:.2f}**",
        "" if theory is None else f"{theory:.2f}",
        f"{count_vectors(record):.2f}",
        write_ratio(step_ms / sgd_ms) if step_ms and sgd_ms else "",
        f"{record.closures / record.steps:.3g}" if record.steps else "",
        *(checks.get(name, ("", ""))[0] for name in CHECKS),
    ]
    return f"| {' | '.join(cells)} |"


def write_ratio(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:.0f}"


def describe_run(run: RunRecord, sgd: CellRecord, kept: Kept) -> str:
    """Say when, on what and with which versions the optimizers were measured."""
    versions = {name: run.versions[name] for name in ("xbench", "torch", "python")} | kept.versions
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    threads = f"{sgd.device['threads']} of {sgd.device['cores']} cores"
    size = format_bytes(sgd.memory_pass.parameters_bytes) if sgd.memory_pass else ""
    return (
        f"Measured on {run.started_at[:10]} on a CPU ({run.hardware['cpu']}, {threads}), with {used}. One "
        f"vector is {size}, and a step of SGD takes {sgd.time.step_ms_median:.1f} ms."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of all results")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="RUN", help="folder of a run that has ended"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write")
    arguments = parser.parse_args()
    folder, left_out = arguments.source, None
    if folder is None:
        suite = tomllib.loads(SUITE.read_text(encoding="utf-8"))
        folder, left_out = measure(suite, arguments.out)
        left_out |= list_refused(suite)
    run, records = RunFolder(folder).read()
    kept = Kept.of(folder)
    if left_out is not None:
        kept.left_out, kept.versions = left_out, find_versions(records)
        check_all(records, kept)
        kept.write()
    text = arguments.page.read_text(encoding="utf-8")
    before, after = text.split(START)[0], text.split(END)[1]
    tables = f"{START}\n{write_tables(run, records, kept)}\n{END}"
    arguments.page.write_text(before + tables + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
