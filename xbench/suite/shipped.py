"""Find the suites that come with xbench, which can be named instead of a file."""

from __future__ import annotations

from pathlib import Path

# Of the package; in a clone it is a link to the folder `suites`.
_FOLDER = Path(__file__).parents[1] / "shipped_suites"


def shipped_suites() -> dict[str, Path]:
    """Return the files of the shipped suites, by their names."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def find_suite(given: Path) -> Path:
    """Return a suite's file: the given one, or the shipped suite of that name where there is no such file."""
    return given if given.exists() else shipped_suites().get(str(given), given)
