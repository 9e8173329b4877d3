"""Rows of every kind that a dataset may bring, read by position."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from tests.training.padded_rows import UnequalSequences, pad_rows
from tests.training.row_parts import Listed, prepare
from xbench import DatasetSpec, RowDataset, Task, XbenchError
from xbench.components import registry
from xbench.components.tasks import Term
from xbench.training.row_loader import RowLoader
from xbench.training.row_set import RowSet, load_row_set

COUNT = 10
X = torch.arange(2.0 * COUNT).reshape(COUNT, 2)
Y = torch.arange(COUNT)
POSITIONS = np.array([7, 0, 3])
TASK = Task(loss=lambda model, batch: model(batch[0]).squeeze(1))


class Pair(NamedTuple):
    inputs: torch.Tensor
    label: torch.Tensor


class MapStyle:
    """A dataset of no class of torch's."""

    def __len__(self):
        return COUNT

    def __getitem__(self, position):
        assert isinstance(position, int)
        return X[position].numpy(), int(Y[position])


class Reader:
    def __len__(self):
        return COUNT

    def read(self, positions):
        assert positions.dtype == np.int64
        chosen = torch.from_numpy(positions)
        return X[chosen], Y[chosen]


class Endless(IterableDataset):
    def __iter__(self):
        return iter([(X[0], Y[0])])

    def __len__(self):
        return COUNT


def of(train, task=TASK, **parts) -> RowSet:
    return RowSet.of(RowDataset(train=train, task=task, **parts))


def assert_rows(batch, positions=POSITIONS):
    inputs, labels = batch
    assert torch.equal(torch.as_tensor(inputs), X[positions])
    assert torch.equal(torch.as_tensor(labels), Y[positions])


@pytest.mark.parametrize(
    "train",
    [
        (X, Y),
        list(zip(X, Y, strict=True)),
        MapStyle(),
        TensorDataset(X, Y),
        Reader(),
        DataLoader(TensorDataset(X, Y), 4),
    ],
    ids=["tuple", "list", "map-style", "torch's dataset", "reader", "loader"],
)
def test_rows_are_read_in_the_order_of_their_positions(train):
    assert_rows(of(train).load(POSITIONS)[""])


def test_a_single_tensor():
    assert torch.equal(of(X).load(POSITIONS)[""], X[POSITIONS])


def test_each_item_of_a_list_is_a_row():
    rows = of(list(X))
    assert len(rows) == COUNT
    assert torch.equal(rows.load(POSITIONS)[""], X[POSITIONS])


def test_items_of_a_list_may_be_arrays_and_dicts():
    rows = of([{"x": x.numpy(), "y": int(y)} for x, y in zip(X, Y, strict=True)])
    batch = rows.load(POSITIONS)[""]
    assert_rows((batch["x"], batch["y"]))


def test_nested_rows_keep_their_structure():
    batch = of({"text": {"ids": Y, "mask": X}, "pair": Pair(X, Y), "name": "fixed"}).load(POSITIONS)[""]
    assert torch.equal(batch["text"]["ids"], Y[POSITIONS])
    assert isinstance(batch["pair"], Pair)
    assert_rows(batch["pair"])
    assert batch["name"] == "fixed"


def test_rows_that_require_gradients_are_detached():
    weights = torch.ones(COUNT, 2, requires_grad=True)
    assert not of(weights * X).load(POSITIONS)[""].requires_grad


class TestALoader:
    def test_is_used_for_its_dataset_and_its_collate_function_and_a_note_says_so(self):
        def collate(rows):
            inputs, labels = zip(*rows, strict=True)
            return 2 * torch.stack(inputs), torch.stack(labels)

        class Forbidden(torch.utils.data.Sampler):
            def __iter__(self):
                raise AssertionError("the sampler is not used")

            def __len__(self):
                return 1

        loader = DataLoader(TensorDataset(X, Y), 4, sampler=Forbidden(), collate_fn=collate)
        rows = of(loader)
        assert torch.equal(rows.load(POSITIONS)[""][0], 2 * X[POSITIONS])
        (note,) = rows.notes
        assert "the dataset and the collate function are used" in note
        assert "sampler" in note

    def test_gives_way_to_the_collate_function_of_the_dataset(self):
        rows = of(DataLoader(UnequalSequences(COUNT)), collate=pad_rows)
        assert rows.load(POSITIONS)[""][0].shape == (3, 9)

    @pytest.mark.parametrize("train", [Endless(), DataLoader(Endless(), 2)], ids=["itself", "loader"])
    def test_of_an_iterable_dataset_is_refused(self, train):
        with pytest.raises(XbenchError, match=r"an iterable dataset \(Endless\), which"):
            of(train)

    def test_that_makes_no_batches_is_refused(self):
        with pytest.raises(XbenchError, match="does not make batches"):
            of(DataLoader(TensorDataset(X, Y), batch_size=None))


