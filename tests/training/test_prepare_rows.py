"""What is known of rows before training: weights, labels, sizes, and a fingerprint of their content."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.training.padded_rows import make_padded_dataset
from tests.training.row_parts import Listed, prepare
from xbench import Facts, Output, RowDataset, Task, XbenchError
from xbench.components.classification import classification
from xbench.components.facts import TensorFacts
from xbench.components.tasks import Optimum, Term
from xbench.data.prepared import count_rows
from xbench.training.prepare_rows import ALL, DECLARED, SPREAD, prepare_rows
from xbench.training.row_set import RowSet

COUNT = 2000
X = torch.arange(2.0 * COUNT).reshape(COUNT, 2)


def loss(model, batch):
    return model(batch).squeeze(1)


def weighing(weight, train=X, **parts) -> RowDataset:
    return RowDataset(train=train, task=Task(loss=loss, weight=weight), **parts)


def plain(train=X, **parts) -> RowDataset:
    return RowDataset(train=train, task=Task(loss=loss), **parts)


def prepare_again(dataset, method=None, **options):
    rows = RowSet.of(dataset)
    return prepare_rows(rows, "mine", {}, "", method=method, **options)


class TestRowsThatAreNotFinite:
    @staticmethod
    def put(*places: int, value: float = torch.nan) -> torch.Tensor:
        x = X.clone()
        x[list(places), 1] = value
        return x

    def test_are_counted_and_noted(self):
        _, data = prepare(plain(self.put(50, 300, 1999), test=(self.put(3, value=torch.inf))))
        assert data.nonfinite == ("4 rows hold NaN or infinite values; the first is row 50 of train (from 0)")
        assert data.notes == (f"{data.nonfinite}.",)

    def test_are_counted_once_although_several_values_are_not(self):
        x = self.put(7)
        _, data = prepare(plain({"x": x, "y": x}, validation={"x": X, "y": X}))
        assert data.nonfinite == "1 row holds NaN or infinite values: row 7 of train (from 0)"

    def test_are_named_by_their_term(self):
        task = Task(loss={"a": Term(loss=loss), "b": Term(loss=loss)})
        _, data = prepare(RowDataset(train={"a": X[:9], "b": self.put(5)}, task=task))
        assert "row 5 of train, term 'b'" in data.nonfinite

    def test_do_not_exist_among_numbers_or_integers(self):
        _, data = prepare(plain((X, torch.zeros(COUNT, dtype=torch.int64), torch.ones(COUNT).bool())))
        assert (data.nonfinite, data.notes) == ("", ())


class TestWhatIsCounted:
    def test_are_splits_and_terms(self):
        task = Task(loss={"a": Term(loss=loss), "b": Term(loss=loss)})
        _, data = prepare(RowDataset(train={"b": X[:4], "a": X[:3]}, test={"a": X[:2]}, task=task))
        assert data.is_test.tolist() == [False] * 7 + [True] * 2
        assert data.terms.tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0]
        assert data.train_rows == 7
        assert count_rows(data) == {"test": 2, "train": 7}

    def test_are_classes_of_each_split(self):
        labels = torch.tensor([0, 1, 1, 1, 0])
        dataset = RowDataset(
            train=(X[:5], labels),
            validation=(X[:2], labels[:2]),
            test=(X[:3], labels[1:4]),
            task=classification(["no", "yes"]),
        )
        _, data = prepare(dataset)
        assert data.labels.tolist() == [0, 1, 1, 1, 0, 0, 1, 1, 1, 1]
        assert count_rows(data) == {
            "test/yes": 3,
            "train/no": 2,
            "train/yes": 3,
            "validation/no": 1,
            "validation/yes": 1,
        }

    def test_are_weights(self):
        _, data = prepare(weighing(lambda batch: batch[:, 0]))
        assert data.weights.dtype == np.float64
        assert np.array_equal(data.weights, X[:, 0].numpy())
        assert prepare(plain())[1].weights is None

    def test_are_weights_of_terms(self):
        task = Task(loss={"a": Term(loss=loss, weight=lambda batch: batch[:, 1]), "b": Term(loss=loss)})
        _, data = prepare(RowDataset(train={"a": X[1:4], "b": X[:2]}, task=task))
        assert data.weights.tolist() == [3.0, 5.0, 7.0, 1.0, 1.0]

    def test_are_what_a_model_may_know(self):
        task = Task(loss=loss, output=Output("values", 3))
        _, data = prepare(
            RowDataset(train={"x": X, "t": (X[:, :1].long(),)}, test={"x": X, "t": (X,)}, task=task)
        )
        row = {"x": TensorFacts((2,), "float32"), "t": (TensorFacts((1,), "int64"),)}
        assert data.facts == Facts(row, Output("values", 3), COUNT)
        assert data.facts.input_shape == (2,)

    def test_are_bytes_of_rows_if_they_differ(self):
        _, data = prepare(make_padded_dataset(train=9))
        lengths = [1 + number * 5 % 9 for number in range(9)]
        assert data.row_bytes[:9].tolist() == [2 * 8 * length for length in lengths]
        assert prepare(plain())[1].row_bytes is None

    def test_is_progress(self):
        heard = []
        prepare_again(plain(), on_progress=lambda done, total: heard.append((done, total)))
        assert heard[-1] == (COUNT, COUNT)
        assert len(heard) == 8

    def test_labels_without_classes_are_not_read(self):
        task = Task(loss=loss, label=lambda batch: batch[:, 0])
        assert not prepare(RowDataset(train=X, task=task))[1].labels.any()


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda w: w - 1.5, "a row has a weight of -1.5"),
            (lambda w: w / 0 * 0, "a row has a weight of nan"),
            (lambda w: (w + 1) / 0, "a row has a weight of inf"),
            (lambda w: 0 * w, "all rows to train on have a weight of 0"),
            (lambda w: w[:, None], r"the task's `weight` returns a tensor of shape \(256, 1\) for 256 rows"),
            (lambda w: w.sum(), r"the task's `weight` returns a tensor of shape \(\) for 256 rows"),
            (lambda w: 2.0, "the task's `weight` returns a float for 256 rows"),
            (lambda w: w.tolist(), "the task's `weight` returns a list for 256 rows"),
        ],
        ids=["negative", "nan", "infinite", "zero", "matrix", "scalar", "number", "list"],
    )
    def test_is_a_weight(self, change, told):
        with pytest.raises(XbenchError, match=told):
            prepare(weighing(lambda batch: change(batch[:, 0])))

    def test_is_training_rows_without_weight_although_test_rows_have_some(self):
        with pytest.raises(XbenchError, match="all rows to train on have a weight of 0"):
            prepare(weighing(lambda batch: batch[:, 0], train=torch.zeros(3, 2), test=torch.ones(3, 2)))

    @pytest.mark.parametrize(
        ("labels", "told"),
        [
            (torch.tensor([0, 1, 3]), "returns 3, and its 3 classes are numbered from 0 to 2"),
            (torch.tensor([0, -1, 1]), "returns -1, and its 3 classes are numbered from 0 to 2"),
            (torch.tensor([0.0, 1.0, 2.0]), "float32 values, not integers"),
            (torch.tensor([[0], [1], [2]]), r"`label` returns a tensor of shape \(3, 1\) for 3 rows"),
        ],
        ids=["too large", "negative", "floats", "column"],
    )
    def test_is_a_label(self, labels, told):
        with pytest.raises(XbenchError, match=told):
            prepare(RowDataset(train=(X[:3], labels), task=classification(["a", "b", "c"])))

    @pytest.mark.parametrize("part", ["label", "weight"])
    def test_is_a_function_that_raises(self, part):
        def fail(batch):
            return {}["missing"]

        task = Task(loss=loss, classes=("a", "b"), **({"label": X[:, 0]} | {part: fail}))
        with pytest.raises(XbenchError, match=rf"the task's `{part}` fails: KeyError: 'missing' \(test_prep"):
            prepare(RowDataset(train=X, task=task))

    def test_is_a_row_that_differs_when_it_is_read_again(self):
        class Augmented:
            def __len__(self):
                return 4

            def __getitem__(self, position):
                return X[position] + torch.rand(2)

        with pytest.raises(XbenchError, match="a row differs when it is read again") as caught:
            prepare(plain(Augmented()))
        assert "random augmentation" in caught.value.hint

    def test_is_a_row_that_seldom_differs(self):
        class Flipped(Listed):
            def __getitem__(self, place):
                return self.rows[place] * (-1 if torch.rand(()) < 0.3 else 1)

        with pytest.raises(XbenchError, match="a row differs when it is read again"):
            prepare(plain(Flipped(X)))

    @pytest.mark.parametrize("split", ["validation", "test"])
    def test_are_held_out_rows_without_any_weight(self, split):
        dataset = weighing(lambda batch: batch[:, 0] > 4, **{split: X[:2]})
        with pytest.raises(
            XbenchError, match=f"all rows to {split.replace('validation', 'validate')} on have"
        ):
            prepare(dataset)

    @pytest.mark.parametrize(
        ("collate", "told"),
        [
            (lambda rows: torch.stack(rows, 1), r"a batch of one row has \(2, 1\)"),
            (lambda rows: rows[0][None], r"a batch of 5 rows has \(1, 2\)"),
            (lambda rows: (torch.stack(rows), torch.tensor(1.0)), r"a batch of one row has \(1, 2\), \(\)"),
            (lambda rows: "a text", "a batch of one row has no tensors"),
        ],
        ids=["rows last", "one row", "scalar", "text"],
    )
    def test_is_a_batch_that_does_not_count_its_rows(self, collate, told):
        with pytest.raises(XbenchError, match=told.replace("one row", "1 row")):
            prepare(plain(Listed(X[:5]), collate=collate))


class TestAFingerprint:
    @pytest.fixture
    def no_time(self, monkeypatch):
        """Hashing all rows always takes too long."""
        monkeypatch.setattr("xbench.training.prepare_rows.MAX_HASHING_S", -1.0)

    def test_is_of_all_rows(self):
        data = prepare_again(plain())
        assert data.fingerprint_method == ALL
        assert data.fingerprint == prepare_again(plain()).fingerprint

    @pytest.mark.parametrize("row", [0, 1, 777, COUNT - 1])
    def test_differs_if_any_row_does(self, row):
        changed = X.clone()
        changed[row, 1] += 1e-3
        assert prepare_again(plain(changed)).fingerprint != prepare_again(plain()).fingerprint

    def test_differs_with_dtype_number_of_rows_split_and_classes(self):
        labels = torch.arange(COUNT) % 2
        others = [
            plain(),
            plain(X.double()),
            plain(X[:-1]),
            plain(X[:-1], test=X[-1:]),
            RowDataset(train=(X, labels), task=classification(["a", "b"])),
            RowDataset(train=(X, labels), task=classification(["a", "c"])),
        ]
        assert len({prepare_again(dataset).fingerprint for dataset in others}) == len(others)

    def test_differs_with_splits_and_what_the_task_declares(self):
        """All are made of the same two chunks of rows."""
        first, second = X[:256], X[256:512]

        def declaring(**fields):
            return RowDataset(train=first, test=second, task=Task(loss=loss, **fields))

        def of_terms(scale):
            terms = {"a": Term(loss=loss), "b": Term(loss=loss, scale=scale)}
            return RowDataset(train={"a": first, "b": second}, task=Task(loss=terms))

        others = [
            plain(X[:512]),
            plain(first, validation=second),
            plain(first, test=second),
            declaring(weight=lambda batch: torch.full((len(batch),), 2.0)),
            declaring(optimum=Optimum(1.0)),
            declaring(additive=False),
            declaring(output=Output("values", 1)),
            of_terms(1.0),
            of_terms(2.0),
        ]
        assert len({prepare_again(dataset).fingerprint for dataset in others}) == len(others)

    @pytest.mark.parametrize("weighs", [False, True])
    def test_is_of_spread_rows_if_reading_takes_too_long(self, no_time, weighs):
        def make(rows):
            return weighing(lambda batch: 1 + batch[:, 0], rows) if weighs else plain(rows)

        data = prepare_again(make(X))
        assert data.fingerprint_method == SPREAD
        assert data.row_bytes is None
        assert (data.weights is not None) == weighs
        changed = X.clone()
        changed[-1] += 1
        assert prepare_again(make(changed)).fingerprint != data.fingerprint

    def test_keeps_its_method_although_reading_takes_another_time(self, monkeypatch):
        whole = prepare_again(plain())
        monkeypatch.setattr("xbench.training.prepare_rows.MAX_HASHING_S", -1.0)
        assert prepare_again(plain(), ALL).fingerprint == whole.fingerprint
        spread = prepare_again(plain())
        monkeypatch.setattr("xbench.training.prepare_rows.MAX_HASHING_S", 1e9)
        assert prepare_again(plain(), SPREAD).fingerprint == spread.fingerprint != whole.fingerprint

    @pytest.mark.parametrize("declared", ["version 1", lambda: "version 1"], ids=["text", "function"])
    def test_may_be_declared_and_then_few_rows_are_read(self, declared):
        reads = []

        class Counted(Listed):
            def __getitem__(self, position):
                reads.append(position)
                return super().__getitem__(position)

        data = prepare_again(plain(Counted(X), fingerprint=declared))
        assert data.fingerprint_method == DECLARED
        assert len(set(reads)) < 20
        assert data.fingerprint == prepare_again(plain(X, fingerprint="version 1")).fingerprint
        assert data.fingerprint != prepare_again(plain(X, fingerprint="version 2")).fingerprint

    @pytest.mark.parametrize("declared", [lambda: 3, lambda: "", lambda: None, lambda: {}["missing"]])
    def test_that_is_declared_is_a_text(self, declared):
        with pytest.raises(XbenchError, match=r"dataset 'mine': its `fingerprint` (returns|fails)"):
            prepare_again(plain(fingerprint=declared))

    def test_is_the_same_in_another_process(self):
        code = (
            "from tests.training.padded_rows import make_padded_dataset\n"
            "from tests.training.row_parts import prepare\n"
            "data = prepare(make_padded_dataset())[1]\n"
            "print(data.fingerprint, data.checked)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        data = prepare(make_padded_dataset())[1]
        assert done.stdout.split() == [data.fingerprint, data.checked]
