"""`--set`: which keys it reaches, how values are read, and where its mistakes are told."""

from __future__ import annotations

import pytest

from xbench.errors import XbenchError
from xbench.suite.overrides import apply_overrides
from xbench.units import DeviceChoice, Limit

TWO = """\
[suite]
name = "two"

[[experiment]]
name = "exp"
model = "net"
dataset = "pictures"
epochs = 5
  [[experiment.optimizer]]
  name = "sgd"
  [[experiment.optimizer]]
  name = "adam"
  lr = 0.5
  [[experiment.optimizer]]
  name = "adam"
  label = "patient"
  epochs = 9

[[experiment]]
name = "other"
model = { name = "net", act = "gelu" }
dataset = { name = "pictures", fallback = "made-up" }
  [[experiment.optimizer]]
  name = "adam"
"""


class TestKeysThatOptimizersSetThemselves:
    def test_are_told_with_the_override_that_reaches_them(self, read):
        text = TWO.replace('name = "sgd"', 'name = "sgd"\n  epochs = 2')
        assert read(text, "epochs=1").warnings == (
            "--set epochs=1 does not reach 'sgd', 'patient', which set their own epochs: "
            "add --set sgd.epochs=1 --set patient.epochs=1",
        )
        assert read(TWO, "exp.epochs=1").warnings == (
            "--set exp.epochs=1 does not reach 'patient', which sets its own epochs: "
            "add --set exp.patient.epochs=1",
        )

    @pytest.mark.parametrize(
        "overrides",
        [(), ("other.epochs=1",), ("patient.epochs=1", "epochs=1"), ("adam.epochs=1", "epochs=2")],
    )
    def test_are_not_told_if_they_are_reached(self, read, overrides):
        assert read(TWO, *overrides).warnings == ()


def learning_rates(cells):
    return {(c.experiment, c.column): c.optimizer.params.get("lr") for c in cells}


def epochs(cells):
    return {(c.experiment, c.column): c.training.epochs for c in cells}


def test_without_any(cells):
    assert epochs(cells(TWO)) == {
        ("exp", "sgd"): 5,
        ("exp", "adam"): 5,
        ("exp", "patient"): 9,
        ("other", "adam"): 1,
    }


def test_a_key_of_the_suite(cells, read):
    assert read(TWO, "suite.seeds=3").header.seed_list == [0, 1, 2]
    assert read(TWO, "suite.seeds=[4, 2]").header.seed_list == [4, 2]
    assert read(TWO, "suite.device=cpu").header.device == DeviceChoice("cpu")
    assert read(TWO, "suite.memory_limit=12GiB").header.memory_limit == Limit(size_bytes=12 << 30)
    assert {c.seed for c in cells(TWO, "suite.seeds=2")} == {0, 1}


def test_a_training_setting_of_every_experiment(cells):
    # An optimizer's own setting still overrides it: `--set` changes the experiments' tables.
    assert epochs(cells(TWO, "epochs=2")) == {
        ("exp", "sgd"): 2,
        ("exp", "adam"): 2,
        ("exp", "patient"): 9,
        ("other", "adam"): 2,
    }


def test_a_training_setting_of_one_experiment(cells):
    found = epochs(cells(TWO, "other.epochs=7"))
    assert found[("other", "adam")] == 7
    assert found[("exp", "adam")] == 5


def test_a_setting_of_an_optimizer_in_every_experiment(cells):
    assert learning_rates(cells(TWO, "adam.lr=0.25")) == {
        ("exp", "sgd"): None,
        ("exp", "adam"): 0.25,
        ("exp", "patient"): 0.25,
        ("other", "adam"): 0.25,
    }


def test_a_setting_of_an_optimizer_in_one_experiment(cells):
    found = learning_rates(cells(TWO, "exp.adam.lr=0.25"))
    assert found[("exp", "adam")] == found[("exp", "patient")] == 0.25
    assert found[("other", "adam")] is None


