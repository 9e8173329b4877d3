"""Cells of one experiment and seed start from the same weights and see the same examples, or say that they do
not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.cell_samples import MACHINE, cell_of
from tests.run_samples import record
from xbench.execution.pairing import Pairing, Unpaired
from xbench.records.memory import MemoryRecord
from xbench.records.schema import Component, DataRecord, PairingRecord
from xbench.training.events import Prepared


def start(weights="w", order="o", train_size=40) -> Prepared:
    ran = {"train_size": train_size}
    return Prepared(ran, 8, 2, MemoryRecord(), weights_sha256=weights, order_sha256=order)


def test_the_same_start_is_silent(tiny_data):
    pairing = Pairing()
    for column in ("sgd", "adam"):
        assert pairing.compare(cell_of(tiny_data, column=column), start()) == ""


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (start(weights="x"), "initial weights"),
        (start(order="x"), "order of examples"),
        (start(weights="x", order="y"), "initial weights and order of examples"),
    ],
)
def test_another_start_is_told_with_both_names(tiny_data, other, what):
    pairing = Pairing()
    pairing.compare(cell_of(tiny_data, column="sgd", seed=3), start())
    with pytest.raises(Unpaired, match=f"its {what} differ from those of sgd, seed 3"):
        pairing.compare(cell_of(tiny_data, column="adam", seed=3), other)


def test_what_is_not_to_be_paired_is_not_compared(tiny_data):
    pairing = Pairing()
    pairing.compare(cell_of(tiny_data), start())
    for cell in (
        cell_of(tiny_data, seed=1),
        cell_of(tiny_data, experiment="other"),
        cell_of(tiny_data, model="other"),
        cell_of(tiny_data, dtype="float64"),
        cell_of(tiny_data, balance="oversample"),
        cell_of(tiny_data, validation=0.3),
        replace(cell_of(tiny_data), data=replace(tiny_data, fingerprint="other")),
    ):
        assert pairing.compare(cell, start(weights="x")) == ""
    assert pairing.compare(cell_of(tiny_data), start(weights="x", train_size=20)) == ""


def test_settings_that_move_no_start_do_not_matter(tiny_data):
    pairing = Pairing()
    pairing.compare(cell_of(tiny_data, batch_size=5, epochs=1), start())
    with pytest.raises(Unpaired):
        pairing.compare(cell_of(tiny_data, batch_size="full", epochs=3, micro_batch=8), start(weights="x"))


def test_on_another_processor_it_is_a_note(tiny_data):
    pairing = Pairing()
    pairing.compare(cell_of(tiny_data), start())
    elsewhere = replace(MACHINE, hardware={"cpu": "another processor"})
    note = pairing.compare(replace(cell_of(tiny_data), machine=elsewhere), start(weights="x"))
    assert note.startswith(
        "its initial weights differ from those of opt, seed 0, which were drawn on a processor"
    )


def test_with_other_threads_it_is_a_note(tiny_data):
    pairing = Pairing()
    pairing.compare(cell_of(tiny_data, threads=1), start())
    assert "(1 thread)" in pairing.compare(cell_of(tiny_data, threads=2), start(weights="x"))


def test_cells_of_earlier_processes_count(tiny_data):
    cell = cell_of(tiny_data)
    earlier = record(
        "a",
        column="sgd",
        model=Component(name="net"),
        dataset=DataRecord(requested="d", name="d", fingerprint=tiny_data.fingerprint),
        settings=cell.settings.training.model_dump(),
        ran={"train_size": 40},
        pairing=PairingRecord(weights_sha256="w", order_sha256="o", drawn_on="a processor (2 threads)"),
    )
    assert Pairing([earlier]).compare(cell, start()) == ""
    with pytest.raises(Unpaired, match="those of sgd, seed 0"):
        Pairing([earlier]).compare(cell, start(weights="x"))
