"""Train the report's CNN in a plain PyTorch loop: the weights, batches and optimizer of a cell of xbench.

Data, initial weights and the order of examples come from xbench. Loading, normalising, the loss and the steps
are written out as in a notebook.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from xbench.components.models import REPORT_CNN
from xbench.data.decoded import DecodedDataset
from xbench.planning.datasets import prepare_dataset
from xbench.records.schema import CellRecord
from xbench.training.model import build_model
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.splits import epoch_order, split_examples


class PlainLoop:
    """A training of the same model on the same batches as a cell that is done.

    Args:
        record: of the cell; its optimizer's parameters are those of a class of `torch.optim`.
        optimizer: that class.
    """

    def __init__(self, record: CellRecord, optimizer: type[torch.optim.Optimizer], device: str):
        self.device = torch.device(device)
        training = TrainingSettings(**record.settings)
        optimizer_choice = Choice(record.optimizer.name, record.optimizer.params)
        settings = CellSettings(Choice("report-cnn", {}), optimizer_choice, training, record.seed, device)
        dataset = Choice(record.dataset.name, record.dataset.params)
        data = prepare_dataset(lambda progress: None, dataset, False, ())
        self._batch_size, self._seed = training.batch_size, record.seed
        self._epochs = training.epochs
        self._train = split_examples(data, training, record.seed).train
        self._pixels = all_pixels(data)
        self._labels = torch.from_numpy(data.labels)
        self.model: nn.Module = build_model(REPORT_CNN, settings, data)
        self.optimizer = optimizer(self.model.parameters(), **record.optimizer.params)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self._train) // self._batch_size)

    def batches(self) -> Iterator[torch.Tensor]:
        """Indices of the examples of each step, of all epochs."""
        for epoch in range(1, self._epochs + 1):
            order = torch.from_numpy(epoch_order(self._train, self._seed, epoch))
            yield from order.split(self._batch_size)

    def load(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (n, 3, 224, 224), normalised and channels-last, and labels (n,), on the device."""
        pixels = self._pixels[indices].to(self.device)
        images = pixels.to(torch.float32).div_(255).sub_(REPORT_CNN.mean[0]).div_(REPORT_CNN.std[0])
        return images.permute(0, 3, 1, 2), self._labels[indices].to(self.device)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Take a step; returns the loss before it."""
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(self.model(images), labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def all_pixels(data: DecodedDataset) -> torch.Tensor:
    """All images of a dataset: uint8 (n, height, width, channels)."""
    with data.reader(len(data.rows)) as reader:
        return torch.from_numpy(np.array(reader.read(data.rows)))