def test_an_optimizer_by_its_label(cells):
    found = learning_rates(cells(TWO, "patient.lr=0.25"))
    assert found == learning_rates(cells(TWO)) | {("exp", "patient"): 0.25}
    assert epochs(cells(TWO, "patient.epochs=2"))[("exp", "patient")] == 2


def test_a_list_is_an_axis(cells):
    found = cells(TWO, "sgd.lr=[0.1, 0.2]", only=["exp"])
    assert [c.column for c in found] == ["sgd lr=0.1", "sgd lr=0.2", "adam", "patient"]


def test_a_name_becomes_a_table_where_a_setting_is_set(cells):
    found = cells(TWO, "dataset.root=/data/x", "model.width=3")
    assert {c.dataset.chosen.params["root"] for c in found} == {"/data/x"}
    assert {c.model.params["width"] for c in found} == {3}
    assert {c.model.params.get("act") for c in found} == {None, "gelu"}


def test_a_dataset_or_model_of_one_experiment(cells):
    found = cells(TWO, "exp.dataset.root=here", "other.model.width=3")
    assert {(c.experiment, c.dataset.chosen.params.get("root")) for c in found} == {
        ("exp", "here"),
        ("other", None),
    }
    assert {(c.experiment, c.model.params.get("width")) for c in found} == {("exp", None), ("other", 3)}


def test_a_dataset_keeps_its_other_keys(cells):
    found = cells(TWO, "dataset.strict=true", only=["other"])
    assert all(c.dataset.strict and c.dataset.fallback.name == "made-up" for c in found)


def test_whole_components_are_exchanged(cells):
    found = cells(TWO, "dataset=made-up", "other.model={ name = 'deep', depth = 5 }")
    assert {c.dataset.chosen.name for c in found} == {"made-up"}
    assert {(c.experiment, c.model.name) for c in found} == {("exp", "net"), ("other", "deep")}


def test_the_last_of_two_wins(cells):
    assert epochs(cells(TWO, "epochs=2", "other.epochs=3"))[("other", "adam")] == 3
    assert epochs(cells(TWO, "other.epochs=3", "epochs=2"))[("other", "adam")] == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("'quoted'", "quoted"),
        ("/a path/with = sign", "/a path/with = sign"),
        ("12GB", "12GB"),
        ("", ""),
        ("3", 3),
        ("1e-3", 0.001),
        ("false", False),
        ("[1, 2]", [1, 2]),
        ("{ a = 1 }", {"a": 1}),
    ],
)
def test_a_value_is_toml_or_else_text(text, value):
    document = {"suite": {"name": "x"}}
    assert apply_overrides(document, [f"suite.key={text}"]) == {("suite", "key"): f"--set suite.key={text}"}
    assert document == {"suite": {"name": "x", "key": value}}


@pytest.mark.parametrize("text", ["[1,", "{ a = 1", '"open', "['a' 'b']"])
def test_a_value_that_begins_like_toml_must_be_toml(text):
    with pytest.raises(XbenchError) as caught:
        apply_overrides({"suite": {}}, [f"suite.key={text}"])
    assert caught.value.message.startswith(f"--set suite.key={text}: not a TOML value: ")


