"""Find the runs in a folder of results, by name or by time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from xbench.errors import XbenchError
from xbench.records.store import RunFolder, folder_of_suite
from xbench.storage.paths import find_blocking_file

# The name of the latest run, and a name followed by how many runs to go back.
_LATEST = "latest"
_EARLIER = re.compile(r"(.+)~(\d{1,6})", re.DOTALL)

_STAMP_LENGTH = len("20260131-120000")


def runs_of_suite(results: Path, suite: str) -> list[RunFolder]:
    """Return the runs of a suite, latest first."""
    return _sort_runs(folder_of_suite(results, suite).glob("[!.]*/run.json"))


def find_run(results: Path, wanted: str | None) -> RunFolder:
    """Find the run that the user wants.

    Args:
        results: folder of all results.
        wanted: a run's folder, its ID, or a suite's name for its latest run; None or `latest` for the latest
            run of all. After a suite's name or `latest`, `~1` stands for the run before, `~2` for the one
            before that.

    Raises:
        XbenchError: the run does not exist, several have this ID, or `results` is a file.
    """
    for folder in (Path(wanted), results / wanted) if wanted else ():
        if (folder / "run.json").is_file():
            return RunFolder(folder)
    wanted_name = wanted or _LATEST
    match = _EARLIER.fullmatch(wanted_name)
    name, back = (match[1], int(match[2])) if match else (wanted_name, 0)
    runs = find_runs(results)
    found = [run for run in runs if name in (run.path.parent.name, _LATEST)]
    if not found:
        found = [run for run in runs if wanted == run.run_id]
        if len(found) > 1:
            names = ", ".join(str(run.path) for run in found)
            raise XbenchError(f"several runs have the ID '{wanted}'", hint=f"name one of {names}")
    if not found:
        what = f"run '{wanted}'" if wanted else "run"
        hint = "create one, for example with `xbench run suites/report.toml`"
        if runs:
            hint += "; `xbench runs` lists those that exist"
        raise XbenchError(f"no {what} in {results}", hint)
    if back >= len(found):
        kept = "is only 1 run" if len(found) == 1 else f"are only {len(found)} runs"
        raise XbenchError(f"no run '{wanted}' in {results}: there {kept}", hint="see `xbench runs`")
    return found[back]


def find_runs(results: Path) -> list[RunFolder]:
    """Find all runs of all suites, latest first. Whether they can be read is not checked.

    Raises:
        XbenchError: `results` is a file.
    """
    if file := find_blocking_file(results):
        raise XbenchError(f"{file} is a file, not a folder", "name the folder of results with --out")
    return _sort_runs(results.glob("*/[!.]*/run.json"))


def _sort_runs(files: Iterable[Path]) -> list[RunFolder]:
    """Return the folders of some `run.json`, latest first."""
    return [RunFolder(run) for run in sorted((file.parent for file in files), key=_start_order, reverse=True)]


def _start_order(run: Path) -> tuple[str, int, str]:
    """Return a sort key. Names are times, with a number for further runs of the same second."""
    return run.name[:_STAMP_LENGTH], len(run.name), run.name
