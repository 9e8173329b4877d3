"""Suites that nobody should write: from noise, and from good ones with something wrong in them."""

from __future__ import annotations

import copy
import datetime
import json
import random
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]

SMALL = """\
[suite]
name = "small"
seeds = [0, 1]
time_limit = "10m"
memory_limit = "50%"

[[experiment]]
name = "one"
title = "first"
model = "report-cnn"
dataset = { name = "synthetic-xray", train = 40, test = 10, storage = "float32" }
train_size = [10, 20]
class_weights = { NORMAL = 2.0 }
adapt = ["micro_batch", "train_size"]
reference = { name = "report", columns = { mine = { auc = 0.5 } } }

  [[experiment.optimizer]]
  name = "adam"
  label = "mine"
  lr = [1e-3, 1e-2]
  betas = [0.9, 0.99]

  [[experiment.optimizer]]
  name = "lbfgs"
  history_size = 3
  params = { max_iter = 2 }
  batch_size = "full"
  micro_batch = 16

[[experiment]]
name = "two"
model = ["report-cnn", { name = "torchvision/squeezenet1_1", pretrained = false }]
dataset = { name = "folder", root = "images", group = 'p(\\d+)', fallback = { name = "synthetic-xray", train = 9, test = 9 } }
optimizer = ["sgd", { name = "muon" }]
expect = "oom"

[[experiment]]
name = "three"
model = "report-cnn"
dataset = { name = "synthetic-xray", train = 9, test = 9 }
optimizer = ["sgd", { name = "lbfgs", along = "history_size" }]
equal = "memory"
along = "batch_size"
"""  # noqa: E501

# What text can do to a terminal, a table, a file's name, or a parser.
TEXTS = (
    "",
    " ",
    "x" * 100_000,
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "two\nlines",
    "a\tb\rc",
    "\u202eevil\u202c",
    "\u2028line\u2029",
    "[red]x[/red] :warning:",
    "a|b`c*d",
    "nul\0",
    "\ufeffbom",
    "../../../etc/passwd",
    "/dev/zero",
    "~nobody/x",
    "..",
    "os:system",
    "antigravity:fly",
    "../x:y",
    "torchvision/",
    "torchvision/resnet18/x",
    "%s {0} {x.y}",
    "9" * 400 + "GB",
    "1e9GB",
    "0%",
    "9" * 400 + "h",
    "cuda:99999999999999999999",
    "(a+)+$",
    "nan",
    "full",
    "all",
    "largest",
    "auto",
    "adam",
    "lbfgs",
    "report-cnn",
    "synthetic-xray",
)
NUMBERS = (
    *(0, 1, -1, 2, 7, 1000, 2**31, 10**9, 10**12, 2**63 - 1, 2**63, -(2**63), 2**64, 16**5000),
    *(0.0, -0.0, 0.5, 1.5, 1e-320, 1e308, float("inf"), -float("inf"), float("nan")),
)
OTHERS = (
    True,
    False,
    datetime.date(2026, 1, 31),
    datetime.time(12, 30),
    datetime.datetime(2026, 1, 31, 12, 30, tzinfo=datetime.UTC),
    [],
    [[]],
    [[], []],
    {},
    {"name": {}},
    [{}],
    [1, "a", None.__class__.__name__, {"b": [1]}],
    list(range(300)),
    list(range(20_000)),
    ["adam"] * 300,
    {"": 1},
    {"a" * 1000: 1, "\x1b[31m": 2},
)
KEYS = (
    *("name", "params", "seeds", "lr", "epochs", "model", "dataset", "optimizer", "experiment", "suite"),
    *("train_size", "batch_size", "micro_batch", "threads", "image_size", "train", "test", "root", "weights"),
    *(
        "fallback",
        "label",
        "adapt",
        "expect",
        "equal",
        "along",
        "reference",
        "columns",
        "",
        "\x1b[31m",
        "a\nb",
        "x" * 5000,
    ),
)


