"""Recipes that do not suit the model or the length of the run are reported before anything runs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.cell_samples import cell_of
from tests.run_samples import suite_of
from xbench.errors import Mistakes
from xbench.planning import trials
from xbench.planning.checks import check_warmups
from xbench.planning.recipe_checks import check_group_settings, check_patterns
from xbench.suite.axes import Value
from xbench.suite.cells import Expansion
from xbench.training.recipe_mistakes import PairSettings, PartSettings, RecipeMistake, RecipeTrial
from xbench.training.settings import Choice

TEXT = """\
suite.name = "recipes"
[[experiment]]
name = "exp"
model = "net"
dataset = "data"
optimizer = "opt"
warmup = 30
[experiment.groups]
"head.*" = { lr = 0.1 }
"*.bias" = { lr = 0.2 }
"head.bias" = { lr = 0.3 }
"""
NAMES = ("body.weight", "body.bias", "head.weight", "head.bias")
GROUPS = Value("training", "groups", None, ("experiment", 0, "groups"), False)
WARMUP = Value("training", "warmup", 30, ("experiment", 0, "warmup"), False)


def complain(check) -> list[tuple[str, str]]:
    """The messages, with the hints, of a check that adds mistakes to those of a suite."""
    suite = suite_of(TEXT)
    check(suite)
    with pytest.raises(Mistakes) as caught:
        suite.problems.raise_if_any()
    return [(mistake.message, mistake.hint) for mistake in caught.value.mistakes]


class TestPatterns:
    def declared(self, data, *patterns):
        cell = cell_of(data, groups={pattern: {"lr": 0.1} for pattern in patterns}).declared
        return replace(cell, values=(GROUPS,))

    def test_those_that_match(self, tiny_data):
        suite = suite_of(TEXT)
        check_patterns(self.declared(tiny_data, "head.*", "*.bias"), NAMES, suite.problems)
        assert not suite.problems

    def test_one_that_matches_nothing(self, tiny_data):
        cell = self.declared(tiny_data, "*.bias", "heads.bias")
        ((message, hint),) = complain(lambda suite: check_patterns(cell, NAMES, suite.problems))
        assert message == "suite.toml:8: groups: 'heads.bias' matches no trained parameter of model 'net'"
        assert "'head.bias'" in hint

    def test_one_behind_another(self, tiny_data):
        cell = self.declared(tiny_data, "head.*", "head.bias")
        ((message, hint),) = complain(lambda suite: check_patterns(cell, NAMES, suite.problems))
        assert message.startswith(
            "suite.toml:11: groups: 'head.bias' has no effect, because earlier patterns"
        )
        assert "first" in hint

    def test_a_model_that_trains_nothing(self, tiny_data):
        cell = self.declared(tiny_data, "*")
        ((_, hint),) = complain(lambda suite: check_patterns(cell, (), suite.problems))
        assert hint == "the model has no trained parameters"


class TestSettingsOfPairs:
    PAIR = PairSettings(PartSettings("muon", ("lr", "momentum")), PartSettings("adamw", ("lr", "betas")))

    def check(self, data, suite, groups):
        cell = replace(cell_of(data, groups=groups).declared, values=(GROUPS,))
        check_group_settings(cell, NAMES, {"body.weight"}, self.PAIR, suite.problems)

    def test_that_suit_the_optimizers_of_their_parameters(self, tiny_data):
        suite = suite_of(TEXT)
        groups = {"body.weight": {"momentum": 0.5}, "*.bias": {"betas": [0.9, 0.99]}, "*": {"lr": 0.1}}
        self.check(tiny_data, suite, groups)
        self.check(tiny_data, suite, {"*": {"rho": 1.0}})  # which neither has
        assert not suite.problems

    @pytest.mark.parametrize(
        ("settings", "name", "own", "other"),
        [
            ({"betas": [0.9, 0.99]}, "body.weight", "muon", "adamw"),
            ({"momentum": 0.5}, "head.weight", "adamw", "muon"),
        ],
    )
    def test_that_do_not(self, tiny_data, settings, name, own, other):
        groups = {"*.bias": {"lr": 0.2}, "*": settings}
        ((message, hint),) = complain(lambda suite: self.check(tiny_data, suite, groups))
        (key,) = settings
        told = (
            f"groups: '*' matches '{name}', but the param groups of '{own}' have no '{key}'; they have lr, "
        )
        assert told in message
        assert hint == f"set '{key}' for patterns that match only parameters that '{other}' updates"


class TestWarmups:
    def check(self, data, **training):
        cell = cell_of(data, validation=0.0, selection="last", train_size=20, batch_size=10, **training)
        cell = replace(cell, declared=replace(cell.declared, values=(WARMUP,)))
        check_warmups(SimpleNamespace(suite=suite_of(TEXT)), [cell])

    @pytest.mark.parametrize(("warmup", "epochs"), [(0, 1), (1, 1), (0.5, 1), (29, 15), (0.9, 10)])
    def test_those_that_are_short_enough(self, tiny_data, warmup, epochs):
        self.check(tiny_data, warmup=warmup, epochs=epochs)

    def test_one_that_is_too_long(self, tiny_data):
        with pytest.raises(
            Mistakes, match=r"^suite\.toml:7: a warm-up of 30 steps is too long for a run of 30 steps"
        ):
            self.check(tiny_data, warmup=30, epochs=15)

    def test_last_batches_that_are_left_out_do_not_count(self, tiny_data):
        cell = {"epochs": 10, "drop_last": True, "warmup": 10}
        self.check(tiny_data, **cell)
        with pytest.raises(Mistakes, match="a run of 10 steps"):
            check_warmups(
                SimpleNamespace(suite=suite_of(TEXT)),
                [cell_of(tiny_data, validation=0.0, train_size=19, batch_size=10, **cell)],
            )

    def test_a_run_of_unknown_length_is_left_to_its_cell(self, tiny_data):
        cell = cell_of(tiny_data, train_size="largest", warmup=10**6)
        check_warmups(SimpleNamespace(suite=suite_of(TEXT)), [cell])


class TestColumns:
    """Of one optimizer are named if only some of them are wrong."""

    MIN_LR = Value("training", "min_lr", 0.01, ("experiment", 0, "min_lr"), False)

    @pytest.fixture
    def tell(self, tiny_data, monkeypatch):
        """`tell(column=rate, ...)`: the mistakes in `min_lr` of columns whose learning rate is too low."""

        def try_here(function, pairs, *args, timeouts):
            return [
                RecipeTrial((RecipeMistake(("min_lr",), "min_lr is above the lr of 'adam'"),))
                if optimizer.params["lr"] < 0.01
                else RecipeTrial()
                for optimizer, _ in pairs
            ]

        monkeypatch.setattr(trials, "ask_each", try_here)

        def tell(**rates):
            cells = [
                replace(
                    cell_of(tiny_data, column=column, seed=seed, schedule="cosine").declared,
                    optimizer=Choice("adam", {"lr": rate}),
                    values=(self.MIN_LR,),
                )
                for column, rate in rates.items()
                for seed in (0, 1)
            ]
            found = complain(
                lambda suite: trials.check_recipes(Expansion(cells=cells), "cpu", (), suite.problems)
            )
            return [message.removeprefix("suite.toml:2: ") for message, _ in found]

        return tell

    def test_one_of_two(self, tell):
        assert tell(fast=0.1, slow=0.001) == ["column 'slow': min_lr is above the lr of 'adam'"]

    def test_two_of_three(self, tell):
        assert tell(slow=0.001, fast=0.1, slower=0.0001) == [
            "columns 'slow', 'slower': min_lr is above the lr of 'adam'"
        ]

    def test_values_of_an_axis_are_not_told_apart_by_it(self, tell):
        """Their mistakes are told at the value, or name it."""
        assert tell(**{"adam lr=0.1": 0.1, "adam lr=0.001": 0.001}) == ["min_lr is above the lr of 'adam'"]
        assert tell(**{"fast": 0.1, "slow x=1": 0.001, "slow x=2": 0.002}) == [
            "column 'slow': min_lr is above the lr of 'adam'"
        ]

    def test_all(self, tell):
        assert tell(slow=0.001, slower=0.0001) == ["min_lr is above the lr of 'adam'"]
        assert tell(adam=0.001) == ["min_lr is above the lr of 'adam'"]
