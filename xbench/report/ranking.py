"""Decide which columns' times may not be ranked beside those of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from xbench.records.schema import CellRecord

Columns = Mapping[str, Sequence[CellRecord]]


def unranked_times(columns: Columns) -> dict[str, str]:
    """Find columns that were timed under other conditions than the rest: on another device or processor
    model, or with a malloc that returns freed memory at once; and those that other programs slowed down.

    Only cells that are done count. Where no device has the most columns, none is the usual one, and no column
    is ranked.

    Args:
        columns: records by column.

    Returns:
        Column -> why its times are not ranked, to follow "because". Columns that may be ranked are absent.
    """
    done = {
        name: [record for record in records if record.status == "done"] for name, records in columns.items()
    }
    found = (_by_device(done), _by_malloc(done), _by_contention(done))
    reasons = {name: [why[name] for why in found if name in why] for name in columns}
    return {name: "; and ".join(told) for name, told in reasons.items() if told}


def _by_device(columns: Columns) -> dict[str, str]:
    devices = {}
    for column, records in columns.items():
        names = [name for record in records for name in _devices_of(record)]
        if names:
            devices[column] = list(dict.fromkeys(names))
    everywhere = list(dict.fromkeys(name for names in devices.values() for name in names))
    if len(everywhere) < 2:
        return {}
    usual = _most_common([names[0] for names in devices.values() if len(names) == 1])
    reasons = {}
    for column, names in devices.items():
        if names == [usual]:
            continue
        others = [name for name in everywhere if name not in names]
        reasons[column] = f"they were taken on {' and '.join(names)}"
        if others:
            reasons[column] += f", and others on {' and '.join(others)}"
    return reasons


def _devices_of(record: CellRecord) -> list[str]:
    """Where a cell ran: a resumed one may have gone on elsewhere."""
    name = record.device.get("name")
    return record.processors or ([str(name)] if name else [])


def _most_common(names: list[str]) -> str | None:
    """The name that occurs most often; None if there is a tie."""
    ranked = Counter(names).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def _by_malloc(columns: Columns) -> dict[str, str]:
    profiles = {name: {r.memory.malloc for r in records} - {None} for name, records in columns.items()}
    if len(set().union(*profiles.values())) < 2:
        return {}
    why = "they were taken under exact malloc settings, which slow small batches"
    return {name: why for name, found in profiles.items() if "exact" in found}


def _by_contention(columns: Columns) -> dict[str, str]:
    reasons = {}
    for name, records in columns.items():
        shares = [record.time.waiting_share or 0.0 for record in records if record.time.was_disturbed]
        if shares:
            reasons[name] = f"other programs had the CPU for {max(shares):.0%} of the time"
    return reasons
