"""Jobs in few words, that are never run."""

from __future__ import annotations

from typing import Any

from xbench.data.decoded import DecodedDataset
from xbench.execution.component_trials import ResolvedData
from xbench.execution.inspection import DatasetFacts, Machine, ModelFacts
from xbench.execution.job import Job
from xbench.records.schema import Status
from xbench.suite.grid import Cell, DatasetChoice
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.splits import split_examples

VERSIONS = {"xbench": "1", "torch": "2", "torchvision": "1", "numpy": "2"}
MACHINE = Machine("cpu", {"type": "cpu", "name": "a processor"}, 2, VERSIONS, {"cpu": "a processor"}, ())


def job_of(
    data: DecodedDataset,
    experiment: str = "exp",
    column: str = "opt",
    seed: int = 0,
    model: str = "net",
    estimated_s: float | None = None,
    unfit: tuple[Status, str] | None = None,
    import_dirs: tuple[str, ...] = (),
    **training: Any,
) -> Job:
    choice = Choice(data.name, {})
    cell = Cell(
        experiment=experiment,
        column=column,
        model=Choice(model, {}),
        dataset=DatasetChoice(choice, None, False),
        optimizer=Choice(column, {}),
        training=TrainingSettings(**training),
        seed=seed,
        path=("experiment", 0, "optimizer", 0),
    )
    facts = DatasetFacts(data.classes, data.shape, {}, "")
    return Job(
        cell=cell,
        settings=CellSettings(cell.model, cell.optimizer, cell.training, seed, "cpu"),
        resolved=ResolvedData(data.name, choice, False, facts, ""),
        data=data,
        model=ModelFacts(None, "", "", ""),
        available=len(split_examples(data, cell.training, seed).train),
        default_history=None,
        machine=MACHINE,
        memory_limit_bytes=None,
        import_dirs=import_dirs,
        estimated_s=estimated_s,
        unfit=unfit,
    )
