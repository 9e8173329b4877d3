"""Prepare the rows of a `RowDataset`: count, weigh, label and hash them once, before any cell trains."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from xbench.components.metric import Batch
from xbench.components.tasks import Task
from xbench.components.tracebacks import describe_error
from xbench.data.prepared import RowData
from xbench.errors import XbenchError
from xbench.memory.exhaustion import raise_if_exhausted
from xbench.training.global_state import keep_draws_apart, seed_generators
from xbench.training.nested import describe_row, find_nonfinite_rows, hash_nested, list_tensors
from xbench.training.row_set import RowSet

# Rows per chunk. A chunk's rows are hashed together, so another number gives other fingerprints.
_CHUNK = 256
# If hashing all rows takes longer, the fingerprint is that of spread rows.
MAX_HASHING_S = 10.0
_SPREAD_ROWS = 1000
# Rows of each split and term that are read twice.
_CHECKED_ROWS = 8

# What a fingerprint is made of.
DECLARED, ALL, SPREAD = "declared by the dataset", "all rows", "1,000 rows"

OnProgress = Callable[[int, int], None]

_OnePerRow = Callable[[Batch], torch.Tensor]


def describe_rows(rows: RowSet, name: str, params: Mapping[str, Any], stand_in: str) -> RowData:
    """Describe rows without reading more than a few: without weights, labels, sizes and a fingerprint.

    Raises:
        XbenchError: a row differs when it is read again, or a batch does not have a row for each position.
    """
    split_of = np.concatenate(
        [np.full(len(source), split) for source, (split, _) in zip(rows.sources, rows.places, strict=True)]
    )
    names = tuple(rows.task.terms)
    term_of = np.concatenate(
        [
            np.full(len(source), names.index(term) if term else 0)
            for source, (_, term) in zip(rows.sources, rows.places, strict=True)
        ]
    ).astype(np.int64)
    batch = _check_rows(rows, name)
    return RowData(
        name=name,
        params=dict(params),
        notes=rows.notes,
        stand_in=stand_in,
        labels=np.zeros(len(rows), dtype=np.int64),
        is_test=split_of == "test",
        own_validation=split_of == "validation",
        holds_out_end=rows.hold_out == "end",
        classes=rows.task.classes,
        groups=("",) * len(rows),
        names=(),
        fingerprint="",
        fingerprint_method="",
        row=describe_row(batch),
        output=rows.task.output,
        terms=term_of,
        term_names=names,
        weights=None,
        row_bytes=None,
        checked=rows.checksum(),
    )


def prepare_rows(
    rows: RowSet,
    name: str,
    params: Mapping[str, Any],
    stand_in: str,
    on_progress: OnProgress = lambda done, total: None,
    method: str | None = None,
    chunk_rows: int = _CHUNK,
) -> RowData:
    """Describe rows, and add what needs all of them: weights, labels, sizes and the fingerprint.

    Args:
        name, params, stand_in: see `RowData`.
        on_progress: called with (rows read, all rows).
        method: how the fingerprint was made earlier, which is kept; None to choose by the time that it takes.
        chunk_rows: number of rows to read at once. The fingerprint depends on it.

    Raises:
        XbenchError: see `describe_rows`; or weights or labels are not what the task's contract says.
    """
    described = describe_rows(rows, name, params, stand_in)
    task, total = rows.task, len(rows)
    weighs = task.weight is not None or any(term.weight for term in task.terms.values())
    weights, labels = np.ones(total), np.zeros(total, dtype=np.int64)
    sizes = np.zeros(total, dtype=np.int64)
    digest, started = hashlib.sha256(), time.monotonic()
    hashes = not rows.fingerprint and method != SPREAD
    done, nonfinite = 0, []
    with torch.no_grad():
        for chunk in rows.chunks(chunk_rows):
            if not (hashes or weighs or task.classes):
                break
            term, batch, sizes[chunk] = rows.load_sized(chunk)
            if weighs:
                weights[chunk] = _weigh(task, term, batch, len(chunk))
            if task.classes and task.label is not None:
                labels[chunk] = _label(task, task.label, batch, len(chunk))
            if hashes:
                hash_nested(digest, batch)
                nonfinite += chunk[find_nonfinite_rows(batch)].tolist()
                hashes = method == ALL or time.monotonic() - started < MAX_HASHING_S
            done += len(chunk)
            on_progress(done, total)
    if rows.fingerprint:
        fingerprint, method = _get_declared(rows, name), DECLARED
    elif hashes:
        fingerprint, method = digest.hexdigest(), ALL
    else:
        fingerprint, method = rows.checksum(_SPREAD_ROWS), SPREAD
    _check_weights(weights, described)
    odd = _describe_nonfinite(rows, nonfinite)
    parts = [(place, len(source)) for place, source in zip(rows.places, rows.sources, strict=True)]
    declared = _list_declarations(task)
    derived = hashlib.sha256(weights.tobytes() + labels.tobytes()).hexdigest()
    hold_out = "end" if described.holds_out_end else ""
    seen = (fingerprint, parts, declared, derived, described.classes, described.checked, hold_out)
    return replace(
        described,
        notes=(*described.notes, f"{odd}.") if odd else described.notes,
        nonfinite=odd,
        fingerprint=hashlib.sha256(repr(seen).encode()).hexdigest()[:24],
        fingerprint_method=method,
        labels=labels,
        weights=weights if weighs else None,
        row_bytes=sizes if done == total and sizes.min() < sizes.max() else None,
    )


def _describe_nonfinite(rows: RowSet, positions: list[int]) -> str:
    """Name the rows that hold NaN or infinite values; "" if there are none."""
    if not positions:
        return ""
    first = rows.name_row(positions[0])
    if len(positions) == 1:
        return f"1 row holds NaN or infinite values: {first} (from 0)"
    return f"{len(positions):,} rows hold NaN or infinite values; the first is {first} (from 0)"


def _get_declared(rows: RowSet, name: str) -> str:
    """Return the fingerprint that the dataset declares."""
    if isinstance(rows.fingerprint, str):
        return rows.fingerprint
    where = f"dataset '{name}': its `fingerprint`"
    try:
        declared = rows.fingerprint()
    except Exception as error:
        raise XbenchError(f"{where} fails: {describe_error(error)}") from error
    if not isinstance(declared, str) or not declared:
        found = "an empty text" if declared == "" else f"a {type(declared).__name__}"
        raise XbenchError(f"{where} returns {found}", hint="return a text that changes with the rows")
    return declared


def _list_declarations(task: Task) -> tuple[Any, ...]:
    """List what a task declares besides functions, which are part of the dataset's code."""
    terms = [(name, term.scale) for name, term in task.terms.items()]
    metrics = [(metric.name, metric.direction, metric.weighted, metric.on) for metric in task.metrics]
    return (terms, metrics, task.optimum, task.output, task.additive, task.differentiates)