@dataclass(frozen=True)
class Attempt:
    """A suite's bytes, and arguments of `xbench run` besides."""

    content: bytes
    arguments: list[str] = field(default_factory=list)


@cache
def good_suites() -> list[str]:
    """The project's own suites, those of its README and its page on suites, and one with many keys."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "suites").glob("*.toml"))]
    for page in (ROOT / "README.md", ROOT / "docs/suites.md"):
        blocks = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        texts += [block for block in blocks if "[[exp" in block]
    # VGG-16 takes seconds to build, and another of its kind does not.
    return [SMALL, *(text.replace('"vgg16"', '"torchvision/squeezenet1_1"') for text in texts)]


def toml(value: Any) -> str:
    """A value as TOML on one line, also where TOML does not allow it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int):
        return str(value) if value < 10**4000 else hex(value)  # Python writes no more digits
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return repr(value)


def written(document: dict[str, Any]) -> bytes:
    """A document as TOML, a line for each of its keys."""
    return "".join(f"{toml(key)} = {toml(value)}\n" for key, value in document.items()).encode()


def evil(rng: random.Random) -> Any:
    """A value that most keys should refuse."""
    choice = rng.randrange(12)
    if choice == 0:
        return _nested(rng.choice((5, 30, 300)))
    if choice == 1:
        return [evil(rng) for _ in range(rng.randrange(4))]
    # A copy, as what is put into a document is changed with it.
    return copy.deepcopy(rng.choice((TEXTS, NUMBERS, OTHERS)[choice % 3]))


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def random_bytes(rng: random.Random) -> Attempt:
    return Attempt(rng.randbytes(rng.choice((0, 1, 3, 40, 400, 4000))))


_TOKENS = (
    *("[", "]", "[[", "]]", "{", "}", "=", " = ", ".", ",", "\n", "\n\n", "#", '"', "'", '"""', "'''", "\\"),
    *("suite", "experiment", "name", "model", "dataset", "optimizer", "seeds", "lr", "epochs", "a", "b", "é"),
    *("1", "-2", "1e3", "0x1F", "inf", "nan", "true", "2026-01-31", "12:30:00", "0b1", "1_000", "9" * 5000),
    *("\ufeff", "\x00", "\x1b[31m", "\r\n", "\r", "\t", "\u202e", '"x"', "'adam'", "[1, 2]", "{ a = 1 }"),
    *("[" * 3000, "a." * 3000, "[suite]\n", "[[experiment]]\n", "\n" * 200, '"\\ud800"', '"\\u0000"'),
)


def random_text(rng: random.Random) -> Attempt:
    text = "".join(rng.choice(_TOKENS) for _ in range(rng.randrange(1, 60)))
    return Attempt(text.encode())


def mutated_tokens(rng: random.Random) -> Attempt:
    """A good suite of which a few pieces are doubled, left out, swapped or replaced."""
    tokens = re.findall(r"\w+|\s+|[^\w\s]", rng.choice(good_suites()))
    for _ in range(rng.randrange(1, 4)):
        place, other = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        action = rng.randrange(4)
        if action == 0:
            tokens[place] = ""
        elif action == 1:
            tokens[place] *= rng.choice((2, 2, 100))
        elif action == 2:
            tokens[place], tokens[other] = tokens[other], tokens[place]
        else:
            tokens[place] = rng.choice(_TOKENS)
    return Attempt("".join(tokens).encode())


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (table or list, key or place) within a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from _places(item)


def _holds(value: Any, other: Any) -> bool:
    """Whether a list or table is, or holds, another one."""
    return value is other or any(holder[key] is other for holder, key in _places(value))


def mutated_values(rng: random.Random) -> Attempt:
    document = tomllib.loads(rng.choice(good_suites()))
    for _ in range(rng.choice((1, 1, 2, 4))):
        holder, key = rng.choice(list(_places(document)))
        holder[key] = evil(rng)
    return Attempt(written(document))


