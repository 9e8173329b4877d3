"""What a run would take, and what is left out where time is limited."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cli.cli_process import Cli, Ran, StandingCli, one_line
from xbench.errors import XbenchError
from xbench.suite.reader import read_suite

HEAD = """[suite]
name = "timed"
time_limit = "10m"
"""
EXPERIMENT = """
[[experiment]]
name = "{name}"
model = "tiny_parts:build_model"
dataset = {{ name = "tiny_parts:build_dataset", train = 200, test = 100 }}
optimizer = {optimizer}
"""
ENDLESS = '{ name = "sgd", epochs = 1000000 }'
# What is dear stands first; "both" has the cell of "dear" and a short one. All steps of sgd take as long.
SUITE = HEAD + "".join(
    EXPERIMENT.format(name=name, optimizer=optimizer)
    for name, optimizer in {
        "dear": ENDLESS,
        "both": f'[{ENDLESS}, "adam"]',
        "longer": '{ name = "sgd", epochs = 40 }',
        "cheap": '"sgd"',
    }.items()
)
STRICT = """
[[experiment]]
name = "strict"
model = "frozen_parts:build_masked"
dataset = { name = "tiny_parts:build_dataset", train = 200, test = 100 }
features = "float32"
optimizer = "sgd"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for suites."""
    return tmp_path_factory.mktemp("timed")


@pytest.fixture(scope="module")
def fresh(place) -> Iterator[StandingCli]:
    """With a cache of its own."""
    with StandingCli(place / "cache") as cli:
        yield cli


@pytest.fixture(scope="module")
def previewed(fresh, place, allow_user_code):
    (place / "suite.toml").write_text(SUITE + STRICT)
    done = fresh(place, "run", "suite.toml", "--dry-run", "--format", "json", *allow_user_code)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def limited(previewed, fresh, place, allow_user_code):
    """The run of what was previewed."""
    flags = ("--only", "dear", "--only", "both", "--only", "longer", "--only", "cheap")
    return Ran(fresh(place, "run", "suite.toml", *flags, *allow_user_code), place)


class TestDryRun:
    def test_nothing_is_run(self, previewed, limited, place):
        assert len(list(place.glob("results/*/[!.]*"))) == 1  # that of the run which came after
        assert any((place / "cache" / "measurements").iterdir())

    def test_each_cell_has_an_estimate(self, previewed):
        document = json.loads(previewed.stdout)
        assert document["time_limit_s"] == 600
        cells = {(cell["experiment"], cell["cell"]): cell for cell in document["cells"]}
        assert len(cells) == 6
        assert not any(cells.pop((name, "sgd"))["skipped"] for name in ("longer", "cheap"))
        assert 0 < document["estimated_s"] < 600
        del cells["strict", "sgd"]
        assert all(cell["skipped"] and cell["estimated_s"] > 0 for cell in cells.values())
        assert all(cell["skipped"] or cell["estimated_s"] < 600 for cell in document["cells"])

    def test_cells_stand_in_the_order_of_the_run(self, previewed):
        names = [
            cell["experiment"]
            for cell in json.loads(previewed.stdout)["cells"]
            if cell["experiment"] != "strict"
        ]
        assert names[:2] == ["cheap", "longer"]
        assert sorted(names[2:]) == ["both", "both", "dear"]

    def test_why_is_told(self, previewed):
        told = [line for line in previewed.stderr.splitlines() if line.startswith("skipped: ")]
        text = one_line(previewed.stderr)
        assert len([line for line in told if "needs about" in line]) == 2
        for name in ("dear", "both"):
            assert f"skipped: '{name}' needs about " in text
        assert "of the time limit of 10m 00s are left" in text

    def test_features_that_cannot_be_had_are_told(self, previewed):
        (cell,) = [c for c in json.loads(previewed.stdout)["cells"] if c["experiment"] == "strict"]
        assert cell["estimated_s"] is None
        assert cell["skipped"].startswith("features cannot be cached")
        assert "skipped: features cannot be cached" in one_line(previewed.stderr)


@pytest.mark.slow
def test_a_dry_run_decodes_a_sample(fresh, place, allow_user_code, tmp_path):
    """And finds that there is not enough, with all images listed."""
    cli = Cli(tmp_path / "cache")
    (place / "many.toml").write_text(SUITE + "train_size = 181\n")
    done = cli(place, "run", "many.toml", "--dry-run", *allow_user_code)
    assert done.returncode == 2
    assert "train_size 181 is more than the 180 examples left after validation" in done.stderr
    assert "error: many.toml:" in done.stderr
    assert "Traceback" not in done.stderr
    (pixels,) = (tmp_path / "cache").glob("images/*/pixels.u8")
    assert pixels.stat().st_size == 64 * 3 * 8 * 8


@pytest.fixture(scope="module")
def skipped(limited) -> dict[str, dict]:
    """The records of what does not fit, by column. "dear" and "both" share a cell, which is recorded for the
    one that is decided on first: on a busy machine that may be either."""
    return {cell["column"]: cell for name in ("dear", "both") for cell in limited.cells(name)}


class TestRun:
    def test_what_fits_is_done_and_what_does_not_is_skipped(self, limited, skipped):
        assert limited.done.returncode == 0, limited.done.stderr
        for name in ("longer", "cheap"):
            assert [cell["status"] for cell in limited.cells(name)] == ["done"]
        assert (skipped["sgd"]["status"], skipped["sgd"]["steps"]) == ("skipped", 0)

    def test_an_experiment_is_skipped_whole(self, limited, skipped):
        """Its short cell as well, and the one it shares once only."""
        assert [cell["column"] for cell in limited.cells("both") if cell["column"] != "sgd"] == ["adam"]
        assert (skipped["adam"]["status"], skipped["adam"]["steps"]) == ("skipped", 0)
        assert len(limited.cells("dear")) + len(limited.cells("both")) == 2

    def test_the_reason_has_the_estimate(self, limited, skipped):
        reason = skipped["sgd"]["reason"]
        assert reason.startswith(("'dear' needs about ", "'both' needs about "))
        assert reason.endswith(" of the time limit of 10m 00s are left")
        assert "h " in reason
        assert reason in one_line(limited.done.stdout)

    def test_records_have_the_estimate(self, limited, skipped):
        for cell in limited.lines:
            assert cell["time"]["estimated_s"] > 0
        assert skipped["sgd"]["time"]["estimated_s"] > 600

    def test_what_is_cheap_comes_first(self, limited):
        done = [cell["experiment"] for cell in limited.lines if cell["status"] == "done"]
        assert done == ["cheap", "longer"]

    def test_cells_are_declared_as_they_were_written(self, limited):
        (path,) = limited.folder.glob("results/*/*/run.json")
        names = [cell["experiment"] for cell in json.loads(path.read_text())["cells"]]
        assert names == ["dear", "both", "both", "longer", "cheap"]


@pytest.mark.slow
def test_nothing_fits(limited, fresh, allow_user_code):
    """The flag stands in place of the suite's."""
    flags = ("--only", "both", "--time-limit", "1s", "--out", "short", "--format", "json")
    done = fresh(limited.folder, "run", "suite.toml", *flags, *allow_user_code)
    assert done.returncode == 1, done.stderr
    (path,) = limited.folder.glob("short/*/*/cells.jsonl")
    cells = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(cell["status"], cell["steps"]) for cell in cells] == [("skipped", 0)] * 2
    for cell in cells:
        assert "needs about" in cell["reason"]
        assert "of the time limit of 1.00 s are left" in cell["reason"]
    warnings = json.loads(done.stdout)["warnings"]
    assert warnings[0] == "no cell ran: all 2 cells were skipped; the notes below each table say why"
    for form in ("table", "markdown"):
        shown = fresh(limited.folder, "show", "--out", "short", "--format", form)
        assert "no cell ran: all 2 cells were skipped" in shown.stdout.splitlines()[0]
    shown = fresh(limited.folder, "show", "--out", "short", "--format", "csv")
    told = "warning: no cell ran: all 2 cells were skipped; the column `reason` says why"
    assert shown.stderr.splitlines() == [told]
    assert "no cell ran" not in shown.stdout


