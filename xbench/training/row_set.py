"""The rows of a `RowDataset` in a process: its factory is called, and rows are read by position."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate, default_convert

from xbench.components.image_dataset import Dataset
from xbench.components.metric import Batch, Split
from xbench.components.tasks import RowDataset, Rows, Task
from xbench.components.tracebacks import describe_error
from xbench.errors import XbenchError
from xbench.training.global_state import guard_globals, load_component
from xbench.training.nested import (
    convert,
    count_bytes,
    hash_nested,
    list_leaves,
    list_tensors,
    map_tensors,
)
from xbench.training.seeding import seed_everything

# Rows by which a process checks that it has the same ones as the process that prepared them.
_CHECKED_ROWS = 8

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class RowSource(ABC):
    """Rows of one split and term."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, positions: np.ndarray) -> Batch:
        """Return the batch of rows at (n,) int64 positions."""

    def load_sized(self, positions: np.ndarray) -> tuple[Batch, np.ndarray]:
        """Load rows; also return the bytes of each."""
        batch = self.load(positions)
        return batch, np.full(len(positions), count_bytes(batch) // len(positions))

    def converted(self, dtype: torch.dtype) -> RowSource:
        """Return the rows with floating-point tensors in memory converted to a dtype."""
        return self

    @property
    def resident_bytes(self) -> int:
        """Bytes of all rows, if they are in memory as tensors; otherwise 0."""
        return 0


class TensorSource(RowSource):
    """Rows of nested tensors."""

    def __init__(self, tensors: Batch):
        self._tensors = map_tensors(torch.Tensor.detach, tensors)
        sizes = {len(tensor) if tensor.ndim else -1 for tensor in list_tensors(tensors)}
        if len(sizes) != 1 or -1 in sizes:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in list_tensors(tensors))
            raise XbenchError(f"its tensors do not have the same number of rows: {shapes}")
        self._size = sizes.pop()

    def __len__(self) -> int:
        return self._size

    def load(self, positions: np.ndarray) -> Batch:
        chosen = torch.from_numpy(positions)
        return map_tensors(lambda tensor: tensor.index_select(0, chosen), self._tensors)

    def converted(self, dtype: torch.dtype) -> RowSource:
        return TensorSource(convert(self._tensors, dtype))

    @property
    def resident_bytes(self) -> int:
        return count_bytes(self._tensors)


