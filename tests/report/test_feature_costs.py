"""What the features of each cell cost, whichever cell computed them."""

from __future__ import annotations

import pytest

from tests.report.report_samples import REAL, cell
from xbench.records.schema import Component, FeaturesRecord, Times
from xbench.report.feature_costs import find_features_s

PRETRAINED = Component(name="vgg16", weights="a hash")
RANDOM = Component(name="vgg16")


def featured(column, seed=0, features_s=None, model=PRETRAINED, precision="float32", **fields):
    return cell(
        column,
        seed,
        model=model,
        features=FeaturesRecord(precision=precision),
        time=Times(features_s=features_s),
        **fields,
    )


def costs(*records) -> list[float | None]:
    found = find_features_s(records)
    return [found.get(record.cell_id) for record in records]


def test_cells_that_share_features_share_their_cost():
    assert costs(featured("sgd", features_s=10.0), featured("adam")) == [10.0, 10.0]


def test_what_is_computed_bit_by_bit_is_summed():
    assert (
        costs(featured("sgd", features_s=10.0), featured("sgd", 1, features_s=2.0), featured("adam"))
        == [12.0] * 3
    )


def test_features_of_random_weights_belong_to_a_seed():
    records = [
        featured("sgd", 0, 10.0, RANDOM),
        featured("sgd", 1, 20.0, RANDOM),
        featured("adam", 0, None, RANDOM),
        featured("adam", 2, None, RANDOM),
    ]
    assert costs(*records) == [10.0, 20.0, 10.0, None]


@pytest.mark.parametrize(
    "other",
    [
        {"precision": "bfloat16"},
        {"dataset": REAL.model_copy(update={"fingerprint": "other"})},
        {"model": Component(name="vgg16", weights="other")},
        {"model": Component(name="resnet18", weights="a hash")},
        {"model": Component(name="vgg16", weights="a hash", params={"train": "head"})},
        {"settings": {"dtype": "float64"}},
    ],
)
def test_other_features_are_not_shared(other):
    assert costs(featured("sgd", features_s=10.0), featured("adam", **other)) == [10.0, None]


def test_a_cell_that_used_none_has_no_cost():
    assert costs(featured("sgd", features_s=10.0), cell("adam", model=PRETRAINED)) == [10.0, None]


def test_a_cell_that_failed_may_have_computed_them():
    assert costs(featured("sgd", features_s=10.0, status="oom"), featured("adam")) == [10.0, 10.0]
