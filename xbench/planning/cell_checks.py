"""Hold declared cells against the data and the device that they will run on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from xbench.planning.describe import ModelFacts
from xbench.planning.resolution import ResolvedData
from xbench.planning.task_facts import TaskFacts
from xbench.suite.cells import Cell
from xbench.suite.problems import Problems


def fit_to_data(cells: list[Cell], resolved: dict[str, ResolvedData], problems: Problems) -> list[Cell]:
    """Choose the validation and selection of each cell that its data allows, where the suite does not say.

    Nothing is held out of data that brings its own validation rows, or that is trained on as a whole. Without
    validation rows, the last epoch's weights are used. What the suite says itself, and the data does not
    allow, is added to `problems`.
    """
    return [
        _fit_cell(cell, resolved[key].facts.task, resolved[key].choice.name, problems)
        if (key := repr(cell.dataset)) in resolved
        else cell
        for cell in cells
    ]


def _fit_cell(cell: Cell, task: TaskFacts, name: str, problems: Problems) -> Cell:
    training, said = cell.training, {value.key for value in cell.values if value.kind == "training"}
    changes: dict[str, Any] = {}
    if task.has_validation and "validation" in said and training.validation:
        problems.add(
            cell.where("validation"),
            f"{name} brings validation rows, so none are held out",
            hint="leave out validation",
        )
    if (task.has_validation or not task.hold_out) and "validation" not in said:
        changes["validation"] = 0.0
    held_out = task.has_validation or bool(changes.get("validation", training.validation))
    if not held_out and training.selection == "validation_loss":
        if "selection" in said:
            problems.add(
                cell.where("selection"),
                f"{name} has no validation rows to select by",
                hint="set validation > 0, or selection = 'last'",
            )
        changes["selection"] = "last"
    if not task.has_test and training.selection == "test_loss":
        problems.add(
            cell.where("selection"), f"{name} has no test rows to select by", hint="set selection = 'last'"
        )
    if not task.additive and "micro_batch" in said and training.micro_batch != "full":
        problems.add(
            cell.where("micro_batch"),
            f"the task of {name} is not additive, so its batches cannot be computed in parts",
            hint='set micro_batch = "full"',
        )
    return replace(cell, training=training.model_copy(update=changes)) if changes else cell


def check_data(
    cells: list[Cell],
    resolved: dict[str, ResolvedData],
    models: dict[str, ModelFacts],
    problems: Problems,
) -> None:
    """Check that the data of each cell has the classes and the image shape that the cell needs."""
    for cell in cells:
        data = resolved.get(repr(cell.dataset))
        if data is None:
            continue
        facts, experiment = data.facts, cell.path[:2]
        if not facts.has_images and cell.dataset.storage != "uint8":
            problems.add(
                (*experiment, "dataset", "storage"),
                f"storage = '{cell.dataset.storage}' is for images, and {data.choice.name} has none",
                hint="leave out storage",
            )
        unknown = sorted(set(cell.training.class_weights) - set(facts.classes))
        if not facts.classes and (unknown or cell.training.balance != "none"):
            key = "class_weights" if unknown else "balance"
            problems.add(cell.where(key), f"{data.choice.name} has no classes, so '{key}' has no meaning")
        elif unknown:
            problems.add(
                cell.where("class_weights"),
                f"{data.choice.name} has no class '{unknown[0]}'; its classes are {', '.join(facts.classes)}",
            )
        model = models.get(repr(cell.model))
        shape = None if model is None else model.input_shape
        if shape is not None and shape != facts.shape:
            what = "images" if facts.has_images else "inputs"
            sizes = [
                v.path for v in cell.values if v.key == "image_size" and v.kind == "dataset" and v.is_item
            ]
            problems.add(
                sizes[0] if sizes else (*experiment, "model"),
                f"model '{cell.model.name}' takes {what} of shape {shape}, "
                f"but {data.choice.name} has {facts.shape}",
                hint=f"set the dataset's image_size to {shape[-1]}" if facts.has_images else "",
            )


def find_idle_settings(cells: list[Cell], device: str) -> tuple[str, ...]:
    """Return warnings about settings that have no effect on a device, although tables show them."""
    if device == "cpu" and any(cell.training.tf32 for cell in cells):
        return ("tf32 = true has no effect on a CPU",)
    return ()