def test_the_text_of_the_suite_is_left_as_it_was(read):
    assert read(TWO, "epochs=2").text == TWO


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("epochs", "--set epochs: not KEY=VALUE"),
        ("=3", "--set =3: not KEY=VALUE"),
        ("exp..epochs=3", "--set exp..epochs=3: not KEY=VALUE"),
        (".epochs=3", "--set .epochs=3: not KEY=VALUE"),
        ("epochs.=3", "--set epochs.=3: not KEY=VALUE"),
        ("nadam.lr=3", "--set nadam.lr=3: nothing in the suite is called 'nadam'"),
        ("other.sgd.lr=3", "--set other.sgd.lr=3: nothing in the suite is called 'other.sgd'"),
        ("exp.adam.params.lr=3", "--set exp.adam.params.lr=3: nothing in the suite is called"),
        ("suite.deep.seeds=3", "--set suite.deep.seeds=3: nothing in the suite is called 'suite.deep'"),
    ],
)
def test_an_argument_that_names_nothing(error, argument, complaint):
    found = error(TWO, argument)
    assert found.message.startswith(complaint)
    assert found.hint
    if "nothing" in complaint:
        assert "exp, other" in found.hint


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("suite.seeds=0", "'seeds'"),
        ("suite.sed=0", "unknown key 'sed'. Did you mean 'seeds'?"),
        ("suite.memory_limit=much", "'much' is not a size"),
        ("epochs=0", "'epochs' should be greater than or equal to 1, not 0"),
        ("epochs=[1, 0]", "'epochs' should be greater than or equal to 1, not 0"),
        ("epochs=[]", "'epochs' is an empty list"),
        ("epoch=3", "unknown key 'epoch'. Did you mean 'epochs'?"),
        ("exp.batch_size=half", "'batch_size'"),
        ("adam.lr=fast", "optimizer 'adam': 'lr' should be a number, not 'fast'"),
        ("exp.adam.betta=[1, 2]", "optimizer 'adam': unknown setting 'betta'. Did you mean 'betas'?"),
        ("patient.epochs=0", "'epochs'"),
        ("model=nett", "unknown model 'nett'"),
        ("exp.name=a b", "'name'"),
    ],
)
def test_a_mistake_in_an_argument_is_told_as_the_arguments(complaints, argument, complaint):
    found = complaints(TWO, argument)
    assert len(found) == 1
    assert found[0].startswith(f"--set {argument}: ")
    assert complaint in found[0]


@pytest.mark.parametrize("argument", ["dataset.flipp=true", "exp.dataset.flip=no", "model.width=wide"])
def test_a_mistake_in_a_table_that_stands_alone_is_told_as_the_arguments(complaints, argument):
    found = complaints(TWO, argument)
    assert len(found) == 1 and found[0].startswith(f"--set {argument}: ")


def test_mistakes_of_arguments_come_before_those_of_the_file(complaints):
    found = complaints(TWO.replace("epochs = 5", "epoch = 5"), "suite.seeds=0", "adam.lr=fast")
    where = [line.partition(": ")[0] for line in found]
    assert set(where[:2]) == {"--set suite.seeds=0", "--set adam.lr=fast"}
    assert where[2:] == ["my.toml:8"]


def test_an_argument_mends_what_is_wrong_in_the_file(cells):
    assert epochs(cells(TWO.replace("epochs = 5", "epochs = 0"), "exp.epochs=4"))[("exp", "sgd")] == 4


@pytest.mark.parametrize(
    "optimizer",
    [
        'optimizer = "adam"',
        'optimizer = ["sgd", "adam"]',
        'optimizer = { name = "adam" }',
        '[experiment.optimizer]\nname = "adam"',
    ],
)
def test_an_optimizer_is_reached_however_it_is_written(cells, head, optimizer):
    found = cells(f"{head}{optimizer}\n", "adam.lr=0.25")
    assert [c.optimizer.params.get("lr") for c in found if c.optimizer.name == "adam"] == [0.25]


def test_datasets_and_models_in_a_list_are_reached(cells, head):
    text = head.replace('"pictures"', '["pictures", { name = "made-up" }]').replace('"net"', '["net"]')
    found = cells(f'{text}optimizer = "sgd"\n', "dataset.strict=true", "exp.model.width=3")
    assert [(c.dataset.chosen.name, c.dataset.strict) for c in found] == [
        ("pictures", True),
        ("made-up", True),
    ]
    assert [c.model.params for c in found] == [{"width": 3}, {"width": 3}]


def test_a_suite_that_is_no_table(error):
    assert "'suite'" in error("suite = 3\n", "suite.seeds=3").message


def test_a_suite_without_experiments(error):
    found = error('[suite]\nname = "x"\n', "epochs=3")
    assert "called ''" not in found.message
