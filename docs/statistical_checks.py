"""Check claims and intervals by simulation, and write the tables of docs/statistics.md.

Run `python docs/statistical_checks.py`; it takes some minutes. The simulated figures go through the code that
makes the findings of a run. The generator is fixed, so the tables do not change unless that code does.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from xbench.records.aggregate import Interval, interval
from xbench.records.schema import CellRecord, MetricRecord
from xbench.records.store import RunFolder
from xbench.report.columns import Column
from xbench.report.effects import paired_effect
from xbench.report.findings import make_findings
from xbench.report.fit import is_equal
from xbench.report.marks import find_marks
from xbench.report.rows import Row, make_main_rows
from xbench.report.sign_flips import MIN_PAIRS
from xbench.text import pluralize

PAGE = Path(__file__).parent / "statistics.md"
START, END = "<!-- tables: written by docs/statistical_checks.py -->\n", "<!-- end of tables -->\n"

# Correlation of two optimizers' figures over seeds, and of two metrics of one cell.
CORRELATION = 0.6

# Rows of the test set of the metric with ties, as of `wine`, and its accuracy.
TEST_ROWS, ACCURACY = 36, 0.97

SEEDS = (2, 3, 4, 5, 6, 8, 10, 15, 20, 30)


@dataclass(frozen=True)
class Metric:
    """A metric whose values are a function of normal numbers.

    Attributes:
        value: returns the values of standard normal numbers, shifted by an effect in standard deviations.
        mean: returns the expected value for an effect.
    """

    title: str
    value: Callable[[np.ndarray, float], np.ndarray]
    mean: Callable[[float], float]


def count_hits(normal: np.ndarray, effect: float) -> np.ndarray:
    rate = ACCURACY - 0.02 * effect
    return stats.binom.ppf(stats.norm.cdf(normal), TEST_ROWS, rate) / TEST_ROWS


METRICS = (
    Metric("normal", lambda z, effect: 0.9 + 0.02 * (z + effect), lambda effect: 0.9 + 0.02 * effect),
    Metric(
        "skewed: lognormal, s = 0.5",
        lambda z, effect: np.exp(0.5 * z) + effect,
        lambda effect: math.exp(0.125) + effect,
    ),
    Metric(
        "strongly skewed: lognormal, s = 1",
        lambda z, effect: np.exp(z) + effect,
        lambda effect: math.exp(0.5) + effect,
    ),
    Metric(
        f"ties: accuracy {ACCURACY} of {TEST_ROWS} rows", count_hits, lambda effect: ACCURACY - 0.02 * effect
    ),
)


# Parts of seeds that are combined: of weights, and of the order of examples.
def cross(weights: int, orders: int) -> tuple[tuple[int, ...], ...]:
    return tuple((weight, 0, order) for weight in range(weights) for order in range(orders))


CROSSED = {
    "3 initial weights and 5 orders of batches": cross(3, 5),
    "2 initial weights and 3 orders of batches": cross(2, 3),
}


def draw(
    random: np.random.Generator, columns: int, metrics: int, parts: Sequence[tuple[int, ...]]
) -> np.ndarray:
    """Draw standard normal numbers of a table: (columns, metrics, seeds).

    Columns share a part of the noise of each seed, and metrics a part of the noise of each cell. Seeds that
    share a part of their seeds share noise as well.
    """
    noise = draw_noise(random, (columns, metrics), parts)
    shared_by_columns = draw_noise(random, (1, metrics), parts)
    cells = math.sqrt(CORRELATION) * draw_noise(random, (columns, 1), parts)
    cells = cells + math.sqrt(1 - CORRELATION) * noise
    return math.sqrt(CORRELATION) * shared_by_columns + math.sqrt(1 - CORRELATION) * cells


def draw_noise(
    random: np.random.Generator, shape: tuple[int, int], parts: Sequence[tuple[int, ...]]
) -> np.ndarray:
    """Draw normal noise for seeds: an equal share for each of their varied parts, and one for each seed."""
    labels = [np.unique(of_part, return_inverse=True)[1] for of_part in zip(*parts, strict=True)]
    varied = [numbers for numbers in labels if 0 < numbers.max() < len(parts) - 1]
    shares = [random.standard_normal((*shape, numbers.max() + 1))[..., numbers] for numbers in varied]
    shares.append(random.standard_normal((*shape, len(parts))))
    return sum(shares) / math.sqrt(len(shares))


def make_rows(count: int) -> list[Row]:
    """Make the rows of metrics for which higher values are better."""
    declared = [
        MetricRecord(name=f"metric_{place}", title=f"metric {place}", direction="max", split="test")
        for place in range(count)
    ]
    return [row for row in make_main_rows(declared)[:count] if isinstance(row, Row)]


def make_columns(values: np.ndarray, rows: Sequence[Row], parts: Sequence[tuple[int, ...]]) -> list[Column]:
    """Make the columns of a table from its values, (columns, metrics, seeds)."""
    seeds = tuple(range(len(parts)))
    return [
        Column(
            f"column {place}",
            len(parts),
            (),
            {
                row.key: interval(one.tolist(), seeds, tuple(parts))
                for row, one in zip(rows, of_column, strict=True)
            },
        )
        for place, of_column in enumerate(values)
    ]


def same_parts(count: int) -> list[tuple[int, ...]]:
    return [(seed, seed, seed) for seed in range(count)]


@dataclass(frozen=True)
class Rate:
    """A share of simulated cases, with the upper end of its two-sided 95 % interval."""

    found: int
    of: int

    @property
    def upper(self) -> float:
        """The end of the interval of Clopper and Pearson (1934)."""
        if self.found == self.of:
            return 1.0
        return float(stats.beta.ppf(0.975, self.found + 1, self.of - self.found))

    def __str__(self) -> str:
        return f"{self.found / self.of:.1%}"


def count_false_claims(
    metric: Metric,
    parts: Sequence[tuple[int, ...]],
    tables: int,
    columns: int = 2,
    metrics: int = 1,
    effect: float = 0.0,
    seed: int = 0,
) -> tuple[Rate, Rate]:
    """Count the tables with a claim of a difference, and those with a figure that is marked as worse.

    Args:
        columns: number of optimizers, of which the first is the baseline.
        effect: what the second column is better by; 0 for equal optimizers.

    Returns:
        The share of tables with a finding that claims a difference, and of those with a figure that is
        neither best nor marked as not significantly different from the best.
    """
    random, rows = np.random.default_rng(seed), make_rows(metrics)
    claims = worse = 0
    for _ in range(tables):
        normal = draw(random, columns, metrics, parts)
        values = np.stack([metric.value(z, effect * (place == 1)) for place, z in enumerate(normal)])
        found = make_columns(values, rows, parts)
        claims += any(finding.is_better is not None for finding in make_findings(found, rows, "column 0"))
        marks = find_marks(rows, found).values()
        worse += any(found.best and len(found.best | found.alike) < columns for found in marks)
    return Rate(claims, tables), Rate(worse, tables)


def count_false_claims_of_run(
    records: Sequence[CellRecord], metrics: Sequence[MetricRecord], seeds: int, tables: int
) -> tuple[dict[str, Rate], Rate]:
    """Count false claims in tables of two columns whose seeds are drawn from the cells of one optimizer.

    Returns:
        For each metric, the share of tables with a claim if it is the only metric; and that of tables of all.
    """
    random = np.random.default_rng(seeds)
    rows = [row for row in make_main_rows(metrics)[: len(metrics)] if isinstance(row, Row)]
    known = {row: [value for r in records if (value := row.value(r)) is not None] for row in rows}
    rows = [row for row, values in known.items() if len(values) == len(records)]
    claims, of_tables = dict.fromkeys((row.key for row in rows), 0), 0
    for _ in range(tables):
        chosen = random.permutation(len(records))[: 2 * seeds].reshape(2, seeds)
        values = np.array([[[known[row][place] for place in one] for row in rows] for one in chosen])
        columns = make_columns(values, rows, same_parts(seeds))
        for row in rows:
            (finding,) = make_findings(columns, [row], "column 0")
            claims[row.key] += finding.is_better is not None
        of_tables += any(found.is_better is not None for found in make_findings(columns, rows, "column 0"))
    return {key: Rate(count, tables) for key, count in claims.items()}, Rate(of_tables, tables)


def describe_run(folder: Path) -> str:
    """Return a table of the false claims about one optimizer, in tables made of the cells of a run."""
    run, records = RunFolder(folder).read()
    done = [record for record in records if record.status == "done"]
    counts = (3, 5, 10, 20)
    rates = [count_false_claims_of_run(done, run.metrics, n, 2000) for n in counts]
    titles = {metric.name: metric.title for metric in run.metrics}
    distinct = {key: len({record.metrics[key] for record in done}) for key in rates[0][0]}
    lines = [[titles[key], distinct[key], *(of_metric[key] for of_metric, _ in rates)] for key in rates[0][0]]
    lines.append(["all of them in one table", "", *(of_table for _, of_table in rates)])
    return make_table(["metric", f"distinct values of {len(done)}", *(f"n = {n}" for n in counts)], lines)


@dataclass
class Coverage:
    """How often intervals hold the true value.

    Attributes:
        plain, marked: numbers of intervals without and with a mark, and of those that hold the true value.
        withheld: number of cases without an interval.
    """

    plain: list[int]
    marked: list[int]
    withheld: int = 0

    def add(self, holds: bool | None, is_marked: bool) -> None:
        if holds is None:
            self.withheld += 1
            return
        counts = self.marked if is_marked else self.plain
        counts[0] += 1
        counts[1] += holds

    def __str__(self) -> str:
        total = self.plain[0] + self.marked[0] + self.withheld
        texts = [
            f"{held / count:.0%}{mark} ({count / total:.0%})"
            if count < total
            else f"{held / count:.0%}{mark}"
            for (count, held), mark in ((self.plain, ""), (self.marked, " ≈"))
            if count
        ]
        if self.withheld:
            texts.append(f"none ({self.withheld / total:.0%})")
        return ", ".join(texts)


def cover_means(metric: Metric, seeds: int, cases: int) -> Coverage:
    """Check the intervals of figures: the numbers after ±."""
    random, coverage = np.random.default_rng(seeds), Coverage([0, 0], [0, 0])
    truth = metric.mean(0.0)
    for values in metric.value(random.standard_normal((cases, seeds)), 0.0):
        figure = interval(values.tolist())
        coverage.add(_holds(figure, truth), is_marked=True)
    return coverage


def _holds(figure: Interval, truth: float) -> bool | None:
    if is_equal(figure) or figure.half_width is None:
        return None
    return abs(figure.mean - truth) <= figure.half_width


def cover_differences(metric: Metric, seeds: int, cases: int, effect: float = 1.0) -> Coverage:
    """Check the intervals of differences: the brackets of findings."""
    random, coverage = np.random.default_rng(1000 + seeds), Coverage([0, 0], [0, 0])
    truth, numbers = metric.mean(effect) - metric.mean(0.0), tuple(range(seeds))
    for _ in range(cases):
        ours, theirs = draw(random, 2, 1, same_parts(seeds))[:, 0]
        found = paired_effect(
            "difference",
            interval(metric.value(ours, effect).tolist(), numbers),
            interval(metric.value(theirs, 0.0).tolist(), numbers),
        )
        assert found is not None and found.low is not None and found.high is not None
        rounding = 1e-12
        holds = None if found.method == "constant" else found.low - rounding <= truth <= found.high + rounding
        coverage.add(holds, seeds < MIN_PAIRS and found.method == "t")
    return coverage


COVERS: dict[str, Callable[[Metric, int, int], Coverage]] = {
    "of a figure (±)": cover_means,
    "of a difference (brackets)": cover_differences,
}


def make_coverage_line(cover: Callable[[Metric, int, int], Coverage], seeds: int, cases: int) -> list[object]:
    return [seeds, *(cover(metric, seeds, cases) for metric in METRICS)]


def make_table(header: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    rows = [header, [":---", *["---:"] * (len(header) - 1)], *lines]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def write_sections(scale: float) -> Iterator[str]:
    """Yield the sections of the page.

    Args:
        scale: share of the simulated cases that are run.
    """
    many = max(1, int(10_000 * scale))
    yield "### Equal optimizers: one comparison\n\n"
    yield f"Share of {many:,} comparisons that claim a difference.\n\n"
    lines = []
    for metric in METRICS:
        rates = [count_false_claims(metric, same_parts(n), many)[0] for n in (2, 3, 5, 10, 20)]
        lines.append([metric.title, *rates, f"{max(rate.upper for rate in rates):.2%}"])
    yield make_table(["metric", *(f"n = {n}" for n in (2, 3, 5, 10, 20)), "largest upper bound"], lines)
    yield "\nThe same for seeds that share parts:\n\n"
    lines = []
    for title, parts in CROSSED.items():
        rates = [count_false_claims(metric, parts, many)[0] for metric in (METRICS[0], METRICS[3])]
        lines.append([title, *rates, f"{max(rate.upper for rate in rates):.2%}"])
    yield make_table(["seeds", METRICS[0].title, METRICS[3].title, "largest upper bound"], lines) + "\n"

    tables = max(1, int(2_000 * scale))
    yield (
        f"### Equal optimizers: whole tables\n\nShare of {tables:,} tables of n = 5 seeds with any claim, or "
        "any figure that is neither ★ nor `~`.\n\n"
    )
    lines = []
    for columns, metrics in ((3, 4), (6, 4), (10, 1)):
        for metric in (METRICS[0], METRICS[3]):
            found = count_false_claims(metric, same_parts(5), tables, columns, metrics)
            bounds = (f"{rate.upper:.2%}" for rate in found)
            lines.append(
                [f"{columns} optimizers, {pluralize(metrics, 'metric')}", metric.title, *found, *bounds]
            )
    header = ["table", "metric", "any claim", "any worse", "at most", "at most"]
    yield make_table(header, lines)

    yield (
        f"\n### Power\n\nShare of {tables:,} tables that claim a difference in a normal metric. Its size is "
        "given in standard deviations of the difference within a seed.\n\n"
    )
    lines = []
    deviation = math.sqrt(2 * (1 - CORRELATION))
    for size in (0.5, 1.0, 2.0, 4.0):
        effect = size * deviation
        rates = [count_false_claims(METRICS[0], same_parts(n), tables, effect=effect)[0] for n in SEEDS[1:]]
        lines.append([size, *rates])
    yield make_table(["difference", *(f"n = {n}" for n in SEEDS[1:])], lines)

    cases = max(1, int(4_000 * scale))
    for title, cover in COVERS.items():
        yield (
            f"\n### Coverage of the interval {title}\n\nShare of {cases:,} intervals that hold the true "
            "value. Those marked ≈ are printed as approximate. In parentheses: their share, if not all "
            "are of one kind.\n\n"
        )
        lines = [make_coverage_line(cover, n, cases) for n in SEEDS]
        yield make_table(["n", *(metric.title for metric in METRICS)], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cases; below 1, only print")
    parser.add_argument("--run", type=Path, help="only print false claims about one optimizer, of this run")
    arguments = parser.parse_args()
    if arguments.run:
        print(describe_run(arguments.run))
        return
    scale = arguments.scale
    text = "".join(write_sections(scale))
    if scale < 1:
        print(text)
        return
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
