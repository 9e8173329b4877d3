"""Tests of the generated text: the same everywhere, grammatical, and easier to predict with more context."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys

import numpy as np
import pytest

from xbench.components.generated_text import generate_text

OPENING = {")": "(", "]": "[", "}": "{"}
WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
TEXT = generate_text(100_000)


def test_text_of_this_generator_version_has_not_changed():
    # If this fails, raise GENERATOR and update the hash, because cached texts are named after the version.
    expected = "e70647716d6a87695c86c4c9132ad482ae679ae7c55001f2a216b2b9c1e570cf"
    assert hashlib.sha256(generate_text(1000)).hexdigest() == expected


def test_text_does_not_depend_on_the_hash_seed():
    code = (
        "import hashlib; from xbench.components.generated_text import generate_text\n"
        "print(hashlib.sha256(generate_text(100_000)).hexdigest())"
    )
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert child.stdout.strip() == hashlib.sha256(TEXT).hexdigest(), child.stderr


@pytest.mark.parametrize("size", [0, 1, 999, 5000])
def test_short_text_is_the_beginning_of_a_longer_one(size):
    assert generate_text(size) == TEXT[:size]


def test_texts_of_two_seeds_differ():
    assert generate_text(1000, seed=1)[:100] != TEXT[:100]


def test_brackets_and_quotation_marks_are_closed():
    deepest = 0
    for paragraph in TEXT.decode().split("\n\n")[:-1]:
        open_brackets: list[str] = []
        for character in paragraph:
            if character in "([{":
                open_brackets.append(character)
            elif character in OPENING:
                assert open_brackets.pop() == OPENING[character]
            deepest = max(deepest, len(open_brackets))
        assert not open_brackets
        assert paragraph.count('"') % 2 == 0 and paragraph.count("'") % 2 == 0
    assert deepest == 3


def test_sums_are_right():
    numbers = {word: number for number, word in enumerate(WORDS)}
    operations = {"plus": int.__add__, "minus": int.__sub__, "times": int.__mul__}
    facts = re.findall(r"(\w+) (plus|minus|times) (\w+) is (\w+)\.", TEXT.decode().lower())
    known = [
        operations[sign](numbers[left], numbers[right]) == numbers[result]
        for left, sign, right, result in facts
        if {left, right, result} <= set(numbers)
    ]
    assert len(known) > 100 and all(known)


def test_verbs_agree_with_their_subjects():
    between = r"(?: (?:near|behind|beside|without|that \w+) the (?:\w+ )?(\w+))?"
    pattern = rf"The (?:\w+ )?(fox|wolf|foxes|wolves){between} (is late|are late|has left|have left)"
    found = re.findall(pattern, TEXT.decode())
    plural = ("foxes", "wolves")
    assert all((noun in plural) == verb.startswith(("are", "have")) for noun, _, verb in found)
    assert any(other.endswith("s") for noun, other, _ in found if noun not in plural)


def test_pronouns_agree_with_names():
    takers = re.findall(r"(\w+) the \w+, and (she|he) ", TEXT.decode())
    assert len(takers) > 100
    assert all((pronoun == "she") == name.endswith("a") for name, pronoun in takers)


def test_names_recur_within_a_paragraph_and_not_elsewhere():
    paragraphs = TEXT.decode().split("\n\n")[:-1]
    names = [set(re.findall(r"[A-Z]\w{4,}(?= (?:wrote|gave|sent))", paragraph)) for paragraph in paragraphs]
    assert all(len(found) <= 2 for found in names)
    everywhere = [name for found in names for name in found]
    assert len(set(everywhere)) > 0.9 * len(everywhere)


def test_more_context_leaves_less_entropy():
    entropies = [conditional_entropy(TEXT, bytes_before) for bytes_before in range(4)]
    assert entropies == pytest.approx([4.5, 3.07, 1.78, 1.09], abs=0.1)


def conditional_entropy(text: bytes, bytes_before: int) -> float:
    """Compute the entropy of a byte given those before it, in bits."""
    tokens = np.frombuffer(text, np.uint8).astype(np.int64)
    context = np.zeros(len(tokens) - bytes_before, np.int64)
    for place in range(bytes_before):
        context = 256 * context + tokens[place : place + len(context)]
    return entropy(256 * context + tokens[bytes_before:]) - entropy(context)


def entropy(values: np.ndarray) -> float:
    _, counts = np.unique(values, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
