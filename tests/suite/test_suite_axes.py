"""An error about one value of a list names that value, and the line that it stands on."""

from __future__ import annotations

import pytest

from xbench.errors import Mistakes
from xbench.suite.axes import Value, list_values
from xbench.suite.blame import Tried, add_complaints
from xbench.suite.problems import Problems

TABLE = ("optimizer",)


def test_all_wrong_values_of_a_list_are_told_each_with_its_line(complaints, head):
    text = (
        head
        + """\
epochs = [
  1, 0,
  -2,  # not [ this
]
[[experiment.optimizer]]
name = "sgd"
lr = [
  0.1,
  "fast",
  [1],
]
nesterov = "yes"
"""
    )
    assert complaints(text) == [
        "my.toml:8: 'epochs' should be greater than or equal to 1, not 0",
        "my.toml:9: 'epochs' should be greater than or equal to 1, not -2",
        "my.toml:15: optimizer 'sgd': 'lr' should be a number, not 'fast'",
        "my.toml:16: optimizer 'sgd': 'lr' should be a number, not [1]",
        "my.toml:18: optimizer 'sgd': 'nesterov' should be true or false, not 'yes'",
    ]


def test_lists_of_models_and_datasets_too(complaints, head):
    text = head.replace('"net"', '{ name = "net", width = [\n8,\n"x"] }') + 'optimizer = "sgd"\n'
    assert complaints(text) == ["my.toml:7: model 'net': 'width' should be a number, not 'x'"]
    text = head.replace('"pictures"', '{ name = "pictures", flip = [\ntrue,\n"no"] }') + 'optimizer = "sgd"\n'
    assert complaints(text) == ["my.toml:8: dataset 'pictures': 'flip' should be true or false, not 'no'"]


def test_lists_of_names_too(complaints, head):
    found = complaints(head + 'optimizer = { name = [\n"sgd",\n"adm"] }\n')
    assert found == ["my.toml:9: unknown optimizer 'adm'. Did you mean 'adam'?"]
    found = complaints(head + 'optimizer = [\n"sgd",\n"adm"]\n')
    assert found == ["my.toml:9: unknown optimizer 'adm'. Did you mean 'adam'?"]


def test_a_family_that_is_not_installed_is_reported_once(complaints, head):
    found = complaints(head + 'optimizer = { name = [\n"sgd",\n"away/one",\n"away/two",\n"adm"] }\n')
    assert found == [
        "my.toml:9: unknown optimizer 'away/one'.",
        "my.toml:11: unknown optimizer 'adm'. Did you mean 'adam'?",
    ]


def test_a_list_under_params_too(complaints, head):
    text = head + 'optimizer = { name = "inner", epochs = 7, params = { epochs = [\n3,\n"x"] } }\n'
    assert complaints(text) == ["my.toml:9: optimizer 'inner': 'epochs' should be a number, not 'x'"]


def test_a_list_of_lists_too(complaints, head):
    found = complaints(head + 'optimizer = { name = "adam", betas = [\n[0.9, 0.99],\n["a", 1],\n0.9] }\n')
    assert found == [
        "my.toml:9: optimizer 'adam': 'betas' should be a list of numbers, not ['a', 1]",
        "my.toml:10: optimizer 'adam': 'betas' should be a list of numbers, not 0.9",
    ]


def test_an_own_list_of_an_optimizer_stands_in_its_table(complaints, head):
    found = complaints(head + 'epochs = 2\n[[experiment.optimizer]]\nname = "sgd"\nepochs = [\n1,\n0]\n')
    assert found == ["my.toml:12: 'epochs' should be greater than or equal to 1, not 0"]


def test_a_value_that_does_not_suit_others_is_found_by_what_has_it(complaints, head):
    found = complaints(head + 'optimizer = "sgd"\ntf32 = true\ndtype = ["float32",\n"float64"]\n')
    (complaint,) = found
    assert complaint.startswith("my.toml:10: with dtype = 'float64': tf32 = true has no effect on float64")


def test_the_flag_is_named_for_a_list_of_its_own(complaints, head):
    text = head + 'optimizer = { name = "sgd", lr = [\n1,\n"x"] }\n'
    assert complaints(text, 'sgd.lr=["a", 1]') == [
        "--set sgd.lr=[\"a\", 1]: optimizer 'sgd': 'lr' should be a number, not 'a'"
    ]


def test_a_hint_says_how_to_write_it(error, head):
    found = error(head + 'optimizer = { name = "sgd", lr = ["0.1", "fast"], nesterov = "false" }\n')
    assert found.hint.splitlines() == [
        "write lr = 0.1, without quotes",
        "`xbench info sgd` shows its settings",
        "write nesterov = false, without quotes",
    ]
    assert [mistake.hint for mistake in found.mistakes] == found.hint.splitlines()


def test_titles_keep_telling_columns_apart_when_only_one_of_a_list_is_right(complaints, head):
    text = head + 'optimizer = [{ name = "sgd", lr = [0.1, "fast"] }, "sgd"]\n'
    assert complaints(text) == ["my.toml:7: optimizer 'sgd': 'lr' should be a number, not 'fast'"]


def test_a_list_is_a_value_to_the_depth_of_the_default(cells, head):
    found = cells(head + 'optimizer = { name = "blocks", sizes = [[5, 6], [7, 8]] }\n')
    assert [c.optimizer.params["sizes"] for c in found] == [[[5, 6], [7, 8]]]
    found = cells(head + 'optimizer = { name = "blocks", sizes = [[[5, 6]], [[7, 8]]] }\n')
    assert [c.optimizer.params["sizes"] for c in found] == [[[5, 6]], [[7, 8]]]


