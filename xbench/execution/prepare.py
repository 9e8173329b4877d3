"""From a plan to jobs: data is decoded, and there must be enough of it."""

from __future__ import annotations

from xbench.data.decoded import DecodedDataset
from xbench.errors import XbenchError
from xbench.execution.inspection import decode_dataset
from xbench.execution.job import Job
from xbench.execution.observer import Observer
from xbench.execution.plan import PlannedRun, ResolvedData
from xbench.isolation.run import call_in_child
from xbench.training.settings import CellSettings
from xbench.training.splits import split_examples


def decode_all(plan: PlannedRun, observer: Observer) -> dict[str, DecodedDataset]:
    """Decode every dataset of a plan.

    Raises:
        XbenchError: one cannot be decoded.
    """
    decoded: dict[str, DecodedDataset] = {}
    for data in plan.data:
        if _key(data) not in decoded:
            decoded[_key(data)] = call_in_child(
                decode_dataset,
                data.choice,
                data.strict,
                plan.import_dirs,
                on_message=lambda progress, name=data.choice.name: observer.decoding(name, *progress),
            )
    return decoded


def make_jobs(plan: PlannedRun, decoded: dict[str, DecodedDataset]) -> list[Job]:
    """A job for every cell of a plan.

    Raises:
        XbenchError: there are not enough examples, which is certain only when unreadable ones are left out.
    """
    problems, jobs = plan.suite.problems, []
    for cell, resolved in zip(plan.cells, plan.data, strict=True):
        data = decoded[_key(resolved)]
        settings = CellSettings(
            cell.model, cell.optimizer, cell.training, cell.seed, plan.machine.device, cell.dataset.storage
        )
        try:
            available = len(split_examples(data, cell.training, cell.seed).train)
        except XbenchError as error:
            problems.add((*cell.path[:2], "train_size"), error.message, error.hint)
            continue
        jobs.append(
            Job(
                cell=cell,
                settings=settings,
                resolved=resolved,
                data=data,
                available=available,
                default_history=plan.default_histories.get(cell.optimizer.name),
                machine=plan.machine,
                memory_limit_bytes=plan.limit_of(cell),
                import_dirs=plan.import_dirs,
            )
        )
    problems.raise_if_any()
    return jobs


def _key(data: ResolvedData) -> str:
    return repr((data.choice, data.strict))
