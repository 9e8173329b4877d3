"""Small data for checks, and models with parameters of several kinds on which optimizers are checked.

Rows follow from a formula, so that they are the same everywhere. Cross-entropy has bounded gradients, so
almost any learning rate lowers it. Every parameter has at least eight elements, except the scalar of
`build_shapes`: an optimizer's counters can thereby be told from its vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xbench.components.classification import classification
from xbench.components.facts import Output
from xbench.components.metric import Batch
from xbench.components.next_token import next_token_task
from xbench.components.regression import regression
from xbench.components.tasks import RowDataset, Task

ROWS, FEATURES, TOKENS, VOCABULARY, CLASSES = 64, 8, 3, 16, 8


def build_rows() -> RowDataset:
    """Build rows `(numbers, tokens, label)` of shapes (n, 8), (n, 3) and (n,), and their task."""
    rows = torch.arange(1, ROWS + 1, dtype=torch.float64)[:, None]
    numbers = torch.sin(rows * torch.arange(1, FEATURES + 1))
    tokens = (rows.long() * torch.tensor([3, 5, 7])) % VOCABULARY
    labels = (tokens.sum(1) + (numbers[:, 0] > 0).long()) % CLASSES
    task = Task(outputs=_compute_logits, loss_of=_compute_losses, output=Output("classes", CLASSES))
    return RowDataset(train=(numbers.float(), tokens, labels), task=task, hold_out=False)


def _compute_logits(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch[0], batch[1])


def _compute_losses(logits: Tensor, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(logits, batch[2], reduction="none")


class _Mixed(nn.Module):
    """An embedding, two hidden matrices, vectors and an output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, 16)
        self.inner = nn.Linear(FEATURES, 16)
        self.norm = nn.LayerNorm(16)
        self.middle = nn.Linear(16, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, numbers: Tensor, tokens: Tensor) -> Tensor:
        hidden = self.norm(self.inner(numbers) + self.table(tokens).sum(1))
        return self.head(torch.tanh(self.middle(torch.tanh(hidden))))


class _Sparse(nn.Module):
    """An embedding with sparse gradients, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, CLASSES, sparse=True)

    def forward(self, numbers: Tensor, tokens: Tensor) -> Tensor:
        return self.table(tokens).sum(1)


class _Shapes(nn.Module):
    """A kernel of four dimensions, a vector, a matrix and a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Conv2d(1, 8, 2)
        self.middle = nn.Linear(24, 8)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, numbers: Tensor, tokens: Tensor) -> Tensor:
        image = numbers.reshape(-1, 1, 2, 4)
        return self.head(torch.tanh(self.middle(self.kernel(image).flatten(1)) * self.scale))


def build_mixed() -> nn.Module:
    """Build a network with an embedding, hidden matrices, vectors and an output layer."""
    return _Mixed()


def build_sparse() -> nn.Module:
    """Build a table of logits with sparse gradients."""
    return _Sparse()


def build_shapes() -> nn.Module:
    """Build a network with parameters of zero to four dimensions."""
    return _Shapes()


def build_images(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 3, count: int = 4) -> RowDataset:
    """Build random images `(image, label)` of shapes (n, channels, height, width) and (n,)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, *shape, generator=generator)
    return RowDataset(train=(images, torch.arange(count) % classes), task=_classify(classes), hold_out=False)


def build_numbers(count: int = 16, features: int = 8, classes: int = 3) -> RowDataset:
    """Build rows of numbers `(numbers, label)` of shapes (n, 8) and (n,), for classifiers."""
    numbers = torch.sin(torch.arange(count * features, dtype=torch.float32)).reshape(count, features)
    return RowDataset(train=(numbers, torch.arange(count) % classes), task=_classify(classes), hold_out=False)


def build_tokens(count: int = 16, context: int = 16, vocabulary: int = 32) -> RowDataset:
    """Build sequences of tokens and their next tokens, both of shape (n, 16), for language models."""
    text = torch.arange(count * context + 1) ** 2 % vocabulary
    train = (text[:-1].reshape(count, context), text[1:].reshape(count, context))
    return RowDataset(train=train, task=next_token_task(vocabulary), hold_out=False)


def build_pairs(count: int = 16, side: int = 4) -> RowDataset:
    """Build rows `(indices, entry)` of shapes (n, 2) and (n, 1), for models of a matrix."""
    positions = torch.arange(count) % side**2
    indices = torch.stack([positions // side, positions % side], dim=1)
    train = (indices, torch.sin(positions[:, None].float()))
    return RowDataset(train=train, task=regression(), hold_out=False)


def build_start(dimension: int = 4) -> RowDataset:
    """Build one row, the point to start from, for models that are a point."""
    task = Task(loss=lambda model, batch: model(batch).square().sum(1))
    return RowDataset(train=torch.ones(1, dimension), task=task, hold_out=False)


def _classify(classes: int) -> Task:
    return classification([f"class {number}" for number in range(classes)])
