"""Mistakes of tasks and models are found on a few rows, and told in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.padded_rows import PADDED_TASK, make_padded_dataset, make_token_model
from tests.training.row_parts import CPU, Listed, prepare
from xbench import Metric, Output, RowDataset, Task, XbenchError
from xbench.components.facts import TensorFacts, first_tensor
from xbench.components.poisson import build_poisson_1d
from xbench.components.tasks import Term
from xbench.errors import TaskMistake
from xbench.training.micro_batches import check_examples_are_independent
from xbench.training.objective import Objective
from xbench.training.row_loader import RowLoader
from xbench.training.task_checks import check_task

COUNT = 12
X = torch.randn(COUNT, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)


def squares(outputs, batch):
    return (outputs - batch[1]).square().mean(1)


def fail(*args):
    raise ArithmeticError("no more")


def averaged(name, **fields) -> Metric:
    return Metric(name=name, direction="min", value=fail, **fields)


def check(task=None, model=None, train=(X, Y), dtype=torch.float32, **parts) -> None:
    dataset = RowDataset(train=train, task=task or Task(loss_of=squares), **parts)
    torch.manual_seed(0)
    rows, data = prepare(dataset)
    check_task(model or nn.Linear(4, 1), "net", rows, data, dtype)


def complaint(*args, **parts) -> XbenchError:
    with pytest.raises(XbenchError) as caught:
        check(*args, **parts)
    assert "\n" not in caught.value.message
    return caught.value


class Shifted(nn.Module):
    """Draws a mask for each row, as dropout does."""

    def __init__(self):
        super().__init__()
        self.last = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 1))

    def forward(self, x):
        return self.last(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_right_ones_pass(dtype):
    check(dtype=dtype)
    check(model=Shifted(), dtype=dtype)
    check(train=(X[:1], Y[:1]), dtype=dtype)
    check(Task(loss_of=squares, penalty=lambda model: model.weight.square().sum()), dtype=dtype)
    check(train=(X.double(), Y.double()), test=(X, Y), dtype=dtype)


def test_right_ones_of_other_kinds_pass():
    dataset = make_padded_dataset()
    check(PADDED_TASK, make_token_model(), dataset.train, collate=dataset.collate, test=dataset.test)
    dataset = build_poisson_1d(points=9)
    model = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    check(dataset.task, model, dataset.train, test=dataset.test)


@pytest.mark.parametrize(
    ("loss_of", "told"),
    [
        (lambda out, batch: squares(out, batch).mean(), "loss returns a tensor of shape (), not a number"),
        (lambda out, batch: (out - batch[1]).square(), "loss returns a tensor of shape (8, 1), not a number"),
        (lambda out, batch: squares(out, batch)[:-1], "returns 7 losses for 8 rows"),
        (lambda out, batch: squares(out, batch).sum().item(), "loss returns a float, not a tensor"),
        (lambda out, batch: squares(out, batch).long(), "losses of dtype int64, which have no gradient"),
        (lambda out, batch: squares(out, batch) / 0, "has a loss of inf on a row, before any training"),
        (lambda out, batch: (out[:, 0] * 0 - 1).log(), "has a loss of nan on a row, before any training"),
        (lambda out, batch: squares(out.detach(), batch), "has losses without a gradient"),
        (lambda out, batch: out[:, 0] + batch["y"], "TypeError: tuple indices must be integers"),
        (fail, "fail on a few rows: ArithmeticError: no more (test_task_checks.py:"),
    ],
)
def test_a_loss_that_is_wrong(loss_of, told):
    message = complaint(Task(loss_of=loss_of)).message
    assert "the task of dataset 'mine'" in message
    assert told in message


def test_a_single_row_that_is_not_finite_among_others_is_named():
    """It is not the first row."""
    target = Y.clone()
    target[-1] = torch.inf
    assert "has a loss of inf on a row" in complaint(train=(X, target)).message


def test_a_model_that_cannot_take_the_rows_is_told_with_both_shapes():
    error = complaint(model=nn.Linear(3, 1))
    assert "model 'net' and the task of dataset 'mine' fail on a few rows: RuntimeError" in error.message
    assert "(8x4 and 3x1)" in error.message
    assert error.hint == "a batch is (float32 (8, 4), float32 (8, 1)), and the model is Linear"


def test_a_mistake_of_a_task_is_told_apart_from_one_of_a_model():
    assert type(complaint(Task(loss_of=lambda out, batch: squares(out, batch) / 0))) is TaskMistake
    assert type(complaint(model=nn.Linear(3, 1))) is XbenchError
    sick = nn.Linear(4, 1)
    nn.init.constant_(sick.bias, torch.nan)
    error = complaint(model=sick)
    assert type(error) is XbenchError
    assert error.message == "model 'net' returns NaN for a row of dataset 'mine', before any training"


def test_an_embedding_that_is_too_small_is_named():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(4, 1))
    error = complaint(model=model, train=(torch.arange(12)[:, None], Y))
    assert "fail on a few rows: IndexError" in error.message
    assert error.hint.startswith("the embedding '0' has 5 rows, and the batch has the index 11: raise")


class TestHints:
    """The commonest mistakes are named where they can be told."""

    @pytest.mark.parametrize("reduce", [lambda squared: squared, lambda squared: squared.mean(1)])
    def test_of_targets_that_are_broadcast(self, reduce):
        error = complaint(Task(loss_of=lambda out, b: reduce((out - b[1]) ** 2)), train=(X, Y[:, 0]))
        assert error.hint.startswith("outputs (8, 1) against targets (8,) are broadcast to (8, 8)")

    def test_of_rows_that_are_dicts(self):
        task = Task(loss_of=lambda out, batch: (out - batch["y"]).square().mean(1))
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
        error = complaint(task, model, train={"x": X, "y": Y})
        assert "AttributeError: 'dict' object has no attribute 'flatten'" in error.message
        assert '`outputs=lambda model, batch: model(batch["x"])`' in error.hint

    def test_of_tokens_that_are_too_large(self):
        model = nn.Sequential(nn.Embedding(3, 2), nn.Flatten(), nn.Linear(2, 1))
        tokens = (torch.arange(COUNT) % 5)[:, None]
        error = complaint(model=model, train=(tokens, Y))
        assert "the embedding '0' has 3 rows, and the batch has the index 4" in error.hint

    def test_of_labels_of_another_dtype(self):
        task = Task(loss_of=lambda out, b: nn.functional.cross_entropy(out, b[1], reduction="none"))
        error = complaint(task, nn.Linear(4, 2), train=(X, (torch.arange(COUNT) % 2).int()))
        assert "class labels must be int64" in error.hint


class TestHeldOutRows:
    """They are tried in evaluation, as they are met after an epoch or at the end."""

    @pytest.mark.parametrize("split", ["validation", "test"])
    def test_of_another_shape_are_told_with_both(self, split):
        message = complaint(**{split: (X[:, :3], Y)}).message
        assert (
            f"fail on a few {split} rows, of (float32 (3,), float32 (1,)), where training rows are "
            "(float32 (4,), float32 (1,)): RuntimeError"
        ) in message
        assert "(8x3 and 4x1)" in message

    def test_of_another_structure(self):
        task = Task(loss=lambda model, batch: (model(batch["x"]) - batch["y"]).square().mean(1))
        message = complaint(task, train={"x": X, "y": Y}, test={"x": X}).message
        assert "test rows, of {'x': float32 (4,)}, where training rows are" in message
        assert "KeyError: 'y'" in message

    def test_whose_losses_are_not_one_for_each_row(self):
        task = Task(loss_of=lambda out, batch: squares(out, batch)[: len(batch[1]) // 6 * 6])
        assert (
            "loss returns 6 losses for 7 rows"
            in complaint(task, train=(X[:6], Y[:6]), test=(X[:7], Y[:7])).message
        )

    def test_whose_losses_are_not_finite(self):
        assert "has a loss of inf on a test row" in complaint(test=(X, Y * torch.inf)).message

    def test_on_which_a_metric_fails(self):
        def value(out, batch):
            return 1 / (3 - batch[2].numel()) * squares(out, batch)

        task = Task(loss_of=squares, metrics=(Metric(name="m", direction="min", value=value),))
        wide = (X, Y, torch.zeros(COUNT, 4))
        message = complaint(task, train=(X[:2], Y[:2], Y[:2]), test=(X[:3], Y[:3], Y[:3])).message
        assert "its metrics fail on a few test rows: ZeroDivisionError" in message
        check(task, train=wide, test=wide)

    def test_of_one_of_several_terms(self):
        def loss(model, batch):
            return squares(model(batch[0]), batch)

        task = Task(loss={"a": Term(loss=loss), "b": Term(loss=loss)})
        train = {"a": (X, Y), "b": (X, Y)}
        told = complaint(task, train=train, test={"b": (X[:, :2], Y)}).message
        assert "term 'b' of the task of dataset 'mine' fail on a few test rows" in told
        check(task, train={"a": (X, Y)}, test={"b": (X, Y)})

    def test_may_be_longer_than_training_rows(self):
        dataset = make_padded_dataset()
        short = Listed([row for row in dataset.train if len(row[0]) < 4])
        check(PADDED_TASK, make_token_model(), short, collate=dataset.collate, test=dataset.test)


class TestTheSizeOfOutputs:
    """A loss may accept outputs of another size than its task declares."""

    @staticmethod
    def entropies(outputs, batch):
        return nn.functional.cross_entropy(outputs, batch[1], reduction="none")

    labels = torch.arange(COUNT) % 2

    def check(self, size=2, output=None, **fields):
        task = Task(loss_of=self.entropies, output=output or Output("classes", 2), **fields)
        check(task, nn.Linear(4, size), train=(X, self.labels))

    def test_is_compared_with_the_declared_one(self):
        self.check(size=2)
        with pytest.raises(XbenchError) as caught:
            self.check(size=7)
        assert caught.value.message == (
            "model 'net' returns outputs of shape (8, 7), and the task of dataset 'mine' declares a last "
            "dimension of 2: one logit per class"
        )
        assert "as many outputs as there are classes" in caught.value.hint

    def test_is_told_before_the_failure_that_it_causes(self):
        with pytest.raises(
            XbenchError, match=r"shape \(8, 1\), and the task .* declares a last dimension of 2"
        ):
            self.check(size=1)

    def test_is_that_of_the_model_whatever_the_task_makes_of_it(self):
        task = Task(
            outputs=lambda model, batch: model(batch[0]).sum(1),
            loss_of=lambda out, batch: out.square(),
            output=Output("values", 2),
        )
        check(task, nn.Linear(4, 2))
        assert "returns outputs of shape (8, 3)" in complaint(task, nn.Linear(4, 3)).message
        task = Task(loss=lambda model, batch: model(batch[0]).square().sum(1), output=Output("values", 2))
        assert "returns outputs of shape (8, 3)" in complaint(task, nn.Linear(4, 3)).message

    @pytest.mark.parametrize(
        ("model", "output"),
        [
            (nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), Output("values", 1)),
            (nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3))), Output("values", 6)),
            (nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3))), Output("classes", 2)),
            (nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3))), Output("tokens", 3)),
        ],
        ids=["a number", "values of any shape", "classes of places", "tokens"],
    )
    def test_may_be_in_other_places(self, model, output):
        check(
            Task(loss_of=lambda out, batch: out.flatten(1).sum(1) if out.ndim > 1 else out, output=output),
            model,
        )


def test_a_batch_that_lacks_what_the_task_needs():
    task = Task(loss=lambda model, batch: model(batch["inputs"])[:, 0])
    assert "KeyError: 'inputs'" in complaint(task, train={"x": X}).message


def test_a_model_whose_parameters_have_no_part_in_the_loss():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.aside = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return x[:, :1].clone().requires_grad_()

    assert "no parameter of model 'net' receives a gradient" in complaint(model=Aside()).message


def test_roles_of_parameters_that_the_model_lacks():
    check(Task(loss_of=squares, roles={"*.weight": "embedding"}), model=Shifted())
    error = complaint(Task(loss_of=squares, roles={"tokens.*": "embedding"}), model=Shifted())
    told = "the task of dataset 'mine': roles: 'tokens.*' does not match any parameter of the model"
    assert error.message == told
    assert error.hint == "use patterns for names such as 'last.1.weight', 'last.1.bias'"


class TestALossThatMixesRows:
    @pytest.mark.parametrize(
        "loss_of",
        [
            lambda out, batch: squares(out, batch).mean().expand(len(out)),
            lambda out, batch: squares(out, batch) / len(out),
            lambda out, batch: squares(out - out.mean(0), batch),
            lambda out, batch: torch.logsumexp(out @ out.T, 1) - out.square().sum(1),
            lambda out, batch: squares(out, batch) * (batch[1] - batch[1].mean(0)).abs()[:, 0],
        ],
        ids=["mean", "divided", "centred", "contrastive", "centred targets"],
    )
    def test_is_refused_unless_it_is_declared(self, loss_of):
        error = complaint(Task(loss_of=loss_of))
        assert error.message == (
            "the task of dataset 'mine' is not additive: the loss of a row depends on the other rows of its "
            "batch"
        )
        assert "additive=False" in error.hint
        check(Task(loss_of=loss_of, additive=False))

    def test_is_found_in_one_of_several_terms(self):
        task = Task(
            loss={
                "a": Term(loss=lambda model, batch: squares(model(batch[0]), batch)),
                "b": Term(
                    loss=lambda model, batch: squares(model(batch[0]), batch).mean().expand(len(batch[0]))
                ),
            }
        )
        assert "not additive" in complaint(task, train={"a": (X, Y), "b": (X, Y)}).message

    def test_is_found_although_neighbouring_rows_are_alike(self):
        """Rows are often sorted by class, so that the first ones would tell nothing."""
        x, y = torch.cat([torch.ones(20, 4), X]), torch.cat([torch.zeros(20, 1), Y])
        task = Task(loss_of=lambda out, batch: squares(out - out.mean(0), batch))
        assert "not additive" in complaint(task, train=(x, y)).message

    def test_is_not_found_in_masks_of_padded_rows(self):
        """Dropout draws as many numbers as the longest row needs, so other rows must not change that."""
        torch.manual_seed(0)
        rows, data = prepare(make_padded_dataset())
        model = nn.Sequential(nn.Embedding(11, 8), nn.Dropout(0.5), nn.Linear(8, 11))
        check_examples_are_independent(model, *parts_of(rows, data), rows_of(data))
        mixing = nn.Sequential(nn.Embedding(11, 8), nn.Dropout(0.5), Mixing(), nn.Linear(8, 11))
        for chosen in (rows_of(data), np.array([3, 8]), np.array([8, 3])):
            with pytest.raises(XbenchError, match="depends on the other examples"):
                check_examples_are_independent(mixing, *parts_of(rows, data), chosen)

    def test_of_a_model_is_not_the_tasks(self):
        """Batch normalisation mixes rows in training; it is checked where micro-batches are used."""
        check(model=nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))

    def test_is_refused_with_micro_batches(self):
        task = Task(loss_of=lambda out, batch: squares(out - out.mean(0), batch), additive=False)
        rows, data = prepare(RowDataset(train=(X, Y), task=task))
        with pytest.raises(XbenchError, match="depends on the other examples"):
            check_examples_are_independent(nn.Linear(4, 1), *parts_of(rows, data), rows_of(data))


class Mixing(nn.Module):
    """Subtracts the mean over the batch, in training alone."""

    def forward(self, x):
        return x - x.mean((0, 1)) if self.training else x


def parts_of(rows, data):
    return (
        RowLoader(rows, data, CPU, torch.float32),
        Objective(rows.task, data, {}, CPU, torch.float32),
    )


def rows_of(data):
    return np.flatnonzero(~data.is_test)


class TestDerivatives:
    @staticmethod
    def derive(model, batch):
        x = batch[0].detach().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).tanh().sum(), x, create_graph=True)
        return (slope - batch[1]).square().mean(1)

    def test_need_to_be_declared(self):
        error = complaint(Task(loss=self.derive))
        assert "fails in evaluation: RuntimeError" in error.message
        assert "differentiates=True" in error.hint
        check(Task(loss=self.derive, differentiates=True))
        check(Task(loss=self.derive, differentiates=True), dtype=torch.float64)


@pytest.mark.parametrize(
    ("penalty", "told"),
    [
        (lambda model: model.weight.square(), "has the shape (1, 4), and must be a scalar tensor"),
        (lambda model: model.weight.square().sum(1), "has the shape (1,), and must be a scalar tensor"),
        (lambda model: 3.0, "is a float, and must be a scalar tensor"),
        (lambda model: model.weight.sum() * torch.nan, "is nan before any training"),
        (lambda model: model.weight.detach().sum(), "does not depend on the model's parameters"),
        (lambda model: model.missing, "fails: AttributeError: 'Linear' object has no attribute 'missing'"),
    ],
)
def test_a_penalty_that_is_wrong(penalty, told):
    message = complaint(Task(loss_of=squares, penalty=penalty)).message
    assert message.startswith(f"the task of dataset 'mine': its penalty {told}")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"value": lambda out, batch: out}, "metric 'm' returns a tensor of shape (8, 1) for 8 rows"),
        ({"value": lambda out, batch: out.mean()}, "metric 'm' returns a tensor of shape () for 8 rows"),
        ({"value": lambda out, batch: 1.0}, "metric 'm' returns a float, not a tensor"),
        ({"value": fail}, "its metrics fail: ArithmeticError: no more (test_task_checks.py:"),
    ],
)
def test_a_metric_that_is_wrong(fields, told, split):
    task = Task(loss_of=squares, metrics=(Metric(name="m", direction="min", **fields),))
    parts = {"test": (X, Y)} if split == "test" else {}
    assert told in complaint(task, **parts).message


@pytest.mark.parametrize(
    ("collect", "told"),
    [
        (lambda out, batch: out.mean(0), "has a tensor of shape (1,) for 8 rows, not a row for each"),
        (lambda out, batch: {"a": out, "b": out.sum()}, "has a tensor of shape () for 8 rows"),
        (lambda out, batch: out.tolist(), "is a list without a tensor"),
        (fail, "ArithmeticError: no more"),
    ],
)
def test_what_is_collected_has_a_row_for_each(collect, told):
    metric = Metric(name="m", direction="min", function=lambda collected: 1.0)
    task = Task(loss_of=squares, metrics=(metric,), collect=collect)
    assert told in complaint(task).message


def errors(outputs, batch):
    return (outputs - batch[1]).abs()[:, 0]


class TestMetricsOfTerms:
    """Rows of `pde` are tensors, and those of `data` are tuples."""

    train = {"pde": X, "data": (X, Y)}  # noqa: RUF012 - it is not changed

    def task(self, metrics=(), of_data=(), **fields) -> Task:
        pde = Term(loss=lambda model, batch: model(batch).square()[:, 0])
        data = Term(loss=lambda model, batch: squares(model(batch[0]), batch), metrics=of_data)
        return Task(loss={"pde": pde, "data": data}, metrics=metrics, **fields)

    def test_of_the_task_see_batches_of_one_structure(self):
        """The second row of a tensor would be taken for the second tensor of a tuple."""
        error = complaint(self.task((Metric(name="error", direction="min", value=errors),)), train=self.train)
        assert error.message == (
            "metric 'error' of dataset 'mine' sees batches of different structures: tensor in term 'pde' and "
            "(tensor, tensor) in term 'data'"
        )
        assert "metrics=" in error.hint

    def test_of_the_task_may_see_one_of_the_terms_only(self):
        metric = Metric(name="error", direction="min", value=errors, on=("test",))
        check(self.task((metric,)), train=self.train, test={"data": (X, Y)})

    @pytest.mark.parametrize("collects", [False, True])
    def test_that_are_functions_depend_on_what_is_collected(self, collects):
        metric = Metric(name="m", direction="min", function=np.max)
        task = self.task((metric,), collect=(lambda out, batch: batch[1]) if collects else None)
        if collects:
            assert "different structures" in complaint(task, train=self.train).message
        else:
            check(task, train=self.train)

    def test_see_rows_of_their_term_only(self):
        seen = []

        def watch(outputs, batch):
            seen.append(len(batch))
            return errors(outputs, batch)

        check(self.task(of_data=(Metric(name="m", direction="min", value=watch),)), train=self.train)
        assert seen == [2]

    @pytest.mark.parametrize("test", [None, {"pde": X}])
    def test_that_fail_are_told_even_if_only_training_has_rows_of_the_term(self, test):
        metric = Metric(name="m", direction="min", value=lambda out, batch: out)
        message = complaint(self.task(of_data=(metric,)), train=self.train, test=test).message
        assert "metric 'data_m' returns a tensor of shape (8, 1)" in message

    def test_need_no_outputs_of_a_model_that_takes_no_batches(self):
        """The model is called by the losses alone."""
        term = Term(loss=lambda model, batch: model(batch["x"]).square()[:, 0])
        check(Task(loss={"a": term}), train={"a": {"x": X}})


class TestDeclarations:
    @pytest.mark.parametrize(
        "name", ["loss", "suboptimality", "gradient_norm", "test_loss", "train_m", "A", ""]
    )
    def test_of_a_metric_whose_name_is_taken(self, name):
        """It would replace what xbench itself measures under that name."""
        with pytest.raises(XbenchError, match="a metric cannot be named"):
            Metric(name=name, direction="min", function=np.mean)

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({}, "a task has neither `loss` nor `loss_of`, and needs one of them"),
            ({"loss": fail, "loss_of": fail}, "a task has both `loss` and `loss_of`, and needs one of them"),
            ({"loss": {fail}}, "is a set, not a function or a dict of terms"),
            ({"loss": {}}, "names no term"),
            ({"loss": {"PDE": Term(loss=fail)}}, "a term cannot be named 'PDE'"),
            ({"loss": {"test": Term(loss=fail)}}, "a term cannot be named 'test'"),
            (
                {"loss": {"a": Term(loss=fail)}, "metrics": (averaged("a_loss"),)},
                "declares a metric twice: 'a_loss'",
            ),
            (
                {"loss": {"a": Term(loss=fail, metrics=(averaged("b"), averaged("b")))}},
                "declares a metric twice: 'a_b'",
            ),
            (
                {"loss": {"a": Term(loss=fail)}, "metrics": (averaged("m", weighted=True),)},
                "metric 'm' is weighted",
            ),
            (
                {"loss": {"a": Term(loss=fail, metrics=(Metric(name="m", direction="min", function=fail),))}},
                "metric 'm' of term 'a' has a `function`",
            ),
            ({"loss": {"a": Term(loss=fail)}, "weight": fail}, "has no `weight`"),
            ({"loss_of": fail, "classes": ("a", "b")}, "needs `label`"),
            ({"loss": fail, "summed": fail}, "needs `loss_of`"),
        ],
    )
    def test_of_a_task_that_contradict_each_other(self, fields, told):
        with pytest.raises(XbenchError, match=told):
            Task(**fields)


class TestNoise:
    """Random numbers that a row gets by its place in the batch do not make it depend on the others."""

    @staticmethod
    def denoise(model, batch):
        noise = torch.randn_like(batch[0])
        return (model(batch[0] + noise) - batch[1]).square().mean(1)

    def test_is_no_dependence(self):
        check(Task(loss=self.denoise))
        rows, data = prepare(RowDataset(train=(X, Y), task=Task(loss=self.denoise)))
        check_examples_are_independent(nn.Linear(4, 1), *parts_of(rows, data), rows_of(data))

    def test_hides_none(self):
        def loss(model, batch):
            return self.denoise(model, batch) / len(batch[0]) + model(batch[0]).mean().square()

        assert "not additive" in complaint(Task(loss=loss)).message


class TestAFunctionOfOutputs:
    @staticmethod
    def task(function, **fields):
        return Task(
            loss_of=squares, metrics=(Metric(name="m", direction="min", function=function, **fields),)
        )

    def test_is_called_before_the_run(self):
        told = complaint(self.task(lambda collected: collected.men())).message
        assert "metrics fail: AttributeError: 'numpy.ndarray' object has no attribute 'men'" in told
        told = complaint(self.task(lambda collected: collected)).message
        assert told == "the task of dataset 'mine': metric 'm': its function returns a ndarray, not a number"

    def test_gets_what_it_gets_after_training(self):
        seen = []
        check(self.task(lambda collected: seen.append(collected) or 1.0))
        assert (seen[0].dtype, seen[0].shape) == (np.float64, (8, 1))

    def test_may_need_more_rows(self):
        def function(collected):
            raise ValueError("only one class")

        check(self.task(function))

    def test_of_an_average_is_called_as_well(self):
        def check_finish(finish):
            metric = Metric(name="m", direction="min", value="loss", finish=finish)
            return Task(loss_of=squares, metrics=(metric,))

        check(check_finish(np.exp))


def test_a_finish_of_a_metric_that_is_wrong():
    def value(outputs, batch):
        return squares(outputs, batch)

    metric = Metric(name="m", direction="min", value=value, finish=torch.exp)
    told = complaint(Task(loss_of=squares, metrics=(metric,))).message
    assert "metric 'm': its `finish` fails: TypeError" in told


def test_a_loss_on_rows_without_weight():
    task = Task(loss_of=squares, weight=lambda batch: (batch[0][:, 0] > 0).float())
    error = complaint(task)
    assert "has a loss other than 0 on a row with a weight of 0" in error.message
    assert "weight * loss" in error.hint
    check(
        Task(
            loss_of=lambda out, batch: squares(out, batch) * (batch[0][:, 0] > 0),
            weight=lambda batch: (batch[0][:, 0] > 0).float(),
        )
    )


@pytest.mark.parametrize("factor", [1, -1, 2])
def test_a_sum_that_is_not_that_of_the_losses(factor):
    task = Task(loss_of=squares, summed=lambda out, batch, _: factor * squares(out, batch).sum())
    if factor == 1:
        check(task)
    else:
        assert "has a `summed` of" in complaint(task).message


def test_text_before_the_tensors_of_a_row():
    assert first_tensor({"id": "row-1", "x": (TensorFacts((4,), "float32"),)}).shape == (4,)
    with pytest.raises(XbenchError, match="a row has no tensor"):
        first_tensor({"id": "row-1"})
