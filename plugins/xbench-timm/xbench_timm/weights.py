"""Find, download and read the trained weights of timm's models."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm.models
import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import RemoteEntryNotFoundError
from huggingface_hub.utils import tqdm
from timm.models import PretrainedCfg, get_pretrained_cfg
from xbench import WeightsNotFound, XbenchError, raise_if_exhausted

OnProgress = Callable[[str, int, int], None]

# The files of a repository on the hub, in the order in which timm looks for them.
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")

_SHA256 = re.compile(r"[0-9a-f]{64}")

# File names of weights with an address of their own end with the first digits of the content's SHA-256.
_HASH_PREFIX = re.compile(r"-([0-9a-f]{8,})\.")

_MAX_REASON_CHARS = 240


def read_config(name: str) -> PretrainedCfg:
    """Return timm's description of a model's weights.

    Raises:
        LookupError: timm has no model of this name.
    """
    config = get_pretrained_cfg(name)
    if config is None:
        raise LookupError(f"timm has no model '{name}'")
    return config


def check_settings(name: str, pretrained: bool, weights: str) -> None:
    """Check the settings of the weights together.

    Raises:
        XbenchError: one of them would have no effect, or timm has no trained weights of the model.
    """
    if weights and not pretrained:
        raise XbenchError(
            f'model timm/{name}: weights = "{weights}" would not be read, because pretrained = false',
            hint="remove one of the two settings",
        )
    if pretrained and not weights and not read_config(name).has_weights:
        raise XbenchError(
            f"timm has no trained weights of {name}",
            hint='set `pretrained = false`, or name a file with `weights = "PATH"`',
        )


def obtain(name: str, settings: Mapping[str, Any], may_download: bool, on_progress: OnProgress) -> str:
    """Make sure that the weights are on this machine.

    Args:
        name: timm's name of the model.
        settings: settings of the model.
        may_download: download timm's weights if they are missing.
        on_progress: callback that receives the file name, the bytes done and the total bytes of a download;
            the total is 0 while it is unknown.

    Returns:
        A string that identifies the weights: the SHA-256 of the file in hex, after the hub's name of timm's
        weights; "" for random weights.

    Raises:
        WeightsNotFound: timm's file is not on this machine, and cannot or may not be downloaded.
        XbenchError: a file that the user names is missing; timm's file does not have the expected content; or
            the settings contradict each other.
    """
    check_settings(name, settings["pretrained"], settings["weights"])
    if not settings["pretrained"]:
        return ""
    if settings["weights"]:
        return _hash_file(find_file(name, settings["weights"]))
    config = read_config(name)
    path = _find_published(config)
    if path is None:
        if not may_download:
            raise _make_not_found(name)
        path = _fetch(name, config, on_progress)
    digest = _hash_file(path)
    expected = _find_expected_hash(path)
    if not digest.startswith(expected):
        raise XbenchError(
            f"{path} is damaged: its SHA-256 begins with {digest[:8]} instead of {expected[:8]}",
            hint=f"remove {path.resolve()}, and xbench downloads it again",
        )
    return f"{config.hf_hub_id or path.name} {digest}"


def find_file(name: str, weights: str) -> Path:
    """Find the file with a model's weights on this machine, without downloading it.

    Args:
        name: timm's name of the model.
        weights: the file that the user names; "" for timm's.

    Raises:
        WeightsNotFound: timm's file is not on this machine.
        XbenchError: the user's file does not exist.
    """
    if weights:
        try:
            path = Path(weights).expanduser()
        except RuntimeError as error:  # there is no such user
            raise XbenchError(f"weights = {weights!r}: {error}", hint="write the full path") from error
        if not path.is_file():
            raise XbenchError(
                f"the `weights` of model timm/{name} name {path}, which is not a file",
                hint="without `weights`, timm's own are used",
            )
        return path
    found = _find_published(read_config(name))
    if found is None:
        raise _make_not_found(name)
    return found


def count_classes(name: str, path: Path) -> int:
    """Count the classes of the classifier in a file of weights; 0 if it has no classifier.

    Raises:
        XbenchError: the file is not a checkpoint, holds Python objects other than plain values, or holds no
            state dict.
    """
    try:
        state = timm.models.load_state_dict(str(path))
    except Exception as error:  # a file that is not a checkpoint can raise anything
        raise_if_exhausted(error)
        if "weights_only" in str(error):
            raise XbenchError(
                f"{path} holds Python objects besides weights; they could run code, so the file is not read",
                hint="save only the weights: `torch.save(model.state_dict(), PATH)`",
            ) from error
        raise XbenchError(
            f"{path} is not a checkpoint, or it is truncated ({_shorten(error)})",
            hint="download or save it again",
        ) from error
    classifier = read_config(name).classifier or ()
    first = classifier if isinstance(classifier, str) else next(iter(classifier), "")
    weight = state.get(f"{first}.weight")
    return weight.shape[0] if isinstance(weight, torch.Tensor) and weight.ndim else 0


def make_misfit(name: str, path: Path, error: Exception) -> XbenchError:
    """Make the error for a file that cannot be loaded into a model."""
    reason = str(error).partition("\n\t")[2] or str(error)  # after the first line, which names the class
    return XbenchError(
        f"{path} does not fit timm's {name}: {_shorten(reason)}",
        hint=f"use a file with weights of {name}",
    )


def _find_published(config: PretrainedCfg) -> Path | None:
    """Find timm's weights in the cache of the hub or of torch; None if they are in neither."""
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        for file in _list_hub_files(config):
            found = try_to_load_from_cache(repository, file, revision=revision or None)
            if isinstance(found, str):
                return Path(found)
        return None
    path = _torch_file(config)
    return path if path.is_file() else None


