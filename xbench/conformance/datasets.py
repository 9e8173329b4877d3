"""Checks of datasets."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from xbench.components.image_dataset import Dataset
from xbench.components.model_factory import advise_class_count, build_network
from xbench.components.registry import find
from xbench.components.settings import settings_of
from xbench.components.specs import DatasetSpec
from xbench.components.tasks import RowDataset
from xbench.conformance.bench import Data, open_rows
from xbench.conformance.checks import Inapplicable, Verdict, fact, failed, not_applicable, passed
from xbench.conformance.common import Subject, double, run_python
from xbench.data.sample import decode_sample
from xbench.errors import DataNotFound, TaskMistake, XbenchError
from xbench.text import pluralize
from xbench.training.global_state import load_component
from xbench.training.nested import count_bytes, hash_nested
from xbench.training.open_data import run_on_first_row
from xbench.training.prepare_rows import prepare_rows
from xbench.training.row_set import RowSet, load_row_set, make_dataset
from xbench.training.task_checks import check_task as try_task
from xbench.units import format_bytes

# Models that the task of a dataset is tried with, unless one is named.
_MODELS = ("mlp", "gpt-mini", "factorisation", "point")
# Rows that are compared between splits.
_MAX_COMPARED = 5000
_SPREAD_ROWS = 1000

_PRINT_FINGERPRINT = """
import sys
from xbench.conformance.datasets import print_fingerprint
print_fingerprint({path!r})
"""


@dataclass
class CheckedDataset:
    """A dataset that is being checked.

    Attributes:
        folder: folder for caches, which must exist and be empty.
    """

    spec: DatasetSpec
    subject: Subject
    folder: Path

    @cached_property
    def made(self) -> Dataset | RowDataset:
        return self.make()

    def make(self) -> Dataset | RowDataset:
        """Call the factory."""
        try:
            return make_dataset(self.subject.name, self.subject.params, self.subject.dirs)
        except DataNotFound as error:
            raise Inapplicable(f"it is not on this machine: {error.message}") from error

    @property
    def images(self) -> Dataset:
        if not isinstance(self.made, Dataset):
            raise Inapplicable("it does not consist of images")
        return self.made

    @cached_property
    def data(self) -> Data:
        if not isinstance(self.made, RowDataset):
            raise Inapplicable("it consists of images, whose task is classification")
        return open_rows(self.subject.name, self.subject.params, self.subject.dirs)

    @property
    def rows(self) -> RowSet:
        self.data  # noqa: B018 -- says what is wrong with images
        return load_row_set(self.subject.name, self.subject.params, self.subject.dirs)


def open_dataset(spec: DatasetSpec, subject: Subject, folder: Path) -> CheckedDataset:
    return CheckedDataset(spec, subject, folder)


def check_rows(tried: CheckedDataset) -> Verdict:
    """Call the factory twice, and compare what it returns."""
    made = tried.made
    if isinstance(made, Dataset):
        again = tried.make()
        if not isinstance(again, Dataset) or made.examples != again.examples:
            return failed(
                "its factory lists other images when it is called again: sort the files that it lists"
            )
        counts = Counter(f"{e.split}/{made.classes[e.label]}" for e in made.examples)
    else:
        counts = Counter()
        for source, (split, _) in zip(tried.rows.sources, tried.rows.places, strict=True):
            counts[split] += len(source)
        before = tried.rows.checksum(_SPREAD_ROWS)
        tried.make()
        if tried.rows.checksum(_SPREAD_ROWS) != before:
            return failed("its factory returns other rows when it is called again")
    shown = ", ".join(f"{count:,} {part}" for part, count in counts.items())
    compared = ""
    if not isinstance(made, Dataset) and sum(counts.values()) > _SPREAD_ROWS:
        compared = f" ({_SPREAD_ROWS:,} rows compared)"
    return passed(f"returns the same at each call{compared}: {shown}", **counts)


def check_fingerprint(tried: CheckedDataset) -> Verdict:
    """Compute the fingerprint here, and in a new interpreter whose strings have other hashes."""
    path = tried.folder / "subject.pickle"
    path.write_bytes(pickle.dumps(tried.subject))
    tried.made  # noqa: B018 -- says whether it is on this machine
    here = compute_fingerprint(tried.subject)
    done = run_python(_PRINT_FINGERPRINT.format(path=str(path)), PYTHONHASHSEED="1", OMP_NUM_THREADS="1")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return failed(f"cannot be made in a new interpreter: {last}")
    if done.stdout.split()[-1] != here:
        return failed(
            "another process gets other rows, so no result can be taken over: sort what it lists, and do not "
            "depend on the order of a set"
        )
    return passed(f"the same in another process: {here}", fingerprint=here)


def compute_fingerprint(subject: Subject) -> str:
    """Compute what identifies the rows: of images, their names, labels, splits and files, but no pixels."""
    made = make_dataset(subject.name, subject.params, subject.dirs)
    if isinstance(made, Dataset):
        return hashlib.sha256(repr((made.classes, made.shape, made.examples)).encode()).hexdigest()[:24]
    rows = load_row_set(subject.name, subject.params, subject.dirs)
    return prepare_rows(rows, subject.name, subject.params, "").fingerprint


def print_fingerprint(path: str) -> None:
    """Print the fingerprint of a pickled subject."""
    sys.stdout.write(f"{compute_fingerprint(pickle.loads(Path(path).read_bytes()))}\n")


def check_splits(tried: CheckedDataset) -> Verdict:
    """Look for groups and for copies of rows that are on both sides of a split."""
    made = tried.made
    if isinstance(made, Dataset):  # whose constructor has checked that no group is in both splits
        groups = len({example.group for example in made.examples if example.group})
        if groups:
            return passed(f"{groups:,} groups, each within one split", groups=groups)
        return fact("declares no groups, so related images may be in different splits", groups=0)
    rows = tried.rows
    if len(rows) > _MAX_COMPARED:
        return not_applicable(
            f"copies are looked for in at most {_MAX_COMPARED:,} rows, and it has {len(rows):,}"
        )
    trained, held_out = set(), []
    for position in range(len(rows)):
        place = int(np.searchsorted(rows.starts, position, side="right")) - 1
        split = rows.places[place][0]
        digest = hashlib.sha256(rows.places[place][1].encode())
        hash_nested(digest, rows.load_sized(np.array([position]))[1])
        if split == "train":
            trained.add(digest.digest())
        else:
            held_out.append(digest.digest())
    if not held_out:
        return not_applicable("it has training rows only")
    copies = sum(row in trained for row in held_out)
    if copies:
        return fact(
            f"{copies:,} of {len(held_out):,} held-out rows are copies of training rows", copies=copies
        )
    return passed(f"no held-out row is a copy of a training row ({len(held_out):,} compared)", copies=0)


def check_images(tried: CheckedDataset) -> Verdict:
    """Decode a few images of each class."""
    dataset = tried.images
    before = os.environ.get("XBENCH_CACHE_DIR")
    os.environ["XBENCH_CACHE_DIR"] = str(tried.folder)
    try:
        decoded = decode_sample(dataset, tried.subject.name, tried.spec.stand_in)
    finally:
        if before is None:
            del os.environ["XBENCH_CACHE_DIR"]
        else:
            os.environ["XBENCH_CACHE_DIR"] = before
    count = len(set(decoded.rows.tolist())) + len(decoded.unreadable)
    if decoded.unreadable:
        name, reason = decoded.unreadable[0]
        return failed(f"{len(decoded.unreadable)} of {count} images are unreadable; {name}: {reason}")
    return passed(f"{count} of {len(dataset.examples):,} images are readable, of shape {dataset.shape}")


def check_task(tried: CheckedDataset) -> Verdict:
    """Compute the losses and metrics of a few rows with a model that suits the task."""
    data, failures = tried.data, []
    for name in _list_models(tried):
        params = _find_params(name, tried)
        try:
            spec = load_component("model", name, tried.subject.dirs)
            network = build_network(
                spec, data.rows.facts, params, lambda model: run_on_first_row(model, data.rows, data.dirs)
            )
            advice = advise_class_count(spec.load_factory())
            try_task(network, name, tried.rows, data.rows, torch.float32, advice)
            return passed(
                f"its losses and metrics are right on a few rows of each split, with the model '{name}'"
            )
        except TaskMistake as error:
            return failed(error.message)
        except XbenchError as error:
            failures.append(f"'{name}': {error.message}")
    if len(failures) == 1:
        return failed(failures[0])
    return not_applicable("no built-in model suits its task: name one that does with --with")


def check_scales(tried: CheckedDataset) -> Verdict:
    """Make it with larger values of the settings that a probe may vary."""
    if not tried.spec.scalable:
        return not_applicable("declares no scalable settings")
    if not isinstance(tried.made, RowDataset):
        return failed("scalable is for datasets of rows, and it consists of images")
    subject, said, at_end = tried.subject, [], []
    defaults = {**settings_of(tried.spec).defaults, **subject.params}
    for name, scale in tried.spec.scalable.items():
        if name not in defaults:
            return failed(f"scalable names '{name}', which is not a setting with a default")
        present, value = double(name, scale, defaults)
        if value == present:
            at_end.append(f"{name} = {value} is its highest value")
            continue
        before, after = (
            _measure(subject, {**subject.params, name: size, **scale.needs(size)})
            for size in (present, value)
        )
        if after.rows <= before.rows and after.row_bytes <= before.row_bytes:
            return failed(f"with {name} = {value}, neither the number of rows nor their size grows")
        said.append(f"{name} = {value}: {before} -> {after}")
    return passed("; ".join([*said, *at_end])) if said else not_applicable("; ".join(at_end))


class _Size(NamedTuple):
    """Number of rows, and bytes of the first."""

    rows: int
    row_bytes: int

    def __str__(self) -> str:
        return f"{pluralize(self.rows, 'row')} of {format_bytes(self.row_bytes)}"


def _measure(subject: Subject, params: dict[str, Any]) -> _Size:
    rows = load_row_set(subject.name, params, subject.dirs)
    return _Size(len(rows), sum(map(count_bytes, rows.load(np.zeros(1, dtype=np.int64)).values())))


def _list_models(tried: CheckedDataset) -> tuple[str, ...]:
    subject = tried.subject
    if subject.partner:
        return (subject.partner,)
    if find("model", subject.name) or subject.dirs.find_packed("model", subject.name):
        return (subject.name,)
    return _MODELS


def _find_params(model: str, tried: CheckedDataset) -> dict[str, Any]:
    """Return the settings that a model must share with the dataset."""
    if model != "factorisation":
        return {}
    shape = {**settings_of(tried.spec).defaults, **tried.subject.params}.get("shape")
    return {} if shape is None else {"shape": shape}
