"""Find, download, read and load the trained weights of torchvision's models."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xbench.errors import DownloadFailed, WeightsNotFound, XbenchError
from xbench.storage.downloads import download, sha256_of
from xbench.storage.paths import cache_dir, expand_user

if TYPE_CHECKING:
    import torch
    from torch import nn

# torchvision's file names end with the first digits of the content's SHA-256.
_HASH_PREFIX = re.compile(r"-([0-9a-f]{8,})\.")

# Auxiliary heads in the files of GoogLeNet and Inception v3, which are not used here.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")

# The published weights of DenseNet use older names of its layers, with dots: `norm.1` is now `norm1`.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")

_HOW_TO_SAVE = "save only the weights: `torch.save(model.state_dict(), PATH)`"


def obtain_weights(
    name: str, weights: str, may_download: bool, on_progress: Callable[[str, int, int], None]
) -> str:
    """Make sure that a model's weights are on this machine.

    Args:
        name: torchvision's name of the model.
        weights: the file that the suite names; "" if it names none.
        may_download: download torchvision's weights if they are missing.
        on_progress: callback that receives the file name, the bytes done and the total bytes of a download.
            For other work on the file, the name is followed by a description of it, and both sizes are 0.

    Returns:
        A string that identifies the weights: the SHA-256 in hex of a file that the user names, or the name of
        torchvision's file, which contains the first digits of its SHA-256.

    Raises:
        WeightsNotFound: torchvision's file is not on this machine, and cannot or may not be downloaded.
        XbenchError: a file that the user names is missing or cannot be read; or torchvision's file does not
            have the expected content.
    """
    path = _find_user_file(name, weights)
    if path is not None:
        return _hash_file(path)
    path = hub_file(name)
    if not path.is_file():
        if not may_download:
            raise _make_not_found(name)
        _fetch(name, path, on_progress)
    elif not _hash_file(path).startswith(_hash_prefix(path)):
        raise XbenchError(
            f"{path} is damaged: its content does not have the hash in its name",
            hint="remove it, and xbench downloads it again",
        )
    return path.name


def find_weights(name: str, weights: str) -> Path:
    """Find the file with a model's weights on this machine, without downloading it.

    Raises:
        WeightsNotFound: torchvision's file is not on this machine.
        XbenchError: a file that the user names is missing.
    """
    path = weights_file(name, weights)
    if not path.is_file():
        raise _make_not_found(name)
    return path


def weights_file(name: str, weights: str) -> Path:
    """Return the path of a model's weights, which torchvision may not have downloaded yet.

    Raises:
        XbenchError: a file that the user names is missing.
    """
    return _find_user_file(name, weights) or hub_file(name)


def weights_variable(name: str) -> str:
    """Return the name of the environment variable that names a file with a model's weights."""
    return f"XBENCH_{name.upper()}_WEIGHTS"


def published_url(name: str) -> str:
    """Return the URL of the weights that torchvision recommends for a model."""
    from torchvision.models import get_model_weights

    return get_model_weights(name).DEFAULT.url


def hub_file(name: str) -> Path:
    """Return the path at which torchvision stores a model's weights, whether the file exists or not.

    If the user has no home folder, the path is in xbench's cache.
    """
    import torch

    hub = Path(torch.hub.get_dir())
    if hub.parts[0] == "~":  # there is no home folder
        hub = cache_dir() / "torch" / "hub"
    return hub / "checkpoints" / published_url(name).rpartition("/")[2]