def _list_hub_files(config: PretrainedCfg) -> tuple[str, ...]:
    return (config.hf_hub_filename,) if config.hf_hub_filename else _HUB_FILES


def _torch_file(config: PretrainedCfg) -> Path:
    """Return the path at which torch stores weights that have an address of their own."""
    return Path(torch.hub.get_dir()) / "checkpoints" / config.url.rpartition("/")[2]


def _fetch(name: str, config: PretrainedCfg, on_progress: OnProgress) -> Path:
    try:
        if config.hf_hub_id:
            return _fetch_from_hub(config, on_progress)
        path = _torch_file(config)
        path.parent.mkdir(parents=True, exist_ok=True)
        on_progress(path.name, 0, 0)  # torch does not report its progress
        torch.hub.download_url_to_file(config.url, str(path), _find_expected_hash(path), progress=False)
        return path
    except Exception as error:  # the network, the hub and the disk have exceptions of many types
        raise WeightsNotFound(
            f"the weights of timm/{name} cannot be downloaded ({_shorten(_find_cause(error))})",
            hint=_say_how_to_get(name),
        ) from error


def _fetch_from_hub(config: PretrainedCfg, on_progress: OnProgress) -> Path:
    repository, _, revision = config.hf_hub_id.partition("@")
    *files, last = _list_hub_files(config)
    for file in files:
        try:
            return _fetch_hub_file(repository, file, revision, on_progress)
        except RemoteEntryNotFoundError:
            continue
    return _fetch_hub_file(repository, last, revision, on_progress)


def _fetch_hub_file(repository: str, file: str, revision: str, on_progress: OnProgress) -> Path:
    shown = f"{repository}/{file}"

    class Bar(tqdm):
        """Reports progress to xbench in place of the terminal."""

        def __init__(self, *args: Any, **options: Any):
            super().__init__(*args, **{**options, "disable": True})
            self._done, self._total = options.get("initial") or 0, options.get("total") or 0

        def update(self, n: float | None = 1) -> None:
            self._done += int(n or 0)
            on_progress(shown, self._done, self._total)

    return Path(hf_hub_download(repository, file, revision=revision or None, tqdm_class=Bar))


def _find_expected_hash(path: Path) -> str:
    """Return the SHA-256 in hex, or its first digits, that a file's name tells; "" if it does not tell.

    The hub's cache names the content of large files by their SHA-256.
    """
    content = path.resolve().name
    if _SHA256.fullmatch(content):
        return content
    return next(iter(_HASH_PREFIX.findall(path.name)), "")


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise XbenchError(f"{path} cannot be read: {error.strerror}") from error


def _make_not_found(name: str) -> WeightsNotFound:
    return WeightsNotFound(f"the weights of timm/{name} are not on this machine", hint=_say_how_to_get(name))


def _say_how_to_get(name: str) -> str:
    config = read_config(name)
    repository, _, revision = (config.hf_hub_id or "").partition("@")
    how = f"download {config.url} into {_torch_file(config).parent}" if not repository else ""
    if repository:
        option = f" --revision {revision}" if revision else ""
        how = f"run `hf download {repository} {_list_hub_files(config)[0]}{option}` where there is a network"
    return f'{how}, or name a file with `weights = "PATH"`, or set `pretrained = false`'


def _find_cause(error: BaseException) -> BaseException:
    """Find the first of a chain of exceptions, which says more than those that were raised from it."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _shorten(text: object) -> str:
    line = " ".join(str(text).split()) or type(text).__name__
    return line if len(line) <= _MAX_REASON_CHARS else f"{line[:_MAX_REASON_CHARS]}..."
