"""Describe and prepare the datasets of a suite. All public functions run in child processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from xbench.components import registry
from xbench.components.classification import classification
from xbench.components.code import code_stamp
from xbench.components.code_files import ImportDirs
from xbench.components.facts import Facts
from xbench.components.image_dataset import Dataset
from xbench.components.specs import DatasetSpec
from xbench.components.tasks import RowDataset
from xbench.components.tracebacks import describe_error
from xbench.data import sample
from xbench.data.decode import DECODING, decode, is_decoded
from xbench.data.decoded import image_facts
from xbench.data.prepared import PreparedData, RowData, count_rows
from xbench.errors import XbenchError
from xbench.memory.exhaustion import evidence_of, exhaustion
from xbench.planning.task_facts import TaskFacts, describe_task, run_functions
from xbench.storage.cache import load, save
from xbench.training.settings import Choice

Send = Callable[[Any], None]

# Namespace of the cache.
_FINGERPRINT_METHODS = "fingerprint methods"


@dataclass(frozen=True)
class DatasetFacts:
    """The facts about a dataset that are known without reading its rows.

    Attributes:
        facts: what a model may know of the data.
        task: the declarations of its task.
        counts: number of rows by `"SPLIT/CLASS"`, or by split if there are no classes.
        has_images: whether its rows are images that are decoded.
        stand_in: what to tell a reader if the data is synthetic; "" for real data.
        licence, citation: see `Source`; "" for data without a source.
    """

    facts: Facts
    task: TaskFacts
    counts: dict[str, int]
    has_images: bool
    stand_in: str
    licence: str = ""
    citation: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty if there are none."""
        return self.task.classes

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row's first tensor: (channels, height, width) of images."""
        return self.facts.input_shape


def describe_row_data(choice: Choice, import_dirs: Sequence[str]) -> RowData:
    from xbench.training.prepare_rows import describe_rows
    from xbench.training.row_set import load_row_set

    spec: DatasetSpec = registry.load("dataset", choice.name, import_dirs)
    rows = load_row_set(choice.name, choice.params, import_dirs)
    with _blame_dataset(choice.name):
        return describe_rows(rows, choice.name, choice.params, spec.stand_in)


@contextmanager
def _blame_dataset(name: str) -> Iterator[None]:
    """Turn an exception of the code that reads rows into an `XbenchError`, unless memory ran out."""
    try:
        yield
    except XbenchError:
        raise
    except Exception as error:
        if exhaustion(evidence_of(error)):
            raise
        raise XbenchError(f"the rows of dataset '{name}' cannot be read: {describe_error(error)}") from error


def describe_dataset(send: Send, choice: Choice, import_dirs: Sequence[str]) -> DatasetFacts:
    """List a dataset.

    Raises:
        DataNotFound: the dataset is not on this machine.
        XbenchError: the dataset's settings are wrong.
    """
    spec, dataset = _make_dataset(choice, import_dirs)
    if isinstance(dataset, RowDataset):
        return _describe_row_dataset(spec, choice, import_dirs)
    counts = Counter(f"{e.split}/{dataset.classes[e.label]}" for e in dataset.examples)
    return DatasetFacts(
        facts=image_facts(
            dataset.shape, len(dataset.classes), sum(e.split == "train" for e in dataset.examples)
        ),
        task=describe_task(classification(dataset.classes, dataset.positive)),
        counts=dict(sorted(counts.items())),
        has_images=True,
        stand_in=spec.stand_in,
        licence=spec.source.licence if spec.source else "",
        citation=spec.source.citation if spec.source else "",
    )


def _describe_row_dataset(spec: DatasetSpec, choice: Choice, import_dirs: Sequence[str]) -> DatasetFacts:
    from xbench.training.row_set import load_row_set

    data, rows = describe_row_data(choice, import_dirs), load_row_set(choice.name, choice.params, import_dirs)
    return DatasetFacts(
        facts=data.facts,
        task=describe_task(
            rows.task,
            has_test=bool(data.is_test.any()),
            has_validation=bool(data.own_validation.any()),
            hold_out=bool(rows.hold_out),
            terms=rows.terms_by_split,
        ),
        counts=count_rows(data),
        has_images=False,
        stand_in=spec.stand_in,
        licence=spec.source.licence if spec.source else "",
        citation=spec.source.citation if spec.source else "",
    )


def prepare_dataset(send: Send, choice: Choice, strict: bool, import_dirs: Sequence[str]) -> PreparedData:
    """Decode a dataset of images into the cache, or weigh and hash rows. Sends (step, done, total)."""
    spec, dataset = _make_dataset(choice, import_dirs)
    code = code_stamp("dataset", choice.name, ImportDirs.of(import_dirs))
    if isinstance(dataset, RowDataset):
        return _prepare_rows(send, spec, choice, code, import_dirs)
    return decode(
        dataset,
        choice.name,
        spec.stand_in,
        strict,
        lambda done, total: send((DECODING, done, total)),
        code,
        on_step=lambda *progress: send(progress),
    )


def _prepare_rows(
    send: Send, spec: DatasetSpec, choice: Choice, code: str, import_dirs: Sequence[str]
) -> RowData:
    from xbench.training.prepare_rows import prepare_rows
    from xbench.training.row_set import load_row_set

    # A slower moment must not change how the fingerprint is made, and with it every cell's identity.
    key = repr((choice, code))
    rows = load_row_set(choice.name, choice.params, import_dirs)
    with _blame_dataset(choice.name):
        data = prepare_rows(
            rows,
            choice.name,
            choice.params,
            spec.stand_in,
            lambda done, total: send(("reading the rows", done, total)),
            load(_FINGERPRINT_METHODS, key),
        )
    save(_FINGERPRINT_METHODS, key, data.fingerprint_method)
    return data


def prepare_sample(send: Send, choice: Choice, import_dirs: Sequence[str]) -> PreparedData:
    """Return the prepared dataset; of images that are not in the cache, only a few are decoded."""
    spec, dataset = _make_dataset(choice, import_dirs)
    code = code_stamp("dataset", choice.name, ImportDirs.of(import_dirs))
    if isinstance(dataset, RowDataset):
        return _prepare_rows(send, spec, choice, code, import_dirs)
    if is_decoded(dataset, code):
        return decode(dataset, choice.name, spec.stand_in, False, lambda done, total: None, code)
    return sample.decode_sample(dataset, choice.name, spec.stand_in, code)


def compute_functions(
    send: Send, choice: Choice, collected: Any, import_dirs: Sequence[str]
) -> dict[str, float]:
    """Compute the metrics of a dataset's task that are functions of collected outputs, by name.

    Raises:
        XbenchError: a function fails, or does not return a number.
    """
    from xbench.training.row_set import load_row_set

    return run_functions(load_row_set(choice.name, choice.params, import_dirs).task, collected)


def _make_dataset(choice: Choice, import_dirs: Sequence[str]) -> tuple[DatasetSpec, Dataset | RowDataset]:
    from xbench.training.row_set import make_dataset

    made = make_dataset(choice.name, choice.params, import_dirs)
    return registry.load("dataset", choice.name, import_dirs), made
