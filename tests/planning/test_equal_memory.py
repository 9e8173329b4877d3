"""Which axis of a cell gets the largest value that fits, and which settings have none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.cell_samples import cell_of
from tests.run_samples import SUITE, suite_of
from xbench.capacity.axis import Axis, ScaledSetting
from xbench.capacity.scaled_settings import list_scaled_settings
from xbench.components.settings import Settings
from xbench.planning import equal_memory
from xbench.planning.equal_memory import find_axes
from xbench.suite.axes import Value
from xbench.suite.cells import DatasetChoice
from xbench.training.settings import Choice

KNOWN = {
    ("optimizer", "lbfgs"): Settings({"history_size": 100}),
    ("optimizer", "open"): Settings({}, is_open=True),
    ("optimizer", "adam"): Settings({"lr": 1e-3}),
}


@pytest.fixture
def find(tiny_data, monkeypatch):
    """`find((optimizer, along), ...)`: the axes of cells on a text, and the mistakes."""
    monkeypatch.setattr(equal_memory, "ask", lambda job, *args: list_scaled_settings(None, *args))

    def find(*declared, model="gpt-mini", values=()):
        text = Choice("generated-text", {})
        cells = [
            replace(
                cell_of(tiny_data, column=optimizer, model=model).declared,
                dataset=DatasetChoice(text, None, False),
                along=along,
                along_path=("experiment", 0, "along"),
                values=tuple(values),
            )
            for optimizer, along in declared
        ]
        resolved = {repr(cells[0].dataset): replace(cell_of(tiny_data).resolved, choice=text)}
        problems = suite_of(SUITE).problems
        axes = find_axes(cells, resolved, KNOWN, (), problems)
        return axes, [(message, hint) for (_, message), hint in problems._found.items()]

    return find


def test_sizes_of_training(find):
    axes, wrong = find(
        ("adam", "batch_size"), ("adam", "train_size"), ("lbfgs", "history_size"), ("adam", "")
    )
    assert axes == [Axis.BATCH_SIZE, Axis.TRAIN_SIZE, Axis.HISTORY_SIZE, None]
    assert wrong == []


def test_settings_of_the_model_and_the_data(find):
    (width, context, same), wrong = find(("adam", "width"), ("adam", "context"), ("adam", "sequence_length"))
    assert wrong == []
    assert (width.component, width.setting, width.multiple_of) == ("model", "width", "heads")
    assert (context.component, context.setting) == ("dataset", "context")
    assert same == context


def test_rows_are_those_of_the_user(find):
    """A text that is as long as a context needs would be another one."""
    (width, context), _ = find(("adam", "width"), ("adam", "context"))
    assert width.has_needs and not context.has_needs


def test_an_optimizer_without_a_history(find):
    axes, wrong = find(("adam", "history_size"), ("open", "history_size"))
    assert axes == [None, Axis.HISTORY_SIZE]
    ((message, hint),) = wrong
    assert message == "optimizer 'adam' has no setting 'history_size'"
    assert 'along = "batch_size"' in hint


def test_an_unknown_setting_is_told_with_those_that_there_are(find):
    axes, ((message, hint),) = find(("adam", "widht"))
    assert axes == [None]
    assert message.startswith("neither gpt-mini and generated-text nor training has a setting 'widht'")
    assert "batch_size, train_size, history_size, width, depth, sequence_length" in hint


def test_a_micro_batch_compares_nothing(find):
    axes, ((message, _),) = find(("adam", "micro_batch"))
    assert axes == [None]
    assert "changes only memory, time and rounding" in message


class TestValues:
    """Of the setting whose largest value is found."""

    WIDTH = Value("model", "width", 64, ("experiment", 0, "model", "width"), False)

    def test_one_that_no_optimizer_has_is_a_mistake(self, find):
        _, ((message, _),) = find(("adam", "width"), ("lbfgs", "width"), values=[self.WIDTH])
        assert message.startswith("'width' is the setting whose largest value is found")

    def test_one_that_other_optimizers_have_is_theirs(self, find):
        _, wrong = find(("adam", "width"), ("lbfgs", "history_size"), values=[self.WIDTH])
        assert wrong == []

    def test_an_axis_of_the_grid_is_a_mistake_in_any_case(self, find):
        item = replace(self.WIDTH, path=(*self.WIDTH.path, 0), is_item=True)
        _, wrong = find(("adam", "width"), ("lbfgs", "history_size"), values=[item])
        assert len(wrong) == 1


class TestCell:
    """Of a planned cell with an axis."""

    def test_it_asks_for_the_largest(self, tiny_data):
        cell = replace(cell_of(tiny_data), axis=Axis.BATCH_SIZE)
        assert cell.requested_sizes["batch_size"] == "largest"
        assert cell.awaits_size and cell.finds_batches
        assert cell.scaled_sizes == {}

    def test_a_found_size_counts_even_if_it_is_the_default(self, tiny_data):
        cell = replace(cell_of(tiny_data), axis=Axis.BATCH_SIZE)
        found = cell.with_largest(cell.settings, "the largest that fits")
        assert not found.awaits_size
        assert found.fit.reasons == {"batch_size": "the largest that fits"}

    def test_a_setting_of_the_model_is_among_its_sizes(self, tiny_data):
        cell = replace(cell_of(tiny_data), axis=ScaledSetting("model", "width", "width"))
        settings = replace(cell.settings, model=Choice("net", {"width": 24}))
        found = cell.with_largest(settings, "the largest that fits")
        assert found.requested_sizes["width"] == "largest"
        assert found.sizes["width"] == 24
        assert found.key == cell.key
