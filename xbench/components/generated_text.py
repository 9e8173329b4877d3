"""Generate English-like text that a small language model can learn, the same on every machine.

A text is a sequence of paragraphs. Each makes up two names and uses them in its sentences, so a model has to
look back over a paragraph to spell them. Within a sentence,

- verbs agree with their subjects, across nouns of the other number that stand between the two;
- pronouns agree with names (a name that ends with `a` takes `she`);
- quotation marks and three kinds of brackets nest, and are closed in reverse order;
- sums, differences and products are right: "Seven plus five is twelve."

A megabyte has an entropy of 4.50 bits per byte. Given the byte before, it is 3.07 bits; given two, 1.78 bits;
given three, 1.09 bits.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

# Identifies the grammar. Raise the number whenever the text changes.
GENERATOR = "generated text 1"

# Chooses an item of a sequence; see `_make_chooser`.
Choose: TypeAlias = Callable[[Sequence[Any]], Any]

# More than the longest possible paragraph makes.
_CHOICES_PER_PARAGRAPH = 1024
_SENTENCES_PER_PARAGRAPH = range(5, 11)
_BRACKETS_DEEP = 3

_UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBERS = (
    "zero",
    *_UNITS,
    *_TEENS,
    *(ten + unit for ten in _TENS for unit in ("", *(f"-{unit}" for unit in _UNITS))),
)
_DIGITS = range(1, 10)
_COUNTS = range(2, 100)

_SINGULAR = (
    "fox",
    "wolf",
    "mouse",
    "goose",
    "child",
    "king",
    "guard",
    "bird",
    "sister",
    "thief",
    "horse",
    "witch",
)
_PLURAL = (
    "foxes",
    "wolves",
    "mice",
    "geese",
    "children",
    "kings",
    "guards",
    "birds",
    "sisters",
    "thieves",
    "horses",
    "witches",
)
# Nouns, their verbs, and their verbs that take an object.
_NUMBER_OF_NOUN = (
    (_SINGULAR, ("sleeps", "sings", "waits", "runs", "is late", "has left"), ("sees", "hears", "follows")),
    (_PLURAL, ("sleep", "sing", "wait", "run", "are late", "have left"), ("see", "hear", "follow")),
)
_ADJECTIVES = ("", "", "old ", "young ", "small ", "grey ", "tired ", "brave ")
_BETWEEN = ("near", "behind", "beside", "without")
_ADVERBS = ("", "", " again", " today", " at night", " in the rain")

_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "p", "r", "s", "t", "v", "z", "dr", "tr", "sh")
_VOWELS = ("a", "e", "i", "o", "u")
_GENDERS = (("la", "she", "her"), ("n", "he", "him"))
_THINGS = ("map", "lamp", "key", "coin", "letter", "ring", "bottle", "rope")
_GIVES = ("gave", "sold", "showed", "sent", "lent")
_THANKS = ("thanked", "praised", "followed", "remembered")
_SAYS = ("said", "asked", "answered", "whispered")
_BRACKETS = ("()", "[]", "{}")


def generate_text(size: int, seed: int = 0) -> bytes:
    """Generate ASCII text.

    Args:
        size: number of bytes.
        seed: any integer. A short text is the beginning of a longer one of the same seed.

    Returns:
        The text. Its last sentence may be incomplete.
    """
    paragraphs: list[str] = []
    length = 0
    for number in itertools.count():
        if length >= size:
            break
        paragraphs.append(_make_paragraph(_make_chooser(f"{GENERATOR} seed={seed} paragraph={number}")))
        length += len(paragraphs[-1])
    return "".join(paragraphs)[:size].encode("ascii")


def _make_chooser(key: str) -> Choose:
    """Make a function that chooses items by the bytes of a SHAKE-256 hash."""
    draws: Iterator[int] = iter(hashlib.shake_256(key.encode()).digest(_CHOICES_PER_PARAGRAPH))
    return lambda options: options[next(draws) * len(options) >> 8]


def _make_paragraph(choose: Choose) -> str:
    names = tuple(_make_name(choose) for _ in range(2))
    sentences = [choose(_SENTENCES)(choose, names) for _ in range(choose(_SENTENCES_PER_PARAGRAPH))]
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences) + "\n\n"


# A name with its two pronouns, as in `("Dromila", "she", "her")`.
_Name: TypeAlias = tuple[str, str, str]
_Names: TypeAlias = tuple[_Name, ...]


def _make_name(choose: Choose) -> _Name:
    ending, subject, object_ = choose(_GENDERS)
    syllables = "".join(choose(_ONSETS) + choose(_VOWELS) for _ in range(2))
    return syllables.capitalize() + ending, subject, object_


def _make_statement(choose: Choose, names: _Names) -> str:
    """Make a sentence whose verb agrees with a noun that may be far in front of it."""
    nouns, verbs, verbs_with_object = choose(_NUMBER_OF_NOUN)
    others, _, _ = choose(_NUMBER_OF_NOUN)
    clause = choose(("", f" {choose(_BETWEEN)} the", f" that {choose(verbs_with_object)} the"))
    if clause:
        clause += f" {choose(_ADJECTIVES)}{choose(others)}"
    return f"the {choose(_ADJECTIVES)}{choose(nouns)}{clause} {choose(verbs)}{choose(_ADVERBS)}."


def _make_gift(choose: Choose, names: _Names) -> str:
    """Make a sentence whose pronouns agree with the names before them."""
    giver, taker = choose((names, names[::-1]))
    return (
        f"{giver[0]} {choose(_GIVES)} {taker[0]} the {choose(_THINGS)}, "
        f"and {taker[1]} {choose(_THANKS)} {giver[2]}."
    )


def _make_speech(choose: Choose, names: _Names) -> str:
    """Make a sentence with a quotation, in which someone may be quoted in turn."""
    speaker, other = choose((names, names[::-1]))
    spoken = choose((_make_statement, _make_sum, _make_gift))(choose, names)
    if choose((True, False)):
        spoken = f"{other[0]} {choose(_SAYS)}, '{spoken[0].upper()}{spoken[1:]}'"
    return f'{speaker[0]} {choose(_SAYS)}, "{spoken[0].upper()}{spoken[1:]}"'


def _make_sum(choose: Choose, names: _Names) -> str:
    first, second = choose(_DIGITS), choose(_DIGITS)
    left, sign, right, result = choose(
        (
            (first, "plus", second, first + second),
            (first + second, "minus", second, first),
            (first, "times", second, first * second),
        )
    )
    return f"{_NUMBERS[left]} {sign} {_NUMBERS[right]} is {_NUMBERS[result]}."


def _make_list(choose: Choose, names: _Names) -> str:
    """Make a list of numbers in nested brackets."""
    return f"{choose(names)[0]} wrote {_nest(choose, _BRACKETS_DEEP)}."


def _nest(choose: Choose, depth: int) -> str:
    opening, closing = choose(_BRACKETS)
    items = [_NUMBERS[choose(_COUNTS)] for _ in range(choose((1, 2)))]
    if depth > 1 and choose((True, True, False)):
        items.insert(choose((0, 1)), _nest(choose, depth - 1))
    return f"{opening}{' '.join(items)}{closing}"


_SENTENCES = (_make_statement, _make_statement, _make_gift, _make_speech, _make_sum, _make_list)
