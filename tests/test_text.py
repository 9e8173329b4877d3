"""Text that is shown does nothing."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbench.text import (
    MAX_VALUE_CHARS,
    count_edits,
    escape_controls,
    format_value,
    shorten,
    shorten_names,
)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain", "plain"),
        ("größer 图像 🩻", "größer 图像 🩻"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x9b31m \x7f", "\\x9b31m \\x7f"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("zero\u200bwidth \ufeff", "zero\\u200bwidth \\ufeff"),
        ("\u2028 \u2029", "\\u2028 \\u2029"),
        ("\ud800", "\\ud800"),
        ("नम\u200dस्ते", "नम\u200dस्ते"),
    ],
)
def test_visible(text, seen):
    assert escape_controls(text) == seen


def test_what_is_kept_is_kept():
    assert escape_controls("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@given(st.text())
@settings(derandomize=True, database=None)
def test_all_that_is_visible_is_one_line_that_can_be_written(text):
    seen = escape_controls(text)
    assert len(seen.splitlines()) <= 1
    assert seen.encode().decode() == seen


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, list(range(10**5)), 16**5000, {"a": "\x1b" * 10**5}, datetime.date(2026, 1, 31)],
    ids=["text", "list", "number", "table", "date"],
)
def test_a_value_is_shown_on_a_short_line(value):
    seen = format_value(value)
    assert len(seen) < 10 * MAX_VALUE_CHARS
    assert escape_controls(seen) == seen


def test_short_values_are_shown_as_python_writes_them():
    assert format_value("it's") == '"it\'s"'
    assert format_value([1, "a"]) == "[1, 'a']"


def test_a_nest_of_lists_has_a_name():
    nest = []
    for _ in range(10**5):
        nest = [nest]
    assert format_value(nest) == "a list"
    while nest:  # or Python would take them apart by recursion
        nest = nest.pop()


def test_how_long_a_text_was_is_told():
    assert shorten("abc", 3) == "abc"
    assert shorten("a" * 1234, 3) == "aaa... (1,234 characters)"


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [
        ("", "", 0),
        ("adam", "adam", 0),
        ("adma", "adam", 1),
        ("adma", "adamax", 2),
        ("sgd", "asgd", 1),
        ("lbgfs", "lbfgs", 1),
        ("", "sgd", 3),
        ("abc", "cab", 2),
        ("ca", "abc", 3),  # no character is edited twice
    ],
)
def test_edits_are_counted_both_ways(one, other, edits):
    assert count_edits(one, other) == count_edits(other, one) == edits


class TestShortNames:
    def test_a_name_that_fits_is_whole(self):
        assert shorten_names(["sgd", "adam"], 10) == ("sgd", "adam")

    def test_both_ends_of_a_long_name_are_kept(self):
        (name,) = shorten_names(["adamw lr=0.001 betas=[0.9, 0.999] decay=0.1"], 20)
        assert name == "adamw lr=...ecay=0.1" and len(name) == 20

    def test_names_that_would_look_alike_show_where_they_differ(self):
        names = [f"adamw lr=0.001 weight_decay={decay} betas=[0.9, 0.999]" for decay in (0.1, 0.01)]
        assert shorten_names(names, 32) == (
            "adamw lr...weight_decay=0.1 b...",
            "adamw lr...weight_decay=0.01 ...",
        )

    @pytest.mark.parametrize("most", [12, 20, 32])
    def test_different_names_stay_different(self, most):
        names = [f"{'a' * 40} lr={rate:03} {'b' * 40}" for rate in range(120)]
        names += [*shorten_names(names, most)[:2], names[0]]
        short = shorten_names(names, most)
        assert len(set(short)) == len(set(names)) == len(names) - 1
        assert short[-1] == short[0]
        assert max(map(len, short)) <= most
