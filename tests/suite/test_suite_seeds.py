"""Seeds whose parts vary apart."""

from __future__ import annotations

import pytest

from xbench.training.settings import SeedParts


def suite(seeds: str, optimizer: str = '"sgd"') -> str:
    return (
        f'[suite]\nname = "short"\nseeds = {seeds}\n[[experiment]]\nname = "exp"\nmodel = "net"\n'
        f'dataset = "pictures"\noptimizer = {optimizer}\n'
    )


def test_parts_that_vary_together_are_not_told_apart(cells):
    assert [(cell.seed, cell.seed_parts) for cell in cells(suite("[4, 2]"))] == [(4, None), (2, None)]


def test_a_cell_runs_for_each_combination_of_parts(cells):
    found = cells(suite("{ weights = 2, order = [5, 7] }"))
    assert [(cell.seed, cell.seed_parts) for cell in found] == [
        (0, SeedParts(0, 0, 5)),
        (1, SeedParts(0, 0, 7)),
        (2, SeedParts(1, 0, 5)),
        (3, SeedParts(1, 0, 7)),
    ]


def test_optimizers_share_the_combinations(cells):
    found = cells(suite("{ order = 2 }", '["sgd", "adam"]'))
    assert [(cell.column, cell.seed) for cell in found] == [("sgd", 0), ("adam", 0), ("sgd", 1), ("adam", 1)]


def test_a_part_that_grows_keeps_the_numbers_of_its_combinations(cells):
    few, many = (cells(suite(f"{{ split = [3], order = {count} }}")) for count in (2, 4))
    assert [cell.seed_parts for cell in many][:2] == [cell.seed_parts for cell in few]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("suite.seeds=2", [None, None]),
        ("suite.seeds={ split = 2 }", [SeedParts(0, 0, 0), SeedParts(0, 1, 0)]),
    ],
)
def test_the_command_line_replaces_the_table(cells, override, expected):
    assert [cell.seed_parts for cell in cells(suite("{ weights = 3 }"), override)] == expected


@pytest.mark.parametrize(
    ("seeds", "complaint"),
    [
        ("{ weight = 3 }", "my.toml:3: unknown key 'weight'. Did you mean 'weights'?"),
        ("{ order = 0 }", "my.toml:3: 'order' should be greater than or equal to 1 or a valid list, not 0"),
        (
            "{ }",
            "my.toml:3: 'seeds' names no part: set weights, split or order, or give a number of seeds",
        ),
        ("{ split = [1, 1] }", "my.toml:3: 'split' lists a seed twice"),
        (
            "{ weights = 200, order = 200 }",
            "my.toml:3: 'seeds' has 40,000 combinations: a suite may have at most 10,000 cells",
        ),
    ],
)
def test_mistakes(complaints, seeds, complaint):
    assert complaints(suite(seeds)) == [complaint]
