"""Flags and keys about memory that are wrong: told as what they are, before anything runs."""

from __future__ import annotations

import pytest

SUITE = """[suite]
name = "flags"

[[experiment]]
name = "first"
model = "tiny_parts:build_model"
dataset = "tiny_parts:build_dataset"
adapt = ["micro_batch"]
optimizer = "sgd"
"""


@pytest.fixture
def said(xbench, tmp_path, allow_user_code):
    """What a run says that is refused: the first line of stderr."""

    def run(*flags, suite=SUITE):
        (tmp_path / "suite.toml").write_text(suite)
        done = xbench(tmp_path, "run", "suite.toml", *flags, *allow_user_code)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "results").exists()
        return done.stderr.splitlines()[0].removeprefix("error: ")

    return run


@pytest.mark.parametrize("limit", ["lots", "12", "0%"])
def test_a_limit_that_is_none_is_told_by_its_option(said, limit):
    assert said("--memory-limit", limit).startswith(f"--memory-limit {limit}: '{limit}' is not a size")


def test_a_device_that_there_is_not(said):
    assert said("--device", "tpu").startswith("--device tpu: 'device' should be ")


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ('adapt = ["micro_batch"]', 'adapt = ["epochs"]', 8, "'adapt' should be 'micro_batch'"),
        ('adapt = ["micro_batch"]', 'memory_limit = "much"', 8, "'much' is not a size or share"),
        ('adapt = ["micro_batch"]', 'expect = "error"', 8, "'expect' should be 'oom'"),
        (
            '"tiny_parts:build_dataset"',
            '{ name = "tiny_parts:build_dataset", storage = "disk" }',
            7,
            "'storage'",
        ),
    ],
)
def test_keys_are_told_with_their_line(said, old, new, line, told):
    told_line = said(suite=SUITE.replace(old, new))
    assert told_line.startswith(f"suite.toml:{line}: ")
    assert told in told_line
