"""Find the suites that come with xbench, which can be run by name."""

from __future__ import annotations

from pathlib import Path

# Part of the package; in a clone, a link to the folder `suites`.
_FOLDER = Path(__file__).parents[1] / "shipped_suites"


def shipped_suites() -> dict[str, Path]:
    """Return the files of the shipped suites by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def describe_suite(path: Path) -> str:
    """Return the first sentence of the comment that a suite's file begins with; "" if it has none."""
    words = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.startswith("#") or not line.strip("# \n"):
                break
            words += line.strip("# \n").split()
            ends = (place for place, word in enumerate(words) if word.endswith((".", "?")))
            if (end := next(ends, None)) is not None:
                return " ".join(words[: end + 1]).removesuffix(".")
    return " ".join(words)


def find_suite(given: Path) -> Path:
    """Return the given path if it exists, or else the shipped suite of that name, if there is one."""
    return given if given.exists() else shipped_suites().get(str(given), given)
