"""Recipes in suites: mistakes with their lines before a run, and what records and tables say of them."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli.cli_process import records_of

pytestmark = pytest.mark.slow

MISTAKES = """\
suite.name = "mistakes"
[[experiment]]
name = "first"
model = "mlp"
dataset = "digits"
schedule = ["constant", "cosine"]
min_lr = 0
clip_norm = 1.0
weight_decay_on = "weights"
  [[experiment.optimizer]]
  name = "lbfgs"
  line_search_fn = "strong_wolfe"
  [[experiment.optimizer]]
  name = "adam"
[[experiment]]
name = "second"
model = "mlp"
dataset = "digits"
optimizer = ["adamw", "rprop"]
schedule = "linear"
min_lr = 0.005
[experiment.groups]
"*.bias" = { lr = 0.01, momentum = 0.9 }
"layers.*" = { lr = -1.0 }
"""

TOO_LONG = """\
suite.name = "long"
[[experiment]]
name = "first"
model = "mlp"
dataset = "digits"
optimizer = "sgd"
epochs = 2
batch_size = 700
warmup = [1, 0.5, 4]
"""

RECIPE = """\
suite.name = "recipe"
[[experiment]]
name = "first"
model = "mlp"
dataset = "digits"
optimizer = [{ name = "sgd", lr = 0.1 }, { name = "muon", rest = "sgd", clip_norm = "off" }]
epochs = 2
batch_size = 256
schedule = "cosine"
warmup = 0.2
clip_norm = 0.5
groups = { "*.bias" = { lr = 0.2 } }
"""


PAIR = """\
suite.name = "pair"
[[experiment]]
name = "images"
model = "mlp"
dataset = "synthetic-xray"
optimizer = "muon"
[experiment.groups]
"*.bias" = { betas = [0.9, 0.99] }
"*" = { nesterov = false }
[[experiment]]
name = "rows"
model = "mlp"
dataset = "digits"
optimizer = "muon"
[experiment.groups]
"*.bias" = { betas = [0.9, 0.99] }
"*.weight" = { betas = [0.9, 0.99] }
"""


@pytest.fixture
def run(xbench, tmp_path):
    def run_suite(text, *flags):
        (tmp_path / "suite.toml").write_text(text)
        return xbench(tmp_path, "run", "suite.toml", *flags)

    return run_suite


def test_mistakes_are_reported_at_the_lines_of_the_keys(run):
    done = run(MISTAKES)
    assert done.returncode == 2
    found = re.findall(r"^error: suite\.toml:(\d+): (.*)$", done.stderr, re.MULTILINE)
    expected = [
        (6, "the line search of 'lbfgs' chooses the length of each step, so schedule would only change"),
        (8, "the line search of 'lbfgs' compares losses and gradients"),
        (9, "the param groups of 'lbfgs' have no 'weight_decay'; they have lr, max_iter"),
        (20, "the steps of 'rprop' do not depend on the 'lr' of its param groups, so schedule has no effect"),
        (21, "min_lr = 0.005 is above the lr of 'adamw', 0.001"),
        (21, "min_lr = 0.005 is above the lr of the group 'layers.*', -1"),
        (23, "the param groups of 'adamw' have no 'momentum'; they have lr, betas"),
        (23, "the param groups of 'rprop' have no 'momentum'; they have lr, etas"),
        (24, "the group 'layers.*' of 'adamw': Invalid learning rate: -1.0"),
        (24, "the group 'layers.*' of 'rprop': Invalid learning rate: -1.0"),
        (24, "groups: 'layers.*' matches no trained parameter of model 'mlp'"),
    ]
    assert sorted(int(line) for line, _ in found) == [line for line, _ in expected]
    for line, message in expected:
        assert any(int(number) == line and text.startswith(message) for number, text in found), message


def test_settings_of_groups_that_only_the_other_of_two_optimizers_has(run):
    done = run(PAIR, "--dry-run")
    assert done.returncode == 2
    first, second = re.findall(r"^error: suite\.toml:(\d+): groups: (.*)$", done.stderr, re.MULTILINE)
    assert (first[0], second[0]) == ("9", "17")
    assert re.match(r"'\*' matches '.*weight', but the param groups of 'adamw' have no 'nesterov'", first[1])
    assert re.match(
        r"'\*\.weight' matches '.*weight', but the param groups of 'muon' have no 'betas'", second[1]
    )


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_a_warmup_that_is_too_long(run, flags):
    done = run(TOO_LONG, *flags)
    assert done.returncode == 2
    (told,) = re.findall(r"^error: (.*)$", done.stderr, re.MULTILINE)
    assert told.startswith("suite.toml:9: a warm-up of 4 steps is too long for a run of 4 steps")


def test_a_run_records_and_shows_its_recipe(run, xbench, tmp_path):
    done = run(RECIPE)
    assert done.returncode == 0, done.stderr
    first, second = records_of(tmp_path)
    assert {record["status"] for record in (first, second)} == {"done"}
    for record in (first, second):
        assert record["settings"]["schedule"] == "cosine"
        assert record["settings"]["warmup"] == 0.2
        assert record["settings"]["groups"] == {"*.bias": {"lr": 0.2}}
    assert [record["settings"]["clip_norm"] for record in (first, second)] == [0.5, None]
    note = "all columns: trained with schedule = cosine, warmup = 0.2, groups = *.bias (lr=0.2)"
    assert note in done.stdout
    shown = json.loads(xbench(tmp_path, "show", "--format", "json").stdout)
    assert note in shown["experiments"][0]["notes"]
    settings = [column["settings"]["clip_norm"] for column in shown["experiments"][0]["columns"]]
    assert [value["value"] for (value,) in settings] == [0.5, "none"]
