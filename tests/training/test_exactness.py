"""Micro-batches give the loss and the gradient of the whole batch, for every kind of task, in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.components.row_samples import facts_of
from tests.training.padded_rows import (
    IGNORED,
    PADDED_TASK,
    make_padded_dataset,
    make_token_model,
    pad_rows,
)
from tests.training.row_parts import CPU, loader_and_objective, loss_and_gradient, prepare
from xbench import Metric, ModelSpec, RowDataset, Task
from xbench.components.classification import classification
from xbench.components.poisson import build_poisson_1d
from xbench.components.regression import regression
from xbench.components.row_models import build_mlp
from xbench.components.tasks import Term
from xbench.training.evaluation import evaluate
from xbench.training.loader import ImageLoader
from xbench.training.objective import Objective

MICRO_BATCHES = (1, 3, 7)
# Rounding of sums in float64: what was measured is below 1e-15.
TOLERANCE = 1e-14


def seeded(build, *args, **settings) -> nn.Module:
    torch.manual_seed(0)
    return build(*args, **settings).double()


def assert_exact(parts, model, batch, expected_loss=None) -> tuple[float, torch.Tensor]:
    """Each size of micro-batches gives the loss and the gradient of the whole batch."""
    whole, gradient = loss_and_gradient(parts, model, batch, None)
    assert gradient.norm() > 0
    for micro_batch in MICRO_BATCHES:
        loss, of_parts = loss_and_gradient(parts, model, batch, micro_batch)
        assert abs(loss - whole) <= TOLERANCE * abs(whole)
        difference = ((of_parts - gradient).norm() / gradient.norm()).item()
        print(f"micro_batch {micro_batch}: {difference:.1e}")
        assert difference < TOLERANCE
    if expected_loss is not None:
        assert whole == pytest.approx(torch.as_tensor(expected_loss, dtype=torch.float64).item(), rel=1e-12)
    return whole, gradient


class TestPaddedSequences:
    """Rows that weigh as much as they have counted tokens."""

    batch = np.random.default_rng(1).permutation(40)[:25]

    def test_are_exact_and_the_mean_over_tokens(self):
        dataset, model = make_padded_dataset(), seeded(make_token_model)
        tokens, following = pad_rows([dataset.train[place] for place in self.batch.tolist()])
        expected = functional.cross_entropy(
            model(tokens).flatten(0, 1), following.flatten(), ignore_index=IGNORED
        )
        assert_exact(loader_and_objective(dataset), model, self.batch, expected)

    def test_a_mean_of_means_would_be_another_loss(self):
        parts, model = loader_and_objective(make_padded_dataset()), seeded(make_token_model)
        whole, _ = loss_and_gradient(parts, model, self.batch, None)
        means = [loss_and_gradient(parts, model, self.batch[i : i + 7], None)[0] for i in range(0, 25, 7)]
        assert abs(np.mean(means) - whole) > 1e-4 * whole

    def test_a_batch_without_any_weight_has_a_loss_of_zero(self):
        dataset, model = make_padded_dataset(), seeded(make_token_model)
        parts = loader_and_objective(dataset)
        light = np.array([place for place in range(40) if len(dataset.train[place][0]) == 1])
        loss, gradient = loss_and_gradient(parts, model, light, 1)
        assert (loss, gradient.norm().item()) == (0.0, 0.0)

    @pytest.mark.parametrize("chunk", MICRO_BATCHES)
    def test_evaluation_in_chunks_divides_by_all_tokens(self, chunk):
        dataset, model = make_padded_dataset(), seeded(make_token_model)
        loader, objective = loader_and_objective(dataset)
        test = np.arange(40, 52)
        tokens, following = pad_rows([dataset.test[place] for place in range(12)])
        logits, counted = model(tokens), following != IGNORED
        expected = functional.cross_entropy(
            logits.flatten(0, 1), following.flatten(), ignore_index=IGNORED
        ).item()
        hits = ((logits.argmax(2) == following) & counted).sum().item()
        found = evaluate(model, loader, objective, test, chunk, "test")
        assert found.loss == pytest.approx(expected, rel=1e-13)
        assert found.averages["token_accuracy"] == pytest.approx(hits / counted.sum().item(), rel=1e-13)
        assert found.averages["hits_per_row"] == pytest.approx(hits / 12, rel=1e-13)


OUTPUT = Metric(name="output", direction="min", value=lambda outputs, batch: outputs[:, 0])


def two_terms(weighted: bool) -> RowDataset:
    """40 rows of one term, of different weight, and 4 of another."""
    random = torch.Generator().manual_seed(2)
    x = torch.rand(40, 1, generator=random, dtype=torch.float64)

    def weigh(batch):
        return 0.5 + batch[1] if weighted else torch.ones(len(batch[1]))

    first = Term(
        loss=lambda model, batch: model(batch[0]).square()[:, 0] * weigh(batch),
        weight=weigh,
        metrics=(replace(OUTPUT, on=("train",)), replace(OUTPUT, name="weighted", weighted=True)),
    )
    second = Term(loss=lambda model, batch: (model(batch) - 1).square()[:, 0], scale=10.0)
    return RowDataset(
        train={"first": (x, torch.arange(40) / 40), "second": x[:4]},
        task=Task(loss={"first": first, "second": second}, metrics=(OUTPUT,)),
    )


class TestTerms:
    """Two terms of a physics loss, whose rows are mixed in batches."""

    @pytest.fixture
    def dataset(self):
        return build_poisson_1d(points=24, boundary_weight=3.0)

    @pytest.fixture
    def model(self, dataset):
        return seeded(build_mlp, facts_of(dataset), hidden=(8, 8), activation="tanh")

    def expected(self, dataset, model, rows_by_term):
        """The loss of rows, as the contract defines it."""
        total = 0.0
        for name, places in rows_by_term.items():
            term, batch = dataset.task.terms[name], tuple(part[places] for part in dataset.train[name])
            total += term.scale * term.loss(model, batch).mean().item()
        return total

    def test_are_exact(self, dataset, model):
        batch = np.random.default_rng(0).permutation(26)
        everything = {"interior": slice(None), "boundary": slice(None)}
        assert_exact(loader_and_objective(dataset), model, batch, self.expected(dataset, model, everything))

    def sum_of(self, dataset, model, name, places):
        """The sum of a term's losses over rows, times its scale."""
        term, batch = dataset.task.terms[name], tuple(part[places] for part in dataset.train[name])
        return term.scale * term.loss(model, batch).sum().item()

    def test_a_term_absent_from_a_batch_adds_nothing(self, dataset, model):
        batch = np.array([20, 3, 11, 0, 5, 9, 17, 2])
        expected = self.sum_of(dataset, model, "interior", batch) / (24 * 8 / 26)
        assert_exact(loader_and_objective(dataset), model, batch, expected)

    def test_a_term_of_a_batch_is_divided_by_its_training_rows_in_proportion(self, dataset, model):
        batch = np.array([20, 3, 24, 0, 5, 9, 17, 2])
        interior = self.sum_of(dataset, model, "interior", np.delete(batch, 2)) / (24 * 8 / 26)
        boundary = self.sum_of(dataset, model, "boundary", [0]) / (2 * 8 / 26)
        assert_exact(loader_and_objective(dataset), model, batch, interior + boundary)

    @pytest.mark.parametrize("size", [2, 4, 22, 44])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_the_mean_of_an_epoch_of_equal_batches_is_the_full_loss(self, size, weighted):
        """Whatever the batch size is, although most small batches have no row of the second term."""
        dataset = two_terms(weighted)
        parts, model = loader_and_objective(dataset), seeded(nn.Linear, 1, 1)
        whole, gradient = loss_and_gradient(parts, model, np.arange(44), None)
        order = np.random.default_rng(4).permutation(44)
        found = [loss_and_gradient(parts, model, batch, None) for batch in order.reshape(-1, size)]
        assert np.mean([loss for loss, _ in found]) == pytest.approx(whole, rel=1e-12)
        mean = torch.stack([part for _, part in found]).mean(0)
        torch.testing.assert_close(mean, gradient, rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize("weighted", [False, True])
    def test_metrics_of_a_term_are_averages_over_its_rows(self, weighted):
        dataset, model = two_terms(weighted), seeded(nn.Linear, 1, 1)
        (x, weights), second = dataset.train["first"], dataset.train["second"]
        first_out, second_out = model(x)[:, 0], model(second)[:, 0]
        factor = 0.5 + weights.double() if weighted else torch.ones(40, dtype=torch.float64)
        losses = first_out.square() * factor
        expected = {
            "first_loss": losses.sum() / factor.sum(),
            "first_output": first_out.mean(),
            "first_weighted": first_out.sum() / factor.sum(),
            "second_loss": (second_out - 1).square().mean(),
            "output": torch.cat([first_out, second_out]).mean(),
        }
        found = evaluate(model, *loader_and_objective(dataset), np.arange(44), 7, "train")
        assert found.averages == pytest.approx({name: mean.item() for name, mean in expected.items()})
        assert found.loss == pytest.approx(
            found.averages["first_loss"] + 10 * found.averages["second_loss"], rel=1e-13
        )
        of_first = evaluate(model, *loader_and_objective(dataset), np.arange(40), 7, "train")
        assert set(of_first.averages) == {*expected} - {"second_loss"}

    @pytest.mark.parametrize("weighted", [False, True])
    def test_a_full_batch_is_divided_by_exactly_the_weights(self, weighted):
        _, objective = loader_and_objective(two_terms(weighted))
        expected = {"first": 40.0, "second": 4.0}
        if weighted:
            expected["first"] = sum(0.5 + place / 40 for place in range(40))
        assert objective.divisor(np.arange(44)) == pytest.approx(expected, rel=1e-15)
        sums = {term: objective.sum_weights(rows) for term, rows in objective.by_term(np.arange(44)).items()}
        assert objective.divisor(np.arange(44)) == sums

    def test_only_rows_that_are_trained_on_count(self, dataset, model):
        """As after holding out, or for a repeated row."""
        _, data = prepare(dataset)
        train = np.array([3, 4, 5, 24, 24])
        objective = Objective(dataset.task, data, {}, CPU, torch.float64, train)
        assert objective.divisor(train) == {"interior": 3.0, "boundary": 2.0}
        assert objective.divisor(train[:2]) == {"interior": 3.0 * 0.4, "boundary": 2.0 * 0.4}

    def test_class_weights_count_within_terms(self):
        """Loss and divisor agree, and training and evaluation do."""
        x, label = torch.randn(9, 4, generator=torch.Generator().manual_seed(3)), torch.arange(9) % 2

        def losses(model, batch):
            return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

        task = Task(
            loss={"first": Term(loss=losses), "second": Term(loss=losses, scale=0.5)},
            classes=("a", "b"),
            label=lambda batch: batch[1],
        )
        dataset = RowDataset(train={"first": (x[:6], label[:6]), "second": (x[6:], label[6:])}, task=task)
        parts, model = loader_and_objective(dataset, {"a": 4.0}), seeded(nn.Linear, 4, 2)
        weights, x = torch.tensor([4.0, 1.0], dtype=torch.float64), x.double()
        expected = functional.cross_entropy(
            model(x[:6]), label[:6], weights
        ) + 0.5 * functional.cross_entropy(model(x[6:]), label[6:], weights)
        assert_exact(parts, model, np.arange(9), expected)
        found = evaluate(model, *parts, np.arange(9), 2, "train")
        assert found.loss == pytest.approx(expected.item(), rel=1e-13)


class TestWeightedClasses:
    weights = {"b": 2.5, "c": 0.25}  # noqa: RUF012 - it is not changed

    def test_of_rows_are_exact(self):
        random = torch.Generator().manual_seed(5)
        x, label = torch.randn(30, 6, generator=random), torch.arange(30) * 7 % 3
        dataset = RowDataset(train=(x, label), task=classification(["a", "b", "c"]))
        model, batch = seeded(nn.Linear, 6, 3), np.random.default_rng(2).permutation(30)[:23]
        weights = torch.tensor([1.0, 2.5, 0.25], dtype=torch.float64)
        chosen = torch.from_numpy(batch)
        expected = functional.cross_entropy(model(x.double()[chosen]), label[chosen], weights)
        assert_exact(loader_and_objective(dataset, self.weights), model, batch, expected)

    def test_of_a_task_without_a_shortcut_are_those_with_it(self):
        """`summed` gives what multiplying each row's loss by its class's weight gives."""
        x, label = torch.randn(30, 6, generator=torch.Generator().manual_seed(5)), torch.arange(30) * 7 % 3
        with_shortcut = classification(["a", "b", "c"])
        plain = Task(loss_of=with_shortcut.loss_of, classes=with_shortcut.classes, label=with_shortcut.label)
        model, batch, found = seeded(nn.Linear, 6, 3), np.arange(23), []
        for task in (with_shortcut, plain):
            dataset = RowDataset(train=(x, label), task=task)
            found.append(assert_exact(loader_and_objective(dataset, self.weights), model, batch))
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-13)
        torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-12, atol=1e-15)

    def test_multiply_the_weights_of_rows(self):
        dataset = make_padded_dataset()
        task = Task(
            loss_of=PADDED_TASK.loss_of,
            weight=PADDED_TASK.weight,
            classes=("even", "odd"),
            label=lambda batch: batch[0][:, 0] % 2,
        )
        weighted = RowDataset(train=dataset.train, task=task, collate=pad_rows)
        model, batch = seeded(make_token_model), np.arange(25)
        tokens, following = pad_rows([dataset.train[place] for place in range(25)])
        losses = functional.cross_entropy(
            model(tokens).transpose(1, 2), following, ignore_index=IGNORED, reduction="none"
        )
        factor = torch.where(tokens[:, 0] % 2 == 1, 3.0, 1.0).double()
        counted = (following != IGNORED).sum(1)
        expected = (factor * losses.sum(1)).sum() / (factor * counted).sum()
        assert_exact(loader_and_objective(weighted, {"odd": 3.0}), model, batch, expected)

    def test_of_images_are_exact(self, tiny_data):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Tanh(), nn.Flatten(), nn.Linear(576, 2)).double()
        loader = ImageLoader(tiny_data, ModelSpec(factory=nn.Linear), CPU, torch.float64, "channels_last")
        task = classification(tiny_data.classes, tiny_data.positive)
        objective = Objective(task, tiny_data, {"bright": 2.5}, CPU, torch.float64)
        assert_exact((loader, objective), model, np.random.default_rng(2).permutation(90)[:25])


def test_a_penalty_is_added_once():
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    y = x.sum(1, keepdim=True)

    def penalty(model):
        return 0.1 * sum(p.square().sum() for p in model.parameters())

    dataset = RowDataset(train=(x, y), task=regression(penalty=penalty))
    model = seeded(nn.Linear, 5, 1)
    expected = functional.mse_loss(model(x.double()), y.double()) + penalty(model)
    parts = loader_and_objective(dataset)
    assert_exact(parts, model, np.arange(20), expected)
    assert evaluate(model, *parts, np.arange(20), 3, "train").loss == pytest.approx(
        expected.item(), rel=1e-13
    )
