"""When a training run evaluates held-out rows within its epochs, as the setting `evaluate_every` says."""

from __future__ import annotations

from xbench.training.settings import EvaluateEvery, TrainingSettings, count_steps_per_epoch


def is_evaluation_due(every: EvaluateEvery, step: int, drawn: int, batch: int) -> bool:
    """Return whether an evaluation follows a step, even if no epoch ends with it.

    Args:
        step: number of the step, from 1.
        drawn: number of examples drawn so far, those of this step included.
        batch: number of examples of this step. The first step at or after each multiple of
            `"N examples"` is followed by an evaluation.
    """
    if isinstance(every, int):
        return step % every == 0
    if every == "epoch":
        return False
    count = int(every.split()[0])
    return drawn // count > (drawn - batch) // count


def count_evaluations(training: TrainingSettings) -> int:
    """Count the evaluations of a run, those after its epochs included.

    Args:
        training: the run's settings, with resolved sizes.
    """
    sizes, every = training.sizes, training.evaluate_every
    of_epoch = count_steps_per_epoch(sizes.train_size, sizes.batch_size, training.drop_last)
    if every == "epoch":
        return training.epochs
    if isinstance(every, int):
        ends = sum(epoch * of_epoch % every != 0 for epoch in range(1, training.epochs + 1))
        return training.epochs * of_epoch // every + ends
    due, examples = int(every.split()[0]), min(sizes.train_size, of_epoch * sizes.batch_size)
    whole = (of_epoch - 1) * sizes.batch_size  # all steps of an epoch but the last are on whole batches
    starts = range(0, training.epochs * examples, examples)
    # A step that passes several multiples is followed by one evaluation.
    within = (min(of_epoch - 1, (start + whole) // due - start // due) for start in starts)
    return training.epochs + sum(within)
