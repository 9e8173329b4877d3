"""On which line of a TOML text a key stands."""

from __future__ import annotations

import tomllib
from textwrap import dedent

import pytest

from xbench.suite.lines import key_lines, line_of


def lines_of(text: str):
    text = dedent(text)
    tomllib.loads(text)  # or the test itself is wrong
    return key_lines(text)


def test_nothing():
    assert key_lines("") == {}
    assert key_lines("# only\n\n# comments\n") == {}


def test_plain_keys_comments_and_blank_lines():
    found = lines_of("""\
        # a comment

        a = 1
        b = "two"  # b = 3

        # c = 4
        c = 5
    """)
    assert found == {("a",): 3, ("b",): 4, ("c",): 7}


def test_the_last_line_may_have_no_end():
    assert key_lines("a = 1\nb = 2") == {("a",): 1, ("b",): 2}


def test_tables_and_dotted_keys():
    found = lines_of("""\
        [one]
        x = 1
        [one.inner]
        y = 2
        [other.deep]
        z.w = 3
        "a key" = 4
    """)
    assert found == {
        ("one",): 1,
        ("one", "x"): 2,
        ("one", "inner"): 3,
        ("one", "inner", "y"): 4,
        ("other",): 5,
        ("other", "deep"): 5,
        ("other", "deep", "z"): 6,
        ("other", "deep", "z", "w"): 6,
        ("other", "deep", "a key"): 7,
    }


def test_a_table_may_follow_its_inner_one():
    found = lines_of("""\
        [a.b]
        x = 1
        [a]
        y = 2
    """)
    assert found == {("a",): 1, ("a", "b"): 1, ("a", "b", "x"): 2, ("a", "y"): 4}


def test_inline_tables_stand_on_their_line():
    found = lines_of("""\
        a = 1
        b = { c = 2, d = { e = 3 } }
        f = 4
    """)
    assert found[("b",)] == found[("b", "c")] == found[("b", "d")] == found[("b", "d", "e")] == 2
    assert found[("f",)] == 3


def test_items_of_an_array_are_numbered():
    found = lines_of("""\
        a = [10, [20, 30]]
        b = [{ c = 1 }, { c = 2 }]
    """)
    assert found[("a", 0)] == found[("a", 1)] == found[("a", 1, 1)] == 1
    assert found[("b", 0, "c")] == found[("b", 1, "c")] == 2
    assert ("a", 2) not in found


def test_a_value_of_several_lines_stands_where_it_begins():
    found = lines_of('''\
        a = 1
        b = [
            1,  # b = [
            2,

            # c = 3
            3,
        ]
        text = """
        c = 4
        [d]
        """
        e = [
            { f = 1 },
            { f = 2 },
        ]
        last = 5
    ''')
    assert found == {
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1): 4,
        ("b", 2): 7,
        ("text",): 9,
        ("e",): 13,
        ("e", 0): 14,
        ("e", 0, "f"): 14,
        ("e", 1): 15,
        ("e", 1, "f"): 15,
        ("last",): 17,
    }


def test_items_stand_where_they_begin_whatever_is_in_strings_and_comments():
    found = lines_of('''\
        a = { b = [ "]",  # ]
          """two
          lines""", 'three" [',
          [5,
           6],
        ], c = 7 }
        d = ["""a""\\"
          ""","""
          """, 4 ]
        e = 5
    ''')
    assert {path: found[path] for path in found if path[0] == "a"} == {
        ("a",): 1,
        ("a", "b"): 1,
        ("a", "b", 0): 1,
        ("a", "b", 1): 2,
        ("a", "b", 2): 3,
        ("a", "b", 3): 4,
        ("a", "b", 3, 0): 4,
        ("a", "b", 3, 1): 5,
        ("a", "c"): 6,
    }
    assert [found[path] for path in [("d",), ("d", 0), ("d", 1), ("d", 2), ("e",)]] == [7, 7, 8, 9, 10]


def test_each_value_of_a_long_list_has_its_own_line():
    values = "".join(f"  {place}e-6,  # rate, [{place}]\n" for place in range(5000))
    found = lines_of(f"lr = [\n{values}]\nlast = 1\n")
    assert [found["lr", place] for place in range(5000)] == list(range(2, 5002))
    assert found[("last",)] == 5003


