"""Sizes of a training run, in words and numbers."""

from __future__ import annotations

import pytest

from tests.capacity.capacity_settings import lbfgs, settings_of
from xbench.capacity.axes import Axis, resolve_sizes, size_of, trial_settings, with_size
from xbench.capacity.axis import ScaledSetting

SIZES = ("train_size", "batch_size", "micro_batch")


def sizes(settings) -> tuple:
    return tuple(getattr(settings.training, name) for name in SIZES)


def settings_with(*given):
    return settings_of(**dict(zip(SIZES, given, strict=True)))


class TestResolvedSizes:
    """With 100 examples."""

    @pytest.mark.parametrize(
        ("written", "resolved"),
        [
            (("all", "full", "full"), (100, 100, 100)),
            (("largest", "full", "full"), (100, 100, 100)),
            (("all", "full", 16), (100, 100, 16)),
            (("all", 32, "full"), (100, 32, 32)),
            (("all", 32, 8), (100, 32, 8)),
            (("all", 32, 64), (100, 32, 32)),
            (("all", 500, 200), (100, 100, 100)),
            ((40, "full", "full"), (40, 40, 40)),
            ((40, 64, 16), (40, 40, 16)),
            ((40, 64, "auto"), (40, 40, 40)),
            # More than there are: examples are repeated.
            ((250, "full", 16), (250, 250, 16)),
        ],
    )
    def test_are_numbers(self, written, resolved):
        assert sizes(resolve_sizes(settings_with(*written), available=100)) == resolved

    def test_are_resolved_already(self):
        settings = resolve_sizes(settings_with("all", "full", 16), available=100)
        assert resolve_sizes(settings, available=100) == settings

    def test_leave_all_else(self):
        settings = lbfgs(7, epochs=3, dtype="float64")
        resolved = resolve_sizes(settings, available=100)
        assert (resolved.optimizer, resolved.model, resolved.seed) == (settings.optimizer, settings.model, 0)
        assert (resolved.training.epochs, resolved.training.dtype) == (3, "float64")


class TestOneSize:
    @pytest.mark.parametrize("axis", Axis)
    def test_is_what_was_set(self, axis):
        settings = with_size(lbfgs(history_size=10), axis, 13)
        assert size_of(settings, axis) == 13

    @pytest.mark.parametrize("axis", Axis)
    def test_moves_no_other(self, axis):
        before = lbfgs(history_size=10, train_size=50, batch_size="full", micro_batch=16)
        after = with_size(before, axis, 13)
        others = [other for other in Axis if other is not axis]
        assert [size_of(after, other) for other in others] == [size_of(before, other) for other in others]
        assert with_size(after, axis, size_of(before, axis)) == before

    def test_of_an_optimizer_without_history(self):
        assert size_of(settings_of("sgd"), Axis.HISTORY_SIZE) is None

    def test_words_stay_words(self):
        settings = settings_with("all", "full", "auto")
        words = [size_of(settings, axis) for axis in (Axis.TRAIN_SIZE, Axis.BATCH_SIZE, Axis.MICRO_BATCH)]
        assert words == ["all", "full", "auto"]

    def test_other_hyperparameters_stay(self):
        assert with_size(lbfgs(10), Axis.HISTORY_SIZE, 3).optimizer.params == {
            "history_size": 3,
            "max_iter": 4,
        }

    def test_original_is_not_changed(self):
        settings = lbfgs(10)
        with_size(settings, Axis.HISTORY_SIZE, 3)
        assert settings.optimizer.params["history_size"] == 10

    @pytest.mark.parametrize(
        ("axis", "name"),
        list(zip(Axis, ("train_size", "history_size", "batch_size", "micro_batch"), strict=True)),
    )
    def test_is_called_in_suites(self, axis, name):
        assert axis.setting == name


class TestTrials:
    """What a trial of size 40 runs."""

    @pytest.mark.parametrize(
        ("axis", "written", "ran"),
        [
            # All examples are one batch, or the batch is what it is.
            (Axis.TRAIN_SIZE, ("all", "full", "full"), (40, "full", "full")),
            (Axis.TRAIN_SIZE, ("all", "full", 16), (40, "full", 16)),
            (Axis.TRAIN_SIZE, (1000, 32, "full"), (40, 32, "full")),
            # One batch of that size is enough.
            (Axis.BATCH_SIZE, ("all", 32, "full"), (40, 40, "full")),
            (Axis.BATCH_SIZE, (1000, "full", 16), (40, 40, 16)),
            # Two parts show what a third would: activations beside gradients that stand.
            (Axis.MICRO_BATCH, ("all", "full", "full"), (80, 80, 40)),
            (Axis.MICRO_BATCH, (1000, 500, "auto"), (80, 80, 40)),
            (Axis.MICRO_BATCH, (1000, 60, 16), (60, 60, 40)),
            (Axis.MICRO_BATCH, (1000, 40, 16), (40, 40, 40)),
            (Axis.MICRO_BATCH, (60, "full", 16), (60, 60, 40)),
        ],
    )
    def test_see_no_more_than_their_peak_depends_on(self, axis, written, ran):
        assert sizes(trial_settings(settings_with(*written), axis, 40)) == ran

    @pytest.mark.parametrize(
        ("written", "ran"),
        [
            (("all", "full", 16), (32, 32, 16)),
            ((1000, 500, 16), (32, 32, 16)),
            ((1000, 20, 16), (20, 20, 16)),
            # What has given way already is no part of the trial.
            ((5, 500, 16), (5, 5, 16)),
            ((5, "full", 16), (5, 5, 16)),
            (("all", "full", "full"), ("all", "full", "full")),
            ((1000, 500, "full"), (1000, 500, "full")),
        ],
    )
    def test_of_a_history(self, written, ran):
        settings = lbfgs(history_size=3, **dict(zip(SIZES, written, strict=True)))
        trial = trial_settings(settings, Axis.HISTORY_SIZE, 40)
        assert sizes(trial) == ran
        assert trial.optimizer.params["history_size"] == 40


WIDTH = ScaledSetting("model", "width", "width")
CONTEXT = ScaledSetting("dataset", "context", "sequence-length")


class TestScaledSettings:
    def test_setting_of_the_model_is_set(self):
        settings = with_size(settings_with("all", 1, "full"), WIDTH, 12)
        assert settings.model.params == {"width": 12}

    def test_setting_of_the_dataset_is_not_in_the_settings_of_a_cell(self):
        settings = settings_with("all", 1, "full")
        assert with_size(settings, CONTEXT, 12) == settings

    @pytest.mark.parametrize("axis", [WIDTH, CONTEXT])
    @pytest.mark.parametrize(
        ("written", "ran"),
        [
            (("all", 1, "full"), (1, 1, "full")),
            (("all", 64, "full"), (64, 64, "full")),
            ((10, 64, "full"), (10, 64, "full")),
            (("all", 64, 4), (8, 8, 4)),
            (("all", "full", "full"), ("all", "full", "full")),
        ],
    )
    def test_trials_run_one_batch(self, axis, written, ran):
        assert sizes(trial_settings(settings_with(*written), axis, 12)) == ran

    def test_are_named_as_on_the_command_line(self):
        assert f"{CONTEXT} and {Axis.TRAIN_SIZE}" == "sequence-length and train-size"
