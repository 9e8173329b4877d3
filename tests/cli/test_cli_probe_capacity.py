"""`xbench probe-capacity`, on made-up images and a model whose memory is known."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from tests.cli.cli_process import StandingCli, one_line

LIMIT = 1_000_000_000
DATA = (
    *("--dataset", "synthetic-xray", "--set", "dataset.train=40", "--set", "dataset.test=10"),
    *("--set", "dataset.image_size=16"),
)
# Of 40 images, 36 are left after validation: they fit at once, so that nothing limits a micro-batch.
EXAMPLES = 36
PROBE = (
    *(
        "probe-capacity",
        "--optimizer",
        "sgd",
        "--set",
        "sgd.lr=1e-3",
        "--model",
        "probed_parts:build_wide",
        *DATA,
    ),
    *("--memory-limit", "1GB", "--axis", "batch-size", "--axis", "micro-batch", "--device", "cpu"),
)


@pytest.fixture(scope="module")
def own_xbench(tmp_path_factory) -> Iterator[StandingCli]:
    """With a cache of its own: what is remembered is of these tests alone."""
    with StandingCli(tmp_path_factory.mktemp("probe cache")) as cli:
        yield cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("probe")


@pytest.fixture(scope="module")
def first(own_xbench, folder, allow_user_code):
    return own_xbench(folder, *PROBE, "--format", "json", *allow_user_code)


@pytest.fixture(scope="module")
def second(first, own_xbench, folder, allow_user_code):
    return own_xbench(folder, *PROBE, "--format", "json", *allow_user_code)


@pytest.fixture(scope="module")
def document(first):
    return json.loads(first.stdout)  # so there is nothing else on stdout


@pytest.fixture(scope="module")
def batch_size(document):
    return document["results"][0]


def results(done) -> list[dict]:
    return json.loads(done.stdout)["results"]


def values(result: dict) -> list[int]:
    return [trial["value"] for trial in result["trials"]]


class TestDocument:
    def test_exit_code(self, first):
        assert first.returncode == 0, first.stderr

    def test_is_kept(self, document, folder, first):
        kept = min((folder / "results" / "probe-sgd").glob("[!.]*/capacity.json"))  # of the first probe
        assert json.loads(kept.read_text()) == document
        assert f"`xbench report {kept.relative_to(folder).parent}` draws it" in first.stderr

    def test_says_what_was_probed(self, document):
        assert document["limit_bytes"] == LIMIT
        assert document["device"] == "cpu"
        assert document["model"] == "probed_parts:build_wide"
        assert (document["dataset"], document["optimizer"]) == ("synthetic-xray", "sgd")
        assert document["components"]["optimizer"]["params"] == {"lr": 1e-3}
        assert [result["axis"] for result in document["results"]] == ["batch-size", "micro-batch"]

    def test_stand_in_data_is_told(self, document):
        assert "synthetic" in document["stand_in"]

    def test_each_axis_has_what_is_promised(self, document):
        for result in document["results"]:
            assert {"axis", "found", "fails", "peak_bytes", "seconds", "trials"} <= result.keys()
            assert result["seconds"] >= sum(trial["seconds"] for trial in result["trials"]) > 0
            for trial in result["trials"]:
                assert {"value", "outcome", "peak_bytes", "seconds"} <= trial.keys()
                assert trial["outcome"] in ("fits", "oom")
                assert (trial["peak_bytes"] is None) == (trial["outcome"] == "oom")

    def test_what_is_found_ran_and_the_next_did_not(self, batch_size):
        outcomes = {trial["value"]: trial["outcome"] for trial in batch_size["trials"]}
        assert outcomes[batch_size["found"]] == "fits"
        assert outcomes[batch_size["fails"]] == "oom"
        assert batch_size["fails"] == batch_size["found"] + 1

    def test_is_what_arithmetic_says(self, batch_size):
        """Each example takes 10 MB, and what is found leaves no room for two more."""
        peaks = {trial["value"]: trial["peak_bytes"] for trial in batch_size["trials"] if trial["peak_bytes"]}
        found = batch_size["found"]
        assert (peaks[found] - peaks[1]) / (found - 1) == pytest.approx(10_000_000, rel=0.1)
        assert batch_size["peak_bytes"] == peaks[found] <= LIMIT
        assert peaks[found] + 30_000_000 > LIMIT  # ten are a reserve

    def test_nothing_limits_a_micro_batch(self, document):
        micro_batch = document["results"][1]
        assert (micro_batch["found"], micro_batch["fails"]) == (EXAMPLES, None)
        assert f"memory does not limit micro-batch up to {EXAMPLES}" in " ".join(micro_batch["notes"])

    def test_says_that_it_goes_beyond_the_data(self, batch_size):
        assert batch_size["found"] > EXAMPLES
        assert f"sizes above the {EXAMPLES} available examples" in " ".join(batch_size["notes"])


class TestProgress:
    def test_each_trial_is_told_on_stderr_in_order(self, first, document):
        told = [
            line.strip() for line in first.stderr.splitlines() if ": fits" in line or "does not fit" in line
        ]
        expected = [
            f"{result['axis'].replace('-', '_')} {trial['value']:,}: "
            + ("fits, peak " if trial["outcome"] == "fits" else "does not fit")
            for result in document["results"]
            for trial in result["trials"]
        ]
        assert len(told) == len(expected)
        for line, start in zip(told, expected, strict=True):
            assert line.startswith(start)

    @pytest.mark.slow
    def test_as_they_happen(self, first, own_xbench, folder, allow_user_code):
        """Interrupted when the first was told, a probe has told of some, and printed nothing. A fresh one
        starts at the least, whatever was found before."""
        process = own_xbench.start(folder, *PROBE, "--fresh", *allow_user_code)
        try:
            for line in process.stderr:
                if "batch_size 1: fits" in line:
                    break
            os.kill(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 130
        assert out == ""
        assert "interrupted" in err
        assert "Traceback" not in err


@pytest.mark.slow
class TestMemoryOfProbes:
    def test_second_run_starts_from_what_was_found(self, first, second):
        assert second.returncode == 0
        for before, after in zip(results(first), results(second), strict=True):
            assert values(after)[0] == before["found"]
            assert "started from the result of an earlier probe" in " ".join(after["notes"])

    def test_second_run_takes_fewer_trials(self, first, second):
        """Of the axis that nothing limits, where no noise can move what is found."""
        assert len(values(results(first)[1])) == 3
        assert values(results(second)[1]) == [EXAMPLES]

    def test_second_run_finds_the_same(self, first, second):
        """But for noise of less than one example."""
        for before, after in zip(results(first), results(second), strict=True):
            assert after["found"] == pytest.approx(before["found"], abs=1)


@pytest.mark.slow
class TestTable:
    @pytest.fixture(scope="class")
    @classmethod
    def done(cls, own_xbench, folder, allow_user_code):
        """Where the real data is absent, and nothing fits."""
        model = ["--model", "probed_parts:build_wide", *allow_user_code, "--memory-limit", "900MB"]
        stand_in = '{ name = "synthetic-xray", train = 40, test = 10, image_size = 1300 }'
        data = [
            "--set",
            "dataset.root=nowhere",
            "--set",
            f"dataset.fallback={stand_in}",
            "--set",
            "dataset.storage=float32",
            "--axis",
            "micro-batch",
        ]
        return own_xbench(folder, "probe-capacity", "--optimizer", "sgd", *model, *data)

    def test_says_what_limits(self, done):
        assert done.returncode == 1, done.stderr
        assert "limit: memory_limit: asked for: 900MB" in one_line(done.stdout)

    def test_says_that_nothing_fits(self, done):
        said = one_line(done.stdout)
        assert "micro-batch: not even the smallest size fits: out of memory: an allocation of" in said

    def test_says_what_takes_the_memory_at_any_size(self, done):
        said = one_line(done.stdout)
        assert "at any size, a process needs" in said
        whole = 'storage = "float32" keeps all 50 images of synthetic-xray in memory'
        assert f"{whole} (3 x 1300 x 1300 numbers each, 1.01 GB): the limit of 900 MB leaves nothing" in said

    def test_says_what_stands_in_for_what(self, done):
        said = one_line(done.stdout)
        assert "warning: synthetic-xray stands in for chest-xray" in said
        assert "synthetic images, not X-rays of patients" in said


@pytest.mark.slow
class TestOtherFailures:
    """A model that fails for another reason than memory at a larger size."""

    FLAGS = (
        *("probe-capacity", "--optimizer", "sgd", "--model", "probed_parts:build_limited", *DATA),
        *("--memory-limit", "1GB", "--axis", "batch-size", "--device", "cpu"),
    )

    @pytest.fixture(scope="class")
    @classmethod
    def done(cls, own_xbench, folder, allow_user_code):
        return own_xbench(folder, *cls.FLAGS, "--format", "json", *allow_user_code)

    def test_keep_the_bracket(self, done):
        assert done.returncode == 1, done.stderr
        (result,) = results(done)
        assert 1 <= result["found"] <= 20 < result["fails"]
        outcomes = [trial["outcome"] for trial in result["trials"]]
        assert outcomes == ["fits"] * (len(outcomes) - 1) + ["error"]
        assert result["peak_bytes"] == result["trials"][-2]["peak_bytes"]

    def test_are_told_in_a_line_with_the_place_of_the_traceback(self, done):
        (result,) = results(done)
        line, _, place = result["error"].partition("; its traceback is in ")
        reason = "RuntimeError: a kernel takes no more than 20"
        culprit = "raised in model 'probed_parts:build_limited'"
        culprit += line[line.rfind(" (probed_parts.py:") :]
        assert line == f"size {result['fails']} failed for a reason other than memory: {reason}; {culprit}"
        with open(place) as file:
            assert file.read().rstrip().endswith(f"{reason}\n{culprit}")
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("form", ["table", "markdown", "csv"])
    def test_in_every_form(self, done, own_xbench, folder, allow_user_code, form):
        again = own_xbench(folder, *self.FLAGS, "--format", form, *allow_user_code)
        assert again.returncode == 1
        assert "a kernel takes no more than 20" in one_line(again.stdout)
        assert "Traceback" not in again.stdout


TEXT = (
    *("probe-capacity", "--optimizer", "adamw", "--model", "gpt-mini", "--device", "cpu"),
    *("--set", "model.width=8", "--set", "model.depth=1", "--format", "json"),
)


class TestSettings:
    """Axes that models and datasets offer."""

    @pytest.fixture(scope="class")
    @classmethod
    def too_short(cls, own_xbench, folder):
        """A text that ends long before memory does."""
        (folder / "short.txt").write_bytes(b"x" * 110)
        data = ("--dataset", "text-file", "--set", "dataset.path=short.txt", "--set", "dataset.context=5")
        return own_xbench(folder, *TEXT, *data, "--axis", "sequence-length", "--memory-limit", "1GB")

    def test_a_probe_ends_where_a_component_refuses_a_value(self, too_short):
        """Of 110 bytes, 11 are for testing, and a row takes one more than its context."""
        assert too_short.returncode == 0, too_short.stderr
        (result,) = results(too_short)
        assert (result["axis"], result["found"], result["fails"]) == ("sequence-length", 10, None)
        assert result["error"] == ""
        assert "text-file: " in result["notes"][0]
        assert "has 110 bytes, too few for a context of 11" in result["notes"][0]
        assert "memory does not limit sequence-length up to 10" in result["notes"][0]

    def test_settings_of_the_record_are_those_that_are_not_varied(self, too_short):
        document = json.loads(too_short.stdout)
        assert document["components"]["dataset"]["params"] == {"path": "short.txt"}
        assert document["components"]["model"]["params"] == {"width": 8, "depth": 1}
        assert document["results"][0]["settings"]["batch_size"] == 1

    def test_an_unknown_axis_lists_those_that_there_are(self, own_xbench, folder):
        data = ("--dataset", "generated-text", "--axis", "with")
        done = own_xbench(folder, *TEXT, *data)
        assert (done.returncode, done.stdout) == (2, "")
        assert "error: there is no axis 'with'" in done.stderr
        offered = "train-size, history-size, batch-size, micro-batch, width, depth, sequence-length"
        assert f"`--axis` (in Python, `axes`) is one of {offered}" in one_line(done.stderr)

    @pytest.mark.slow
    def test_the_largest_width_is_certified_by_the_next_multiple(self, own_xbench, folder, above_base):
        data = ("--dataset", "generated-text", "--set", "dataset.context=16", "--set", "model.heads=8")
        done = own_xbench(folder, *TEXT, *data, "--axis", "width", "--memory-limit", above_base(250))
        assert done.returncode == 0, done.stderr
        (result,) = results(done)
        outcomes = {trial["value"]: trial["outcome"] for trial in result["trials"]}
        assert all(value % 8 == 0 for value in outcomes)
        assert outcomes[result["found"]] == "fits"
        assert outcomes[result["found"] + 8] == "oom"
        assert result["fails"] == result["found"] + 8
        # Four vectors of 12 width^2 + 534 width numbers: parameters, gradients and two moments.
        growth = {value: 16 * (12 * value**2 + 534 * value) for value in (8, result["found"])}
        peaks = {trial["value"]: trial["peak_bytes"] for trial in result["trials"]}
        rise = peaks[result["found"]] - peaks[8]
        assert rise == pytest.approx(growth[result["found"]] - growth[8], rel=0.25)

    @pytest.mark.slow
    def test_the_longest_sequence_is_not_limited_by_a_generated_text(self, own_xbench, folder, above_base):
        data = ("--dataset", "generated-text", "--set", "dataset.size=1000", "--set", "dataset.context=8")
        limit = ("--memory-limit", above_base(50))
        done = own_xbench(folder, *TEXT, *data, "--axis", "sequence-length", *limit)
        assert done.returncode == 0, done.stderr
        (result,) = results(done)
        assert result["found"] > 1000
        assert 0 < result["fails"] - result["found"] <= 0.01 * result["found"]


class TestMistakes:
    @pytest.mark.parametrize(
        "mistakes",
        [
            {
                "--optimizer sgdd": "Did you mean 'sgd'?",
                "--model report-cn": "Did you mean 'report-cnn'?",
                "--memory-limit lots": "not a size or share",
            },
            {"--axis history-size": "history_size"},
            {"--set epochs=[1,2]": "a probe needs a single run, but these settings declare 2"},
        ],
        ids=lambda mistakes: " ".join(mistakes),
    )
    def test_are_told_in_a_line_each(self, own_xbench, tmp_path, mistakes):
        flags = [word for option in mistakes for word in option.split(maxsplit=1)]
        optimizer = [] if "--optimizer" in flags else ["--optimizer", "sgd"]
        done = own_xbench(tmp_path, "probe-capacity", "--dataset", "synthetic-xray", *flags, *optimizer)
        assert done.returncode == 2
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == len(mistakes)
        for option, said in mistakes.items():
            (error,) = (line for line in errors if said in line)
            assert option in error or "a probe needs a single run" in error

    def test_a_limit_below_what_a_process_needs_is_told_before_any_trial(
        self, own_xbench, tmp_path, allow_user_code
    ):
        done = own_xbench(tmp_path, *PROBE, "--memory-limit", "100MB", *allow_user_code)
        assert (done.returncode, done.stdout) == (2, "")
        told = one_line(done.stderr)
        assert "error: --memory-limit 100MB: memory_limit 100MB is too low: a process needs " in told
        assert "hint: set memory_limit to at least " in told
        assert "fitting" not in told

    def test_a_limit_above_the_machines_is_told_before_the_first_trial(
        self, own_xbench, tmp_path, allow_user_code
    ):
        words = [word for word in PROBE if word not in ("--axis", "batch-size")]
        words[words.index("micro-batch") : words.index("micro-batch")] = ["--axis"]
        flags = ["--memory-limit", "1000TB", "--format", "json"]
        done = own_xbench(tmp_path, *words, *flags, *allow_user_code)
        assert done.returncode == 0, done.stderr
        warning = "memory_limit 1000TB is more than this machine allows: cells are limited to "
        assert 0 <= done.stderr.index(f"warning: {warning}") < done.stderr.index("fitting micro_batch")
        assert any(item.startswith(warning) for item in json.loads(done.stdout)["warnings"])

    @pytest.mark.parametrize("flags", [[], ["--optimizer", "sgd", "--axis", "nope"]], ids=["none", "axis"])
    def test_of_usage(self, own_xbench, tmp_path, flags):
        done = own_xbench(tmp_path, "probe-capacity", *flags)
        assert done.returncode == 2
        assert done.stdout == ""
        assert ("--axis" if flags else "--optimizer") in done.stderr
        assert "Traceback" not in done.stderr

    def test_an_optimizer_that_cannot_train_the_model(self, own_xbench, tmp_path, allow_user_code):
        model = ["--model", "probed_parts:build_wide", *allow_user_code]
        done = own_xbench(tmp_path, "probe-capacity", "--optimizer", "muon", *model, *DATA)
        assert done.returncode == 2
        assert done.stdout == ""
        assert "updates the matrices of hidden layers, and this model has none" in done.stderr
        assert "Traceback" not in done.stderr