class TestMistakes:
    def test_are_told_at_once_with_others(self, xbench, place, allow_user_code):
        """A duration that is none, and a file of weights that is not there, with their lines."""
        weights = '{ name = "torchvision/mobilenet_v3_small", weights = "nowhere.pth" }'
        text = SUITE.replace('"tiny_parts:build_model"', weights, 1)
        (place / "wrong.toml").write_text(text.replace('"10m"', '"lots"'))
        done = xbench(place, "run", "wrong.toml", *allow_user_code)
        assert (done.returncode, done.stdout) == (2, "")
        duration, weights = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert "'lots' is not a duration" in duration
        assert "90s, 15m or 1h30m" in duration
        assert weights.startswith("error: wrong.toml:7: ")
        assert "nowhere.pth, which is not a file" in weights
        assert "Traceback" not in done.stderr

    def test_of_an_option_are_told_alone(self, xbench, place, allow_user_code):
        """Without waiting for what worker processes find."""
        (place / "wrong.toml").write_text(
            SUITE.replace('"tiny_parts:build_model"', '"tiny_parts:missing"', 1)
        )
        done = xbench(place, "run", "wrong.toml", "--time-limit", "lots", *allow_user_code)
        assert (done.returncode, done.stdout) == (2, "")
        (error,) = done.stderr.splitlines()
        assert error.startswith("error: --time-limit lots: 'lots' is not a duration")

    @pytest.mark.parametrize("written", ['"15 minutes"', "900", '"0s"', "true", '""'])
    def test_of_the_file_have_their_line(self, tmp_path, written):
        path = tmp_path / "wrong.toml"
        path.write_text(SUITE.replace('"10m"', written))
        with pytest.raises(XbenchError) as caught:
            read_suite(path, [], []).problems.raise_if_any()
        assert caught.value.message.startswith(f"{path}:3: ")
        assert "time_limit" in caught.value.message or "is not a duration" in caught.value.message
