"""Grids that nobody means: counted before they are made, and told with the line."""

from __future__ import annotations

import pytest

from xbench.suite.seeds import MAX_CELLS

LONG = list(range(1, 1001))


def suite(more: str, seeds: str = "1", optimizer: str = '"sgd"') -> str:
    """Its header stands on lines 1 to 3, `more` from line 9."""
    return (
        f'[suite]\nname = "short"\nseeds = {seeds}\n[[experiment]]\nname = "exp"\nmodel = "net"\n'
        f'dataset = "pictures"\noptimizer = {optimizer}\n{more}'
    )


def test_the_most_cells_that_there_may_be(cells):
    assert len(cells(suite("epochs = [1, 2]\n", seeds="5000"))) == MAX_CELLS


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            suite("epochs = [1, 2, 3]\n", seeds="5000"),
            "my.toml:4: these lists make 15,000 cells with 5,000 seeds: a suite may have at most 10,000",
        ),
        (
            suite(f"epochs = {LONG}\nbatch_size = {LONG}\ntrain_size = {LONG}\nmicro_batch = {LONG}\n"),
            "my.toml:4: these lists make 1,000,000,000,000 cells: a suite may have at most 10,000",
        ),
        (
            suite("", optimizer=f'{{ name = "sgd", lr = {LONG}, momentum = {LONG} }}'),
            "my.toml:8: these lists make 1,000,000 cells: a suite may have at most 10,000",
        ),
        (
            suite(
                "", optimizer='{ name = "open", ' + ", ".join(f"k{i} = [1, 2]" for i in range(20_000)) + " }"
            ),
            "my.toml:8: these lists make over 10^6020 cells: a suite may have at most 10,000",
        ),
        (suite("", seeds="1000000000"), "my.toml:3: 'seeds' should be less than or equal to 10000"),
        (
            suite("").replace('"pictures"', f'{{ name = "made-up", seed = {LONG} }}'),
            "my.toml:7: 1,000 datasets",
        ),
    ],
    ids=[
        "seeds",
        "training",
        "optimizer",
        "a number of thousands of digits",
        "a number of seeds",
        "datasets",
    ],
)
def test_what_is_too_much(complaints, text, told):
    assert complaints(text)[0].startswith(told)


def test_many_small_lists_make_many_cells(complaints):
    lists = ", ".join(f'{{ name = "sgd", label = "s{i}", lr = {LONG[:100]} }}' for i in range(101))
    assert "10,100 cells" in complaints(suite("", optimizer=f"[{lists}]"))[0]


def test_more_components_than_anybody_names(complaints):
    names = ", ".join(f'"x{i}"' for i in range(2000))
    assert complaints(suite("", optimizer=f"[{names}]")) == [
        "my.toml:4: 2,002 components: a suite may have at most 1,000"
    ]


def test_names_become_files_and_are_short_and_plain(complaints):
    for name in ("../up", "/root", "a/b", "x" * 200, "a\\nb", ".hidden", "", "con\\u0007"):
        (complaint,) = complaints(f'[suite]\nname = "{name}"\n' + suite("").partition("seeds = 1\n")[2])
        assert complaint.startswith("my.toml:2: 'name' should be ")
