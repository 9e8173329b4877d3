"""Reading a suite: every mistake is told, at once, with its line and what was probably meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xbench.components.registry import registrations
from xbench.errors import XbenchError
from xbench.suite.reader import read_suite
from xbench.units import DeviceChoice

TWO = """\
[suite]
name = "two"
[[experiment]]
name = "first"
model = "net"
dataset = "pictures"
optimizer = "sgd"
[[experiment]]
name = "second"
model = "net"
dataset = "pictures"
optimizer = "sgd"
"""


def starts(lines: list[str]) -> list[str]:
    """The `file:line` of each complaint."""
    return [line.partition(": ")[0] for line in lines]


def test_the_shortest_suite(read, head):
    suite = read(head + 'optimizer = "sgd"\n')
    assert not suite.problems
    suite.problems.raise_if_any()
    assert suite.header.name == "short"
    assert suite.header.seed_list == [0]
    assert suite.header.device == DeviceChoice()
    assert suite.header.memory_limit is None
    (experiment,) = suite.experiments.values()
    assert experiment.name == "exp"
    assert [table.name for table in (*experiment.model, *experiment.dataset)] == ["net", "pictures"]
    assert [table.name for table in experiment.optimizer] == ["sgd"]
    assert suite.text.startswith("[suite]")


def test_a_name_stands_for_a_table_and_one_thing_for_a_list(read, head):
    short = read(head + 'optimizer = "sgd"\n').experiments[0]
    long = read("""\
        [suite]
        name = "short"
        [[experiment]]
        name = "exp"
        model = [{ name = "net" }]
        dataset = { name = "pictures" }
        [[experiment.optimizer]]
        name = "sgd"
        """).experiments[0]
    assert short == long


def test_a_component_has_further_keys_and_params(read, head):
    text = head + 'optimizer = { name = "sgd", lr = 0.1, label = "fast", params = { epochs = 2 } }\n'
    (table,) = read(text).experiments[0].optimizer
    assert table.label == "fast"
    assert table.settings == {"lr": 0.1, "epochs": 2}


def test_references_are_figures_by_column(read, head):
    suite = read(
        head
        + """\
        optimizer = "sgd"
        [experiment.reference]
        name = "paper"
        columns.sgd = { recall = 0.9, training_s = 3 }
        """.replace("        ", "")
    )
    assert suite.experiments[0].reference.columns == {"sgd": {"recall": 0.9, "training_s": 3.0}}


@pytest.mark.parametrize(("seeds", "expected"), [("3", [0, 1, 2]), ("[7, 5]", [7, 5]), ("[0]", [0])])
def test_seeds_are_a_number_or_a_list(read, head, seeds, expected):
    text = head.replace("[[experiment]]", f"seeds = {seeds}\n[[experiment]]") + 'optimizer = "sgd"\n'
    assert read(text).header.seed_list == expected


@pytest.mark.parametrize("line", ['memory_limit = "12GiB"', 'device = "cuda:1"', 'device = "cpu"'])
def test_right_headers(read, head, line):
    read(head.replace("[[", f"{line}\n[[") + 'optimizer = "sgd"\n').problems.raise_if_any()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("seeds = 0", "'seeds' should be .*greater than or equal to 1.* not 0"),
        ('seeds = "3"', "'seeds' should be a valid integer or a valid list or a table, not '3'"),
        ("seeds = true", "'seeds' should be .*not True"),
        ("seeds = 1.5", "'seeds' should be .*not 1.5"),
        ('memory_limit = "12 apples"', "'12 apples' is not a size"),
        ("memory_limit = 12", "'12' is not a size or share"),
        ('device = "gpu"', "'gpu' is not a device: write auto, cpu, cuda or cuda:N"),
        ('device = "cuda:"', "'cuda:' is not a device"),
        ("seed = 3", "unknown key 'seed'. Did you mean 'seeds'?"),
        ('memory_limits = "1GB"', "unknown key 'memory_limits'. Did you mean 'memory_limit'?"),
    ],
)
def test_wrong_headers(complaints, head, line, complaint):
    text = head.replace("[[experiment]]", f"{line}\n[[experiment]]") + 'optimizer = "sgd"\n'
    (found,) = complaints(text)
    assert found.startswith("my.toml:3: ")
    assert re.search(complaint, found)


def test_a_wrong_item_of_a_list_is_told_once(complaints, head):
    text = head.replace("[[experiment]]", "seeds = [1, -1]\n[[experiment]]") + 'optimizer = "sgd"\n'
    assert complaints(text) == ["my.toml:3: 'seeds' should be greater than or equal to 0, not -1"]


def test_an_empty_list_of_seeds_is_refused(complaints, head):
    text = head.replace("[[experiment]]", "seeds = []\n[[experiment]]") + 'optimizer = "sgd"\n'
    (found,) = complaints(text)
    assert found.startswith("my.toml:3: ") and "seeds" in found


def test_a_seed_stands_once(complaints, head):
    text = head.replace("[[experiment]]", "seeds = [1, 1]\n[[experiment]]") + 'optimizer = "sgd"\n'
    (found,) = complaints(text)
    assert found.startswith("my.toml:3: ") and "seeds" in found


@pytest.mark.parametrize("name", ["a b", "../up", "", ".hidden", "a/b", "v1.5"])
def test_names_are_fit_for_folders_and_for_keys_of_set(complaints, head, name):
    (found,) = complaints(head.replace("short", name) + 'optimizer = "sgd"\n')
    assert found.startswith("my.toml:2: 'name' should be ") and found.endswith(f"not {name!r}")
    (found,) = complaints(head.replace('"exp"', f'"{name}"') + 'optimizer = "sgd"\n')
    assert found.startswith("my.toml:4: 'name' should be ") and found.endswith(f"not {name!r}")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[suite]\nname = = 3\n", "my.toml:2: not valid TOML: "),
        ("[suite]\n\nname = 'a'\nname = 'b'\n", "my.toml:4: not valid TOML: "),
        ("[suite]\nseeds = [1,\n", "my.toml:2: not valid TOML: "),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(read, text, complaint):
    with pytest.raises(XbenchError) as caught:
        read(text)
    assert caught.value.message.startswith(complaint)
    assert "(at " not in caught.value.message


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(XbenchError, match=r"absent\.toml: no such suite") as caught:
        read_suite(tmp_path / "absent.toml")
    assert "xbench list suites" in caught.value.hint
    with pytest.raises(XbenchError, match="is a folder"):
        read_suite(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'title = "caf\xe9"')
    with pytest.raises(XbenchError, match=r"latin\.toml:1: cannot be read as text"):
        read_suite(tmp_path / "latin.toml")


def test_an_empty_file(complaints):
    assert complaints("") == ["my.toml:1: 'suite' is missing", "my.toml:1: 'experiment' is missing"]


def test_a_misspelt_table(complaints, head):
    found = complaints(head.replace("[[experiment]]", "[[experiments]]") + 'optimizer = "sgd"\n')
    assert found == [
        "my.toml:1: 'experiment' is missing",
        "my.toml:3: unknown key 'experiments'. Did you mean 'experiment'?",
    ]


def test_one_experiment_needs_a_list_around_it(complaints, head):
    (found,) = complaints(head.replace("[[experiment]]", "[experiment]") + 'optimizer = "sgd"\n')
    assert found.startswith("my.toml:3: 'experiment' should be a valid list")


def test_what_is_missing_from_an_experiment(complaints):
    found = complaints('[suite]\nname = "x"\n[[experiment]]\nepochs = 3\n')
    assert found == [f"my.toml:3: '{key}' is missing" for key in ("name", "model", "dataset", "optimizer")]


def test_a_misspelt_key_is_told_beside_what_is_missing_for_it(complaints, head):
    assert complaints(head + 'optimzer = "sgd"\n') == [
        "my.toml:3: 'optimizer' is missing",
        "my.toml:7: unknown key 'optimzer'. Did you mean 'optimizer'?",
    ]


@pytest.mark.parametrize(
    ("line", "guess"),
    [("epoch = 3", "epochs"), ("batchsize = 3", "batch_size"), ('titel = "x"', "title")],
)
def test_an_unknown_key_of_an_experiment_gets_a_guess(complaints, head, line, guess):
    (found,) = complaints(head + f'optimizer = "sgd"\n{line}\n')
    assert found == f"my.toml:8: unknown key '{line.split()[0]}'. Did you mean '{guess}'?"


@pytest.mark.parametrize("line", ['time_limit = "2h"', "seeds = 3", 'device = "cpu"'])
def test_a_key_of_the_suite_in_an_experiment_is_told_its_place(complaints, head, line):
    told = f"my.toml:8: '{line.split()[0]}' belongs in the [suite] table, not in an experiment"
    assert complaints(head + f'optimizer = "sgd"\n{line}\n') == [told]


def test_a_key_like_nothing_gets_no_guess(complaints, head):
    assert complaints(head + 'optimizer = "sgd"\nqqqqqq = 1\n') == ["my.toml:8: unknown key 'qqqqqq'"]


def test_a_second_experiment_of_that_name(complaints):
    assert complaints(TWO.replace("second", "first")) == ["my.toml:9: duplicate experiment 'first'"]


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ('model = ["net", 3]', 5),
        ("model = 3", 5),
        ("model = []", 5),
        ("model = [{ width = 3 }]", 5),
        ('model = { name = "net", params = 3 }', 5),
        ('model = { name = ["net", 3] }', 5),
        ("model = { name = [] }", 5),
        ("dataset = true", 6),
        ("dataset = []", 6),
        ('dataset = { name = "pictures", strict = "very" }', 6),
        ('dataset = { name = "pictures", fallback = 3 }', 6),
        ("optimizer = []", 7),
        ('optimizer = [{ name = "sgd", label = "" }]', 7),
        ('optimizer = [{ name = "sgd", label = 3 }]', 7),
        ('optimizer = [{ label = "nameless" }]', 7),
    ],
)
def test_tables_of_the_wrong_shape(complaints, line, number):
    lines = {5: 'model = "net"', 6: 'dataset = "pictures"', 7: 'optimizer = "sgd"'} | {number: line}
    text = '[suite]\nname = "x"\n[[experiment]]\nname = "exp"\n' + "\n".join(lines.values()) + "\n"
    assert set(starts(complaints(text))) == {f"my.toml:{number}"}


def test_references_of_the_wrong_shape(complaints, head):
    found = complaints(
        head
        + """\
