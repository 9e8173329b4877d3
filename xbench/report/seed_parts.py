"""Say which parts of seeds vary between the cells of a table."""

from __future__ import annotations

from collections.abc import Iterable

from xbench.records.schema import CellRecord
from xbench.records.seeds import SeedPartsRecord
from xbench.text import pluralize

_NAMES = {"weights": "initial weights", "split": "split", "order": "order of batches"}
_PLURALS = {"weights": "initial weights", "split": "splits", "order": "orders of batches"}


def describe_seed_parts(records: Iterable[CellRecord]) -> str:
    """Describe seeds whose parts vary apart: `n = 5 orders of batches; the same initial weights and split`.

    Returns:
        "" if all parts of a seed are equal, or if there is only one seed.
    """
    found = list(dict.fromkeys(record.seed_parts.key for record in records))
    if len(found) < 2 or all(len(set(parts)) == 1 for parts in found):
        return ""
    columns = dict(zip(SeedPartsRecord.model_fields, zip(*found, strict=True), strict=True))
    counts = {part: len(set(seeds)) for part, seeds in columns.items()}
    varied = [f"{count} {_PLURALS[part]}" for part, count in counts.items() if count > 1]
    same = [_NAMES[part] for part, count in counts.items() if count == 1]
    if len(varied) == 1:
        text = f"n = {varied[0]}"
    else:
        text = (
            f"n = {pluralize(len(found), 'seed')}: combinations of {', '.join(varied[:-1])} and {varied[-1]}"
        )
    return f"{text}; the same {' and '.join(same)}" if same else text
