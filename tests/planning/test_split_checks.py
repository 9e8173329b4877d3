"""Classes that a part of the data lacks: told before a run, and refused if there is just one to train on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.cell_samples import cell_of
from tests.run_samples import suite_of
from xbench import RowDataset, Task, Term, classification
from xbench.data.near_copies import NearCopies
from xbench.errors import XbenchError
from xbench.planning.checks import check_splits
from xbench.text import name_seeds
from xbench.training.prepare_rows import prepare_rows
from xbench.training.row_set import RowSet
from xbench.training.settings import TrainingSettings
from xbench.training.splits import split_examples


@pytest.fixture
def rare_data(tiny_data):
    """90 training images of which two, without groups, are of class "rare"; and no test image is."""
    labels = tiny_data.labels.copy()
    labels[[40, 70]] = 2
    groups = tuple("" if i in (40, 70) else group for i, group in enumerate(tiny_data.groups))
    return replace(tiny_data, classes=("dark", "bright", "rare"), labels=labels, groups=groups)


def warnings_of(*cells) -> list[str]:
    return check_splits(SimpleNamespace(suite=suite_of()), list(cells))


def test_nothing_is_told_where_all_parts_have_all_classes(tiny_data):
    assert warnings_of(cell_of(tiny_data), cell_of(tiny_data, column="other")) == []


def test_validation_and_test_without_a_class_are_told_once_with_all_seeds(rare_data):
    cells = [cell_of(rare_data, column=column, seed=seed) for column in ("a", "b") for seed in (0, 1)]
    assert warnings_of(*cells) == [
        "exp, seeds 0, 1: bright-and-dark has no image of 'rare' for test",
        "exp, seeds 0, 1: bright-and-dark has no image of 'rare' for validation",
    ]


def test_without_validation_it_lacks_nothing(rare_data):
    (warning,) = warnings_of(cell_of(rare_data, validation=0.0, selection="last"))
    assert warning.endswith("for test")


def test_rows_without_a_test_split_lack_no_class_there(tiny_data):
    x, labels = torch.randn(40, 2), torch.arange(40) % 2
    rows = RowSet.of(RowDataset(train=(x, labels), task=classification(["even", "odd"])))
    data = prepare_rows(rows, "numbers", {}, "")
    assert warnings_of(replace(cell_of(tiny_data), data=data)) == []


@pytest.mark.parametrize("brings", [False, True])
def test_terms_without_validation_rows_are_told(tiny_data, brings):
    terms = {"equation": Term(loss=torch.nn.Module.__call__), "start": Term(loss=torch.nn.Module.__call__)}
    rows = RowSet.of(
        RowDataset(
            train={"equation": torch.rand(20, 1), "start": torch.zeros(1, 1)},
            validation={"equation": torch.rand(5, 1)} if brings else None,
            task=Task(loss=terms),
        )
    )
    data = prepare_rows(rows, "decay", {}, "")
    settings = {"validation": 0.0, "selection": "last"} if brings else {"validation": 0.2}
    cells = [replace(cell_of(tiny_data, seed=seed), data=data) for seed in (0, 1)]
    cells = [
        replace(cell, declared=replace(cell.declared, training=TrainingSettings(**settings)))
        for cell in cells
    ]
    assert warnings_of(*cells) == [
        "exp, seeds 0, 1: decay has no row of 'start' for validation, so the validation loss is that of its "
        "other terms; to select no weights by it, set selection = 'last'"
    ]


def test_a_class_that_is_drawn_away_is_told_with_the_experiments_and_seeds(rare_data):
    drawn = {"validation": 0.0, "selection": "last", "train_size": 10}
    cells = [cell_of(rare_data, "few", seed=seed, **drawn) for seed in range(5)]
    seeds = [cell.settings.seed for cell in cells if not (rare_data.labels[train_of(cell)] == 2).any()]
    assert seeds
    listed = ", ".join(map(str, seeds))
    plural = "s" * (len(seeds) > 1)
    text = "bright-and-dark has no image of 'rare' for training (train_size = 10)"
    assert f"few, seed{plural} {listed}: {text}" in warnings_of(*cells)


def train_of(cell) -> np.ndarray:
    return split_examples(cell.data, cell.settings.training, cell.settings.seed).train


def test_a_single_class_to_train_on_is_refused(tiny_data):
    with pytest.raises(XbenchError, match=r"is the only class with images to train on \(seed 3\)") as caught:
        warnings_of(cell_of(tiny_data, seed=3, train_size=1))
    assert "train_size" in caught.value.hint


class TestValidationImagesThatAreInTraining:
    """Copies and near-duplicates are told where groups do not keep them together.

    Rows 30 to 119 are for training and validation."""

    def cells_of(self, data, pairs: list[tuple[int, int]], seeds: int = 3):
        """Cells whose images look alike in pairs; without groups, each image may be held out on its own."""
        near = NearCopies(images=len(data.rows), pairs=np.array(pairs))
        data = replace(data, near=near, groups=("",) * len(data.rows))
        return [cell_of(data, seed=seed, validation=0.2) for seed in range(seeds)]

    def expected(self, cells, pairs) -> dict[int, int]:
        """Count the validation images in pairs with a training image, by seed."""
        counts = {}
        for cell in cells:
            split = split_examples(cell.data, cell.settings.training, cell.settings.seed)
            train, validation = set(split.train.tolist()), set(split.validation.tolist())
            both = [(one, other) for pair in pairs for one, other in (pair, pair[::-1])]
            counts[cell.settings.seed] = len({a for a, b in both if a in validation and b in train})
        return counts

    def test_are_counted_with_the_seeds(self, tiny_data):
        pairs = [(i, i + 1) for i in range(30, 120, 2)]
        cells = self.cells_of(tiny_data, pairs)
        counts = self.expected(cells, pairs)
        assert min(counts.values()) > 0 and len(set(counts.values())) > 1
        (warning,) = warnings_of(*cells, *cells)
        size = len(split_examples(cells[0].data, cells[0].settings.training, 0).validation)
        assert warning.startswith(
            f"exp, seeds 0 to 2: up to {max(counts.values())} of {size} validation images of bright-and-dark "
            "are copies or near-duplicates of training images, so validation metrics may be optimistic"
        )
        assert "`group`" in warning

    def test_of_one_seed_are_told_of_it_alone(self, tiny_data):
        pairs = [(30, 31)]
        cells = self.cells_of(tiny_data, pairs, seeds=12)
        leaking = [seed for seed, count in self.expected(cells, pairs).items() if count]
        assert 0 < len(leaking) < 12
        (warning,) = warnings_of(*cells)
        assert warning.startswith(f"exp, {name_seeds(leaking)}: 1 of ")

    def test_are_a_lower_bound_if_some_pairs_are_not_known(self, tiny_data):
        (cell,) = self.cells_of(tiny_data, [(i, i + 1) for i in range(30, 120, 2)], seeds=1)
        near = replace(cell.data.near, is_cut=True)
        (complete,), (cut,) = (
            warnings_of(cell),
            warnings_of(replace(cell, data=replace(cell.data, near=near))),
        )
        count = complete.split()[3]
        assert cut == complete.replace(f" {count} of ", f" {count} or more of ")
        assert cut != complete

    def test_are_none_where_groups_keep_them_together(self, tiny_data):
        near = NearCopies(images=len(tiny_data.rows), pairs=np.array([(i, i + 1) for i in range(30, 120, 2)]))
        assert warnings_of(cell_of(replace(tiny_data, near=near), validation=0.2)) == []

    def test_need_validation(self, tiny_data):
        near = NearCopies(images=len(tiny_data.rows), pairs=np.array([(30, 32), (34, 36)]))
        data = replace(tiny_data, near=near)
        assert warnings_of(cell_of(data, validation=0.0, selection="last")) == []