def _check_rows(rows: RowSet, name: str) -> Batch:
    """Read a few spread rows of each split and term by themselves and twice, with other random numbers.

    Returns:
        The batch of the few rows of the first split and term.
    """
    batches = []
    for start, source in zip(rows.starts, rows.sources, strict=False):
        if not len(source):
            continue
        places = np.linspace(0, len(source) - 1, min(len(source), _CHECKED_ROWS)).astype(np.int64)
        _check_batch(_load_seeded(rows, start + places[:1], 0), 1, name)
        batch, again = (_load_seeded(rows, start + places, seed) for seed in (1, 2))
        _check_batch(batch, len(places), name)
        if _hash(batch) != _hash(again):
            raise XbenchError(
                f"dataset '{name}': a row differs when it is read again",
                hint="rows must be the same whenever they are read: move random augmentation into the model",
            )
        batches.append(batch)
    return batches[0]


def _load_seeded(rows: RowSet, positions: np.ndarray, seed: int) -> Batch:
    with keep_draws_apart():
        seed_generators(seed)
        return rows.load_sized(positions)[1]


def _hash(batch: Batch) -> bytes:
    digest = hashlib.sha256()
    hash_nested(digest, batch)
    return digest.digest()


def _check_batch(batch: Batch, count: int, name: str) -> None:
    """Check that each tensor of a batch has as many rows as were asked for."""
    sizes = {len(tensor) if tensor.ndim else 0 for tensor in list_tensors(batch)}
    if sizes != {count}:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in list_tensors(batch)) or "no tensors"
        raise XbenchError(
            f"dataset '{name}': a batch of {count} row{'s' * (count > 1)} has {shapes}",
            hint="the first dimension of each tensor of a batch must count its rows",
        )


def _weigh(task: Task, term: str, batch: Batch, count: int) -> np.ndarray:
    weigh = task.terms[term].weight if term else task.weight
    if weigh is None:
        return np.ones(count)
    return _one_per_row("weight", weigh, batch, count).astype(np.float64)


def _check_weights(weights: np.ndarray, data: RowData) -> None:
    wrong = weights[~(np.isfinite(weights) & (weights >= 0))]
    if len(wrong):
        raise XbenchError(
            f"dataset '{data.name}': a row has a weight of {wrong[0]}",
            hint="let `weight` in its Task return finite numbers that are not negative",
        )
    for rows, use in (
        (~data.is_test & ~data.own_validation, "train on"),
        (data.own_validation, "validate on"),
        (data.is_test, "test on"),
    ):
        if rows.any() and not weights[rows].any():
            raise XbenchError(f"dataset '{data.name}': all rows to {use} have a weight of 0")


def _label(task: Task, label: _OnePerRow, batch: Batch, count: int) -> np.ndarray:
    found = _one_per_row("label", label, batch, count)
    if not np.issubdtype(found.dtype, np.integer):
        raise XbenchError(
            f"the task's `label` returns {found.dtype} values, not integers",
            hint="convert class labels to int64: `labels.long()`",
        )
    if found.min() < 0 or found.max() >= len(task.classes):
        wrong = found.min() if found.min() < 0 else found.max()
        raise XbenchError(
            f"the task's `label` returns {wrong}, and its {len(task.classes)} classes are numbered from 0 to "
            f"{len(task.classes) - 1}"
        )
    return found


def _one_per_row(what: str, function: _OnePerRow, batch: Batch, count: int) -> np.ndarray:
    try:
        found = function(batch)
    except Exception as error:
        raise_if_exhausted(error)
        raise XbenchError(f"the task's `{what}` fails: {describe_error(error)}") from error
    if not isinstance(found, torch.Tensor) or tuple(found.shape) != (count,):
        kind = f"a {type(found).__name__}"
        if isinstance(found, torch.Tensor):
            kind = f"a tensor of shape {tuple(found.shape)}"
        raise XbenchError(
            f"the task's `{what}` returns {kind} for {count} rows, not a tensor of shape ({count},)",
            hint=f"return one number for each row; a constant is torch.full((n,), {what}) for a batch of n "
            "rows",
        )
    return found.cpu().numpy()