class MapSource(RowSource):
    """Rows of a map-style dataset, such as a `torch.utils.data.Dataset`."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Batch]):
        self._dataset, self._collate = dataset, collate

    def __len__(self) -> int:
        return len(self._dataset)

    def load(self, positions: np.ndarray) -> Batch:
        return self._collate([self._dataset[position] for position in positions.tolist()])

    def load_sized(self, positions: np.ndarray) -> tuple[Batch, np.ndarray]:
        rows = [self._dataset[position] for position in positions.tolist()]
        return self._collate(rows), np.array([count_bytes(default_convert(row)) for row in rows])


class ReaderSource(RowSource):
    """Rows of a `BatchReader`."""

    def __init__(self, reader: Any):
        self._reader = reader

    def __len__(self) -> int:
        return len(self._reader)

    def load(self, positions: np.ndarray) -> Batch:
        return self._reader.read(positions)


def open_rows(rows: Rows, collate: Callable[[list[Any]], Batch] | None) -> RowSource:
    """Open rows of any kind.

    Tensors in a tuple or a dict are columns. A list is a map-style dataset: its items are rows.

    Raises:
        XbenchError: they are of no such kind, or the tensors have different numbers of rows.
    """
    dataset = rows.dataset if isinstance(rows, DataLoader) else rows
    if isinstance(dataset, IterableDataset):
        raise XbenchError(
            f"its rows are an iterable dataset ({type(dataset).__name__}), which cannot be read by position",
            hint="give a map-style dataset, with `__len__` and `__getitem__`",
        )
    if isinstance(rows, DataLoader):
        if rows.batch_sampler is None:
            raise XbenchError(
                "its DataLoader does not make batches (batch_size=None)",
                hint="give a map-style dataset of single rows, or an object with `__len__` and "
                "`read(positions)`",
            )
        return MapSource(rows.dataset, collate or rows.collate_fn)
    if hasattr(rows, "read") and hasattr(rows, "__len__"):
        return ReaderSource(rows)
    is_nested = isinstance(rows, torch.Tensor | Mapping | tuple)
    if is_nested and any(isinstance(leaf, np.ndarray) for leaf in list_leaves(rows)):
        raise XbenchError("its rows hold a NumPy array", hint="make a tensor of it: torch.from_numpy(array)")
    if is_nested and any(True for _ in list_tensors(rows)):
        return TensorSource(rows)
    if not is_nested and hasattr(rows, "__getitem__") and hasattr(rows, "__len__"):
        return MapSource(rows, collate or default_collate)
    raise XbenchError(
        f"its rows are a {type(rows).__name__}",
        hint="give tensors, a map-style dataset, or an object with `__len__` and `read(positions)`",
    )


@dataclass(frozen=True)
class RowSet:
    """All rows of a dataset, numbered over its splits and, within a split, over its terms.

    Attributes:
        task, fingerprint, hold_out, notes: see `RowDataset`.
        sources: the rows of each split and term, in this order.
        places: split, and term ("" if there is only one), of each source.
    """

    task: Task
    fingerprint: str | Callable[[], str]
    hold_out: bool | Literal["end"]
    notes: tuple[str, ...]
    sources: tuple[RowSource, ...]
    places: tuple[tuple[Split, str], ...]

    @classmethod
    def of(cls, dataset: RowDataset) -> RowSet:
        """Open the rows of a dataset.

        Raises:
            XbenchError: rows are of no known kind or missing, or do not fit the task's terms.
        """
        sources: list[RowSource] = []
        places: list[tuple[Split, str]] = []
        notes = list(dataset.notes)
        for split in SPLITS:
            rows = getattr(dataset, split)
            if rows is None:
                continue
            if isinstance(rows, DataLoader):
                notes.append(
                    f"of the DataLoader of {split} rows, the dataset and the collate function are used; "
                    "its sampler, batch size and workers are not"
                )
            first = len(sources)
            for term, of_term in _by_term(dataset, split, rows).items():
                sources.append(open_rows(of_term, dataset.collate))
                places.append((split, term))
            if split != "train" and not any(map(len, sources[first:])):
                notes.append(f"its {split} split has no rows, and counts as not given")
        if not any(
            len(source) for source, (split, _) in zip(sources, places, strict=True) if split == "train"
        ):
            raise XbenchError("it has no rows to train on")
        if dataset.hold_out not in (True, False, "end"):
            raise XbenchError(f"its hold_out is {dataset.hold_out!r}, not True, False or 'end'")
        if dataset.hold_out == "end" and dataset.task.terms:
            raise XbenchError(
                "its hold_out is 'end', and its task has several terms",
                hint="give validation rows of each term, or set hold_out to True or False",
            )
        return cls(
            task=dataset.task,
            fingerprint=dataset.fingerprint,
            hold_out=dataset.hold_out,
            notes=tuple(notes),
            sources=tuple(sources),
            places=tuple(places),
        )

    def converted(self, dtype: torch.dtype) -> RowSet:
        """Return the rows with tensors in memory converted to a floating-point dtype, once and for all."""
        return replace(self, sources=tuple(source.converted(dtype) for source in self.sources))

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def terms_by_split(self) -> dict[Split, set[str]]:
        """Names of the terms that have rows, by split.

        Without validation rows of the dataset, those of validation are held out of the training rows.
        """
        found: dict[Split, set[str]] = {split: set() for split in SPLITS}
        for source, (split, term) in zip(self.sources, self.places, strict=True):
            if len(source):
                found[split].add(term)
        found["validation"] = found["validation"] or found["train"]
        return found

    @cached_property
    def starts(self) -> np.ndarray:
        """(sources + 1,) number of the first row of each source, and the number of all rows."""
        return np.cumsum([0, *map(len, self.sources)])

    @cached_property
    def _bounds(self) -> list[int]:
        return self.starts.tolist()

    def load(self, positions: np.ndarray) -> dict[str, Batch]:
        """Return rows of one split by term, each as a batch in the order of its positions."""
        ends = int(positions.min()), int(positions.max())
        low, high = (bisect_right(self._bounds, position) - 1 for position in ends)
        if low == high:  # as in every batch of a task with one term
            return {self.places[low][1]: self.sources[low].load(positions - self._bounds[low])}
        which = self._find_sources(positions)
        places = np.unique(which)
        if len({self.places[place][0] for place in places}) > 1:
            raise ValueError("a batch has rows of several splits")
        return {
            self.places[place][1]: self.sources[place].load(positions[which == place] - self.starts[place])
            for place in places
        }

    def _find_sources(self, positions: np.ndarray) -> np.ndarray:
        """Return the place of each row's source."""
        return np.searchsorted(self.starts, positions, side="right") - 1

    @property
    def resident_bytes(self) -> int:
        return sum(source.resident_bytes for source in self.sources)

    def load_sized(self, positions: np.ndarray) -> tuple[str, Batch, np.ndarray]:
        """Load rows of one source.

        Returns:
            Their term, their batch, and the bytes of each row.
        """
        place = int(self._find_sources(positions[:1])[0])
        batch, sizes = self.sources[place].load_sized(positions - self.starts[place])
        return self.places[place][1], batch, sizes

    def name_row(self, position: int) -> str:
        """Name a row by its split and term, as in `row 5 of train`, counted from 0."""
        place = int(self._find_sources(np.array([position]))[0])
        split, term = self.places[place]
        where = f"{split}, term '{term}'" if term else split
        return f"row {position - self._bounds[place]} of {where}"

    def checksum(self, count: int = _CHECKED_ROWS) -> str:
        """Hash a number of spread rows."""
        few = np.unique(np.linspace(0, len(self) - 1, count).astype(np.int64))
        digest = hashlib.sha256(str(len(self)).encode())
        which = self._find_sources(few)
        for place in np.unique(which):  # batches of different sources may differ in shape, as if padded
            hash_nested(digest, self.load_sized(few[which == place])[1])
        return digest.hexdigest()[:24]

    def chunks(self, size: int) -> Iterator[np.ndarray]:
        """Yield the positions of all rows in parts of one source each, of at most `size` rows."""
        for start, end in zip(self.starts, self.starts[1:], strict=False):
            for first in range(start, end, size):
                yield np.arange(first, min(first + size, end))