@pytest.mark.parametrize(
    "string",
    [
        '"a, b"',
        '"[{"',
        '"]} # ,"',
        r'"\", "',
        r'"\\"',
        "'[, \"'",
        r"'\'",
        '""',
        '""""""',
        '"""a\n,\n[ "" \\""" #"""',
        '"""two quotes of its own"""""',
        "'''\n], # '' \\'''",
        "'''a'''''",
    ],
)
def test_nothing_in_a_string_separates_items(string):
    height = string.count("\n")
    found = lines_of(f"a = [\n{string}, {string},\n{string}\n]\nb.c = 1")
    assert {path: line for path, line in found.items() if path[0] == "a"} == {
        ("a",): 1,
        ("a", 0): 2,
        ("a", 1): 2 + height,
        ("a", 2): 3 + 2 * height,
    }
    assert found["b", "c"] == 5 + 3 * height


def test_keys_of_inline_tables_may_be_dotted_and_quoted():
    found = lines_of("""\
        a = [
          { b.c = 1, "d = [" = { 'e,' = [
            2, [], {},
          ], b.f = 3 } },
        ]
    """)
    assert found == {
        ("a",): 1,
        ("a", 0): 2,
        ("a", 0, "b"): 2,
        ("a", 0, "b", "c"): 2,
        ("a", 0, "d = ["): 2,
        ("a", 0, "d = [", "e,"): 2,
        ("a", 0, "d = [", "e,", 0): 3,
        ("a", 0, "d = [", "e,", 1): 3,
        ("a", 0, "d = [", "e,", 2): 3,
        ("a", 0, "d = [", "b"): 4,
        ("a", 0, "d = [", "b", "f"): 4,
    }


def test_a_comma_after_the_last_item_begins_no_item():
    found = lines_of("""\
        a = [ # ,
          1
          , # 2,
          [ 3, ],
          # 4,
        ]
        b = [ ]
    """)
    assert found == {("a",): 1, ("a", 0): 2, ("a", 1): 4, ("a", 1, 0): 4, ("b",): 7}


def test_nests_deeper_than_any_suite_has():
    assert len(key_lines(f"a = {'[' * 400}{']' * 400}")) == 400


def test_a_string_that_goes_on_after_a_backslash():
    found = lines_of('''\
        note = """first \\
        a = 1 \\
        last"""
        b = 2
    ''')
    assert found == {("note",): 1, ("b",): 4}


def test_literal_strings_of_several_lines():
    assert lines_of("a = '''\n[b]\nc = 1'''\nd = 2\n") == {("a",): 1, ("d",): 4}


def test_arrays_of_tables():
    found = lines_of("""\
        [[experiment]]
        name = "one"

          [[experiment.optimizer]]
          name = "sgd"
          lr = 0.1

          [[experiment.optimizer]]
          name = "adam"

        [[experiment]]
        name = "two"

          [[experiment.optimizer]]
          name = "sgd"
            [experiment.optimizer.params]
            epochs = 3
    """)
    assert found == {
        ("experiment",): 1,
        ("experiment", 0): 1,
        ("experiment", 0, "name"): 2,
        ("experiment", 0, "optimizer"): 4,
        ("experiment", 0, "optimizer", 0): 4,
        ("experiment", 0, "optimizer", 0, "name"): 5,
        ("experiment", 0, "optimizer", 0, "lr"): 6,
        ("experiment", 0, "optimizer", 1): 8,
        ("experiment", 0, "optimizer", 1, "name"): 9,
        ("experiment", 1): 11,
        ("experiment", 1, "name"): 12,
        ("experiment", 1, "optimizer"): 14,
        ("experiment", 1, "optimizer", 0): 14,
        ("experiment", 1, "optimizer", 0, "name"): 15,
        ("experiment", 1, "optimizer", 0, "params"): 16,
        ("experiment", 1, "optimizer", 0, "params", "epochs"): 17,
    }


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings(ending):
    assert key_lines(ending.join(["a = 1", "", "b = 2", ""])) == {("a",): 1, ("b",): 3}


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85"])
def test_what_only_python_takes_for_a_line_end(character):
    assert key_lines(f"# one{character}line\na = 'on{character}e'\nb = 2\n") == {("a",): 2, ("b",): 3}


def test_a_path_that_is_not_there_has_the_line_of_what_is_around_it():
    found = lines_of("""\
        [suite]
        name = "x"
        [[experiment]]
        model = { name = "net" }
    """)
    assert line_of(found, ("suite", "name")) == 2
    assert line_of(found, ("suite", "seeds")) == 1
    assert line_of(found, ("experiment", 0, "model", 0, "width")) == 4
    assert line_of(found, ("experiment", 0, "optimizer", 3, "name")) == 3
    assert line_of(found, ("experiment", 7)) == 3
    assert line_of(found, ("elsewhere", "name")) is None
    assert line_of(found, ()) is None
