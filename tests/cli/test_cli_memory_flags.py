"""Flags and keys about memory that are wrong: told as what they are, before anything runs."""

from __future__ import annotations

SUITE = """[suite]
name = "flags"

[[experiment]]
name = "first"
model = "tiny_parts:build_model"
dataset = "tiny_parts:build_dataset"
adapt = ["micro_batch"]
optimizer = "sgd"
"""


def refused(xbench, folder, *flags) -> list[str]:
    """What a run says that is refused: its errors."""
    done = xbench(folder, "run", "suite.toml", *flags)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert not (folder / "results").exists()
    lines = done.stderr.splitlines()
    return [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]


def test_options_are_told_by_their_names(xbench, tmp_path, allow_user_code):
    (tmp_path / "suite.toml").write_text(SUITE)
    flags = ["--memory-limit", "lots", "--device", "tpu"]
    device, limit = sorted(refused(xbench, tmp_path, *flags, *allow_user_code))
    assert limit.startswith("--memory-limit lots: 'lots' is not a size or share")
    assert device.startswith("--device tpu: 'tpu' is not a device")


def test_keys_are_told_with_their_lines(xbench, tmp_path, allow_user_code):
    wrong = 'adapt = ["epochs"]\nmemory_limit = "much"\nexpect = "error"'
    text = SUITE.replace('adapt = ["micro_batch"]', wrong)
    data = '"tiny_parts:build_dataset"'
    (tmp_path / "suite.toml").write_text(text.replace(data, f'{{ name = {data}, storage = "disk" }}'))
    told = refused(xbench, tmp_path, *allow_user_code)
    expected = [
        "'storage'",
        "'adapt' should be 'micro_batch'",
        "'much' is not a size",
        "'expect' should be 'oom'",
    ]
    assert len(told) == len(expected)
    for number, (line, part) in enumerate(zip(told, expected, strict=True), start=7):
        assert line.startswith(f"suite.toml:{number}: ")
        assert part in line
