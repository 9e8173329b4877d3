"""Limits as people write them, and sizes as they are shown."""

from __future__ import annotations

import pytest

from xbench.errors import XbenchError
from xbench.units import (
    DeviceChoice,
    format_budget,
    format_bytes,
    format_seconds,
    parse_bytes,
    parse_device,
    parse_duration,
    parse_limit,
    tightest,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [("12GB", 12 * 10**9), ("12GiB", 12 << 30), ("50%", 500), (" 12.5 % ", 125), ("100%", 1000), ("0.1%", 1)],
)
def test_limit(text, count):
    assert parse_limit(text).bytes_of(1000) == count


@pytest.mark.parametrize("text", ["", "12", "much", "0%", "100.1%", "-5%", "%", "50%GB", "5 apples"])
def test_what_is_no_limit(text):
    with pytest.raises(XbenchError, match="is not a size") as caught:
        parse_limit(text)
    for form in ("12GB", "12GiB", "50%"):
        assert form in caught.value.hint


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 MB"),
        (96, "96 B"),
        (4321, "4.32 kB"),
        (10_000, "0.01 MB"),
        (9_990_000, "9.99 MB"),
        (28_500_000, "28 MB"),
        (1.5e9, "1.50 GB"),
    ],
)
def test_sizes_are_shown_alike_on_both_sides_of_zero(count, shown):
    assert format_bytes(count) == shown
    if count:
        assert format_bytes(-count) == f"-{shown}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2h05s", 7205),
        ("1h1m1s", 3661),
        (" 1.5h ", 5400),
        ("0.5s", 0.5),
        ("0h10m", 600),
        ("90m", 5400),
        ("100s", 100),
    ],
)
def test_duration(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "lots",
        "90",
        "15 minutes",
        "m",
        "-5m",
        "0s",
        "0h0m",
        "30m1h",
        "1m1m",
        "1h,5m",
        "5%",
        "1e3s",
        ".5s",
    ],
)
def test_what_is_no_duration(text):
    with pytest.raises(XbenchError, match="is not a duration") as caught:
        parse_duration(text)
    assert repr(text) in caught.value.message
    for form in ("90s", "15m", "1h30m"):
        assert form in caught.value.hint


@pytest.mark.parametrize("parse", [parse_bytes, parse_limit])
def test_a_size_that_no_float_holds_is_none(parse):
    with pytest.raises(XbenchError, match=r"is not a size") as caught:
        parse("9" * 400 + "GB")
    assert len(caught.value.message) < 200


def test_a_duration_without_an_end_is_none():
    with pytest.raises(XbenchError, match="is not a duration") as caught:
        parse_duration("9" * 400 + "h")
    assert len(caught.value.message) < 200


def test_what_is_no_number_is_shown_as_such():
    assert format_seconds(float("inf")) == "inf s"
    assert format_seconds(float("nan")) == "nan s"


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("auto", DeviceChoice("auto")),
        ("cpu", DeviceChoice("cpu")),
        ("cuda", DeviceChoice("cuda", 0)),
        (" cuda:12 ", DeviceChoice("cuda", 12)),
    ],
)
def test_device(text, device):
    assert parse_device(text) == device
    assert parse_device(str(device)) == device


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "CPU"])
def test_what_is_no_device(text):
    with pytest.raises(XbenchError, match="is not a device") as caught:
        parse_device(text)
    assert "cuda:N" in caught.value.hint


def test_limits_that_others_imply_are_dropped():
    limits = [parse_limit(text) for text in ("2GB", "50%", "1.5GB", "60%")]
    assert [limit.written for limit in tightest([None, *limits])] == ["50%", "1.5GB"]
    assert tightest([None]) == ()


def test_limits_are_equal_however_they_were_written():
    assert parse_limit("2GB") == parse_limit(" 2000 MB ")


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    [
        (1.0, "trials", "1 trial"),
        (8, "trials", "8 trials"),
        (20_000.0, "closures", "20,000 gradient evaluations"),
        (600.0, "seconds", "10m 00s of training"),
    ],
)
def test_budgets(amount, unit, text):
    assert format_budget(amount, unit) == text