def read_weights(path: Path, in_place: bool = False) -> dict[str, torch.Tensor]:
    """Read a state dict, without running any code in the file.

    The state dict may be under the key `state_dict` or `model`, and may come from a `DataParallel`.

    Args:
        in_place: map the values into memory instead of reading them, for callers that only need names and
            shapes. Files in the format of torch before 1.6 are read anyway.

    Raises:
        XbenchError: the file is not a checkpoint, holds Python objects other than plain values, or holds no
            state dict.
    """
    import torch
    from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

    try:
        path.open("rb").close()
    except OSError as error:
        raise XbenchError(f"{path} cannot be read: {error.strerror}") from error
    try:
        # By default, the values are read into memory once, and then become the parameters.
        is_mapped = in_place and zipfile.is_zipfile(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    except Exception as error:  # a file that is not a checkpoint can raise anything
        if isinstance(error, MemoryError) or "alloc" in str(error):
            raise  # running out of memory is not the file's fault
        raise _make_unreadable(path, error) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    is_named = isinstance(state, dict) and all(isinstance(key, str) for key in state)
    if not is_named or not state or not all(map(torch.is_tensor, state.values())):
        raise XbenchError(f"{path} holds no state dict", hint=_HOW_TO_SAVE)
    consume_prefix_in_state_dict_if_present(state, "module.")
    return state


def holds_part(state: Mapping[str, torch.Tensor], part: str) -> bool:
    """Check whether a state dict has any tensor of the submodule named `part`."""
    return any(key.startswith(f"{part}.") for key in state)


def fit_weights(
    network: nn.Module,
    state: dict[str, torch.Tensor],
    path: Path,
    name: str,
    drawn_part: str | None = None,
) -> None:
    """Load a state dict into a network, without copying its tensors where possible.

    Args:
        network: network whose weights may be on torch's meta device. It cannot be used after an error.
        state: state dict, which is modified.
        path: file of the weights, for messages.
        name: name of the model, for messages.
        drawn_part: submodule that the file may lack; it keeps the network's own weights.

    Raises:
        XbenchError: names or shapes differ from those of the network.
    """
    _adapt_names(state)
    expected = network.state_dict()
    shared = [key for key in expected if key in state]
    wrong = [key for key in shared if state[key].shape != expected[key].shape]
    if wrong:
        key = wrong[0]
        file_shape, model_shape = _format_shape(state[key]), _format_shape(expected[key])
        raise XbenchError(
            f"{path} does not fit {name}: {key} is {file_shape} in the file, {model_shape} in the model",
            hint=f"use a file for {name} with 1000 outputs, or with one output for each class",
        )
    for key in shared:
        state[key] = _detach_storage(state[key], expected[key].dtype)
    try:
        # With `assign`, the tensors become the parameters; copying them would hold everything twice.
        keys = network.load_state_dict(state, strict=False, assign=True)
    except (RuntimeError, ValueError) as error:  # some models check the version of a file
        raise XbenchError(
            f"{path} does not fit {name}: {_shorten(_one_line(error))}", hint=_HOW_TO_SAVE
        ) from error
    missing = [key for key in keys.missing_keys if not (drawn_part and key.startswith(f"{drawn_part}."))]
    problems = [("lacks", missing), ("has the unknown", keys.unexpected_keys)]
    shown = [f"{verb} {_name_some(names)}" for verb, names in problems if names]
    if shown:
        raise XbenchError(
            f"{path} does not fit {name}: it {' and '.join(shown)}", hint=f"use a file with weights of {name}"
        )


def _find_user_file(name: str, weights: str) -> Path | None:
    """Find the file that the suite or the environment names; None if neither does."""
    variable = weights_variable(name)
    for source, value in ((f"the `weights` of model {name}", weights), (variable, os.environ.get(variable))):
        if value:
            path = expand_user(value, source)
            if not path.is_file():
                raise XbenchError(
                    f"{source} names {path}, which is not a file",
                    hint=f"without it, {name}'s published weights are used",
                )
            return path
    return None


def _fetch(name: str, path: Path, on_progress: Callable[[str, int, int], None]) -> None:
    url = published_url(name)
    try:
        download(
            url,
            path,
            _hash_prefix(path),
            partial(on_progress, path.name),
            on_step=lambda step: on_progress(f"{path.name} ({step})", 0, 0),
        )
    except DownloadFailed as error:
        raise WeightsNotFound(
            f"the weights of {name} cannot be downloaded ({error.message}): {_how_to_get(name)}"
        ) from error


def _hash_file(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise XbenchError(f"{path} cannot be read: {error.strerror}") from error


def _hash_prefix(path: Path) -> str:
    return _HASH_PREFIX.findall(path.name)[0]


def _make_not_found(name: str) -> WeightsNotFound:
    return WeightsNotFound(
        f"the weights of {name} ({hub_file(name).name}) are not on this machine", hint=_how_to_get(name)
    )


def _how_to_get(name: str) -> str:
    return (
        f"download {published_url(name)} into {hub_file(name).parent}, or name a file with "
        f'`weights = "PATH"` or {weights_variable(name)}, or set `pretrained = false`'
    )


def _make_unreadable(path: Path, error: Exception) -> XbenchError:
    # torch has no exception of its own for a file that tries to call a function.
    if "unsupported global" in str(error).lower():
        return XbenchError(
            f"{path} holds Python objects besides weights; they could run code, so the file is not read",
            hint=_HOW_TO_SAVE,
        )
    # Before the reason, torch's message says how to disable the check.
    reason = _one_line(error).rpartition("WeightsUnpickler error: ")[2]
    return XbenchError(
        f"{path} is not a PyTorch checkpoint, or it is truncated ({_shorten(reason)})",
        hint="download or save it again",
    )


def _adapt_names(state: dict[str, torch.Tensor]) -> None:
    """Remove the auxiliary heads from a state dict, and rename the layers of an old DenseNet."""
    for key in list(state):
        if key.startswith(_AUXILIARY):
            del state[key]
        elif (new := _OLD_DENSENET.sub(r"\1\2.", key)) != key:
            state[new] = state.pop(key)


def _detach_storage(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the tensor as a contiguous one whose storage holds nothing else, copying only if necessary."""
    tensor = tensor.detach().to(dtype).contiguous()
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def _format_shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"


def _name_some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _shorten(text: str, limit: int = 100) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."
