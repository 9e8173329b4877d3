"""Decide which columns' times must not be ranked with those of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from xbench.records.schema import CellRecord

Columns = Mapping[str, Sequence[CellRecord]]


def find_unranked_times(columns: Columns) -> dict[str, str]:
    """Find columns that were timed under different conditions from the rest: on another device or processor
    model, with a malloc that returns freed memory at once, or while other programs used the CPU.

    Only cells that are done count. Columns are compared with the device that most of them used. If there is a
    tie between devices, no column is ranked.

    Args:
        columns: column -> its records.

    Returns:
        Column -> why its times must not be ranked, as a clause that follows "because". Columns that may be
        ranked are absent.
    """
    done = {
        name: [record for record in records if record.status == "done"] for name, records in columns.items()
    }
    found = (_compare_devices(done), _compare_malloc(done), _find_contention(done))
    reasons = {name: [why[name] for why in found if name in why] for name in columns}
    return {name: "; and ".join(clauses) for name, clauses in reasons.items() if clauses}


def _compare_devices(columns: Columns) -> dict[str, str]:
    devices = {}
    for column, records in columns.items():
        names = [name for record in records for name in _list_devices(record)]
        if names:
            devices[column] = list(dict.fromkeys(names))
    everywhere = list(dict.fromkeys(name for names in devices.values() for name in names))
    if len(everywhere) < 2:
        return {}
    usual = _find_most_common([names[0] for names in devices.values() if len(names) == 1])
    reasons = {}
    for column, names in devices.items():
        if names == [usual]:
            continue
        others = [name for name in everywhere if name not in names]
        reasons[column] = f"they were measured on {' and '.join(names)}"
        if others:
            reasons[column] += f", and others on {' and '.join(others)}"
    return reasons


def _list_devices(record: CellRecord) -> list[str]:
    """List where a cell ran: a resumed cell may have continued on another processor."""
    name = record.device.get("name")
    return record.processors or ([str(name)] if name else [])


def _find_most_common(names: list[str]) -> str | None:
    """Return the name that occurs most often; None if there is a tie or no name."""
    ranked = Counter(names).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def _compare_malloc(columns: Columns) -> dict[str, str]:
    profiles = {name: {r.memory.malloc for r in records} - {None} for name, records in columns.items()}
    if len(set().union(*profiles.values())) < 2:
        return {}
    why = "they were measured with exact malloc settings, which slow small batches"
    return {name: why for name, found in profiles.items() if "exact" in found}


def _find_contention(columns: Columns) -> dict[str, str]:
    reasons = {}
    for name, records in columns.items():
        shares = [record.time.waiting_share or 0.0 for record in records if record.time.was_disturbed]
        if shares:
            reasons[name] = f"other programs kept its cells waiting for {max(shares):.0%} of the time"
    return reasons