def mutated_structure(rng: random.Random) -> Attempt:
    """Keys left out, renamed, moved, doubled; tables where lists belong and the other way round."""
    document = tomllib.loads(rng.choice(good_suites()))
    for _ in range(rng.choice((1, 2, 3, 6))):
        places = list(_places(document))
        if not places:
            break
        holder, key = rng.choice(places)
        value = holder.pop(key)
        action = rng.randrange(6)
        other = rng.choice([document, *(h for h, _ in places)])
        if action == 1 and isinstance(holder, dict):
            holder[rng.choice(KEYS)] = value
        elif action == 2 and isinstance(other, dict) and not _holds(value, other):
            other[key if isinstance(key, str) else rng.choice(KEYS)] = value
        elif action == 3 and isinstance(other, list) and not _holds(value, other):
            other += [copy.deepcopy(value) for _ in range(rng.choice((1, 2, 50)))]
        elif action == 4 and isinstance(holder, dict):
            holder[key] = [value] if rng.random() < 0.5 else {rng.choice(KEYS): value}
        elif action == 5 and isinstance(holder, list):
            holder[key:key] = [copy.deepcopy(value) for _ in range(rng.choice((2, 30)))]
    return Attempt(written(document))


def mutated_overrides(rng: random.Random) -> Attempt:
    """A good suite, and arguments of the command line that are not good."""
    flags = ("--device", "--memory-limit", "--time-limit", "--only")
    arguments = []
    for _ in range(rng.choice((1, 1, 2))):
        chance = rng.random()
        value = toml(evil(rng)) if chance < 0.6 else str(rng.choice(TEXTS)) if chance < 0.9 else "1"
        value = value.replace("\0", "")[:100_000]  # what no system passes to a program
        keys = (
            "epochs",
            "suite.seeds",
            "adam.lr",
            "one.lbfgs.history_size",
            "model.name",
            "x.y.z",
            "a..b",
            "",
        )
        if rng.random() < 0.8:
            arguments += ["--set", f"{rng.choice((*keys, *KEYS))}={value}"]
        else:
            arguments.append(f"{rng.choice(flags)}={value}")
    return Attempt(SMALL.encode(), arguments)


BY_CHANCE: dict[str, Callable[[random.Random], Attempt]] = {
    "random bytes": random_bytes,
    "random TOML text": random_text,
    "mutated tokens": mutated_tokens,
    "mutated values": mutated_values,
    "mutated structure": mutated_structure,
    "command line": mutated_overrides,
}

_scalars = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from([number for number in NUMBERS if number < 10**100 or number == float("inf")]),
    st.integers(-3, 40),
    st.floats(),
    st.booleans(),
    st.text(max_size=20),
    st.dates(),
    st.times(),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
_table = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), _values, max_size=4)


def _component(*names: str) -> st.SearchStrategy[Any]:
    named = st.builds(lambda name, table: {**table, "name": name}, st.sampled_from(names), _table)
    one = st.sampled_from(names) | named | _values
    return one | st.lists(one, max_size=3)


_experiment = st.builds(
    lambda name, model, dataset, optimizer, more: {
        **more,
        "name": name,
        "model": model,
        "dataset": dataset,
        "optimizer": optimizer,
    },
    st.sampled_from(("a", "b", "c")) | _values,
    _component("report-cnn", "torchvision/squeezenet1_1"),
    _component("synthetic-xray", "chest-xray", "folder"),
    _component("sgd", "adam", "lbfgs", "muon", "sparseadam", "adafactor"),
    _table,
)
documents = st.builds(
    lambda header, experiments, more: {**more, "suite": header, "experiment": experiments},
    st.just({"name": "h"}) | _table,
    st.lists(_experiment, min_size=1, max_size=3) | _values,
    st.just({}) | _table,
)
