"""From a suite to cells: which lists are axes, what overrides what, and in which order cells stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xbench.components.registry import load
from xbench.components.settings import settings_of
from xbench.suite.grid import collect_components, expand
from xbench.suite.reader import read_suite


def columns(cells) -> list[str]:
    return [cell.column for cell in cells]


def test_one_cell_is_what_was_declared(cells, head):
    (cell,) = cells(head + 'optimizer = { name = "sgd", lr = 0.1 }\nepochs = 3\n')
    assert (cell.experiment, cell.column, cell.seed) == ("exp", "sgd", 0)
    assert (cell.model.name, cell.model.params) == ("net", {})
    assert (cell.dataset.chosen.name, cell.dataset.chosen.params) == ("pictures", {})
    assert (cell.dataset.fallback, cell.dataset.strict) == (None, False)
    assert (cell.optimizer.name, cell.optimizer.params) == ("sgd", {"lr": 0.1})
    assert cell.training.epochs == 3
    assert cell.training.batch_size == 32
    assert cell.path == ("experiment", 0, "optimizer", 0)


def test_settings_reach_their_components(cells):
    (cell,) = cells("""\
        [suite]
        name = "x"
        [[experiment]]
        name = "exp"
        model = { name = "net", width = 16, params = { act = "gelu" } }
        dataset = { name = "pictures", root = "/x", strict = true, fallback = { name = "made-up", seed = 3 } }
        optimizer = { name = "adam", betas = [0.8, 0.9] }
        """)
    assert cell.model.params == {"width": 16, "act": "gelu"}
    assert cell.dataset.chosen.params == {"root": "/x"}
    assert cell.dataset.strict
    assert (cell.dataset.fallback.name, cell.dataset.fallback.params) == ("made-up", {"seed": 3})
    assert cell.optimizer.params == {"betas": [0.8, 0.9]}


def test_a_list_of_scalars_is_an_axis_of_a_hyperparameter(cells, head):
    found = cells(head + 'optimizer = { name = "sgd", lr = [0.1, 0.2], momentum = 0.9 }\n')
    assert columns(found) == ["sgd lr=0.1", "sgd lr=0.2"]
    assert [c.optimizer.params for c in found] == [
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.2, "momentum": 0.9},
    ]


def test_a_list_of_one_is_no_axis_of_a_title(cells, head):
    assert columns(cells(head + 'optimizer = { name = ["sgd"], lr = [0.1] }\n')) == ["sgd"]


def test_lists_make_a_product(cells, head):
    found = cells(
        head + 'optimizer = { name = "sgd", lr = [0.1, 0.2], momentum = [0, 0.9] }\nepochs = [1, 2, 3]\n'
    )
    assert len(found) == 12
    assert len({(*c.optimizer.params.values(), c.training.epochs) for c in found}) == 12
    for cell in found:
        for part in (
            f"lr={cell.optimizer.params['lr']}",
            f"momentum={cell.optimizer.params['momentum']}",
            f"epochs={cell.training.epochs}",
        ):
            assert part in cell.column.split()


def test_a_list_is_a_value_where_the_default_is_a_sequence(cells, head):
    (cell,) = cells(head + 'optimizer = { name = "adam", betas = [0.8, 0.9] }\n')
    assert cell.optimizer.params == {"betas": [0.8, 0.9]}
    assert cell.column == "adam"


def test_a_list_of_lists_is_an_axis_there(cells, head):
    found = cells(head + 'optimizer = { name = "adam", betas = [[0.8, 0.9], [0.9, 0.99]] }\n')
    assert [c.optimizer.params for c in found] == [{"betas": [0.8, 0.9]}, {"betas": [0.9, 0.99]}]
    assert columns(found) == ["adam betas=[0.8, 0.9]", "adam betas=[0.9, 0.99]"]


def test_training_settings_may_be_lists(cells, head):
    found = cells(head + 'optimizer = "sgd"\nbatch_size = [8, "full"]\ntrain_size = ["all", 10]\n')
    assert [(c.training.batch_size, c.training.train_size) for c in found] == [
        (8, "all"),
        (8, 10),
        ("full", "all"),
        ("full", 10),
    ]
    assert columns(found)[0] == "sgd batch_size=8 train_size=all"


def test_class_weights_are_a_value_and_a_list_of_them_an_axis(cells, head):
    weights = "class_weights = { NORMAL = 2.0 }\n"
    (cell,) = cells(head + 'optimizer = "sgd"\n' + weights)
    assert cell.training.class_weights == {"NORMAL": 2.0}
    found = cells(head + 'optimizer = "sgd"\nclass_weights = [{ NORMAL = 2.0 }, {}]\n')
    assert [c.training.class_weights for c in found] == [{"NORMAL": 2.0}, {}]


@pytest.mark.parametrize(
    "optimizer",
    [
        'optimizer = ["sgd", "adam"]',
        'optimizer = [{ name = "sgd" }, "adam"]',
        'optimizer = { name = ["sgd", "adam"] }',
        '[[experiment.optimizer]]\nname = "sgd"\n[[experiment.optimizer]]\nname = "adam"',
    ],
)
def test_lists_of_optimizers(cells, head, optimizer):
    found = cells(f"{head}{optimizer}\n")
    assert [c.optimizer.name for c in found] == ["sgd", "adam"]
    assert columns(found) == ["sgd", "adam"]


@pytest.mark.parametrize(
    "model", ['["net", "deep"]', '{ name = ["net", "deep"] }', '[{ name = "net" }, "deep"]']
)
def test_lists_of_models(cells, head, model):
    found = cells(head.replace('model = "net"', f"model = {model}") + 'optimizer = "sgd"\n')
    assert [c.model.name for c in found] == ["net", "deep"]
    assert columns(found) == ["sgd model=net", "sgd model=deep"]


@pytest.mark.parametrize("dataset", ['["pictures", "made-up"]', '{ name = ["pictures", "made-up"] }'])
def test_lists_of_datasets(cells, head, dataset):
    found = cells(head.replace('dataset = "pictures"', f"dataset = {dataset}") + 'optimizer = "sgd"\n')
    assert [c.dataset.chosen.name for c in found] == ["pictures", "made-up"]
    assert columns(found) == ["sgd dataset=pictures", "sgd dataset=made-up"]


def test_models_and_datasets_may_have_axes_of_their_own(cells):
    found = cells("""\
        [suite]
        name = "x"
        [[experiment]]
        name = "exp"
        model = [{ name = "net", width = [4, 8] }, "deep"]
        dataset = { name = "pictures", image_size = [32, 64] }
        optimizer = "sgd"
        """)
    assert [(c.model.name, c.model.params, c.dataset.chosen.params["image_size"]) for c in found] == [
        (model, params, size)
        for model, params in [("net", {"width": 4}), ("net", {"width": 8}), ("deep", {})]
        for size in (32, 64)
    ]
    assert columns(found)[0] == "sgd model=net width=4 image_size=32"
    assert len(set(columns(found))) == 6


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("optimizer = []", "7: 'optimizer'"),
        ("optimizer = { name = [] }", "7: 'name'"),
        ('optimizer = { name = "sgd", lr = [] }', "7: optimizer 'sgd': 'lr' is an empty list"),
        ('optimizer = { name = "adam", betas = [] }', "7: optimizer 'adam': 'betas' is an empty list"),
        ('optimizer = { name = "sgd", epochs = [] }', "7: 'epochs' is an empty list"),
        ('optimizer = "sgd"\nepochs = []', "8: 'epochs' is an empty list"),
    ],
)
def test_empty_lists_are_refused(complaints, head, line, complaint):
    (found,) = complaints(head + line + "\n")
    assert found.startswith(f"my.toml:{complaint}")


def test_an_optimizers_own_training_settings_override_the_experiments(cells, head):
    found = cells(
        head
        + """\
