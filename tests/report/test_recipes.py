"""Recipes in tables and notes: shown where they are not the default, whatever the other columns have."""

from __future__ import annotations

import json

import pytest

from tests.report.forms import document_of, to_text
from tests.report.report_samples import cell, run
from xbench.records.schema import CellRecord
from xbench.report.comparison import comparisons
from xbench.report.emit import to_csv, to_json, to_markdown
from xbench.report.settings import RECIPE_DEFAULTS, show_value
from xbench.training.settings import RECIPE_KEYS, TrainingSettings

COSINE = {"schedule": "cosine", "warmup": 0.05, "clip_norm": 1.0, "weight_decay_on": "weights"}
TEXT = "schedule = cosine, warmup = 0.05, clip_norm = 1, weight_decay_on = weights"


def of(column: str, seed: int = 0, **recipe) -> CellRecord:
    return cell(column, seed, settings=TrainingSettings(**recipe).model_dump())


def old(column: str) -> CellRecord:
    settings = TrainingSettings().model_dump()
    return cell(column, settings={key: settings[key] for key in settings if key not in RECIPE_KEYS})


def read(*records: CellRecord) -> tuple[dict[str, list[str]], list[str]]:
    """Rows of settings, and notes about recipes."""
    (comparison,) = comparisons(run(records), list(records))
    titles = {key.replace("_", " ") for key in RECIPE_KEYS}
    rows = {title: cells for title, *cells in comparison.table.rows if title in titles}
    return rows, [note for note in comparison.notes if "trained with" in note]


def test_the_defaults_are_those_of_training():
    settings = TrainingSettings()
    assert {key: getattr(settings, key) for key in RECIPE_KEYS} == RECIPE_DEFAULTS


def test_defaults_are_not_shown():
    assert read(of("sgd"), of("adam")) == ({}, [])


def test_one_of_all_columns():
    assert read(of("sgd", **COSINE), of("adam", **COSINE)) == ({}, [f"all columns: trained with {TEXT}"])


def test_one_of_the_only_column():
    records = [of("sgd", seed, **COSINE) for seed in range(3)]
    assert read(*records) == ({}, [f"sgd: trained with {TEXT}"])


def test_one_that_differs_has_rows():
    rows, notes = read(of("sgd", **COSINE), of("adam", **(COSINE | {"warmup": 100, "clip_norm": None})))
    assert rows == {"warmup": ["0.05", "100"], "clip norm": ["1", "none"]}
    assert notes == ["all columns: trained with schedule = cosine, weight_decay_on = weights"]


def test_titles_show_one_that_varies():
    records = [of(f"sgd schedule={name}", schedule=name, warmup=5) for name in ("cosine", "wsd")]
    assert read(*records) == ({}, ["all columns: trained with warmup = 5"])


def test_titles_of_all_columns_show_one():
    assert read(of("sgd schedule=wsd", schedule="wsd")) == ({}, [])


def test_groups_keep_their_order():
    groups = {"head.*": {"lr": 0.01, "momentum": 0.5}, "*": {"lr": 1e-4}}
    turned = dict(reversed(groups.items()))
    rows, _ = read(of("sgd", groups=groups), of("adam", groups=turned), of("plain"))
    assert rows == {
        "groups": [
            "head.* (lr=0.01, momentum=0.5), * (lr=0.0001)",
            "* (lr=0.0001), head.* (lr=0.01, momentum=0.5)",
            "none",
        ]
    }


def test_groups_are_still_a_table_in_json():
    (comparison,) = comparisons(
        run([of("sgd", groups={"*": {"lr": 0.1}})]), [of("sgd", groups={"*": {"lr": 0.1}})]
    )
    assert comparison.columns[0].settings["groups"][0].value == {"*": {"lr": 0.1}}


def test_an_older_record_was_trained_with_the_defaults():
    assert read(old("sgd"), of("adam")) == ({}, [])
    rows, notes = read(old("sgd"), of("adam", schedule="cosine", min_lr=1e-5))
    assert rows == {"schedule": ["constant", "cosine"], "min lr": ["0", "1e-05"]}
    assert notes == []
    assert read(old("sgd"), old("adam")) == ({}, [])


@pytest.mark.parametrize("write", [to_text, to_markdown, to_json])
def test_every_form_shows_the_note(write):
    records = [of("sgd", **COSINE), of("adam", **COSINE)]
    assert f"trained with {TEXT}" in write(document_of(run(records), records))


def test_csv_and_json_have_the_settings_themselves():
    record = of("sgd", **COSINE)
    document = document_of(run([record]), [record])
    assert json.loads(to_json(document))["experiments"][0]["cells"][0]["settings"]["clip_norm"] == 1.0
    header, row = to_csv(document).splitlines()[:2]
    assert dict(zip(header.split(","), row.split(","), strict=False))["settings.schedule"] == "cosine"


@pytest.mark.parametrize(
    ("value", "shown"),
    [({}, "none"), ({"b": 1, "a": 2}, "a=2, b=1"), ({"b": {"lr": 1}, "a": {}}, "b (lr=1), a (none)")],
)
def test_tables_in_cells(value, shown):
    assert show_value(value) == shown
