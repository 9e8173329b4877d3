"""Tests that the padded rows need their weights: only then do parts of a batch add up to the whole batch."""

from __future__ import annotations

import torch

from tests.training.padded_rows import make_padded_dataset, make_token_model, pad_rows


def sums(dataset, model, positions):
    """Return the sum of the losses and the sum of the weights of some rows, padded to the longest of them."""
    batch = pad_rows([dataset.train[position] for position in positions])
    task = dataset.task
    return torch.stack([task.loss_of(model(batch[0]), batch).sum(), task.weight(batch).sum().double()])


def test_parts_of_a_batch_add_up_to_the_whole():
    torch.manual_seed(3)  # with some weights, both means are nearly equal
    dataset, model = make_padded_dataset(), make_token_model().double()
    whole = sums(dataset, model, range(12))
    parts = [sums(dataset, model, range(start, start + 3)) for start in range(0, 12, 3)]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=0)
    mean_of_means = sum(part[0] / part[1] for part in parts) / len(parts)
    assert abs(mean_of_means - whole[0] / whole[1]) > 1e-4 * whole[0] / whole[1]


def test_rows_differ_in_weight_and_some_weigh_nothing():
    dataset = make_padded_dataset()
    batch = pad_rows([dataset.train[position] for position in range(len(dataset.train))])
    assert sorted(set(dataset.task.weight(batch).tolist())) == list(range(9))
    losses = dataset.task.loss_of(make_token_model()(batch[0]), batch)
    assert (losses[dataset.task.weight(batch) == 0] == 0).all()