def _by_term(dataset: RowDataset, split: str, rows: Rows) -> Mapping[str, Rows]:
    terms = dataset.task.terms
    if not terms:
        return {"": rows}
    if not isinstance(rows, Mapping) or not set(rows) <= set(terms) or not rows:
        raise XbenchError(
            f"its {split} rows are not given by term",
            hint=f"the task has several terms: use {split} = {{{', '.join(f'{t!r}: ...' for t in terms)}}}",
        )
    return {term: rows[term] for term in terms if term in rows}


# The last row set, so that several trials in one process call the factory once.
_last: dict[str, RowSet] = {}


def make_dataset(name: str, params: Mapping[str, Any], import_dirs: Sequence[str]) -> Dataset | RowDataset:
    """Call a dataset's factory. The rows of a `RowDataset` are kept for `load_row_set`.

    The factory runs with the generators of torch, NumPy and `random` seeded alike in every process, so that
    one that draws its rows gets the same ones.

    Raises:
        XbenchError: the dataset is broken, or its settings are wrong.
    """
    _last.clear()  # two may not fit into memory
    with guard_globals():
        spec = load_component("dataset", name, import_dirs)
        seed_everything(0)
        try:
            made = spec.load_factory()(**params)
        except (XbenchError, MemoryError):
            raise
        except Exception as error:  # plugins may raise anything
            raise XbenchError(f"dataset '{name}' is broken: {describe_error(error)}") from error
    if isinstance(made, RowDataset):
        try:
            _last[_key(name, params, import_dirs)] = RowSet.of(made)
        except XbenchError as error:
            raise XbenchError(f"dataset '{name}': {error.message}", error.hint) from error
    elif not isinstance(made, Dataset):
        raise XbenchError(
            f"dataset '{name}' returns a {type(made).__name__}",
            hint="its factory must return an xbench.Dataset or an xbench.RowDataset",
        )
    return made


def load_row_set(name: str, params: Mapping[str, Any], import_dirs: Sequence[str]) -> RowSet:
    """Return the rows of a `RowDataset` in this process.

    Raises:
        XbenchError: see `make_dataset`; or the dataset is made of images.
    """
    key = _key(name, params, import_dirs)
    if key not in _last:
        make_dataset(name, params, import_dirs)
    if key not in _last:
        raise XbenchError(f"dataset '{name}' returned rows before, and now images")
    return _last[key]


def _key(name: str, params: Mapping[str, Any], import_dirs: Sequence[str]) -> str:
    return repr((name, sorted(params.items()), import_dirs))