epochs = 5
batch_size = 8
[[experiment.optimizer]]
name = "sgd"
[[experiment.optimizer]]
name = "adam"
lr = 0.5
batch_size = "full"
micro_batch = 16
"""
    )
    sgd, adam = found
    assert (sgd.training.epochs, sgd.training.batch_size, sgd.training.micro_batch) == (5, 8, "full")
    assert (adam.training.epochs, adam.training.batch_size, adam.training.micro_batch) == (5, "full", 16)
    assert (sgd.optimizer.params, adam.optimizer.params) == ({}, {"lr": 0.5})


def test_an_own_value_replaces_an_axis_of_the_experiment(cells, head):
    found = cells(head + 'optimizer = ["sgd", { name = "adam", epochs = 9 }]\nepochs = [1, 2]\n')
    assert [(c.column, c.training.epochs) for c in found] == [
        ("sgd epochs=1", 1),
        ("sgd epochs=2", 2),
        ("adam", 9),
    ]


def test_an_own_axis_is_that_optimizers_alone(cells, head):
    found = cells(head + 'optimizer = ["sgd", { name = "adam", batch_size = [8, 16] }]\n')
    assert columns(found) == ["sgd", "adam batch_size=8", "adam batch_size=16"]


def test_a_key_that_is_also_a_training_setting_goes_under_params(cells, head):
    (cell,) = cells(head + 'optimizer = { name = "inner", epochs = 7, params = { epochs = 3 } }\n')
    assert cell.training.epochs == 7
    assert cell.optimizer.params == {"epochs": 3}
    (cell,) = cells(head + 'optimizer = { name = "inner", epochs = 7 }\n')
    assert cell.training.epochs == 7
    assert cell.optimizer.params == {}
    (cell,) = cells(head + 'optimizer = { name = "inner", params = { epochs = 3, lr = 0.5 } }\n')
    assert cell.training.epochs == 1
    assert cell.optimizer.params == {"epochs": 3, "lr": 0.5}


def test_lists_under_params_are_axes_too(cells, head):
    found = cells(head + 'optimizer = { name = "inner", epochs = 7, params = { epochs = [3, 4] } }\n')
    assert [(c.training.epochs, c.optimizer.params) for c in found] == [
        (7, {"epochs": 3}),
        (7, {"epochs": 4}),
    ]


def test_cells_are_seed_major_within_an_experiment(cells):
    found = cells("""\
        [suite]
        name = "x"
        seeds = [4, 2]
        [[experiment]]
        name = "one"
        model = "net"
        dataset = "pictures"
        optimizer = ["sgd", "adam"]
        [[experiment]]
        name = "two"
        model = "net"
        dataset = "pictures"
        optimizer = { name = "sgd", lr = [0.1, 0.2] }
        """)
    assert [(c.experiment, c.seed, c.column) for c in found] == [
        ("one", 4, "sgd"),
        ("one", 4, "adam"),
        ("one", 2, "sgd"),
        ("one", 2, "adam"),
        ("two", 4, "sgd lr=0.1"),
        ("two", 4, "sgd lr=0.2"),
        ("two", 2, "sgd lr=0.1"),
        ("two", 2, "sgd lr=0.2"),
    ]


def test_seeds_differ_in_nothing_else(cells, head):
    text = head.replace("[[", "seeds = 3\n[[") + 'optimizer = "sgd"\n'
    found = cells(text)
    assert [c.seed for c in found] == [0, 1, 2]
    assert len({(c.column, repr(c.optimizer), repr(c.training), repr(c.model)) for c in found}) == 1


def test_a_label_is_the_columns_title(cells, head):
    found = cells(head + 'optimizer = [{ name = "sgd", label = "plain-SGD" }, "sgd"]\n')
    assert columns(found) == ["plain-SGD", "sgd"]
    found = cells(head + 'optimizer = { name = "sgd", label = "mine", lr = [1, 2] }\n')
    assert columns(found) == ["mine lr=1", "mine lr=2"]


@pytest.mark.parametrize(
    ("optimizer", "column", "line"),
    [
        ('optimizer = ["sgd", "sgd"]', "sgd", 7),
        ('optimizer = [{ name = "sgd" }, { name = "sgd", lr = 0.5 }]', "sgd", 7),
        ('optimizer = { name = "sgd", lr = [0.1, 0.1] }', "sgd lr=0.1", 7),
        ('optimizer = { name = ["sgd", "adam"], label = "mine" }', "mine", 7),
        ('[[experiment.optimizer]]\nname = "adam"\n[[experiment.optimizer]]\nname = "adam"', "adam", 9),
    ],
)
def test_a_second_column_of_that_title_is_refused(error, head, optimizer, column, line):
    found = error(f"{head}{optimizer}\n")
    assert found.message == f"my.toml:{line}: duplicate column '{column}' in experiment 'exp'"
    assert "label" in found.hint


def test_a_second_column_is_told_once_for_all_seeds(complaints, head):
    text = head.replace("[[", "seeds = 3\n[[") + 'optimizer = ["sgd", "sgd"]\n'
    assert len(complaints(text)) == 1


def test_the_same_column_may_stand_in_two_experiments(cells, head):
    second = '[[experiment]]\nname = "two"\nmodel = "net"\ndataset = "pictures"\noptimizer = "sgd"\n'
    found = cells(head + 'optimizer = "sgd"\n' + second)
    assert [(c.experiment, c.column) for c in found] == [("exp", "sgd"), ("two", "sgd")]


def test_a_required_setting_is_asked_for(error, cells, head):
    found = error(head + 'optimizer = "needy"\n')
    assert found.message == "my.toml:7: optimizer 'needy' needs a value for 'rho'"
    assert cells(head + 'optimizer = { name = "needy", rho = 1 }\n')[0].optimizer.params == {"rho": 1}


def test_an_open_factory_takes_any_setting(cells, head):
    (cell,) = cells(head + 'optimizer = { name = "open", anything = "goes", epochs = 4 }\n')
    assert cell.optimizer.params == {"anything": "goes"}
    assert cell.training.epochs == 4


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            '"net"',
            '{ name = "net", widht = 3 }',
            "5: model 'net': unknown setting 'widht'. Did you mean 'width'?",
        ),
        ('"net"', '{ name = "net", width = "x" }', "5: model 'net': 'width' should be a number, not 'x'"),
        (
            '"net"',
            '{ name = "net", width = [3, "x"] }',
            "5: model 'net': 'width' should be a number, not 'x'",
        ),
        (
            '"pictures"',
            '{ name = "pictures", flip = "yes" }',
            "6: dataset 'pictures': 'flip' should be true or false, not 'yes'",
        ),
        (
            '"pictures"',
            '{ name = "pictures", fallback = { name = "made-up", sed = 1 } }',
            "6: dataset 'made-up': unknown setting 'sed'. Did you mean 'seed'?",
        ),
        (
            '"pictures"',
            '{ name = "pictures", fallback = "madeup" }',
            "6: unknown dataset 'madeup'.",
        ),
        (
            '"pictures"',
            '{ name = "pictures", fallback = { name = "made-up", seed = [1, 2] } }',
            "6: a fallback must be a single dataset, without lists of values",
        ),
    ],
)
def test_wrong_settings_of_models_and_datasets(complaints, head, old, new, complaint):
    assert complaints(head.replace(old, new) + 'optimizer = "sgd"\n') == [f"my.toml:{complaint}"]


def test_training_settings_of_an_optimizer_are_among_the_guesses(complaints, head):
    (found,) = complaints(head + 'optimizer = { name = "sgd", micro_bach = 3 }\n')
    assert found == "my.toml:7: optimizer 'sgd': unknown setting 'micro_bach'. Did you mean 'micro_batch'?"
    # A model has none: what is a training setting for an optimizer is unknown here.
    (found,) = complaints(head.replace('"net"', '{ name = "net", epochs = 3 }') + 'optimizer = "sgd"\n')
    assert found.startswith("my.toml:5: model 'net': unknown setting 'epochs'.")


def test_settings_of_a_component_are_hinted_at(error, head):
    assert (
        error(head + 'optimizer = { name = "sgd", lrr = 3 }\n').hint == "`xbench info sgd` shows its settings"
    )
    own = head.replace('"net"', '{ name = "mine:build", wide = 1 }') + 'optimizer = "sgd"\n'
    assert error(own).hint is None


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("epochs = 0", "'epochs' should be greater than or equal to 1, not 0"),
        ("epochs = 1.5", "'epochs' should be a valid integer.*, not 1.5"),
        ("epochs = [1, 0]", "'epochs' should be greater than or equal to 1, not 0"),
        ('batch_size = "half"', "'batch_size' should be a valid integer or 'full', not 'half'"),
        ("batch_size = true", "'batch_size' should be .*, not True"),
        ("validation = 0.6", "'validation' should be less than or equal to 0.5, not 0.6"),
        ("validation = nan", "'validation' should be .*, not nan"),
        ('selection = "best"', "'selection' should be 'validation_loss', 'test_loss' or 'last', not 'best'"),
        ("class_weights = { NORMAL = 0 }", "class_weights: 'NORMAL' should be greater than 0, not 0"),
        ('dtype = "float16"', "'dtype' should be 'float32', 'float64' or 'bfloat16', not 'float16'"),
    ],
)
def test_wrong_training_settings(complaints, head, line, complaint):
    (found,) = complaints(f'{head}optimizer = "sgd"\n{line}\n')
    assert re.match(rf"my\.toml:8: {complaint}", found)


def test_wrong_training_settings_of_an_optimizer_are_on_its_line(complaints, head):
    text = head + 'epochs = 0\n[[experiment.optimizer]]\nname = "sgd"\nepochs = -1\n'
    assert complaints(text) == ["my.toml:10: 'epochs' should be greater than or equal to 1, not -1"]


def test_references_are_all_that_is_named(read, head):
    suite = read(
        """\
        [suite]
        name = "x"
        [[experiment]]
        name = "one"
        model = ["net", { name = ["deep", "mine:build"] }]
        dataset = { name = "pictures", fallback = "made-up" }
        optimizer = ["sgd", "absent"]
        [[experiment]]
        name = "two"
        model = "net"
        dataset = "pictures"
        optimizer = "adam"
        """,
        only=["one"],
    )
    assert collect_components(suite) == {
        ("model", "net"),
        ("model", "deep"),
        ("model", "mine:build"),
        ("dataset", "pictures"),
        ("dataset", "made-up"),
        ("optimizer", "sgd"),
        ("optimizer", "absent"),
    }


def test_axes_of_the_same_name_are_told_apart(cells):
    found = cells("""\
        [suite]
        name = "x"
        [[experiment]]
        name = "exp"
        model = "net"
        dataset = "pictures"
        optimizer = { name = "inner", epochs = [1, 2], params = { epochs = [1, 2] } }
        """)
    assert len(set(columns(found))) == len(found) == 4


def test_the_reports_suite_is_its_three_tables_of_built_in_components():
    suite = read_suite(Path(__file__).parents[2] / "suites" / "report.toml")
    known = {(kind, name): settings_of(load(kind, name)) for kind, name in collect_components(suite)}
    found = expand(suite, known).cells
    suite.problems.raise_if_any()
    assert [(c.experiment, c.column) for c in found] == [
        ("table-1", "sgd"),
        ("table-1", "adam"),
        ("table-2", "sgd"),
        ("table-2", "adam"),
        ("table-3", "sgd"),
        ("table-3", "adam"),
        ("table-3", "lbfgs"),
    ]
    assert {c.dataset.fallback.name for c in found} == {"synthetic-xray"}
    assert [c.training.batch_size for c in found] == [5, 5, 5, 5, 5, 5, "full"]
    assert [c.training.train_size for c in found] == ["all", "all", "all", "all", 1400, 1400, 1400]
    # The reference's columns are those of the table that it stands beside.
    for experiment in suite.experiments.values():
        titles = {c.column for c in found if c.experiment == experiment.name}
        assert set(experiment.reference.columns) == titles
