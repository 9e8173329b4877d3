"""Claims about equal optimizers are rare, and intervals that often miss the true value are marked."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("statistical_checks", DOCS / "statistical_checks.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_equal_optimizers_are_rarely_told_apart(script):
    """6,000 comparisons: of three metrics, of few and several seeds, and of seeds that share parts."""
    normal, skewed, _, tied = script.METRICS
    cases = [
        (normal, script.same_parts(3), 2000),
        (skewed, script.same_parts(5), 1000),
        (tied, script.same_parts(8), 1500),
        (normal, script.cross(3, 5), 1000),
        (tied, script.cross(2, 3), 500),
    ]
    claims = [script.count_false_claims(metric, parts, tables)[0] for metric, parts, tables in cases]
    assert sum(rate.of for rate in claims) == 6000
    assert script.Rate(sum(rate.found for rate in claims), 6000).upper < 0.06
    assert claims[0].found > 60  # otherwise nothing was tested


def test_tables_of_equal_optimizers_are_rarely_told_apart(script):
    claims, worse = script.count_false_claims(
        script.METRICS[0], script.same_parts(5), 400, columns=6, metrics=3
    )
    assert claims.found / claims.of < 0.06
    assert worse.found / worse.of < 0.06


def test_a_large_difference_is_found(script):
    effect = 4 * (2 * (1 - script.CORRELATION)) ** 0.5
    claims, _ = script.count_false_claims(script.METRICS[0], script.same_parts(5), 200, effect=effect)
    assert claims.found / claims.of > 0.9


@pytest.mark.parametrize("seeds", [2, 5, 6, 10, 30])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_intervals_that_are_not_marked_hold_the_true_value(script, seeds, place):
    """Those of figures are all marked, and so are those of differences of fewer than six seeds."""
    metric = script.METRICS[place]
    means, differences = (
        cover(metric, seeds, 500) for cover in (script.cover_means, script.cover_differences)
    )
    assert means.plain[0] == 0
    if seeds < script.MIN_PAIRS:
        assert differences.plain[0] == 0
    else:
        assert differences.marked[0] == 0
        assert differences.plain[1] >= 0.9 * differences.plain[0] > 400
    for found in (means, differences):
        count, held = (plain + marked for plain, marked in zip(found.plain, found.marked, strict=True))
        assert count + found.withheld == 500
        assert count > 300
        assert held >= 0.88 * count


def test_the_page_has_what_the_script_writes(script):
    """Compared by the line that is computed fastest."""
    title = "of a figure (±)"
    text = (DOCS / "statistics.md").read_text(encoding="utf-8")
    tables = text.split(script.START)[1].split(script.END)[0]
    section = tables.split(f"### Coverage of the interval {title}")[1].split("### ")[0]
    line = script.make_coverage_line(script.COVERS[title], 2, 4000)
    assert script.make_table(["n"], [line]).splitlines()[-1] in section
