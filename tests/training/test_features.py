"""Features of a frozen backbone: computed once per image, and as good to train on as the images."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.training import frozen_models
from tests.training.frozen_models import WIDTH, Counting, list_dataset
from xbench import ModelSpec, XbenchError
from xbench.components import registry
from xbench.components.code import code_stamp
from xbench.data.decode import decode
from xbench.data.features import FeatureFile
from xbench.training import features as computing
from xbench.training.cell import train_cell
from xbench.training.events import EpochDone, Prepared, StepsDone
from xbench.training.features import make_features
from xbench.training.frozen import Backbone, find_obstacle
from xbench.training.job import CellJob
from xbench.training.loader import FeatureLoader, ImageLoader
from xbench.training.model import build_model
from xbench.training.settings import CellSettings, Choice, TrainingSettings

CPU = torch.device("cpu")
ALL = np.arange(120)
CHUNK = 8
CHECKED = 3  # images whose features are compared with what is there

MODELS = {
    "small": frozen_models.build,
    "maps": frozen_models.build_maps,
    "trained": frozen_models.build_trained,
    "masked": frozen_models.build_masked,
    "powered": frozen_models.build_powered,
    "fixed": frozen_models.build_fixed,
    "mine:build": frozen_models.build,
}


@pytest.fixture(autouse=True)
def specs(monkeypatch):
    """Specs by name, which a test may replace."""
    specs = {name: ModelSpec(factory=factory) for name, factory in MODELS.items()}
    real_load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): specs.get(name) or real_load(kind, name, dirs)
    )
    return specs


@pytest.fixture(autouse=True)
def counted(tmp_path, monkeypatch):
    """An empty cache; and the images of each call of a backbone."""
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(Counting, "fails_at", None)
    Counting.seen.clear()
    return Counting.seen


def settings_of(
    model="small", seed=0, optimizer="sgd", params=None, storage="uint8", settings=None, **training
):
    return CellSettings(
        Choice(model, settings or {}),
        Choice(optimizer, params or {"lr": 0.05}),
        TrainingSettings(**training),
        seed,
        "cpu",
        storage,
    )


class Asked:
    """What came of asking for features.

    Attributes:
        told: on the way.
    """

    def __init__(self, data, images=ALL, at_most=None, import_dirs=(), **settings):
        self.told = []
        settings = settings_of(**settings)
        self.report = make_features(self.told.append, settings, data, images, import_dirs, at_most)
        self.file = self.report.file
        self.folder = self.file.folder if self.file else None


def expected_of(data, images, model="small", **training):
    """The backbone's outputs, of one image at a time."""
    spec, settings = registry.load("model", model), settings_of(model, **training)
    network = build_model(spec, settings, data)
    loader = ImageLoader(data, spec, CPU, getattr(torch, settings.training.dtype), "contiguous")
    return torch.cat([Backbone(network)(loader.load(images[i : i + 1])[0]) for i in range(len(images))])


def loaded(data, file, images, dtype=torch.float32):
    return FeatureLoader(data, file, CPU, dtype, "channels_last").load(images)[0]