optimizer = "sgd"
[experiment.reference]
nam = "paper"
[experiment.reference.columns]
sgd = { recall = "high", precision = 0.5 }
"""
    )
    assert found[:2] == [
        "my.toml:8: 'name' is missing",
        "my.toml:9: unknown key 'nam'. Did you mean 'name'?",
    ]
    assert found[2].startswith("my.toml:11: 'recall' should be a valid number")
    assert len(found) == 3


def test_the_example_of_a_good_message(error, head):
    text = head + '\n  [[experiment.optimizer]]\n  name = "lbgfs"\n'
    found = error(text)
    assert found.message == "my.toml:9: unknown optimizer 'lbgfs'. Did you mean 'lbfgs'?"
    assert found.hint == f"`xbench list optimizers` shows all {len(registrations('optimizer'))}"


def test_every_mistake_is_told_at_once_in_the_order_of_the_file(error):
    found = error("""\
        [suite]
        name = "many"
        sed = 3
        device = "gpu"

        [[experiment]]
        name = "one"
        model = "nett"
        dataset = { name = "pictures", flipp = true }
        epochs = 0
        batch_size = "half"
        epoch = 3

          [[experiment.optimizer]]
          name = "sgd"
          lr = "fast"
          momentun = 0.9

          [[experiment.optimizer]]
          name = "adm"

        [[experiment]]
        name = "one"
        model = "net"
        dataset = "picture"
        optimizer = { name = "needy", micro_batch = 0 }
        """)
    lines = found.message.splitlines()
    assert starts(lines) == [f"my.toml:{n}" for n in (3, 4, 8, 9, 10, 11, 12, 16, 17, 20, 23, 25, 26, 26)]
    for line, word in zip(
        lines,
        [
            "'sed'",
            "'gpu' is not a device",
            "unknown model 'nett'.",
            "'flipp'. Did you mean 'flip'?",
            "'epochs'",
            "'batch_size'",
            "unknown key 'epoch'. Did you mean 'epochs'?",
            "optimizer 'sgd': 'lr' should be a number, not 'fast'",
            "optimizer 'sgd': unknown setting 'momentun'. Did you mean 'momentum'?",
            "unknown optimizer 'adm'. Did you mean 'adam'?",
            "duplicate experiment 'one'",
            "unknown dataset 'picture'.",
            "",
            "",
        ],
        strict=True,
    ):
        assert word in line
    assert {"'micro_batch'" in line for line in lines[-2:]} == {True, False}
    assert {"optimizer 'needy' needs a value for 'rho'" in line for line in lines[-2:]} == {True, False}
    assert len(found.hint.splitlines()) == len(set(found.hint.splitlines()))


def test_the_same_mistake_is_told_once(complaints, head):
    optimizers = 'optimizer = ["sgd", "adam", "inner"]\n'
    assert complaints(head + optimizers + "epochs = 0\n") == [
        "my.toml:8: 'epochs' should be greater than or equal to 1, not 0"
    ]


def test_a_mistake_in_one_table_does_not_hide_those_of_another(complaints, head):
    found = complaints(head.replace('"net"', "3") + 'optimizer = [{ name = "sgd", lrr = 3 }]\nepochs = 0\n')
    assert starts(found) == ["my.toml:5", "my.toml:7", "my.toml:8"]


def test_a_malformed_optimizer_does_not_hide_its_siblings(complaints, head):
    tables = '[[experiment.optimizer]]\nlr = 1\n[[experiment.optimizer]]\nname = "adm"\n'
    assert complaints(head + tables) == [
        "my.toml:7: 'name' is missing",
        "my.toml:10: unknown optimizer 'adm'. Did you mean 'adam'?",
    ]


def test_a_setting_of_a_table_that_stands_alone_has_its_own_line(complaints):
    found = complaints("""\
        [suite]
        name = "x"
        [[experiment]]
        name = "exp"
        model = "net"
        optimizer = "sgd"
        [experiment.dataset]
        name = "pictures"
        flipp = true
        """)
    assert starts(found) == ["my.toml:9"]


def test_a_setting_under_params_has_its_own_line(complaints, head):
    text = head + '[[experiment.optimizer]]\nname = "sgd"\n[experiment.optimizer.params]\nlrr = 3\n'
    assert starts(complaints(text)) == ["my.toml:10"]


def test_only_keeps_experiments_by_name(read):
    text = TWO + '[[experiment]]\nname = "third"\nmodel = "net"\ndataset = "pictures"\noptimizer = "sgd"\n'
    assert [e.name for e in read(text).experiments.values()] == ["first", "second", "third"]
    kept = read(text, only=["third", "first"]).experiments
    assert {place: e.name for place, e in kept.items()} == {0: "first", 2: "third"}


def test_only_names_an_experiment(error):
    found = error(TWO, only=["first", "secnd"])
    assert found.message == "--only secnd: my.toml has no such experiment. Did you mean 'second'?"
    assert found.hint == "its experiments are first, second"


def test_lines_are_those_of_the_file_whatever_is_left_out(complaints):
    assert starts(complaints(TWO + "epochs = 0\n", only=["second"])) == ["my.toml:13"]


def test_the_reports_suite_has_nothing_wrong():
    suite = read_suite(Path(__file__).parents[2] / "suites" / "report.toml")
    suite.problems.raise_if_any()
    assert [e.name for e in suite.experiments.values()] == ["table-1", "table-2", "table-3"]


@pytest.mark.parametrize("problem", ['["a:b", "c:d"]', '["a:b"]', "3", "{ name = 'a:b' }"])
def test_a_problem_that_is_not_a_name_is_one_mistake(complaints, problem):
    text = f"""[suite]
name = "short"
[[experiment]]
name = "exp"
problem = {problem}
optimizer = "sgd"
"""
    (complaint,) = complaints(text)
    assert complaint.startswith("my.toml:5: 'problem' is the name of one problem, not ")
