"""Planned cells in few words, that are never run."""

from __future__ import annotations

from typing import Any

from xbench.components.classification import classification
from xbench.data.decoded import DecodedDataset
from xbench.planning.datasets import DatasetFacts
from xbench.planning.describe import ModelFacts
from xbench.planning.machine import Machine
from xbench.planning.planned import Estimate, PlannedCell, Skip
from xbench.planning.resolution import ResolvedData
from xbench.planning.task_facts import describe_task
from xbench.suite.cells import Cell, DatasetChoice
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.splits import split_examples

VERSIONS = {"xbench": "1", "torch": "2", "torchvision": "1", "numpy": "2"}
MACHINE = Machine("cpu", {"type": "cpu", "name": "a processor"}, 2, VERSIONS, {"cpu": "a processor"}, ())


def cell_of(
    data: DecodedDataset,
    experiment: str = "exp",
    column: str = "opt",
    seed: int = 0,
    model: str = "net",
    estimated_s: float | None = None,
    is_rough: bool = False,
    skip: Skip | None = None,
    import_dirs: tuple[str, ...] = (),
    **training: Any,
) -> PlannedCell:
    choice = Choice(data.name, {})
    declared = Cell(
        experiment=experiment,
        column=column,
        model=Choice(model, {}),
        dataset=DatasetChoice(choice, None, False),
        optimizer=Choice(column, {}),
        training=TrainingSettings(**training),
        seed=seed,
        path=("experiment", 0, "optimizer", 0),
    )
    facts = DatasetFacts(
        facts=data.facts,
        task=describe_task(classification(data.classes, data.positive)),
        counts={},
        has_images=True,
        stand_in="",
    )
    return PlannedCell(
        declared=declared,
        settings=CellSettings(declared.model, declared.optimizer, declared.training, seed, "cpu"),
        resolved=ResolvedData(data.name, choice, False, facts, ""),
        data=data,
        model=ModelFacts(None, "", "", ""),
        available=len(split_examples(data, declared.training, seed).train),
        default_history=None,
        machine=MACHINE,
        import_dirs=import_dirs,
        estimate=Estimate(estimated_s, is_rough),
        skip=skip,
    )
