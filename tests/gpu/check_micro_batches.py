"""Compare L-BFGS on the full batch at once with L-BFGS on the same batch in micro-batches.

In float32 the first closure must agree to 1e-5: both start from the same weights, so only the order of sums
differs. Later steps amplify rounding, so the whole curve is compared in float64, to 1e-8.
"""

from __future__ import annotations

from tests.gpu.checking import (
    ON_CUDA,
    cells_of,
    check,
    difference,
    figure,
    run_experiment,
    run_step,
    trace_of,
)

MAX_FIRST_DIFFERENCE = 1e-5
MAX_CURVE_DIFFERENCE = 1e-8

# Convolutions in float64 are slow on a CPU.
FLAGS = (
    () if ON_CUDA else ("--set", "dataset.train=20", "--set", "micro_batch=['full', 8]", "--set", "epochs=2")
)


def micro_batches() -> None:
    folder = run_experiment("micro-batches", *FLAGS)
    curves: dict[str, dict[bool, list[float]]] = {}
    for record in cells_of(folder):
        in_parts = record.ran["micro_batch"] < record.ran["batch_size"]
        losses = [row.loss for row in trace_of(folder, record)]
        curves.setdefault(record.settings["dtype"], {})[in_parts] = losses
    for dtype, max_first, max_curve in (
        ("float32", MAX_FIRST_DIFFERENCE, None),
        ("float64", MAX_CURVE_DIFFERENCE, MAX_CURVE_DIFFERENCE),
    ):
        whole, parts = curves[dtype][False], curves[dtype][True]
        check(len(whole) == len(parts) > 1, f"{dtype}: {len(whole)} steps at once, {len(parts)} in parts")
        differences = [difference(part, loss) for part, loss in zip(parts, whole, strict=True)]
        figure(f"{dtype}_first_closure", differences[0])
        figure(f"{dtype}_curve", max(differences))
        check(differences[0] <= max_first, f"{dtype}: the first closures differ by {differences[0]:.2g}")
        if max_curve is not None:
            check(max(differences) <= max_curve, f"{dtype}: the curves differ by {max(differences):.2g}")


if __name__ == "__main__":
    run_step(micro_batches)
