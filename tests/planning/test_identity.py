"""A cell is known by what was asked for: by all that can change its result, and by nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.cell_samples import MACHINE, cell_of
from xbench.capacity.axes import Axis
from xbench.capacity.axis import ScaledSetting
from xbench.components import code
from xbench.planning import identity
from xbench.planning.identity import (
    capacity_key,
    cell_key,
    configuration_key,
    cost_key,
    duration_key,
    example_pace_key,
    pairing_group,
    pass_key,
)
from xbench.planning.planned import Estimate, MemoryPlan
from xbench.training.settings import Choice, SeedParts
from xbench.units import Limit


def on(versions=None, **fields):
    """This machine, but for some of it."""
    known = {"xbench": "1", "torch": "2", "torchvision": "1", "numpy": "2"} | (versions or {})
    return replace(MACHINE, versions=known, **fields)


@pytest.fixture
def cell(tiny_data):
    return replace(cell_of(tiny_data, batch_size=5), machine=on())


def with_cell(cell, **fields):
    """The cell, declared otherwise."""
    declared = replace(cell.declared, **fields)
    settings = replace(
        cell.settings,
        model=declared.model,
        optimizer=declared.optimizer,
        training=declared.training,
        seed=declared.seed,
    )
    return replace(cell, declared=declared, settings=settings)


def training(cell, **fields):
    return with_cell(cell, training=cell.declared.training.model_copy(update=fields))


OTHERS = {
    "evaluations within epochs": lambda cell: training(cell, evaluate_every=5),
    "hyperparameter": lambda cell: with_cell(cell, optimizer=Choice("opt", {"lr": 0.1})),
    "optimizer": lambda cell: with_cell(cell, optimizer=Choice("another", {})),
    "model": lambda cell: with_cell(cell, model=Choice("another", {})),
    "model's setting": lambda cell: with_cell(cell, model=Choice("net", {"width": 3})),
    "seed": lambda cell: with_cell(cell, seed=1),
    "epochs": lambda cell: training(cell, epochs=7),
    "batch size": lambda cell: training(cell, batch_size=6),
    "micro-batch": lambda cell: training(cell, micro_batch=3),
    "train size": lambda cell: training(cell, train_size=20),
    "dtype": lambda cell: training(cell, dtype="float64"),
    "autocast": lambda cell: training(cell, autocast="bfloat16"),
    "compile": lambda cell: training(cell, compile=True),
    "TF32": lambda cell: training(cell, tf32=True),
    "memory format": lambda cell: training(cell, memory_format="contiguous"),
    "threads": lambda cell: training(cell, threads=7),
    "schedule": lambda cell: training(cell, schedule="cosine"),
    "warm-up": lambda cell: training(cell, warmup=3),
    "clipping": lambda cell: training(cell, clip_norm=1.0),
    "weight decay": lambda cell: training(cell, weight_decay_on="weights"),
    "groups": lambda cell: training(cell, groups={"*": {"lr": 0.1}}),
    "storage": lambda cell: replace(cell, settings=replace(cell.settings, storage="float32")),
    "memory limit": lambda cell: with_cell(cell, memory_limits=(Limit(size_bytes=10**9),)),
    "expect": lambda cell: with_cell(cell, expect="oom"),
    "adapt": lambda cell: with_cell(cell, adapt=("micro_batch",)),
    "order of adapt": lambda cell: with_cell(cell, adapt=("train_size", "micro_batch")),
    "setting that is the largest": lambda cell: with_cell(cell, along="batch_size"),
    "peers": lambda cell: replace(cell, peers=("adam",)),
    "data": lambda cell: replace(cell, data=replace(cell.data, fingerprint="other")),
    "weights": lambda cell: replace(cell, model=replace(cell.model, weights="other")),
    "torch": lambda cell: replace(cell, machine=on({"torch": "3"})),
    "xbench": lambda cell: replace(cell, machine=on({"xbench": "2"})),
    "numpy": lambda cell: replace(cell, machine=on({"numpy": "3"})),
    "Python": lambda cell: replace(cell, machine=on({"python": "3.99.0"})),
    "CUDA": lambda cell: replace(cell, machine=on({"cuda": "13.9"})),
    "cuDNN": lambda cell: replace(cell, machine=on({"cudnn": "99999"})),
    "device": lambda cell: replace(cell, machine=on(device_facts={"type": "cuda", "name": "a processor"})),
    "GPU": lambda cell: replace(cell, machine=on(device_facts={"type": "cuda", "name": "another"})),
    "allocator": lambda cell: replace(cell, machine=on(allocator={"MALLOC_ARENA_MAX": "4"})),
    "column": lambda cell: with_cell(cell, column="renamed"),
}
SAME = {
    "experiment": lambda cell: with_cell(cell, experiment="renamed"),
    "processor": lambda cell: replace(cell, machine=on(device_facts={"type": "cpu", "name": "z"})),
    "place": lambda cell: with_cell(cell, path=("experiment", 3, "optimizer", 2)),
    "timeout": lambda cell: with_cell(cell, timeout_s=300.0),
    "checkpoint interval": lambda cell: replace(cell, checkpoint_every_s=1.0),
    "estimate": lambda cell: replace(cell, estimate=Estimate(3.0)),
    "what the machine has": lambda cell: replace(cell, memory=MemoryPlan(10**10)),
    "hardware": lambda cell: replace(cell, machine=on(hardware={"cores": 64})),
    "other packages": lambda cell: replace(cell, machine=on({"pandas": "3"})),
    "what was fitted": lambda cell: replace(
        cell,
        settings=replace(
            cell.settings, training=cell.settings.training.model_copy(update={"micro_batch": 2})
        ),
    ),
    "malloc": lambda cell: cell.with_exact_malloc(),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_cell(cell, what):
    assert OTHERS[what](cell).key.cell_id != cell.key.cell_id


@pytest.mark.parametrize("what", SAME)
def test_the_same_cell(cell, what):
    assert SAME[what](cell).key.cell_id == cell.key.cell_id


def test_all_of_them_are_different(cell):
    assert len({other(cell).key.cell_id for other in OTHERS.values()}) == len(OTHERS)


WIDTH = ScaledSetting("model", "width", "width")
CONTEXT = ScaledSetting("dataset", "context", "sequence-length")


def with_context(cell, **params):
    """The cell with other settings of its dataset, which give its data another fingerprint."""
    choice = Choice(cell.resolved.choice.name, params)
    data = replace(cell.data, fingerprint=repr(params))
    return replace(cell, resolved=replace(cell.resolved, choice=choice), data=data)


def with_model(cell, **params):
    return with_cell(cell, model=Choice("net", params))


def test_the_order_of_groups_is_part_of_a_cell(cell):
    """The first pattern that matches a parameter counts."""
    groups = {"*.bias": {"lr": 0.1}, "head.*": {"lr": 0.2}}
    one, other = training(cell, groups=groups), training(cell, groups=dict(reversed(groups.items())))
    assert one.key.cell_id != other.key.cell_id


@pytest.mark.parametrize(
    ("axis", "change", "same", "other"),
    [
        (WIDTH, with_model, {"width": 8, "depth": 2}, {"width": 4, "depth": 3}),
        (CONTEXT, with_context, {"context": 8, "seed": 0}, {"context": 4, "seed": 1}),
    ],
    ids=["model", "dataset"],
)
def test_a_probe_is_known_by_all_settings_but_the_one_that_it_varies(cell, axis, change, same, other):
    name = axis.setting

    def key(params):
        changed = change(cell, **params)
        return capacity_key(changed, changed.settings, axis, 10**9)

    assert key(same) == key(same | {name: 99}) == key({k: v for k, v in same.items() if k != name})
    assert key(same) != key(other)


def test_a_probe_of_a_model_is_known_by_its_data(cell):
    keys = {capacity_key(c, c.settings, WIDTH) for c in (with_context(cell, context=n) for n in (8, 9))}
    assert len(keys) == 2


# Of the cell above, in this order; records and caches of earlier runs hold such keys.
PINNED = [
    "59575f7bef17ad07",
    "66ab83320ba80ca4",
    "39f997a1b260151d",
    "e08dc4bc41fb33b0",
    "e5ecf9e0b91874bc",
    "4d662ea2d0f2a4c2",
    "c734cbecac024b88",
]


def test_keys_are_those_of_earlier_runs(cell, monkeypatch):
    """Another hash would be a new cell: its results and measurements would not be found again."""
    monkeypatch.setattr(identity, "own_stamp", lambda: "")
    cell = replace(cell, data=replace(cell.data, fingerprint="a"), memory=MemoryPlan(10**9))
    keys = [
        cell_key(cell).cell_id,
        configuration_key(cell),
        capacity_key(cell, cell.settings, Axis.BATCH_SIZE, 10**9),
        cost_key(cell),
        example_pace_key(cell),
        duration_key(cell),
        pass_key(cell),
    ]
    assert keys == PINNED


def test_it_bears_its_names(cell):
    planned = with_cell(cell, experiment="renamed", column="label", seed=3).key
    assert (planned.experiment, planned.column, planned.seed) == ("renamed", "label", 3)


class TestCode:
    @pytest.fixture
    def mine(self, cell, tmp_path):
        """The cell of a model in a folder of the user's."""
        (tmp_path / "mine.py").write_text("import part\n")
        (tmp_path / "part.py").write_text("a = 1\n")

        def of():
            code.code_stamp.cache_clear()
            return replace(with_cell(cell, model=Choice("mine:net", {})), import_dirs=(str(tmp_path),)).key

        yield of
        code.code_stamp.cache_clear()

    @pytest.mark.parametrize("name", ["mine.py", "part.py", "new.json"])
    def test_changed(self, mine, tmp_path, name):
        before = mine()
        (tmp_path / name).write_text("import part\na = 2\n")
        assert mine().cell_id != before.cell_id

    def test_the_same(self, mine, tmp_path):
        before = mine()
        (tmp_path / "suite.toml").write_text("[suite]\n[[experiment]]\n")
        assert mine() == before

    def test_of_xbench_where_it_lies(self, cell, monkeypatch):
        stamps = set()
        for stamp in ("", "one", "two"):
            monkeypatch.setattr(identity, "own_stamp", lambda stamp=stamp: stamp)
            stamps.add(replace(cell).key.cell_id)
        assert len(stamps) == 3


def with_parts(cell, seed: int, parts: SeedParts):
    changed = with_cell(cell, seed=seed)
    return replace(changed, settings=replace(changed.settings, parts=parts))


def test_a_combination_of_equal_parts_is_the_cell_of_that_seed(cell):
    assert (
        cell_key(with_parts(cell, 7, SeedParts(1, 1, 1))).cell_id == cell_key(with_cell(cell, seed=1)).cell_id
    )


@pytest.mark.parametrize("part", ["weights", "split", "order"])
def test_each_part_of_a_seed_counts(cell, part):
    parts = replace(SeedParts(), **{part: 1})
    assert cell_key(with_parts(cell, 0, parts)).cell_id != cell_key(cell).cell_id
    assert pairing_group(with_parts(cell, 0, parts), {}) != pairing_group(cell, {})


@pytest.mark.parametrize("key", [configuration_key, cost_key, duration_key, pass_key, example_pace_key])
def test_memory_and_times_do_not_depend_on_the_parts_of_a_seed(cell, key):
    assert key(with_parts(cell, 3, SeedParts(0, 1, 2))) == key(cell)
