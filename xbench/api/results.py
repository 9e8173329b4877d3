"""The results of a run as Python objects, read from its records alone."""

from __future__ import annotations

import os
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbench.records.runs import find_run
from xbench.records.store import RunFolder
from xbench.storage.paths import expand_user

if TYPE_CHECKING:
    import pandas as pd

    from xbench.report.comparison import Comparison
    from xbench.report.document import Document

# Where nobody watches, tables keep their whole width.
_PIPE_WIDTH = 200


class Results:
    """The results of a run, as they were when this object was made.

    Shown in a notebook, it is the tables of the run, which `show` prints.

    Args:
        folder: the run's folder.
        baseline: the column that findings compare the others with; by default the suite's choice.

    Attributes:
        folder: the run's folder.
        warnings: sentences for every reader of the results, such as that images are made up.

    Raises:
        XbenchError: the folder holds no readable run, or no experiment has the baseline.
    """

    def __init__(self, folder: str | os.PathLike[str], baseline: str | None = None):
        self.folder = Path(folder)
        self._baseline = baseline or ""
        self._run, self._records = RunFolder(self.folder).read()
        self.warnings = tuple(self._run.warnings)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The comparison of each experiment: its columns, formatted table, findings and notes."""
        from xbench.report.comparison import View, comparisons

        return comparisons(self._run, self._records, View(baseline=self._baseline))

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row for each cell that the run declares, in the order of the suite.

        The columns are `experiment`, `column` (the title in tables), `seed`, `status` (`done`, `oom`,
        `diverged`, `timeout`, `error` or `skipped`; missing if the cell has not ended), `reason`, `model`,
        `dataset`, `dataset_stand_in` (a note if images are made up), `optimizer`, the metrics of the run
        under their names (`test_accuracy`, ...), `selected_epoch`, `steps`, `closures`, the sizes that the
        cell ran with (`train_size`, `batch_size` and `micro_batch` in examples, `history_size`), the times
        `training_s`, `evaluation_s`, `prepare_s`, `compile_s`, `features_s` and `memory_pass_s` in seconds
        and `step_ms_median` in milliseconds, `needed_bytes` (the memory that the cell needs),
        `optimizer_peak_bytes` (the part of the optimizer: its state, its work and the gradients), the memory
        of its process (`peak_host_bytes`, `peak_device_bytes`, `limit_bytes`, `parameters_bytes`,
        `optimizer_state_bytes`) in bytes, `state_vectors` (the state's size as a multiple of that of the
        trained parameters), `optimizer.NAME` and `model.NAME` for each setting that the suite gives, the
        training settings as `training.NAME`, `cell_id` and `attempt`. If an experiment has a target, there
        are also `reached_target` (missing if the cell tells neither) and what the cell needed until the first
        evaluation that meets it: `steps_to_target`, `closures_to_target`, `examples_to_target` and
        `training_s_to_target` in seconds, and `bytes_to_target`, the smallest memory limit (of one seed).
        """
        from xbench.api.frames import make_cells_frame

        return make_cells_frame(self._run, self._records, self.comparisons)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row for each training step of each cell, failed cells included.

        The columns are `experiment`, `column`, `seed`, `cell_id`, `step` and `epoch` (from 1), `loss` (of the
        batch before the update), `wall_s` (seconds of the step), `closures` (evaluations of loss and
        gradient), and the memory peaks of the step in bytes: `host_peak_bytes`, `device_peak_bytes` and
        `device_reserved_bytes` (missing on a CPU).

        Raises:
            XbenchError: the trace of a cell is damaged.
        """
        from xbench.api.frames import make_steps_frame

        return make_steps_frame(RunFolder(self.folder), self._run, self._records)

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """One row for each evaluation of each cell on held-out rows during training, failed cells included.

        The columns are `experiment`, `column`, `seed`, `cell_id`, `step` and `epoch` (from 1), `examples` and
        `closures` (drawn and evaluated until then), `training_s` (seconds of training until then), and the
        metrics of the run that are measured after each epoch, under their names (`validation_loss`, ...).
        """
        from xbench.api.frames import make_evaluations_frame

        return make_evaluations_frame(self._run, self._records)

    @cached_property
    def findings(self) -> pd.DataFrame:
        """One row for each figure in which a column is compared with the baseline of its experiment.

        The columns are `experiment`, `figure`, `column`, `baseline`, `kind` (`difference` or `ratio`),
        `estimate`, `low` and `high` (the ends of its 95 % interval; missing with one seed), `n` (pairs of
        seeds), `seeds`, `method` (of the interval), `p`, `is_significant` (whether `p_corrected`, which is
        corrected for all comparisons of the experiment, is at most 0.05), `is_better` (missing if neither is
        shown) and `text`. Estimates have the unit of the figure in `cells`; ratios have none.
        """
        from xbench.api.frames import make_findings_frame

        return make_findings_frame(self.comparisons)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row for each trial of the searches for settings, failed trials included. Other frames have no
        trials.

        The columns are `experiment`, `column`, `trial` (its number, from 1), `values.NAME` for each setting
        that was searched, `score` (the metric of the search; missing if the trial failed), `is_chosen`,
        `status`, `reason`, `closures`, `training_s` and `cell_id`.
        """
        from xbench.api.frames import make_trials_frame

        return make_trials_frame(self.comparisons)

    def show(self) -> None:
        """Print the tables of the run and what follows from them."""
        from rich.console import Console

        from xbench.report.emit import print_document

        # As plain text in a notebook, too, which shows the object itself as HTML.
        console = Console(force_jupyter=False)
        if not console.is_terminal:
            console = Console(force_jupyter=False, width=_PIPE_WIDTH)
        print_document(console, self._document)

    def figure(self, key: str, experiment: str | None = None) -> Any:
        """Draw a figure of the run with matplotlib.

        Args:
            key: the figure's name, such as `"loss-steps"`, or its first word, such as `"loss"`.
            experiment: name of the experiment; by default the first one that has such a figure. Figures of
                all experiments together, such as `"profile-time"`, belong to none.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            XbenchError: the run has no such figure.
        """
        from xbench.errors import XbenchError
        from xbench.report.draw import make_canvas
        from xbench.report.figure_data import read_figures

        figures = read_figures(RunFolder(self.folder))
        for figure in figures:
            if f"{figure.key}-".startswith(f"{key}-") and experiment in (None, figure.experiment):
                return make_canvas(figure)
        named = (f"{f.key} of {f.experiment}" if f.experiment else f.key for f in figures)
        known = ", ".join(dict.fromkeys(named))
        raise XbenchError(
            f"the run has no figure '{key}'", hint=f"its figures are {known}" if known else None
        )

    @cached_property
    def _document(self) -> Document:
        from dataclasses import replace

        from xbench.report.notes import describe_empty_run
        from xbench.report.run_document import make_run_document

        document = make_run_document(self._run, self._records, self.comparisons, str(self.folder))
        headline = describe_empty_run(self._records)
        return replace(document, warnings=(headline, *document.warnings)) if headline else document

    def __repr__(self) -> str:
        from xbench.report.declared_cells import match_cells

        matched = {key.cell_id: record for key, record in match_cells(self._run, self._records)}
        counts = Counter(record.status for record in matched.values() if record is not None)
        ended = ", ".join(f"{count} {status}" for status, count in counts.items()) or "none ended"
        return f"<Results of {self._run.suite} in {str(self.folder)!r}: {len(matched)} cells, {ended}>"

    def _repr_html_(self) -> str:
        from xbench.api.html import to_html

        return to_html(self._document)


def load(
    path_or_name: str | os.PathLike[str] | None = None, out: str | os.PathLike[str] = "results"
) -> Results:
    """Read the results of a run.

    Args:
        path_or_name: a run's folder, or a suite's name for its latest run; None for the latest run of all.
        out: folder of all results.

    Raises:
        XbenchError: there is no such run, or its records cannot be read.
    """
    wanted = None if path_or_name is None else str(expand_user(os.fspath(path_or_name), "run"))
    return Results(find_run(expand_user(Path(out), "out"), wanted).path)
