"""The values that a search may choose."""

from __future__ import annotations

import pytest

from xbench.components.search_range import SearchRange, set_values


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "give both low and high"),
        ({"low": 1.0}, "give both low and high"),
        ({"low": 1.0, "high": 1.0}, "is not below"),
        ({"low": 2, "high": 1}, "is not below"),
        ({"low": 0.0, "high": 1.0, "scale": "log"}, "is not positive"),
        ({"low": 0.1, "high": float("inf")}, "finite"),
        ({"low": "a", "high": 1.0}, "finite"),
        ({"low": -1e308, "high": 1e308}, "too wide"),
        ({"low": True, "high": 2}, "finite"),
        ({"low": 1.0, "high": 2.0, "scale": "cubic"}, "scale"),
        ({"low": 1.0, "choices": (1, 2)}, "either"),
        ({"choices": (1, 2, 1)}, "twice"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(fields, told):
    with pytest.raises(ValueError, match=told):
        SearchRange(**fields)


def test_a_range_between_integers_is_one_of_integers():
    assert SearchRange(low=1, high=4).integer
    assert not SearchRange(low=1, high=4.0).integer
    assert not SearchRange(choices=(1, 2)).integer


def test_values_of_the_rest_go_into_its_table():
    params = {"momentum": 0.9, "rest": {"name": "adamw", "eps": 1e-6}}
    found = set_values(params, {"lr": 0.1, "rest.lr": 0.2})
    assert found == {"momentum": 0.9, "lr": 0.1, "rest": {"name": "adamw", "eps": 1e-6, "lr": 0.2}}
    assert params == {"momentum": 0.9, "rest": {"name": "adamw", "eps": 1e-6}}