class TestOnce:
    def test_for_each_image(self, tiny_data, counted):
        first = Asked(tiny_data)
        assert (first.report.computed, first.report.missing, first.report.note) == (120, 0, "")
        assert first.told == [(done, 120) for done in range(CHUNK, 121, CHUNK)]
        assert set(counted[-15:]) == {CHUNK}
        assert first.file.present().all()
        counted.clear()
        again = Asked(tiny_data)
        assert (again.report.computed, again.report.missing, again.told) == (0, 0, [])
        assert counted == [CHECKED]
        assert again.report.file == first.file

    def test_and_more_images_add_only_what_is_missing(self, tiny_data, counted):
        assert Asked(tiny_data, ALL[:20]).report.computed == 20
        before = np.fromfile(Asked(tiny_data, ALL[:20]).file.values_path)
        counted.clear()
        more = Asked(tiny_data, ALL[10:50])
        assert more.report.computed == 30
        assert more.told[-1] == (30, 30)
        assert counted == [CHECKED] + 4 * [CHUNK]
        after = np.fromfile(more.file.values_path)
        assert np.array_equal(after[: 20 * WIDTH // 2], before[: 20 * WIDTH // 2])
        assert np.flatnonzero(more.file.present()).tolist() == list(range(50))

    def test_and_an_image_asked_for_twice_is_computed_once(self, tiny_data):
        assert Asked(tiny_data, np.array([4, 4, 2, 4])).report.computed == 2

    def test_up_to_a_number(self, tiny_data):
        part = Asked(tiny_data, at_most=16)
        assert (part.report.computed, part.report.missing) == (16, 104)
        assert part.file.present().sum() == 16
        rest = Asked(tiny_data)
        assert (rest.report.computed, rest.report.missing) == (104, 0)

    def test_and_rows_are_those_of_the_images(self, tiny_data):
        """Not their places in a batch or in the dataset."""
        rows = np.array([7, 3, 11])
        part = replace(tiny_data, rows=rows, labels=tiny_data.labels[rows], is_test=tiny_data.is_test[rows])
        asked = Asked(part, np.array([2, 0]))
        assert np.flatnonzero(asked.file.present()).tolist() == [7, 11]
        assert torch.allclose(
            loaded(part, asked.file, np.array([0, 2])), expected_of(tiny_data, rows[[0, 2]])
        )

    def test_in_the_same_way_however_many_at_once(self, tiny_data):
        """The last digits must not depend on which cell came first."""
        whole = loaded(tiny_data, Asked(tiny_data).file, ALL)
        apart = [loaded(tiny_data, Asked(tiny_data, ALL[[i]], seed=0).file, ALL[[i]]) for i in (5, 77)]
        assert torch.equal(torch.cat(apart), whole[[5, 77]])


class TestInterrupted:
    def test_what_was_computed_counts(self, tiny_data, counted, monkeypatch):
        Asked(tiny_data, ALL[:1])
        counted.clear()
        monkeypatch.setattr(Counting, "fails_at", 5)  # the first is a look at what is there
        with pytest.raises(ArithmeticError, match="in the middle"):
            Asked(tiny_data)
        monkeypatch.setattr(Counting, "fails_at", None)
        counted.clear()
        rest = Asked(tiny_data)
        assert rest.report.computed == 119 - 3 * CHUNK
        assert torch.allclose(loaded(tiny_data, rest.file, ALL), expected_of(tiny_data, ALL), atol=1e-6)

    def test_a_values_file_that_is_cut_off_is_made_anew(self, tiny_data):
        whole = Asked(tiny_data)
        expected = loaded(tiny_data, whole.file, ALL)
        content = whole.file.values_path.read_bytes()
        whole.file.values_path.write_bytes(content[:-1])
        again = Asked(tiny_data)
        assert again.report.computed == 120
        assert again.folder == whole.folder
        assert torch.equal(loaded(tiny_data, again.file, ALL), expected)

    @pytest.mark.parametrize("name", ["values", "present", "index.json"])
    def test_so_is_one_that_lacks_a_part(self, tiny_data, name):
        (Asked(tiny_data).folder / name).unlink()
        again = Asked(tiny_data)
        assert again.report.computed == 120
        assert FeatureFile.find(again.folder) == again.file

    def test_another_run_that_was_faster_keeps_its_rows(self, tiny_data, monkeypatch):
        """While this one looks whether features can be kept, the other makes the file, and trains."""
        real = find_obstacle

        def slow(*args):
            monkeypatch.setattr(computing, "find_obstacle", real)
            Asked(tiny_data)
            return real(*args)

        monkeypatch.setattr(computing, "find_obstacle", slow)
        mine = Asked(tiny_data, at_most=1)
        assert mine.file.present().all()

    def test_what_another_code_left_is_made_anew(self, tiny_data, monkeypatch):
        """No version and no weight tells of it."""
        before = loaded(tiny_data, Asked(tiny_data).file, ALL)
        forward = Counting.forward
        monkeypatch.setattr(Counting, "forward", lambda own, images: 2 * forward(own, images))
        again = Asked(tiny_data)
        assert again.report.computed == 120
        assert torch.allclose(loaded(tiny_data, again.file, ALL), 2 * before, atol=1e-6)

    def test_no_room_is_a_reason(self, tiny_data, monkeypatch):
        needed = []

        def refuse(folder, needed_bytes, what):
            needed.append(needed_bytes)
            raise XbenchError(f"{what} needs more")

        monkeypatch.setattr(computing, "require_space", refuse)
        asked = Asked(tiny_data, ALL[:5])
        assert (asked.file, asked.report.note) == (None, "caching features needs more")
        assert needed == [5 * 4 * WIDTH]


class TestFolder:
    """Of all that the features depend on, and of nothing else."""

    @pytest.fixture
    def first(self, tiny_data):
        return Asked(tiny_data, ALL[:3]).folder

    @pytest.mark.parametrize(
        "changed",
        [
            {"seed": 1},
            {"dtype": "float64"},
            {"features": "bfloat16"},
            {"model": "mine:build"},
        ],
    )
    def test_is_another(self, tiny_data, first, changed):
        assert Asked(tiny_data, ALL[:3], **changed).folder != first

    @pytest.mark.parametrize(
        "changed",
        [
            {"features": "float32"},
            {"optimizer": "adam"},
            {"epochs": 3, "batch_size": 2, "train_size": 10},
            {"memory_format": "contiguous"},
            {"balance": "oversample"},
        ],
    )
    def test_is_the_same(self, tiny_data, first, changed):
        asked = Asked(tiny_data, ALL[:3], **changed)
        assert (asked.folder, asked.report.computed) == (first, 0)

    @pytest.mark.parametrize("changed", [{"mean": (0.4,)}, {"std": (0.2,)}])
    def test_is_of_the_normalisation(self, tiny_data, first, specs, changed):
        specs["small"] = replace(specs["small"], **changed)
        assert Asked(tiny_data, ALL[:3]).folder != first

    def test_is_of_the_pixels(self, first):
        other = decode(list_dataset(90, 30), "other", "noise", False, lambda done, total: None)
        assert Asked(other, ALL[:3]).folder != first

    def test_is_of_the_weights_and_not_of_the_seed(self, tiny_data):
        folders = [Asked(tiny_data, ALL[:3], model="fixed", seed=seed) for seed in (0, 1)]
        assert folders[0].folder == folders[1].folder
        assert [asked.report.computed for asked in folders] == [3, 0]
        other = Asked(tiny_data, ALL[:3], model="fixed", settings={"front_seed": 6})
        assert other.folder != folders[0].folder

    def test_is_of_the_number_of_threads(self, tiny_data, first):
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(before + 1)
            assert Asked(tiny_data, ALL[:3]).folder != first
        finally:
            torch.set_num_threads(before)
        assert Asked(tiny_data, ALL[:3]).folder == first

    def test_is_of_the_processor(self, tiny_data, first, monkeypatch):
        monkeypatch.setattr(computing, "processor_name", lambda: "another one")
        assert Asked(tiny_data, ALL[:3]).folder != first

    def test_is_of_the_users_code(self, tiny_data, tmp_path):
        code = tmp_path / "mine.py"
        code.write_text("def build(num_classes): ...")
        ask = partial(Asked, tiny_data, ALL[:3], model="mine:build", import_dirs=(str(tmp_path),))
        before = ask()
        assert ask().folder == before.folder
        code.write_text("def build(num_classes): ...  # otherwise")
        code_stamp.cache_clear()  # as in another process
        assert ask().folder != before.folder

    def test_is_of_settings_that_no_weight_shows(self, tiny_data):
        """What a module keeps to itself stands neither in its weights nor in its text."""
        asked = [Asked(tiny_data, ALL[:3], model="powered", settings={"power": power}) for power in (1, 2)]
        values = [loaded(tiny_data, each.file, ALL[:3]) for each in asked]
        assert not torch.allclose(*values)


class TestPrecision:
    def test_float32(self, tiny_data):
        file = Asked(tiny_data).file
        assert (file.precision, file.shape, file.row_bytes) == ("float32", (WIDTH,), 4 * WIDTH)
        assert file.values_path.stat().st_size == 120 * 4 * WIDTH
        values = loaded(tiny_data, file, ALL)
        assert values.dtype == torch.float32
        assert torch.allclose(values, expected_of(tiny_data, ALL), rtol=1e-5, atol=1e-6)
        assert values.std() > 0

    def test_float64_is_that_of_the_training(self, tiny_data):
        file = Asked(tiny_data, dtype="float64").file
        assert (file.precision, file.row_bytes) == ("float64", 8 * WIDTH)
        values = loaded(tiny_data, file, ALL, torch.float64)
        assert values.dtype == torch.float64
        assert torch.allclose(values, expected_of(tiny_data, ALL, dtype="float64"), rtol=1e-12)

    def test_bfloat16_takes_half_and_is_near(self, tiny_data):
        file = Asked(tiny_data, features="bfloat16").file
        assert (file.precision, file.row_bytes) == ("bfloat16", 2 * WIDTH)
        assert file.values_path.stat().st_size == 120 * 2 * WIDTH
        values, exact = loaded(tiny_data, file, ALL), expected_of(tiny_data, ALL)
        assert values.dtype == torch.float32
        assert torch.equal(values, values.bfloat16().float())
        assert torch.allclose(values, exact, rtol=2**-8, atol=1e-5)
        assert not torch.allclose(values, exact, rtol=1e-5, atol=0)

    def test_float32_in_a_training_of_float64(self, tiny_data):
        file = Asked(tiny_data, dtype="float64", features="float32").file
        assert (file.precision, file.row_bytes) == ("float32", 4 * WIDTH)
        assert loaded(tiny_data, file, ALL, torch.float64).dtype == torch.float64

    @pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
    def test_maps(self, tiny_data, memory_format):
        file = Asked(tiny_data, model="maps").file
        assert file.shape == (4, 4, 4)
        loader = FeatureLoader(tiny_data, file, CPU, torch.float32, memory_format)
        backwards = ALL[::-1].copy()
        values, labels = loader.load(backwards)
        assert torch.allclose(values, expected_of(tiny_data, backwards, "maps"), atol=1e-6)
        assert labels.tolist() == tiny_data.labels[::-1].tolist()
        kept = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}[memory_format]
        assert values.is_contiguous(memory_format=kept)

    def test_parts_are_the_batch(self, tiny_data):
        loader = FeatureLoader(tiny_data, Asked(tiny_data).file, CPU, torch.float32, "channels_last")
        order = np.random.default_rng(0).permutation(ALL)
        parts = list(loader.parts(order, 7))
        assert [len(values) for values, _ in parts] == [7] * 17 + [1]
        values, labels = loader.load(order)
        assert torch.equal(torch.cat([part for part, _ in parts]), values)
        assert torch.equal(torch.cat([part for _, part in parts]), labels)


class TestNotKept:
    def test_nothing_is_frozen(self, tiny_data, counted, tmp_path):
        report = Asked(tiny_data, model="trained").report
        assert (report.file, report.note, report.computed) == (None, "", 0)
        assert counted == []
        assert not (tmp_path / "cache").exists()

    def test_another_output_each_time(self, tiny_data, tmp_path):
        report = Asked(tiny_data, model="masked").report
        assert (report.file, report.computed) == (None, 0)
        assert "in training mode: masks (Dropout)" in report.note
        assert not (tmp_path / "cache").exists()

    def test_images_that_are_to_be_in_memory(self, tiny_data):
        report = Asked(tiny_data, storage="float32").report
        assert report.file is None
        assert 'storage = "float32"' in report.note


class Trained:
    """A cell, and what it tells."""

    def __init__(self, data, scratch, features, model="small", **settings):
        settings = settings_of(model, features=features, **settings)
        self.file = None
        if features != "off":
            self.file = make_features(lambda message: None, settings, data, ALL).file
        self.messages = []
        self.result = train_cell(
            self.messages.append, CellJob(settings, data, features=self.file, scratch=scratch)
        )
        rows = [row for message in self.messages if isinstance(message, StepsDone) for row in message.rows]
        self.losses = [row.loss for row in rows]
        self.validation = [
            m.record.values["validation_loss"] for m in self.messages if isinstance(m, EpochDone)
        ]


LBFGS = {"history_size": 4, "max_iter": 4, "line_search_fn": "strong_wolfe"}


class TestTraining:
    @pytest.mark.parametrize(
        "settings",
        [
            {"params": {"lr": 0.1, "momentum": 0.9}, "batch_size": 10, "epochs": 4},
            {"params": {"lr": 0.1}, "batch_size": 20, "micro_batch": 8, "epochs": 3, "balance": "oversample"},
            {"optimizer": "lbfgs", "params": LBFGS, "batch_size": "full", "micro_batch": 16, "epochs": 3},
            {"optimizer": "lbfgs", "params": LBFGS, "batch_size": "full", "epochs": 3},
        ],
        ids=["sgd", "sgd in parts", "lbfgs in parts", "lbfgs"],
    )
    @pytest.mark.parametrize("model", ["small", "maps"])
    def test_on_features_is_that_on_images(self, tiny_data, tmp_path, model, settings):
        """The same masks are drawn in the trained part, so every loss is the same, but for rounding."""
        settings = {"model": model, "dtype": "float64", **settings}
        off = Trained(tiny_data, tmp_path, "off", **settings)
        auto = Trained(tiny_data, tmp_path, "auto", **settings)
        assert auto.file.precision == "float64"
        assert auto.losses == pytest.approx(off.losses, rel=1e-9)
        assert auto.validation == pytest.approx(off.validation, rel=1e-9)
        logits, expected = (run.result.scores.collected["logit"] for run in (auto, off))
        assert logits == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert auto.result.scores.values == pytest.approx(off.result.scores.values, rel=1e-9)
        assert auto.result.selected_epoch == off.result.selected_epoch
        assert len(set(auto.losses)) == len(auto.losses) > 2

    def test_in_float32(self, tiny_data, tmp_path):
        off, auto = (
            Trained(tiny_data, tmp_path, features, batch_size=10, epochs=2) for features in ("off", "auto")
        )
        assert auto.losses == pytest.approx(off.losses, rel=1e-4)

    def test_the_front_is_not_run(self, tiny_data, tmp_path, counted):
        settings = {"batch_size": 10, "epochs": 2}
        Trained(tiny_data, tmp_path, "auto", **settings)
        counted.clear()
        Trained(tiny_data, tmp_path, "auto", **settings)
        assert counted == [CHECKED]

    def test_only_what_is_trained_is_held(self, tiny_data, tmp_path):
        memory = Trained(tiny_data, tmp_path, "auto", batch_size=10).result.memory
        off = Trained(tiny_data, tmp_path, "off", batch_size=10).result.memory
        head_bytes = 4 * (WIDTH * 16 + 16 + 16 * 2 + 2)
        front_bytes = 4 * (WIDTH * 3 * 25 + WIDTH)
        assert memory.parameters_bytes == head_bytes
        assert off.parameters_bytes == head_bytes + front_bytes

    @pytest.mark.parametrize("features", ["auto", "off"])
    def test_roles_are_declared_for_names_in_the_whole_model(self, tiny_data, tmp_path, specs, features):
        roles = {"head.0.*": "embedding", "backbone.*": "hidden"}
        specs["declared"] = ModelSpec(factory=frozen_models.build, roles=roles)
        trained = Trained(tiny_data, tmp_path, features, "declared", batch_size=10)
        assert (trained.file is not None) == (features == "auto")
        (prepared,) = (m for m in trained.messages if isinstance(m, Prepared))
        counts = {"embedding": WIDTH * 16 + 16, "output": 16 * 2 + 2}
        assert prepared.parameters_by_role == counts
