"""Tests of texts as rows of bytes, and of the task of predicting the next byte."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.training.row_parts import prepare
from xbench.components import next_token
from xbench.components.generated_text import generate_text
from xbench.components.next_token import (
    GENERATED_TEXT,
    TEXT_FILE,
    build_generated_text,
    build_text_file,
    next_token_task,
)
from xbench.errors import DataNotFound, XbenchError
from xbench.training.settings import TrainingSettings
from xbench.training.splits import split_examples


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def text_file(tmp_path):
    """Return a file of the bytes 0 to 199: 180 to train on and 20 to test on."""
    file = tmp_path / "text.bin"
    file.write_bytes(bytes(range(200)))
    return file


def test_rows_are_consecutive_bytes_and_the_bytes_that_follow_them(text_file):
    dataset = build_text_file(str(text_file), context=8)
    assert (len(dataset.train), len(dataset.test)) == (19, 2)
    tokens, next_tokens = dataset.train.read(np.array([2, 0]))
    assert tokens.tolist() == [list(range(18, 26)), list(range(8))]
    assert next_tokens.tolist() == [list(range(19, 27)), list(range(1, 9))]
    assert tokens.dtype == next_tokens.dtype == torch.int64
    assert tokens.is_contiguous() and next_tokens.is_contiguous()


@pytest.mark.parametrize("context", [1, 7, 8, 19])
def test_no_byte_is_in_two_rows(text_file, context):
    dataset = build_text_file(str(text_file), context=context)
    used = []
    for rows in (dataset.train, dataset.test):
        tokens, next_tokens = rows.read(np.arange(len(rows)))
        used += tokens.flatten().tolist() + next_tokens[:, -1].tolist()
    assert len(used) == len(set(used)) == (len(dataset.train) + len(dataset.test)) * (context + 1)
    tested = dataset.test.read(np.arange(len(dataset.test)))
    assert min(tested[0].flatten()) == 180
    trained = dataset.train.read(np.arange(len(dataset.train)))
    assert max(trained[1].flatten()) < 180 - context


def test_validation_is_a_block_behind_a_gap(text_file):
    dataset = build_text_file(str(text_file), context=4)
    rows, data = prepare(dataset)
    parts = split_examples(data, TrainingSettings(validation=0.2), seed=0)
    assert (len(dataset.train), len(parts.validation)) == (35, 7)
    seen, held_out = (
        torch.cat([part.flatten() for part in rows.load(places)[""]])
        for places in (parts.train, parts.validation)
    )
    assert seen.max() + dataset.train.context < held_out.min()
    assert held_out.max() == 35 * 5 - 1


def test_rows_can_be_sent_to_another_process(text_file):
    rows = build_text_file(str(text_file), context=8).train
    sent = pickle.loads(pickle.dumps(rows))
    assert sent.read(np.array([3]))[0].tolist() == [list(range(27, 35))]


def test_relative_path_is_found_from_other_folders(text_file, monkeypatch):
    monkeypatch.chdir(text_file.parent)
    dataset = build_text_file(text_file.name, context=8)
    monkeypatch.chdir("/")
    assert dataset.train.read(np.array([0]))[0].tolist() == [list(range(8))]


def test_positions_out_of_range_are_refused(text_file):
    dataset = build_text_file(str(text_file), context=8)
    for position in (-1, 19):
        with pytest.raises(IndexError, match="0 to 18"):
            dataset.train.read(np.array([position]))
    tokens, _ = dataset.train.read(np.array([], np.int64))
    assert tokens.shape == (0, 8)


def test_file_that_shrinks_is_noticed(text_file):
    dataset = build_text_file(str(text_file), context=8)
    text_file.write_bytes(bytes(185))
    assert dataset.train.read(np.array([0]))[0].shape == (1, 8)
    with pytest.raises(XbenchError, match="shorter than it was"):
        dataset.test.read(np.array([0]))


def test_fingerprint_follows_content_and_context(text_file, tmp_path):
    copy = tmp_path / "copy.txt"
    copy.write_bytes(text_file.read_bytes())
    other = tmp_path / "other.txt"
    other.write_bytes(text_file.read_bytes()[::-1])
    original, same = (build_text_file(str(path), context=8).fingerprint for path in (text_file, copy))
    assert original == same
    assert len({original, *(build_text_file(str(other), context=n).fingerprint for n in (8, 9))}) == 3


def test_generated_text_is_written_once(cache, monkeypatch):
    dataset = build_generated_text(context=16, size=2000)
    (path,) = (cache / "texts").glob("*.txt")
    assert path.read_bytes() == generate_text(2000)
    assert hashlib.sha256(generate_text(2000)).hexdigest() in path.name
    monkeypatch.setattr(next_token, "generate_text", None)
    again = build_generated_text(context=16, size=2000)
    assert (again.train, again.fingerprint) == (dataset.train, dataset.fingerprint)
    assert [item.name for item in (cache / "texts").iterdir()] == [path.name]


def test_damaged_text_in_the_cache_is_written_again(cache):
    fingerprint = build_generated_text(context=16, size=2000).fingerprint
    (path,) = (cache / "texts").glob("*.txt")
    path.write_bytes(b"x" * 2000)
    assert build_generated_text(context=16, size=2000).fingerprint == fingerprint
    assert path.read_bytes() == generate_text(2000)


def test_cache_that_cannot_be_written_to_is_named(cache):
    cache.write_text("a file is in the way")
    with pytest.raises(XbenchError, match=r"generated-text cannot be kept in .*cache"):
        build_generated_text(context=16, size=2000)


def test_sizes_and_seeds_have_texts_of_their_own():
    texts = [{}, {"seed": 1}, {"size": 3000}]
    assert (
        len({build_generated_text(**{"context": 16, "size": 2000} | text).fingerprint for text in texts}) == 3
    )


@pytest.mark.parametrize(
    "settings", [{"context": 0}, {"context": 1.5}, {"context": True}, {"size": 0}, {"seed": -1}]
)
def test_invalid_settings_are_refused_with_a_hint(settings):
    (name,) = settings
    with pytest.raises(XbenchError, match=f"{name} = ") as caught:
        build_generated_text(**settings)
    assert name in caught.value.hint


def test_context_longer_than_the_text_is_refused_with_both_lengths(text_file):
    with pytest.raises(XbenchError, match=r"200 bytes.*context of 1,000.*20 bytes.*row of 1,001"):
        build_text_file(str(text_file), context=1000)
    with pytest.raises(XbenchError, match=r"generated-text has 500 bytes.*context of 128") as caught:
        build_generated_text(size=500)
    assert "size" in caught.value.hint
    build_text_file(str(text_file), context=19)
    with pytest.raises(XbenchError, match="row of 21"):
        build_text_file(str(text_file), context=20)


def test_unusable_files_are_refused(tmp_path):
    empty = tmp_path / "empty.txt"
    empty.touch()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(XbenchError, match="is empty"):
        build_text_file(str(empty))
    with pytest.raises(XbenchError, match="is a folder"):
        build_text_file(str(tmp_path))
    with pytest.raises(XbenchError, match="not a regular file"):
        build_text_file(str(pipe))
    for missing in (str(tmp_path / "missing.txt"), ""):
        with pytest.raises(DataNotFound, match="there is no file"):
            build_text_file(missing)


def test_uniform_predictions_cost_eight_bits_per_byte(text_file):
    dataset = build_text_file(str(text_file), context=8)
    batch = dataset.train.read(np.arange(5))
    uniform = torch.zeros(5, 8, 256)
    metrics = averages(dataset.task, uniform, batch)
    assert metrics["bits_per_byte"] == pytest.approx(8)
    assert metrics["perplexity"] == pytest.approx(256)
    loss = dataset.task.loss_of(uniform, batch).sum() / dataset.task.weight(batch).sum()
    assert float(loss) == pytest.approx(math.log(256))


def test_tokens_that_are_not_bytes_have_no_bits_per_byte():
    names = [metric.name for metric in next_token_task(50_000).metrics]
    assert names == ["perplexity", "next_token_accuracy"]


def test_losses_and_hits_are_those_of_each_row(text_file):
    dataset = build_text_file(str(text_file), context=8)
    batch = dataset.train.read(np.arange(2))
    logits = torch.zeros(2, 8, 256)
    logits[0].scatter_(1, batch[1][0, :, None], 50.0)  # the first row is right and certain
    losses = dataset.task.loss_of(logits, batch)
    assert losses.tolist() == pytest.approx([0, 8 * math.log(256)])
    assert dataset.task.weight(batch).tolist() == [8, 8]
    assert averages(dataset.task, logits, batch)["next_token_accuracy"] == pytest.approx(0.5, abs=0.07)


def test_diverged_model_has_infinite_perplexity_and_nan_is_not_hidden():
    task = next_token_task(256)
    metrics = {metric.name: metric for metric in task.metrics}
    assert metrics["perplexity"].finish(1e4) == math.inf
    assert math.isnan(metrics["perplexity"].finish(math.nan))
    logits = torch.zeros(2, 3, 256)
    logits[1, 2, 7] = math.nan
    batch = (torch.zeros(2, 3, dtype=torch.int64),) * 2
    assert metrics["next_token_accuracy"].value(logits, batch).isnan().tolist() == [False, True]


def averages(task, logits, batch):
    """Compute the metrics of one batch as their contract says."""
    weight = task.weight(batch).sum()
    values = {metric: float(metric.value(logits, batch).sum() / weight) for metric in task.metrics}
    return {metric.name: metric.finish(value) if metric.finish else value for metric, value in values.items()}


def test_specs_say_that_a_text_is_generated_and_import_no_torch():
    assert "generated" in GENERATED_TEXT.stand_in and TEXT_FILE.stand_in == ""
    code = (
        "import sys, xbench.components.next_token as module\n"
        "module.build_generated_text(context=16, size=2000)\n"
        "assert not {'numpy', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scaled_texts_have_the_same_number_of_rows_for_every_context():
    """And there are few of them, as each is kept in the cache."""
    needs, sizes = GENERATED_TEXT.scalable["context"].needs, set()
    for context in [*range(1, 5000), *range(5000, next_token.MAX_CONTEXT + 1, 997)]:
        size = needs(context)["size"]
        sizes.add(size)
        assert size * 9 // 10 // (context + 1) == 15
        assert size - size * 9 // 10 > context  # a row to test on
    assert len(sizes) < 300
