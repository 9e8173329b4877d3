"""The keys of a recipe: which values they take, and how mistakes in them are reported."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from xbench.training.settings import RECIPE_KEYS, TrainingSettings


def suite(head: str, more: str, optimizer: str = '"sgd"') -> str:
    """`more` is from line 7 on, and the optimizer on the line after it."""
    return f"{head}{more}\noptimizer = {optimizer}\n"


def test_an_experiment_has_a_recipe_for_all_of_its_optimizers(cells, head):
    keys = (
        'schedule = "cosine"\nwarmup = 0.05\nmin_lr = 1e-5\nclip_norm = 1\nclip_value = 0.5\n'
        'weight_decay_on = "weights"\ngroups = { "*.bias" = { lr = 1e-4 } }'
    )
    for cell in cells(suite(head, keys, '["sgd", "adam"]')):
        assert cell.training.recipe == {
            "schedule": "cosine",
            "warmup": 0.05,
            "min_lr": 1e-5,
            "clip_norm": 1.0,
            "clip_value": 0.5,
            "weight_decay_on": "weights",
            "groups": {"*.bias": {"lr": 1e-4}},
        }


def test_an_optimizer_has_its_own(cells, head):
    first, second = cells(
        suite(head, 'schedule = "cosine"', '["sgd", { name = "adam", schedule = "constant", warmup = 10 }]')
    )
    assert first.training.recipe == {"schedule": "cosine"}
    assert second.training.recipe == {"warmup": 10}


def test_a_list_is_an_axis(cells, head):
    more = 'schedule = ["constant", "wsd"]\ngroups = [{}, { "*" = { lr = 0.1 } }]'
    assert len(cells(suite(head, more))) == 4


def test_there_is_none_by_default():
    assert TrainingSettings().recipe == {}
    assert not TrainingSettings().changes_rates
    assert TrainingSettings(warmup=1).changes_rates
    assert set(RECIPE_KEYS) <= set(TrainingSettings.model_fields)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('schedule = "cosin"', "'schedule' should be 'constant', 'cosine', 'linear', 'wsd' or 'step', not"),
        ("warmup = -1", "'warmup' should be greater than or equal to 0, not -1"),
        ("warmup = 1.5", "'warmup' should be a valid integer or less than 1, not 1.5"),
        ("warmup = true", "'warmup' should be a valid integer or a valid number, not True"),
        ("clip_norm = 0", "'clip_norm' should be greater than 0, not 0"),
        ("clip_value = -1.0", "'clip_value' should be greater than 0, not -1.0"),
        ("clip_norm = inf", "'clip_norm' should be a finite number, not inf"),
        ("min_lr = -0.1", "'min_lr' should be greater than or equal to 0, not -0.1"),
        ("min_lr = 0.1", "min_lr = 0.1 has no effect with schedule = 'constant'"),
        ('weight_decay_on = "biases"', "'weight_decay_on' should be 'all' or 'weights', not 'biases'"),
        ('groups = { "*.bias" = 0.1 }', "groups: '*.bias' should be a table, not 0.1"),
        ('groups = { "*.bias" = {} }', "groups: '*.bias' should be non-empty, not {}"),
        ("groups = 1", "'groups' should be a table, not 1"),
        ('groups = { "*" = { params = 1 } }', "'params' of the group '*' is not a setting of an optimizer"),
    ],
)
def test_mistakes_have_their_line(complaints, head, line, told):
    (found,) = complaints(suite(head, line))
    assert found.startswith(f"my.toml:7: {told}")


def test_a_minimum_without_a_schedule_is_blamed_on_the_axis(complaints, head):
    (found,) = complaints(suite(head, 'min_lr = 1e-4\nschedule = ["cosine", "constant"]'))
    assert found == "my.toml:8: min_lr = 0.0001 has no effect with schedule = 'constant'"


@pytest.mark.parametrize("key", ["foreach", "fused"])
def test_a_setting_of_an_optimizer_belongs_in_its_table(error, head, key):
    caught = error(suite(head, f"{key} = true"))
    assert caught.message == f"my.toml:7: unknown key '{key}'"
    assert "own table, [[experiment.optimizer]]" in caught.hint


def test_no_warmup_of_the_whole_run_as_a_share():
    with pytest.raises(ValidationError):
        TrainingSettings(warmup=1.0)
