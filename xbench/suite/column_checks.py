"""Check the columns of an experiment: their titles, the baseline and the reference."""

from __future__ import annotations

from xbench.components.registry import suggest_name
from xbench.suite.cells import Cell
from xbench.suite.lines import KeyPath
from xbench.suite.problems import Problems
from xbench.suite.reader import Suite
from xbench.suite.schema import Experiment
from xbench.text import match_column, quote_some, shorten


def check_titles(problems: Problems, columns: list[Cell]) -> None:
    """Check that the columns of an experiment have different titles."""
    seen: set[str] = set()
    for column in columns:
        if column.column in seen:
            problems.add(
                column.path,
                f"duplicate column '{shorten(column.column)}' in experiment '{column.experiment}'",
                hint="give one of the optimizers a `label`",
            )
        seen.add(column.column)


def check_baseline(problems: Problems, experiment: Experiment, columns: list[Cell], path: KeyPath) -> None:
    """Check that an experiment has the column that it names as its baseline."""
    names = [column.column for column in columns]
    if experiment.baseline and names and match_column(experiment.baseline, names) is None:
        is_label = any(name.split()[0] == experiment.baseline for name in names)
        problem = "matches several columns" if is_label else "is not a column of this experiment"
        which = f"'{shorten(experiment.baseline)}' {problem}"
        problems.add((*path, "baseline"), f"baseline {which}", f"name one of {quote_some(names)}")


def check_default_baseline(suite: Suite, cells: list[Cell]) -> None:
    """Check that some experiment has the suite's baseline; those that were left out may have it."""
    wanted, is_whole = suite.header.baseline, not suite.is_part
    columns: dict[str, list[str]] = {}
    for cell in cells:
        columns.setdefault(cell.experiment, []).append(cell.column)
    names = [list(dict.fromkeys(found)) for found in columns.values()]
    if wanted and is_whole and names and all(match_column(wanted, found) is None for found in names):
        which = f"'{shorten(wanted)}' matches no column of any experiment, or several columns"
        suite.problems.add(("suite", "baseline"), f"baseline {which}", f"name one of {quote_some(names[0])}")


def check_reference(problems: Problems, experiment: Experiment, columns: list[Cell], path: KeyPath) -> None:
    """Check that an experiment has the columns that its reference names."""
    titles = {title for c in columns for title in (c.column, c.column.split()[0])}
    for name in experiment.reference.columns if experiment.reference and titles else ():
        if problems.is_full:
            return
        if name not in titles:
            guess = suggest_name(name, sorted(titles))
            message = f"this experiment has no column '{shorten(name)}' to compare with.{guess}"
            problems.add((*path, "reference", "columns", name), message)
