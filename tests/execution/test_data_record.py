"""The facts about its data and its model that a cell records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.cell_samples import cell_of
from xbench.capacity.axes import Axis, with_size
from xbench.data.duplicates import Duplicates
from xbench.data.near_copies import NearCopies
from xbench.execution.checkpoints import Transcript
from xbench.execution.record import make_record
from xbench.isolation.run import ChildResult
from xbench.planning.datasets import describe_dataset
from xbench.planning.planned import PlannedCell
from xbench.records.schema import DataRecord, MemoryRecord
from xbench.training.events import Prepared
from xbench.training.settings import Choice

PUBLISHED = """
from xbench import Dataset, DatasetSpec, Example, Source

SOURCE = Source(
    url="https://example.org/tiny.zip", sha256="", size_bytes=1, unpacked_bytes=1, counts={}, folder="tiny",
    page="https://example.org", licence="Tiny Licence", citation="Tiny, T. (2026), Two images",
)

def build():
    places = [(split, label) for split in ("train", "test") for label in (0, 1)]
    examples = [Example(f"{split}/{label}", label, split) for split, label in places]
    return Dataset(classes=("a", "b"), positive="b", shape=(1, 2, 2), examples=examples, read=print)

SPEC = DatasetSpec(factory=build, source=SOURCE, find_root=lambda: None)
"""


def data_of(cell: PlannedCell) -> DataRecord:
    return make_record(cell, Transcript(), ChildResult("failed", reason="gone"), "2026-01-31T12:00").dataset


def test_classes_and_the_positive_one(tiny_data):
    record = data_of(cell_of(tiny_data))
    assert (record.classes, record.facts) == (["dark", "bright"], {"positive": "bright"})
    assert record.facts_text == "positive: bright"


def test_parameters_are_counted_by_role_once_the_model_is_built(tiny_data):
    def counts(transcript):
        ending = ChildResult("failed", reason="gone")
        return make_record(cell_of(tiny_data), transcript, ending, "2026-01-31T12:00").parameters_by_role

    prepared = Prepared({}, 8, 2, MemoryRecord(), parameters_by_role={"hidden": 3, "output": 2})
    assert counts(Transcript()) == {}
    assert counts(Transcript(prepared=prepared)) == {"hidden": 3, "output": 2}


def test_copies_are_counted(tiny_data):
    assert (data_of(cell_of(tiny_data)).test_copies, data_of(cell_of(tiny_data)).cross_class_copies) == (0, 0)
    data = replace(tiny_data, duplicates=Duplicates((("t", "a"),), (("a", "b"), ("b", "a")), 30, 120))
    record = data_of(cell_of(data))
    assert (record.test_copies, record.cross_class_copies) == (1, 2)


def test_near_duplicates_are_counted_if_images_were_compared(tiny_data):
    assert tiny_data.near.not_compared
    record = data_of(cell_of(tiny_data))
    assert (record.near_copies, record.cross_class_near_copies) == (None, None)
    near = NearCopies(in_test=(("t", "a"),), across_classes=(("a", "b"), ("b", "a")))
    record = data_of(cell_of(replace(tiny_data, near=near)))
    assert (record.near_copies, record.cross_class_near_copies) == (1, 2)
    none = data_of(cell_of(replace(tiny_data, near=NearCopies())))
    assert (none.near_copies, none.cross_class_near_copies) == (0, 0)


def test_a_training_set_that_was_made_smaller_tells_the_classes_it_lacks(tiny_data):
    labels = np.where(tiny_data.is_test, tiny_data.labels, 0)
    labels[np.flatnonzero(~tiny_data.is_test)[0]] = 1
    data = replace(tiny_data, labels=labels, groups=("",) * len(labels))
    cell = cell_of(data, validation=0.0, selection="last")
    assert data_of(cell).notes == []
    smaller = cell.with_sizes(with_size(cell.sized, Axis.TRAIN_SIZE, 1), "adapted")
    assert data_of(smaller).notes == ["training on 1 example leaves out 'bright'"]


def test_an_old_record_names_no_positive_class():
    old = DataRecord.model_validate({"requested": "folder", "name": "folder", "notes": ["a note"]})
    assert (old.facts_text, old.facts, old.classes, old.test_copies) == ("", {}, [], None)


def test_data_with_a_source_has_its_licence_and_citation(tiny_data, tmp_path):
    (tmp_path / "published_data.py").write_text(PUBLISHED)
    facts = describe_dataset(print, Choice("published_data:SPEC", {}), [str(tmp_path)])
    cell = cell_of(tiny_data)
    record = data_of(replace(cell, resolved=replace(cell.resolved, facts=facts)))
    assert (record.licence, record.citation) == ("Tiny Licence", "Tiny, T. (2026), Two images")


def test_data_without_a_source_has_no_licence(tiny_data):
    assert (data_of(cell_of(tiny_data)).licence, data_of(cell_of(tiny_data)).citation) == ("", "")
