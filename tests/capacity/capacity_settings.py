"""Settings of cells in few words."""

from __future__ import annotations

from typing import Any

from xbench.training.settings import CellSettings, Choice, TrainingSettings


def settings_of(
    optimizer: str = "sgd",
    params: dict[str, Any] | None = None,
    model: str = "report-cnn",
    seed: int = 0,
    **training: Any,
) -> CellSettings:
    return CellSettings(
        Choice(model, {}), Choice(optimizer, params or {}), TrainingSettings(**training), seed, "cpu"
    )


def lbfgs(history_size: int = 10, **training: Any) -> CellSettings:
    return settings_of("lbfgs", {"history_size": history_size, "max_iter": 4}, **training)
