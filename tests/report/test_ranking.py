"""Which times may not be ranked beside others, and why."""

from __future__ import annotations

from tests.report.report_samples import cell, failed
from xbench.records.memory import MemoryRecord
from xbench.records.schema import Times
from xbench.report.ranking import find_unranked_times


def on(*devices: str | None, malloc: str | None = None):
    """Cells of one column, one on each device."""
    return [
        cell("sgd", seed, device={"name": device, "threads": 2}, memory=MemoryRecord(malloc=malloc))
        for seed, device in enumerate(devices)
    ]


def test_alike():
    assert find_unranked_times({"a": on("x", "x"), "b": on("x")}) == {}
    assert find_unranked_times({"a": on("x", malloc="exact"), "b": on("x", malloc="exact")}) == {}
    assert find_unranked_times({}) == {}


def test_those_on_another_device_than_most():
    reasons = find_unranked_times({"a": on("x"), "b": on("y"), "c": on("x")})
    assert reasons == {"b": "they were measured on y, and others on x"}


def test_no_device_has_the_most():
    assert set(find_unranked_times({"a": on("x"), "b": on("y")})) == {"a", "b"}


def test_one_whose_seeds_ran_on_several():
    assert find_unranked_times({"a": on("x"), "b": on("x", "y")}) == {"b": "they were measured on x and y"}
    assert find_unranked_times({"a": on("x", "y")}) == {"a": "they were measured on x and y"}


def test_exact_malloc_beside_fast():
    reasons = find_unranked_times({"a": on("x", malloc="fast"), "b": on("x", malloc="exact")})
    assert list(reasons) == ["b"]
    assert "exact malloc" in reasons["b"]


def test_a_column_that_other_programs_slowed_down():
    def timed(training_s, *shares):
        times = [Times(training_s=training_s, waiting_share=share) for share in shares]
        return [cell("sgd", seed, time=time) for seed, time in enumerate(times)]

    columns = {"slowed": timed(60, 0.38, 0.02), "alone": timed(60, 0.05, None), "short": timed(2, 0.4)}
    assert find_unranked_times(columns) == {
        "slowed": "other programs kept its cells waiting for 38% of the time"
    }


def test_both_reasons_are_given():
    reasons = find_unranked_times({"a": on("x", malloc="fast"), "b": on("y", malloc="exact"), "c": on("x")})
    assert "measured on y" in reasons["b"]
    assert "exact malloc" in reasons["b"]
    assert list(reasons) == ["b"]


def test_what_is_not_known_is_no_difference():
    assert find_unranked_times({"a": on("x", malloc="fast"), "b": on(None), "c": []}) == {}


def test_cells_that_failed_have_no_times():
    other = [failed("sgd", "oom", "too much", device={"name": "y"})]
    assert find_unranked_times({"a": on("x"), "b": other}) == {}