def test_a_cell_knows_where_its_training_settings_stand(cells, head):
    text = head + 'epochs = 3\nbatch_size = [4, 8]\noptimizer = [{ name = "sgd", epochs = [1, 2] }]\n'
    last = cells(text)[-1]
    assert last.where("batch_size") == ("experiment", 0, "batch_size", 1)
    assert last.where("epochs") == ("experiment", 0, "optimizer", 0, "epochs", 1)
    assert last.where("train_size") == ("experiment", 0, "train_size")
    assert last.where("train_size", "batch_size") == last.where("batch_size")


def tried(settings: dict[str, object], message: str = "", axes: tuple[str, ...] = ()) -> Tried:
    """A combination; of settings that are axes, the value tells its place."""
    values = [
        Value("optimizer", key, value, (*TABLE, key, value) if key in axes else (*TABLE, key), key in axes)
        for key, value in settings.items()
    ]
    return Tried(values, message)


def noted(combinations, try_without=lambda place: ()):
    problems = Problems("my.toml", "")
    add_complaints(problems, TABLE, "optimizer 'x'", combinations, try_without)
    return [(path, message) for path, message in problems._found]


GRID = [(a, b) for a in (1, 2, 3) for b in (1, 2)]


def grid(message_of):
    return [tried({"a": a, "b": b}, message_of(a, b), ("a", "b")) for a, b in GRID]


def test_nothing_wrong_is_nothing_to_note():
    assert noted(grid(lambda a, b: "")) == []


def test_a_value_is_to_blame_if_all_that_has_it_fails_and_others_do_not():
    assert noted(grid(lambda a, b: "bad" if a > 1 else "")) == [
        ((*TABLE, "a", 2), "optimizer 'x' with a = 2: bad"),
        ((*TABLE, "a", 3), "optimizer 'x' with a = 3: bad"),
    ]
    # Each has its own message, and all fail.
    assert noted(grid(lambda a, b: f"optimizer 'x': bad a {a}")) == [
        ((*TABLE, "a", a), f"optimizer 'x': bad a {a}") for a in (1, 2, 3)
    ]
    # One message hides the other.
    assert noted(grid(lambda a, b: "bad a" if a == 1 else "bad b" if b == 1 else "")) == [
        ((*TABLE, "a", 1), "optimizer 'x' with a = 1: bad a"),
        ((*TABLE, "b", 1), "optimizer 'x' with b = 1: bad b"),
    ]


def test_values_that_fail_only_together_are_named_together():
    assert noted(grid(lambda a, b: "bad" if (a, b) == (2, 1) else "")) == [
        (TABLE, "optimizer 'x' with a = 2 and b = 1: bad")
    ]


def without(combinations, **messages):
    """What trying a combination again without each of its settings gives: "bad" for those not named."""
    return lambda place: [(value, messages.get(value.key, "bad")) for value in combinations[place].values]


def test_what_fails_whatever_the_values_is_about_the_table_or_what_it_would_pass_without():
    everything = grid(lambda a, b: "bad")
    assert noted(everything) == [(TABLE, "bad")]
    assert noted(everything, without(everything)) == [(TABLE, "bad")]
    each_a = [((*TABLE, "a", a), f"optimizer 'x' with a = {a}: bad") for a in (1, 2, 3)]
    assert noted(everything, without(everything, a="")) == each_a
    scalar = [tried({"a": a, "c": -5}, "bad", ("a",)) for a in (1, 2)]
    assert noted(scalar, without(scalar, c="")) == [((*TABLE, "c"), "optimizer 'x' with c = -5: bad")]
    assert noted(scalar, without(scalar, a="", c="")) == [(TABLE, "optimizer 'x' with a = 1 and c = -5: bad")]


def test_each_value_of_a_setting_that_is_required_is_named_if_all_are_wrong():
    everything = grid(lambda a, b: "bad")
    each_a = [((*TABLE, "a", a), f"optimizer 'x' with a = {a}: bad") for a in (1, 2, 3)]
    assert noted(everything, without(everything, a="a is missing")) == each_a
    # Either may be wrong, and neither can be left out to see.
    assert noted(everything, without(everything, a="a is missing", b="b is missing")) == [(TABLE, "bad")]
    # What would pass without one setting is not about another that is required.
    scalar = [tried({"a": a, "c": -5}, "bad", ("a",)) for a in (1, 2)]
    assert noted(scalar, without(scalar, a="a is missing", c="")) == [
        ((*TABLE, "c"), "optimizer 'x' with c = -5: bad")
    ]


def test_every_value_of_a_list_that_does_not_suit_another_setting_is_named():
    problems = Problems("my.toml", None, {"size": [7, 9]})
    sizes = [Value("model", "size", size, ("size", place), True) for place, size in enumerate((7, 9))]
    tried = [Tried([size], "'size' must be even") for size in sizes]
    add_complaints(problems, (), "model 'net'", tried, lambda place: [(sizes[place], "")])
    with pytest.raises(Mistakes) as caught:
        problems.raise_if_any()
    assert caught.value.message.splitlines() == [
        "size[0]: model 'net' with size = 7: 'size' must be even",
        "size[1]: model 'net' with size = 9: 'size' must be even",
    ]


@pytest.mark.parametrize(
    ("value", "depth", "places"),
    [(3, 0, 0), ([3], 0, 1), ([3, 4], 1, 0), ([[3], 4], 1, 2), ([[3]], 2, 0), ([], 0, 0), ({"a": [1]}, 0, 0)],
)
def test_axes(value, depth, places):
    paths = [path for path, _ in list_values(value, ("key",), depth)]
    whole = [("key",)] if value != [] else []
    assert paths == ([("key", place) for place in range(places)] or whole)
