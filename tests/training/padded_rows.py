"""Sequences of unequal length that are padded in a batch, so that rows differ in weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from xbench.components.facts import Output
from xbench.components.metric import Batch, Metric
from xbench.components.tasks import RowDataset, Task

VOCABULARY = 11
# Target of the places that are not counted.
IGNORED = -100


class UnequalSequences:
    """A map-style dataset of sequences of 1 to 9 tokens, each a row `(tokens, next_tokens)`.

    The next token of a sequence's last one is not known, so sequences of one token have weight 0.
    """

    def __init__(self, count: int, first: int = 0) -> None:
        self._rows = [_make_row(number) for number in range(first, first + count)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        return self._rows[position]


def _make_row(number: int) -> tuple[Tensor, Tensor]:
    length = 1 + number * 5 % 9
    tokens = torch.tensor([(3 * number + place * (number % 4 + 1)) % VOCABULARY for place in range(length)])
    return tokens, functional.pad(tokens[1:], (0, 1), value=IGNORED)


def pad_rows(rows: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Collate rows to (n, longest) tokens and next tokens, both int64."""
    tokens, next_tokens = zip(*rows, strict=True)
    return (
        nn.utils.rnn.pad_sequence(list(tokens), batch_first=True),
        nn.utils.rnn.pad_sequence(list(next_tokens), batch_first=True, padding_value=IGNORED),
    )


def sum_counted(logits: Tensor, batch: Batch) -> Tensor:
    """Return (n,): the sum of the cross entropies of a row's counted tokens."""
    losses = functional.cross_entropy(
        logits.flatten(0, 1), batch[1].flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view_as(batch[1]).sum(1)


def count_tokens(batch: Batch) -> Tensor:
    """Return (n,): the number of counted tokens of a row."""
    return (batch[1] != IGNORED).sum(1)


def count_hits(logits: Tensor, batch: Batch) -> Tensor:
    return ((logits.argmax(2) == batch[1]) & (batch[1] != IGNORED)).sum(1)


PADDED_TASK = Task(
    loss_of=sum_counted,
    weight=count_tokens,
    metrics=(
        Metric(name="token_accuracy", direction="max", value=count_hits, weighted=True),
        Metric(name="hits_per_row", direction="max", value=count_hits),
    ),
    output=Output("tokens", VOCABULARY),
    loss_unit="nats",
)


def make_padded_dataset(train: int = 40, test: int = 12) -> RowDataset:
    """Make a dataset of padded sequences, with different sequences in train and test."""
    return RowDataset(
        train=UnequalSequences(train),
        test=UnequalSequences(test, first=train),
        task=PADDED_TASK,
        collate=pad_rows,
    )


def make_token_model(width: int = 8) -> nn.Module:
    """Make a model that predicts the next token from the current one: (n, length) -> (n, length, 11)."""
    return nn.Sequential(nn.Embedding(VOCABULARY, width), nn.Tanh(), nn.Linear(width, VOCABULARY))
