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
    """5,500 comparisons: of three metrics, of few and several seeds, and of seeds that share parts."""
    normal, skewed, _, tied = script.METRICS
    cases = [
        (normal, script.same_parts(3), 2000),
        (skewed, script.same_parts(5), 1000),
        (tied, script.same_parts(8), 1500),
        (normal, script.CROSSED, 1000),
    ]
    claims = [script.count_false_claims(metric, parts, tables)[0] for metric, parts, tables in cases]
    assert sum(rate.of for rate in claims) == 5500
    assert script.Rate(sum(rate.found for rate in claims), 5500).upper < 0.06
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
def test_intervals_that_miss_too_often_are_marked(script, seeds):
    for metric in (script.METRICS[0], script.METRICS[1], script.METRICS[3]):
        for cover in (script.cover_means, script.cover_differences):
            count, held = cover(metric, seeds, 500).plain
            assert held >= 0.9 * count, (metric.title, cover.__name__)


def test_the_page_has_the_tables(script):
    text = (DOCS / "statistics.md").read_text(encoding="utf-8")
    tables = text.split(script.START)[1].split(script.END)[0]
    assert "### Equal optimizers: one comparison" in tables
    bounds = [line.split("|")[-2].strip() for line in tables.splitlines() if line.startswith("| normal |")]
    assert float(bounds[0].rstrip("%")) < 6
