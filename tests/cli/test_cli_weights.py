"""Pretrained models: of a file, of none, of a broken one, and where their weights cannot be had."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision

from tests.cli.cli_process import Ran, StandingCli, one_line

SMALL = "mobilenet_v3_small"
FILE = "mobilenet_v3_small-047dcff4.pth"
URL = f"https://download.pytorch.org/models/{FILE}"
VARIABLE = "XBENCH_MOBILENET_V3_SMALL_WEIGHTS"
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")

HEAD = """[suite]
name = "weights"
seeds = 2
"""
EXPERIMENT = """
[[experiment]]
name = "{name}"
model = {{ name = "torchvision/mobilenet_v3_small"{settings} }}
dataset = {{ name = "synthetic-xray", train = 20, test = 10, image_size = 32 }}
optimizer = {{ name = "sgd", lr = 1e-3 }}
batch_size = 6
"""
SETTINGS = {
    "absent": "",
    "mine": ', weights = "mine.pth"',
    "other": ', weights = "other.pth"',
    "headless": ', weights = "backbone.pth"',
    "random": ", pretrained = false",
}
# All that is wrong with them can be known before anything runs.
WRONG = {
    "broken": ', weights = "broken.pth"',
    "nothing": ', pretrained = false, train = "nothing.*"',
    "untrained": ', train = "nothing.*"',
}


def suite_of(experiments):
    return HEAD + "".join(EXPERIMENT.format(name=name, settings=more) for name, more in experiments.items())


SUITE = suite_of(SETTINGS)


def lively() -> torch.nn.Module:
    """Random weights, with the statistics of their activations, without which these would all but vanish."""
    network = torchvision.models.get_model(SMALL)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of what was seen
    network.train()(torch.rand(8, 3, 64, 64))
    return network


@pytest.fixture(scope="module")
def offline(tmp_path_factory) -> Iterator[StandingCli]:
    """Where nothing has been downloaded, and nothing can be."""
    with StandingCli(tmp_path_factory.mktemp("cache")) as cli:
        unwanted = ("no_proxy", "NO_PROXY", VARIABLE)
        cli.environment = {key: value for key, value in cli.environment.items() if key not in unwanted}
        cli.environment |= dict.fromkeys(PROXIES, "http://127.0.0.1:9")
        cli.environment["TORCH_HOME"] = str(tmp_path_factory.mktemp("torch"))
        yield cli


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a suite, and weights for 1,000 classes."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "suite.toml").write_text(SUITE)
    for seed, name in ((1, "mine.pth"), (2, "other.pth")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            torch.save(lively().state_dict(), folder / name)
    whole = (folder / "mine.pth").read_bytes()
    state = torch.load(folder / "mine.pth", weights_only=True)
    backbone = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    torch.save(backbone, folder / "backbone.pth")
    (folder / "broken.pth").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def ran(offline, place):
    return Ran(offline(place, "run", "suite.toml", "--device", "cpu"), place)


@pytest.fixture(scope="module")
def changed(ran, offline, place):
    """A run after the content of a file has changed, and none that fails.

    Returns:
        Its records.
    """
    mine = (place / "mine.pth").read_bytes()
    flags = ("--only", "absent", "--only", "mine", "--seeds", "1", "--device", "cpu", "--out", "changed")
    try:
        (place / "mine.pth").write_bytes((place / "other.pth").read_bytes())
        done = offline(place, "run", "suite.toml", *flags)
    finally:
        (place / "mine.pth").write_bytes(mine)
    assert done.returncode == 0, done.stderr
    (path,) = place.glob("changed/*/*/cells.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_how_to_get(reason: str) -> None:
    for part in (FILE, URL, "checkpoints", VARIABLE, 'weights = "PATH"', "pretrained = false"):
        assert part in reason


class TestAbsent:
    @pytest.mark.slow
    def test_cells_are_skipped_with_what_to_do(self, ran):
        cells = ran.cells("absent")
        assert [(cell["status"], cell["steps"]) for cell in cells] == [("skipped", 0)] * 2
        for cell in cells:
            check_how_to_get(cell["reason"])
            assert "cannot be downloaded" in cell["reason"]
            assert cell["model"]["weights"] == ""

    def test_a_dry_run_downloads_nothing_and_says_what_is_missing(self, offline, place):
        flags = ("--only", "absent", "--seeds", "1", "--device", "cpu", "--out", "dry")
        done = offline(place, "run", "suite.toml", *flags, "--dry-run", "--format", "json")
        assert done.returncode == 0, done.stderr
        (cell,) = json.loads(done.stdout)["cells"]
        assert cell["estimated_s"] is not None  # the same network with other weights takes as long
        (line,) = [line for line in done.stderr.splitlines() if FILE in line]
        check_how_to_get(line)
        assert "cannot be downloaded" not in line
        assert not (place / "dry").exists()

    @pytest.mark.slow
    def test_it_is_no_failure(self, changed):
        assert [cell["status"] for cell in changed if cell["experiment"] == "absent"] == ["skipped"]

    @pytest.mark.slow
    def test_nothing_was_left_behind(self, ran, offline):
        assert [path for path in Path(offline.environment["TORCH_HOME"]).rglob("*") if path.is_file()] == []


@pytest.mark.slow
class TestOfAFile:
    def test_it_is_trained(self, ran):
        for name in ("mine", "other"):
            assert [cell["status"] for cell in ran.cells(name)] == ["done", "done"]

    def test_records_identify_the_file(self, ran, place):
        for name in ("mine", "other"):
            digest = hashlib.sha256((place / f"{name}.pth").read_bytes()).hexdigest()
            assert {cell["model"]["weights"] for cell in ran.cells(name)} == {digest}

    def test_seeds_share_the_frozen_part(self, ran):
        for name in ("mine", "other"):
            assert [cell["features"]["shape"] for cell in ran.cells(name)] == [[576], [576]]
            assert [bool(cell["time"]["features_s"]) for cell in ran.cells(name)] == [True, False]

    def test_another_content_is_another_cell(self, ran, changed, place):
        """Under the same name, too."""
        before = [cell["cell_id"] for name in ("mine", "other") for cell in ran.cells(name)]
        assert len(set(before)) == 4
        (cell,) = [cell for cell in changed if cell["experiment"] == "mine"]
        assert cell["cell_id"] not in before
        assert cell["model"]["weights"] == hashlib.sha256((place / "other.pth").read_bytes()).hexdigest()
        losses = {name: ran.cells(name)[0]["metrics"]["test_loss"] for name in ("mine", "other")}
        assert cell["metrics"]["test_loss"] == pytest.approx(losses["other"], rel=1e-5)
        assert cell["metrics"]["test_loss"] != pytest.approx(losses["mine"], rel=1e-2)


class TestBroken:
    def test_is_told_before_anything_runs(self, offline, place, tmp_path):
        suite = suite_of(WRONG)
        (place / "wrong.toml").write_text(suite)
        done = offline(place, "run", "wrong.toml", "--out", str(tmp_path))
        assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (2, "", [])
        lines = [n for n, line in enumerate(suite.splitlines(), 1) if line.startswith("model")]
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        for line, error, what in zip(
            lines,
            errors,
            (
                "broken.pth is not a PyTorch checkpoint, or it is truncated",
                *2 * ["'nothing.*' does not match any parameter"],
            ),
            strict=True,
        ):
            assert error.startswith(f"error: wrong.toml:{line}: ")
            assert what in error
        assert "Traceback" not in done.stderr


@pytest.mark.slow
class TestFileWithoutTheHead:
    told = "a randomly initialised head: backbone.pth has no weights for it"

    def test_records_say_so(self, ran):
        cells = ran.cells("headless")
        assert [(cell["status"], cell["model"]["stand_in"]) for cell in cells] == [("done", self.told)] * 2

    def test_the_frozen_part_is_that_of_the_whole_file(self, ran):
        assert [cell["features"]["shape"] for cell in ran.cells("headless")] == [[576], [576]]
        assert [bool(cell["time"]["features_s"]) for cell in ran.cells("headless")][1:] == [False]

    def test_every_form_says_so(self, ran, offline):
        for form in ("table", "markdown", "csv", "json"):
            shown = offline(ran.folder, "show", "--format", form).stdout
            assert self.told in one_line(shown), form


@pytest.mark.slow
class TestRandom:
    def test_records_say_so(self, ran):
        assert {cell["model"]["stand_in"] for cell in ran.cells("random")} == {"random weights"}
        for name in ("absent", "mine", "other"):
            assert {cell["model"]["stand_in"] for cell in ran.cells(name)} == {""}

    def test_every_form_says_so(self, ran, offline):
        titled = "torchvision/mobilenet_v3_small (random weights) on synthetic-xray"
        noted = ": STAND-IN WEIGHTS: torchvision/mobilenet_v3_small (random weights)"
        table = one_line(ran.done.stdout)
        assert table.count(titled) == 1
        assert table.count(noted) == 1
        markdown = offline(ran.folder, "show", "--format", "markdown").stdout
        assert one_line(markdown).count(noted) == 1
        document = offline(ran.folder, "show", "--format", "json").stdout
        assert one_line(document).count("random weights") >= 2
        json.loads(document)
