"""Find the suites that come with xbench, which can be run by name."""

from __future__ import annotations

from pathlib import Path

# Part of the package; in a clone, a link to the folder `suites`.
_FOLDER = Path(__file__).parents[1] / "shipped_suites"


def shipped_suites() -> dict[str, Path]:
    """Return the files of the shipped suites by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def find_suite(given: Path) -> Path:
    """Return the given path if it exists, or else the shipped suite of that name, if there is one."""
    return given if given.exists() else shipped_suites().get(str(given), given)
