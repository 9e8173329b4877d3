"""Print the result of `xbench data verify`: damaged files, and images that look alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xbench.cli.activity import ActivityDisplay
from xbench.errors import XbenchError
from xbench.text import escape_controls, pluralize

if TYPE_CHECKING:
    from xbench.data.inventory import Verdict
    from xbench.data.near_copies import NearCopies, RelatedPairs

# Number of names listed per finding; the others are only counted.
_MAX_NAMES = 10


def compare_images(name: str, display: ActivityDisplay) -> NearCopies:
    """Look for near-duplicates in a dataset, as suites use it with its default settings.

    The images are decoded into the cache, unless they are already there.
    """
    # Imported here, so that other commands start quickly.
    from xbench.data.decoded import DecodedDataset
    from xbench.data.near_copies import NearCopies
    from xbench.isolation.ask import ask
    from xbench.isolation.run import Timeouts
    from xbench.planning.datasets import prepare_dataset
    from xbench.training.settings import Choice

    def show(progress: tuple[str, int, int]) -> None:
        step, done, total = progress
        display.report(f"{name}: {step}", done, total)

    # Another process may be decoding the same images, which is waited for.
    patient = Timeouts(hangs_after_s=None)
    try:
        data = ask(prepare_dataset, Choice(name, {}), False, (), on_message=show, timeouts=patient)
    except XbenchError as error:
        return NearCopies(error.message)
    return data.near if isinstance(data, DecodedDataset) else NearCopies("only images are compared, not rows")


def describe_near_copies(near: NearCopies) -> dict[str, Any]:
    """Describe exact copies and near-duplicates as JSON values."""
    from xbench.data.perceptual import HASH_BITS, MAX_DISTANCE

    described: dict[str, Any] = {"exact_copies": vars(near.copies)}
    if near.not_compared:
        return described | {"near_duplicates": {"not_compared": near.not_compared}}
    found = {
        "compared_pairs": near.compared_pairs,
        "hash_bits": HASH_BITS,
        "max_distance": MAX_DISTANCE,
        "max_false_alarms": near.max_false_alarms,
        **vars(near.related),
    }
    return described | {"near_duplicates": found}


def print_near_copies(near: NearCopies) -> None:
    """Print how many images are exact copies or look alike, and name the first of them by where they are."""
    from xbench.data.perceptual import HASH_BITS, MAX_DISTANCE, MAX_FALSE_ALARM_RATE

    if near.copies.counts:
        print(f"exact copies: {pluralize(sum(near.copies.counts.values()), 'pair')}")
        _print_related(near.copies)
    if near.not_compared:
        print(escape_controls(f"near-duplicates were not looked for: {near.not_compared}"))
        return
    found = pluralize(sum(near.related.counts.values()), "pair")
    print(
        f"near-duplicates: {found} of {near.images:,} images ({near.compared_pairs:,} pairs compared; "
        f"perceptual hashes that differ in at most {MAX_DISTANCE} of {HASH_BITS} bits)"
    )
    _print_related(near.related)
    print(
        f"by chance, at most {near.max_false_alarms:,.1f} pairs are expected, if images differ like X-rays "
        f"of different patients ({1e9 * MAX_FALSE_ALARM_RATE:,.0f} in 1,000,000,000)"
    )


def _print_related(pairs: RelatedPairs) -> None:
    from xbench.data.near_copies import ONE_GROUP

    for relation, count in pairs.counts.items():
        if count and relation == ONE_GROUP:
            print(f"{count:,} within a split, a class and a group, which do no harm")
        elif count:
            print(f"{count:,} across {relation}:")
            _print_some([f"{name} ~ {other}" for name, other in pairs.named[relation]], count)


def print_findings(verdict: Verdict) -> None:
    """Print how many files were checked, and the names of those that are not right."""
    if verdict.by_hash:
        print(f"{verdict.checked:,} files compared with the hashes from when they were unpacked")
    else:
        print(f"{verdict.checked:,} images decoded; hashes are unknown, because xbench did not unpack them")
    findings = {
        "missing": verdict.missing_files,
        "changed": verdict.changed_files,
        "not from the archive": verdict.extra_files,
        "unreadable": tuple(f"{file}: {problem}" for file, problem in verdict.unreadable_files.items()),
    }
    for finding, names in findings.items():
        if names:
            print(f"{len(names):,} {finding}:")
            _print_some(names, len(names))


def _print_some(lines: Sequence[str], count: int) -> None:
    """Print the first lines, and how many there are besides."""
    print(*(f"  {escape_controls(line)}" for line in lines[:_MAX_NAMES]), sep="\n")
    if count > _MAX_NAMES:
        print(f"  and {count - _MAX_NAMES:,} more")
