"""Text as a sequence of bytes, and the task of predicting each byte from those before it."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xbench.components.facts import Output
from xbench.components.generated_text import GENERATOR, generate_text
from xbench.components.metric import Metric
from xbench.components.specs import DatasetSpec, Scale
from xbench.components.tasks import RowDataset, Task
from xbench.errors import DataNotFound, XbenchError
from xbench.storage.atomic import atomic_replace, open_regular, sync_file
from xbench.storage.downloads import sha256_of
from xbench.storage.paths import cache_dir, disk_errors, disk_hint, expand_user
from xbench.storage.staging import staging_folder

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from xbench.components.metric import Batch

VOCABULARY = 256

# Identifies how rows are made of a text, within fingerprints.
_ROWS = "rows of text 2"
MAX_GENERATED_BYTES = 10**8  # takes 7 seconds to generate
MAX_CONTEXT = 2**20
# Training rows of a text of scaled length. With more, sizes would need more significant bits.
_SCALED_ROWS = 15


def build_generated_text(context: int = 128, size: int = 1_000_000, seed: int = 0) -> RowDataset:
    """Make rows of a generated text, which is written to the cache once.

    Args:
        context: number of bytes that a model sees at once.
        size: size of the text in bytes.
        seed: seed of the text.

    Returns:
        Rows and task as in `build_text_file`.

    Raises:
        XbenchError: a setting is not valid, the text is too short for the context, or the cache cannot be
            written to.
    """
    _check_integer("generated-text", "context", context, 1, MAX_CONTEXT)
    _check_integer("generated-text", "size", size, 1, MAX_GENERATED_BYTES)
    _check_integer("generated-text", "seed", seed, 0, 2**63 - 1)
    _check_length("generated-text", size, context, "set a smaller `context` or a larger `size`")
    path, digest = _write_generated(size, seed)
    return _make_dataset(path, size, digest, context)


def build_text_file(path: str, context: int = 128) -> RowDataset:
    """Make rows of a text file of the user's own, in any encoding.

    The last 10 % of the file are for testing, the rest for training, but for a gap of at least `context`
    bytes between the two. Validation is held out at the end of the training rows, behind a gap of a row. Rows
    do not overlap: each takes `context + 1` bytes, and predicts all but the first of them. Bytes that do not
    fill a row are not used.

    Args:
        path: the file.
        context: number of bytes that a model sees at once.

    Returns:
        Rows that are read from the file when they are needed, as batches of tokens and of the tokens that
        follow them, both (n, context) int64. The task minimises the mean cross entropy of a token in nats,
        given logits (n, context, 256).

    Raises:
        DataNotFound: the file does not exist.
        XbenchError: the file cannot be read, or is empty or too short for the context, or a setting is not
            valid.
    """
    _check_integer("text-file", "context", context, 1, MAX_CONTEXT)
    file = expand_user(path, "the `path` of text-file").absolute()
    if not path or not file.exists():
        raise DataNotFound(
            f"text-file: there is no file '{path}'",
            hint="set the `path` of the suite's dataset to a text file",
        )
    if file.is_dir():
        raise XbenchError(f"text-file: '{path}' is a folder", hint="set `path` to one file in it")
    try:
        with open_regular(file) as opened:
            size = os.fstat(opened.fileno()).st_size
            _check_length(
                f"text-file: {file}", size, context, "set a smaller `context`, or use a longer text"
            )
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        hint = disk_hint(error) or None
        raise XbenchError(f"text-file: cannot read {file}: {error.strerror or error}", hint) from error
    return _make_dataset(file, size, digest, context)


def _check_integer(dataset: str, name: str, value: int, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise XbenchError(
            f"{dataset}: {name} = {value!r} is not valid",
            hint=f"set {name} to an integer from {least:,} to {most:,}",
        )


def _count_train_bytes(size: int) -> int:
    return size * 9 // 10


def _check_length(where: str, size: int, context: int, hint: str) -> None:
    """Check that there is at least one row to train on, and one to test on, which has fewer bytes."""
    if size == 0:
        raise XbenchError(f"{where} is empty", hint)
    test_bytes = size - _count_train_bytes(size)
    if test_bytes <= context:
        raise XbenchError(
            f"{where} has {size:,} bytes, too few for a context of {context:,}: the {test_bytes:,} "
            f"{'byte' if test_bytes == 1 else 'bytes'} to test on cannot fill a row of {context + 1:,}",
            hint,
        )


def _write_generated(size: int, seed: int) -> tuple[Path, str]:
    """Write a generated text to the cache, unless it is there, and return its path and its SHA-256."""
    folder = cache_dir() / "texts"
    recipe = f"{GENERATOR} size={size} seed={seed}".replace(" ", "-")
    with disk_errors(f"generated-text cannot be kept in {folder}"):
        for path in folder.glob(f"{recipe}.*.txt"):
            digest = sha256_of(path)
            if path.name == f"{recipe}.{digest}.txt":  # otherwise the file is damaged
                return path, digest
        text = generate_text(size, seed)
        digest = hashlib.sha256(text).hexdigest()
        path = folder / f"{recipe}.{digest}.txt"
        with staging_folder(path) as staged:
            (staged / path.name).write_bytes(text)
            sync_file(staged / path.name)
            atomic_replace(staged / path.name, path)
    return path, digest


def _make_dataset(path: Path, size: int, digest: str, context: int) -> RowDataset:
    train_bytes = _count_train_bytes(size)
    return RowDataset(
        train=TokenRows(path, 0, train_bytes - context, context),
        test=TokenRows(path, train_bytes, size, context),
        task=next_token_task(VOCABULARY, are_bytes=True),
        fingerprint=hashlib.sha256(f"{_ROWS} {digest} context={context}".encode()).hexdigest(),
        hold_out="end",
    )


@dataclass(frozen=True)
class TokenRows:
    """Rows of consecutive bytes of a file, read by position.

    The file is opened for each batch and never mapped, so its pages do not count as memory of the process.

    Attributes:
        path: the file.
        start, stop: the part of the file that holds the rows, in bytes.
        context: number of bytes that a model sees at once; a row takes one more.
    """

    path: Path
    start: int
    stop: int
    context: int

    def __len__(self) -> int:
        return (self.stop - self.start) // (self.context + 1)

    def read(self, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Read tokens and the tokens that follow them, both (n, context) int64, at (n,) int64 positions.

        Raises:
            XbenchError: the file cannot be read, or has become shorter.
            IndexError: a position is out of range.
        """
        import numpy as np
        import torch

        if np.any((positions < 0) | (positions >= len(self))):
            raise IndexError(f"positions must be in 0 to {len(self) - 1:,}")
        span = self.context + 1
        try:
            with open_regular(self.path) as file:
                parts = [
                    os.pread(file.fileno(), span, self.start + int(position) * span) for position in positions
                ]
        except OSError as error:
            reason = error.strerror or error
            raise XbenchError(f"cannot read {self.path}: {reason}", disk_hint(error) or None) from error
        if any(len(part) < span for part in parts):
            raise XbenchError(
                f"{self.path} is shorter than it was when the run began", hint="restore it, and run again"
            )
        rows = torch.from_numpy(np.frombuffer(b"".join(parts), np.uint8).reshape(-1, span).astype(np.int64))
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def next_token_task(vocabulary: int, are_bytes: bool = False) -> Task:
    """Make the task of predicting the next token at each position of a batch `(tokens, next_tokens)`.

    Both are (n, context) int64. The model returns logits (n, context, vocabulary).

    Args:
        vocabulary: number of different tokens.
        are_bytes: whether a token is a byte of the text, so that bits per byte are a metric.

    Returns:
        A task that minimises the mean cross entropy of a token in nats, with the perplexity and the accuracy
        of the next token as metrics.

    Raises:
        XbenchError: the vocabulary is empty.
    """
    return Task(
        loss_of=_sum_cross_entropies,
        weight=_count_tokens,
        metrics=(
            Metric(
                name="perplexity",
                direction="min",
                method="exponential of the mean cross entropy of a token in nats",
                value=_sum_cross_entropies,
                weighted=True,
                finish=_exponentiate,
            ),
            *([_BITS_PER_BYTE] if are_bytes else []),
            Metric(
                name="next_token_accuracy",
                direction="max",
                method="share of the tokens that have the highest logit, given the tokens before them",
                value=_count_hits,
                weighted=True,
            ),
        ),
        output=Output("tokens", vocabulary),
        loss_unit="nats",
        loss_method="training objective: mean cross entropy of a token in nats, given the tokens before it",
    )


