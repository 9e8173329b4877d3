"""Files and values that no suite has: told in a line, whatever they are."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from xbench.errors import XbenchError
from xbench.suite.document import MAX_BYTES, read_text
from xbench.suite.lines import key_lines
from xbench.suite.reader import read_suite

REST = '[suite]\nname = "short"\n'


def refused(content: bytes) -> str:
    Path("my.toml").write_bytes(content)
    with pytest.raises(XbenchError) as caught:
        read_suite(Path("my.toml")).problems.raise_if_any()
    return caught.value.message


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for():
    os.mkfifo("pipe.toml")
    with pytest.raises(XbenchError, match=r"pipe\.toml is not a regular file"):
        read_text(Path("pipe.toml"))


@pytest.mark.timeout(20)
def test_a_device_is_not_read():
    with pytest.raises(XbenchError, match="/dev/zero is not a regular file"):
        read_text(Path("/dev/zero"))


def test_of_a_large_file_no_more_is_read_than_a_suite_has():
    with open("large.toml", "wb") as file:
        file.truncate(10**12)
    with pytest.raises(XbenchError, match=f"more than {MAX_BYTES:,} bytes"):
        read_text(Path("large.toml"))


@pytest.mark.parametrize("name", ["nul\0.toml", "\udcff.toml", "x" * 5000])
def test_names_that_no_file_has(name):
    with pytest.raises(XbenchError) as caught:
        read_text(Path(name))
    assert caught.value.message.isprintable()


def test_a_byte_order_mark_is_no_mistake():
    Path("my.toml").write_bytes(b"\xef\xbb\xbf" + REST.encode())
    assert read_text(Path("my.toml")) == REST


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"9" * 5000, "my.toml: not valid TOML: a number has too many digits"),
        (b"0x" + b"F" * 5000, "my.toml:3: 'seeds' is a number of more than 64 bits"),
        (b"9223372036854775808", "my.toml:3: 'seeds' is a number of more than 64 bits"),
        (b"[" * 5000 + b"]" * 5000, "my.toml: not valid TOML: tables or lists are nested too deeply"),
        (b"[" * 50 + b"]" * 50, "my.toml:3: tables or lists are nested too deeply"),
        (b'"a\\u0000b"', "my.toml:3: the text of 'seeds' contains a NUL character"),
        (b'{ "a\\u0000b" = 1 }', "my.toml:3: key 'a\\x00b' contains a NUL character"),
        (b'"\\ud800"', "my.toml:3: not valid TOML: "),
        (b'"\xff"', "my.toml:3: cannot be read as text: byte 0xff is not UTF-8"),
    ],
)
def test_values_that_no_suite_can_use(value, told):
    assert refused(REST.encode() + b"seeds = " + value + b"\n").startswith(told)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("part", [b"a.", b'"" . ', b"'a b'."])
def test_a_deep_dotted_key(part):
    assert refused(b"\n" + part * 100_000 + b"a = 1\n").startswith(
        "my.toml:2: not valid TOML: tables or lists"
    )
    assert refused(part * 30 + b"a = 1\n") == "my.toml:1: tables or lists are nested too deeply"


def test_dots_in_text_are_no_key():
    text = REST + f"# {'.' * 1000}\n# {'word. ' * 50}\n"
    Path("my.toml").write_text(text)
    assert read_suite(Path("my.toml")).text == text


@pytest.mark.timeout(20)
@pytest.mark.parametrize("line", ["x" * MAX_BYTES, '"' * MAX_BYTES, "'a' " * (MAX_BYTES // 4)])
def test_a_line_that_fills_the_file(line):
    assert refused(line.encode()).startswith("my.toml:1: not valid TOML: ")


def test_the_largest_numbers_of_toml_are_read():
    found = refused(REST.encode() + b"seeds = 9223372036854775807\n")
    assert "my.toml:3: 'seeds' should be less than or equal to 10000" in found


def test_not_every_one_of_a_hundred_thousand_mistakes_is_told():
    text = REST + "".join(f"key{i} = {i}\n" for i in range(50_000)) + "[[experiment]]\n" * 1000
    lines = refused(text.encode()).splitlines()
    assert len(lines) <= 101
    assert lines[0].startswith("my.toml:3: unknown key 'key0'")


def test_values_in_messages_are_short_and_on_one_line():
    told = refused(REST.encode() + b'device = "' + b"\\u001b[31m\\n" * 10_000 + b'"\n')
    (line,) = (line for line in told.splitlines() if "device" in line)
    assert "\\x1b[31m\\n" in line
    assert line.isprintable()
    assert len(line) < 300


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("suite.seeds=0x" + "F" * 5000, "'value' is a number of more than 64 bits"),
        ("suite.seeds=" + "9" * 5000, "a number has too many digits"),
        ("suite.seeds=" + "[" * 5000, "lists are nested too deeply"),
        ("suite.name=\udcff", "the text of 'value' is not UTF-8"),
    ],
)
def test_values_of_the_command_line_that_no_suite_can_use(text, told):
    Path("my.toml").write_text(REST)
    with pytest.raises(XbenchError) as caught:
        read_suite(Path("my.toml"), [f"{text}"])
    message = caught.value.message
    assert message.startswith("--set suite.")
    assert message.endswith(told)
    assert len(message) < 300


def test_further_lines_of_an_argument_are_no_keys():
    Path("my.toml").write_text(REST)
    suite = read_suite(Path("my.toml"), ["suite.device=1\nname = 'other'"])
    with pytest.raises(XbenchError, match="other'' is not a device"):
        suite.problems.raise_if_any()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"k{i} = {i}" for i in range(50_000)),
        "a = [\n" + "1, # ]\n" * 50_000 + "]\nb = 1\n",
        "[[a]]\n" * 50_000,
    ],
)
def test_lines_of_a_large_text_are_found_in_time(text):
    began = time.monotonic()
    key_lines(text)
    assert time.monotonic() - began < 30