class TestWhatIsRefused:
    @pytest.mark.parametrize("train", [42, None, (), {}, ("a", 1), iter([1])])
    def test_is_no_rows(self, train):
        with pytest.raises(XbenchError, match=r"its rows are a|no rows to train on"):
            of(train)

    def test_is_tensors_of_unequal_numbers_of_rows(self):
        with pytest.raises(XbenchError, match=r"the same number of rows: \(10, 2\), \(9,\)"):
            of((X, Y[1:]))

    @pytest.mark.parametrize("train", [(X, Y.numpy()), {"x": X.numpy()}])
    def test_is_arrays_among_tensors(self, train):
        """They would not be indexed."""
        with pytest.raises(XbenchError, match="its rows hold a NumPy array"):
            of(train)

    def test_is_a_tensor_without_rows(self):
        with pytest.raises(XbenchError, match="the same number of rows"):
            of((X, torch.tensor(1.0)))

    def test_is_no_training_rows(self):
        with pytest.raises(XbenchError, match="it has no rows to train on"):
            of((X[:0], Y[:0]), test=(X, Y))

    def test_is_rows_without_terms_for_a_task_with_terms(self):
        task = Task(loss={"a": Term(loss=TASK.loss), "b": Term(loss=TASK.loss)})
        for train in ((X, Y), {"a": X, "c": X}, {}):
            with pytest.raises(XbenchError, match="train rows are not given by term"):
                of(train, task)
        with pytest.raises(XbenchError, match="test rows are not given by term"):
            of({"a": X}, task, test=X)


class TestSplits:
    def test_are_numbered_one_after_another(self):
        rows = of((X, Y), validation=(X[:2] + 100, Y[:2]), test=(X[:3] + 200, Y[:3]))
        assert len(rows) == 15
        assert rows.load(np.array([11, 10]))[""][0].tolist() == [[102, 103], [100, 101]]
        assert rows.load(np.array([14]))[""][0].tolist() == [[204, 205]]

    def test_may_differ_in_shape_as_padded_sequences_do(self):
        """All rows are checked and hashed, although the longest of each split has another length."""
        long, short = [torch.arange(5)] * 4, [torch.arange(2)] * 3
        dataset = RowDataset(train=Listed(long), validation=Listed(short), test=Listed(short), task=TASK)
        rows, data = prepare(dataset)
        assert rows.checksum() == data.checked == prepare(dataset)[1].checked
        assert data.row_bytes.tolist() == [40] * 4 + [16] * 6

    def test_do_not_mix_in_a_batch(self):
        with pytest.raises(ValueError, match="several splits"):
            of(X, test=X).load(np.array([0, 12]))


class TestTerms:
    task = Task(loss={"first": Term(loss=TASK.loss), "second": Term(loss=TASK.loss)})

    def test_are_batches_of_their_own(self):
        rows = of({"second": Y, "first": X}, self.task)
        batch = rows.load(np.array([12, 3, 10, 7]))
        assert list(batch) == ["first", "second"]
        assert torch.equal(batch["first"], X[[3, 7]])
        assert batch["second"].tolist() == [2, 0]

    def test_may_lack_in_a_split_or_be_empty(self):
        rows, data = prepare(
            RowDataset(train={"first": X[:0], "second": Y}, test={"first": X}, task=self.task)
        )
        assert data.term_names == ("first", "second")
        assert data.terms.tolist() == [1] * 10 + [0] * 10
        assert list(rows.load(np.array([0, 9]))) == ["second"]


def test_a_loader_converts_floating_point_tensors_and_no_others():
    rows, data = prepare(RowDataset(train=(X.double(), Y, Y > 3), task=TASK))
    inputs, labels, mask = RowLoader(rows, data, torch.device("cpu"), torch.float32).load(POSITIONS)
    assert (inputs.dtype, labels.dtype, mask.dtype) == (torch.float32, torch.int64, torch.bool)


class TestAFactory:
    @pytest.fixture
    def load(self, monkeypatch):
        """`load(factory)`: the rows that the factory makes."""

        def load(factory, **params):
            spec = DatasetSpec(factory=factory)
            monkeypatch.setattr(registry, "load", lambda kind, name, dirs=(): spec)
            monkeypatch.setattr("xbench.training.row_set._last", {})
            return load_row_set("mine", params, ())

        return load

    def test_that_draws_without_a_seed_makes_the_same_rows_every_time(self, load):
        import random

        def make():
            drawn = torch.randn(5, 2) + np.random.normal() + random.random()
            return RowDataset(train=drawn, task=TASK)

        one = load(make).checksum()
        torch.rand(3), np.random.rand(3), random.random()
        before = torch.random.get_rng_state()
        assert load(make).checksum() == one
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_is_called_once_for_the_same_settings(self, load, monkeypatch):
        calls = []

        def make(size=3):
            calls.append(size)
            return RowDataset(train=X[:size], task=TASK)

        spec = DatasetSpec(factory=make)
        monkeypatch.setattr(registry, "load", lambda kind, name, dirs=(): spec)
        for size in (4, 4, 5, 4):
            assert len(load_row_set("mine", {"size": size}, ())) == size
        assert calls == [4, 5, 4]

    def test_that_fails_or_returns_something_else_is_named(self, load):
        def fail():
            raise OSError("no disk")

        with pytest.raises(XbenchError, match="dataset 'mine' is broken: OSError: no disk"):
            load(fail)
        with pytest.raises(XbenchError, match="dataset 'mine' returns a int"):
            load(lambda: 3)
        with pytest.raises(XbenchError, match="dataset 'mine': its rows are a int"):
            load(lambda: RowDataset(train=3, task=TASK))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_without_rows_is_noted(split):
    x = torch.ones(4, 2)
    task = Task(loss_of=lambda outputs, batch: outputs[:, 0])
    rows = RowSet.of(RowDataset(train=x, task=task, **{split: x[:0]}))
    assert rows.notes == (f"its {split} split has no rows, and counts as not given",)
    assert RowSet.of(RowDataset(train=x, task=task, **{split: x[:1]})).notes == ()