def _sum_cross_entropies(logits: Tensor, batch: Batch) -> Tensor:
    from torch.nn import functional

    next_tokens = batch[1]
    losses = functional.cross_entropy(logits.flatten(0, 1), next_tokens.flatten(), reduction="none")
    return losses.view_as(next_tokens).sum(1)


def _count_tokens(batch: Batch) -> Tensor:
    """Return (n,): the number of tokens that each row predicts."""
    import torch

    next_tokens = batch[1]
    return torch.full(next_tokens.shape[:1], next_tokens.shape[1], device=next_tokens.device)


def _count_hits(logits: Tensor, batch: Batch) -> Tensor:
    """Return (n,): how many tokens have the highest logit; NaN for a row with a NaN among its logits."""
    hits = (logits.argmax(2) == batch[1]).sum(1).double()
    return hits.masked_fill(logits.isnan().any(2).any(1), float("nan"))


def _exponentiate(cross_entropy: float) -> float:
    """Return the exponential, which is infinite for the losses of a diverged model."""
    try:
        return math.exp(cross_entropy)
    except OverflowError:
        return math.inf


def _convert_to_bits(nats: float) -> float:
    return nats / math.log(2)


_BITS_PER_BYTE = Metric(
    name="bits_per_byte",
    direction="min",
    unit="bits",
    method="mean cross entropy of a token, which is a byte, in bits",
    value=_sum_cross_entropies,
    weighted=True,
    finish=_convert_to_bits,
)


def _lengthen_text(context: int) -> dict[str, int]:
    """Return the size of a text with `_SCALED_ROWS` rows of a context to train on.

    The number of rows is the same for all contexts, so a full batch of a longer context needs more memory.
    Sizes have five significant bits, so that contexts of similar length share a text in the cache.
    """
    needed = -(-_SCALED_ROWS * (context + 1) * 10 // 9)
    step = 1 << max(0, needed.bit_length() - 5)
    return {"size": -(-needed // step) * step}


GENERATED_TEXT = DatasetSpec(
    factory=build_generated_text,
    summary="a generated text, byte by byte; `context` is the number of bytes that a model sees",
    stand_in="generated text",
    scalable={"context": Scale(highest=MAX_CONTEXT, axis="sequence-length", needs=_lengthen_text)},
)
TEXT_FILE = DatasetSpec(
    factory=build_text_file,
    summary="your own text file, byte by byte; `path` names the file",
    scalable={"context": Scale(highest=MAX_CONTEXT, axis="sequence-length")},
)
